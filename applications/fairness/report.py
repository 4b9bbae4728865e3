"""What decisions do to groups, on rows with known outcomes: rates, gaps, and how much of a gap is chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from fairlearn.metrics import MetricFrame
from sklearn.pipeline import Pipeline

from fewshot.errors import InvalidDataError

from .favourable import favourable_label
from .gaps import (
    count_by_group,
    debiased_squared_gap,
    gap_interval,
    pairs_of,
    permutation_floor,
    rates_of,
    rows_to_tell,
    signed_gap,
)
from .groups import Groups
from .notions import Notion

__all__ = ["METRICS", "FairnessReport", "fairness_report", "last_step"]

TOLD = 0.05  # the gap that the report says could be told from none, or not


def _rate(among: Callable[[Any], Any], what: Callable[[Any, Any], Any]) -> Callable[[Any, Any], float]:
    """Return a metric that is NaN where there are no rows to average over."""

    def metric(y_true: Any, y_pred: Any) -> float:
        truth, decision = np.asarray(y_true, dtype=bool), np.asarray(y_pred, dtype=bool)
        rows = among(truth)
        return float(what(truth, decision)[rows].mean()) if rows.any() else float("nan")

    return metric


METRICS: dict[str, Callable[[Any, Any], float]] = {
    "accuracy": _rate(np.ones_like, lambda truth, decision: truth == decision),
    "selection_rate": _rate(np.ones_like, lambda truth, decision: decision),
    "true_positive_rate": _rate(lambda truth: truth, lambda truth, decision: decision),
    "false_positive_rate": _rate(np.logical_not, lambda truth, decision: decision),
}
RATE_OF = {"all": "selection_rate", "positive": "true_positive_rate", "negative": "false_positive_rate"}


@dataclass(frozen=True)
class FairnessReport:
    """Rates of groups and the gaps between them; print it for a summary in words.

    Parameters
    ----------
    overall : DataFrame
        Metrics (columns) of the decisions "before" adapting, if known, and "after".
    by_group : DataFrame
        The same by group; NaN ("undefined") where a group has no row to average over.
    gaps : DataFrame
        One row for each model, rate and pair of groups: `gap`, rate of the first less that of the second, with its interval `low`
        to `high`; `ratio`, the smaller rate over the larger; `debiased_squared`; `floor`, the mean absolute gap if the groups were
        drawn by lot; `rows_first`, `rows_second`; `rows_to_tell`, rows of each group that would tell a gap of .05 from none.
    counts : DataFrame
        Rows of each group: all, with favourable outcome, without.
    """

    overall: pd.DataFrame
    by_group: pd.DataFrame
    gaps: pd.DataFrame
    counts: pd.DataFrame

    def __str__(self) -> str:
        lines = [f"{int(self.counts['all'].sum())} rows; groups: " + ", ".join(map(str, self.counts.index)) + "."]
        for model in self.overall.index.astype(str):
            lines.append(f"{model}: accuracy {self.overall.loc[model, 'accuracy']:.3f}.")
            for _, part in self.gaps[self.gaps["model"] == model].groupby("rate", sort=False):
                known = part[np.isfinite(part["gap"])]
                shown = part.iloc[[0]] if known.empty else known.loc[[known["gap"].abs().idxmax()]]
                others = f" Largest of {len(known)} pairs; see gaps." if len(known) > 1 else ""
                if 0 < len(known) < len(part):
                    others += f" {len(part) - len(known)} of {len(part)} pairs undefined."
                lines.append("  " + _sentence(shown.to_dict("records")[0]) + others)
        return "\n".join(lines)


def _sentence(row: Mapping[Any, Any]) -> str:
    between = f"{row['rate'].replace('_', ' ')}, {row['first']} less {row['second']}"
    if not np.isfinite(row["gap"]):
        return f"{between}: undefined, a group has no such row."
    told = "could" if min(row["rows_first"], row["rows_second"]) >= row["rows_to_tell"] else "could not"
    interval = f"{row['gap']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]; by lot {row['floor']:.3f}"
    return (
        f"{between}: {interval}. With {row['rows_first']} and {row['rows_second']} rows a gap of {TOLD:g} {told} be told from "
        f"none; {row['rows_to_tell']} of each group would do."
    )


def fairness_report(
    adapted: Any,
    X: Any,
    y: Any,
    *,
    sensitive_features: Any,
    tasks: Any = None,
    before: Any = None,
    pos_label: Any = None,
    use_sensitive_at_predict: bool = True,
) -> FairnessReport:
    """Report metrics by group for a classifier's decisions on rows of a task, before and after adapting.

    Parameters
    ----------
    adapted : classifier
        Any fitted classifier; of this package, adapted to the task.
    X : array-like of shape (rows, features)
        Rows that it was not adapted to.
    y : array-like of shape (rows,)
        Their outcomes.
    sensitive_features : array-like of shape (rows,) or (rows, features)
        Groups; several columns are crossed, missing values are a group.
    tasks : array-like of shape (rows,), default=None
        Task of each row, for a classifier adapted to several; the report is of all rows together.
    before : classifier, default=None
        The unadapted one, to stand beside it.
    pos_label : label, default=None
        The favourable outcome; None: what a FairnessConstrainedClassifier says, or the greater of two numbers.
    use_sensitive_at_predict : bool, default=True
        Whether a FairnessConstrainedClassifier is told the groups.

    Returns
    -------
    FairnessReport

    Raises
    ------
    InvalidDataError, InvalidParameterError
        If lengths disagree, or `pos_label` is no class.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X, group = rng.normal(size=(400, 1)), np.repeat(["a", "b"], 200)
    >>> y = (X[:, 0] + (group == "a") + rng.normal(size=400) > 0.5).astype(int)
    >>> model = LogisticRegression().fit(X, y)
    >>> report = fairness_report(model, X, y, sensitive_features=group)
    >>> bool(report.by_group.loc[("after", "a"), "true_positive_rate"] > 0.5)
    True
    """
    y = np.asarray(y)
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if y.shape != (n,):
        raise InvalidDataError(f"y: got an array of shape {y.shape} for {n} rows of X; give one outcome per row.")
    groups = Groups.learn(sensitive_features, n)
    codes = groups.codes(sensitive_features, n)
    last = last_step(adapted)
    own = getattr(last, "pos_label_", None)
    favourable = favourable_label(getattr(last, "classes_", y), own if pos_label is None else pos_label)
    truth = y == favourable
    told = {"sensitive_features": sensitive_features} if use_sensitive_at_predict else {}
    models = {**({} if before is None else {"before": before}), "after": adapted}
    overall, by_group, gaps = {}, {}, []
    for name, model in models.items():
        decision = _decisions(model, X, tasks if name == "after" else None, told) == favourable
        labels = np.array(groups.titles)[codes]
        frame = MetricFrame(metrics=METRICS, y_true=truth, y_pred=decision, sensitive_features=labels)
        overall[name] = frame.overall
        by_group[name] = frame.by_group.reindex(groups.titles)
        gaps += _gaps(name, decision, truth, codes, groups)
    table = pd.concat(by_group, names=["model", "group"])
    counts = pd.DataFrame(
        {
            "all": np.bincount(codes, minlength=len(groups)),
            "favourable": np.bincount(codes[truth], minlength=len(groups)),
            "other": np.bincount(codes[~truth], minlength=len(groups)),
        },
        index=pd.Index(groups.titles, name="group"),
    )
    return FairnessReport(pd.DataFrame(overall).T, table, pd.DataFrame(gaps), counts)


def last_step(model: Any) -> Any:
    """Return what decides: of a pipeline its last step."""
    return model.steps[-1][1] if isinstance(model, Pipeline) else model


def _decisions(model: Any, X: Any, tasks: Any, told: dict[str, Any]) -> npt.NDArray[Any]:
    columns: dict[str, Any] = {} if tasks is None else {"tasks": tasks}
    last = last_step(model)
    if getattr(last, "use_sensitive_at_predict", False) and hasattr(last, "groups_"):
        columns |= told
    return np.asarray(model.predict(X, **columns))


def _gaps(
    model: str,
    decision: npt.NDArray[np.bool_],
    truth: npt.NDArray[np.bool_],
    codes: npt.NDArray[np.int64],
    groups: Groups,
) -> list[dict[str, Any]]:
    """Gaps of all rates and pairs, with what chance makes of them."""
    every = Notion("every rate", tuple(RATE_OF))
    among = every.among(truth)
    k, n = (part[:, 0] for part in count_by_group(decision, among, codes, len(groups)))
    rates, (low, high) = rates_of(k, n), gap_interval(k, n)
    signed, squared, floor = signed_gap(k, n), debiased_squared_gap(k, n), permutation_floor(k, n)
    found = []
    for e, event in enumerate(every.events):
        for p, (g, h) in enumerate(pairs_of(len(groups))):
            pair = rates[e, [g, h]]
            mean = np.clip(k[e, [g, h]].sum() / max(n[e, [g, h]].sum(), 1), 0.02, 0.98)
            found.append(
                {
                    "model": model,
                    "rate": RATE_OF[event],
                    "first": groups.titles[g],
                    "second": groups.titles[h],
                    "gap": signed[e, p],
                    "low": low[e, p],
                    "high": high[e, p],
                    "ratio": float(pair.min() / pair.max()) if np.isfinite(pair).all() and pair.max() > 0 else np.nan,
                    "debiased_squared": squared[e, p],
                    "floor": floor[e, p],
                    "rows_first": int(n[e, g]),
                    "rows_second": int(n[e, h]),
                    "rows_to_tell": rows_to_tell(TOLD, float(mean)),
                }
            )
    return found
