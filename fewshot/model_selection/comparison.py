"""Is it better, no worse, or worse than what a user has? Paired differences on held-out tasks, with their uncertainty.

The opponent at each support size is the baseline that a user would have chosen: the one that does best, at that size, on the
training tasks of the fold, held out in turn. To choose it by its score on the test tasks would favour the baselines by their luck.
Every task is compared with itself, so that what makes a task hard for everybody cancels.

Three one-sided tests of Student's t over tasks: better, worse, and no worse than by a margin. Each kind is corrected over the
support sizes (Holm 1979), so that what is said of several holds of all of them at once.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from ..baselines import default_baselines
from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError
from ..tasks import is_sampler
from ._draws import Shots, seed_of
from ._folds import read_folds
from ._methods import classify_all, read_methods
from ._paired import concluded, differences_of
from ._scoring import read_scoring
from .evaluate import evaluate_few_shot

__all__ = ["Comparison", "combine", "compare"]

SHARE, SCORE_POINTS = 0.02, 0.005  # margins: of an error, and of a score such as accuracy
INNER_FOLDS = 3


@dataclass(frozen=True)
class Comparison:
    """A method against the baselines, at every support size; print it for the answer in words.

    Parameters
    ----------
    table : DataFrame
        One row for each support size. `shots`; `opponent`, the baseline chosen on training tasks (the most frequent one, if folds
        differ); `score` and `opponent_score`, mean over tasks; `difference`, positive where the method is better, with its 95 %
        interval `low` to `high`; `margin`; `p_better`, `p_worse` and `p_no_worse`, corrected over the rows; `detectable`, the
        smallest true difference that so many tasks would show four times in five; `n_tasks` and `left_out`, tasks that were judged,
        and those too small; `conclusion`: "better", "worse", "no worse", "undecided" or "too few tasks"; `best`, the
        baseline that turned out best on the test tasks, and `best_score`.
    scores : DataFrame
        What :func:`evaluate_few_shot` returned for all methods.
    metric : str
        Name of the score; greater is better.
    method : str
        Name of the method.
    """

    table: pd.DataFrame
    scores: pd.DataFrame = field(repr=False, compare=False)
    metric: str
    method: str

    def __str__(self) -> str:
        lines = [
            f"{self.method} against the baseline that its users would have chosen ({self.metric}, greater is better)."
        ]
        lines += [_sentence(row) for row in self.table.to_dict("records")]
        found = self.table["conclusion"]
        if (found == "better").any():
            first = int(self.table["shots"][found == "better"].min())
            lines.append(f"It adapts better from {first} support row(s)" + _exceptions(self.table) + ".")
        elif (found == "worse").any():
            lines.append(_instead(self.table))
        else:
            lines.append(
                "There is no evidence of a difference." if (found != "too few tasks").any() else "Nothing can be said."
            )
        return "\n".join(lines)


def compare(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: Any = (1, 5, 10, 20),
    draws: int = 5,
    baselines: Mapping[str, Any] | None = None,
    cv: Any = None,
    blocks: Any = None,
    time: Any = None,
    sample_weight: Any = None,
    support: str = "random",
    scoring: Any = None,
    margin: float | None = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> Comparison:
    """Compare a method with the baselines, on tasks that were left out, and say who should be used.

    All methods are fitted to the same training tasks and see the same supports.

    Parameters
    ----------
    estimator : estimator or dict with one of them by name
        The method; unfitted.
    X : array-like of shape (rows, features)
        Inputs.
    y : array-like of shape (rows,)
        Targets.
    tasks : array-like of shape (rows,)
        Task label of each row.
    shots : int or list of int, default=(1, 5, 10, 20)
        Support sizes. Tasks too small for one are left out there, and counted.
    draws : int, default=5
        Supports drawn per task and size.
    baselines : dict of str to estimator, default=None
        None: :func:`~fewshot.baselines.default_baselines`.
    cv, blocks, time, sample_weight, support, n_jobs
        As for :func:`evaluate_few_shot`.
    scoring : str or callable, default=None
        One scorer, or a user's own cost as one; greater is better.
    margin : float, default=None
        By how much the method may be worse and still count as no worse, in units of the score. None: 2 % of the opponent's mean
        score where that is an error (its name begins with "neg"), otherwise .005.
    random_state : int, RandomState or None, default=None
        Seed of the draws and of the default baselines.

    Returns
    -------
    Comparison

    Raises
    ------
    InvalidParameterError, InvalidDataError
        As :func:`evaluate_few_shot`; and if there is not exactly one method and one score.

    References
    ----------
    Holm (1979), A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot.baselines import MixedEffects, SupportMean
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(20), 10)
    >>> X = rng.normal(size=(200, 1))
    >>> y = 2 * X[:, 0] + rng.normal(size=20)[tasks] + 0.1 * rng.normal(size=200)
    >>> found = compare(MixedEffects(), X, y, tasks, shots=3, baselines={"mean": SupportMean()}, random_state=0)
    >>> print(found)  # doctest: +ELLIPSIS
    MixedEffects against the baseline that its users would have chosen (neg_mean_absolute_error, greater is better).
    3 support row(s): better than mean by ... [..., ...], 20 tasks.
    It adapts better from 3 support row(s).
    """
    if is_sampler(X):
        raise InvalidDataError("X: got a sampler; a comparison needs a table of tasks, some of which are left out.")
    if tasks is None:
        raise InvalidDataError(
            "tasks: got None; expected the task label of each row, for example tasks=frame['patient']."
        )
    if isinstance(cv, str):
        raise InvalidParameterError(
            f"cv: got {cv!r}; expected None, a number of folds or a splitter: methods are fitted here."
        )
    method = read_methods(estimator, fitted=False)
    if len(method) > 1:
        raise InvalidParameterError(f"estimator: got {len(method)}; expected one method, or call once for each.")
    (name,) = method
    classifies, seed = classify_all(method), seed_of(random_state)
    rivals: dict[str, Any]
    rivals = dict(
        default_baselines("classification" if classifies else "regression", seed) if baselines is None else baselines
    )
    if not rivals or name in rivals:
        raise InvalidParameterError(
            f"baselines: got {list(rivals)}; expected at least one, none of them named {name!r}."
        )
    scorers = read_scoring(scoring, classifies)
    if len(scorers) > 1:
        raise InvalidParameterError(f"scoring: got {len(scorers)} scorers; expected one.")
    if margin is not None and not (isinstance(margin, int | float) and margin >= 0):
        raise InvalidParameterError(f"margin: got {margin!r}; expected a number of 0 or more, or None.")
    sizes = Shots.read(shots, None).values
    table = Table.read(X, y, tasks, blocks=blocks, time=time, sample_weight=sample_weight)
    folds = [(train, np.flatnonzero(chosen[table.codes])) for train, chosen in read_folds(cv, table)]
    settings = dict(shots=sizes, support=support, scoring=scoring, n_jobs=n_jobs)
    columns = table.columns(np.arange(table.n_rows))
    scores = evaluate_few_shot({**method, **rivals}, **columns, draws=draws, cv=folds, random_state=seed, **settings)
    chosen = [_chosen(rivals, table.columns(np.asarray(train)), seed, settings) for train, _ in folds]
    fold_of = {label: i for i, (_, test) in enumerate(folds) for label in table.labels[np.unique(table.codes[test])]}
    (metric,) = scorers
    rows = [
        _judge(scores[scores["shots"] == k], name, list(rivals), [c.get(k) for c in chosen], fold_of, margin, metric)
        | {"shots": k, "left_out": scores.attrs["left_out"][k]}
        for k in sizes
    ]
    return Comparison(_ordered(concluded(pd.DataFrame(rows))), scores, metric, name)


def combine(comparisons: Mapping[str, Comparison]) -> pd.DataFrame:
    """Conclude from several comparisons at once: all their p-values are corrected together.

    Parameters
    ----------
    comparisons : dict of str to Comparison
        By name: other data, another way to choose supports, another cost.

    Returns
    -------
    DataFrame
        The tables of all comparisons, with their name in the column `comparison`, and p-values and conclusions anew.

    Raises
    ------
    InvalidParameterError
        If there is no comparison.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot.baselines import MixedEffects, SupportMean
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(20), 10)
    >>> X = rng.normal(size=(200, 1))
    >>> y = 2 * X[:, 0] + rng.normal(size=20)[tasks] + 0.1 * rng.normal(size=200)
    >>> rest = dict(tasks=tasks, shots=3, baselines={"mean": SupportMean()}, random_state=0)
    >>> found = {name: compare(MixedEffects(), X, y, scoring=name, **rest) for name in ("r2", "neg_mean_squared_error")}
    >>> combine(found)[["comparison", "shots", "conclusion"]]
                   comparison  shots conclusion
    0                      r2      3     better
    1  neg_mean_squared_error      3     better
    """
    if not comparisons:
        raise InvalidParameterError("comparisons: got none; expected at least one Comparison by name.")
    tables = [comparison.table.assign(comparison=name) for name, comparison in comparisons.items()]
    return _ordered(concluded(pd.concat(tables, ignore_index=True)))


def _chosen(rivals: dict[str, Any], columns: dict[str, Any], seed: int, settings: dict[str, Any]) -> dict[int, str]:
    """Name the best baseline at each support size on these tasks, held out in turn."""
    n = len(pd.unique(columns["tasks"]))
    if n < 2 or len(rivals) == 1:
        return dict.fromkeys(settings["shots"], next(iter(rivals)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*too small to leave a query row", category=UserWarning)
        try:
            frame = evaluate_few_shot(rivals, **columns, draws=2, cv=min(INNER_FOLDS, n), random_state=seed, **settings)
        except InvalidDataError:  # no training task is large enough
            return dict.fromkeys(settings["shots"], next(iter(rivals)))
    means = (
        frame.groupby(["shots", "method", "task"], sort=False)["value"].mean().groupby(level=[0, 1], sort=False).mean()
    )
    best = {k: str(part.droplevel(0).idxmax()) for k, part in means.groupby(level=0)}
    last = next(iter(rivals))
    found: dict[int, str] = {}
    for k in settings["shots"]:  # a size that no training task allows has the choice at the one before
        last = best.get(k, last)
        found[k] = last
    return found


def _judge(
    scores: pd.DataFrame,
    name: str,
    rivals: list[str],
    chosen: list[Any],
    fold_of: dict[Any, int],
    margin: float | None,
    metric: str,
) -> dict[str, Any]:
    """Compare at one support size."""
    by_task = scores.groupby(["task", "method"], sort=False)["value"].mean().unstack("method")
    opponents = [chosen[fold_of[task]] for task in by_task.index]
    own = by_task[name].to_numpy()
    theirs = np.array([by_task[o].iloc[i] for i, o in enumerate(opponents)]) if len(by_task) else np.empty(0)
    judged = np.isfinite(own) & np.isfinite(theirs)
    own, theirs = own[judged], theirs[judged]
    names = pd.Series(np.array(opponents)[judged] if len(by_task) else [], dtype=object).value_counts()
    opponent = (
        "none" if names.empty else names.index[0] if len(names) == 1 else f"the best baseline (mostly {names.index[0]})"
    )
    means = by_task[rivals].mean() if len(by_task) else pd.Series(dtype=float)
    score = float(np.mean(theirs)) if len(theirs) else np.nan
    if margin is None:
        margin = SHARE * abs(score) if metric.startswith("neg") else SCORE_POINTS
    return {
        "opponent": opponent,
        "score": float(np.mean(own)) if len(own) else np.nan,
        "opponent_score": score,
        "margin": float(margin),
        **differences_of(own - theirs),
        "best": means.idxmax() if means.notna().any() else "none",
        "best_score": float(means.max()) if len(means) else np.nan,
    }


def _ordered(table: pd.DataFrame) -> pd.DataFrame:
    first = [
        "comparison",
        "shots",
        "opponent",
        "score",
        "opponent_score",
        "difference",
        "low",
        "high",
        "margin",
        "conclusion",
    ]
    first = [column for column in first if column in table]
    return table[[*first, *(c for c in table.columns if c not in first)]]


def _sentence(row: dict[Any, Any]) -> str:
    k, n, left = int(row["shots"]), int(row["n_tasks"]), int(row["left_out"])
    tail = f", {n} tasks" + (f" ({left} too small)" if left else "") + "."
    start, said = f"{k} support row(s): ", row["conclusion"]
    if said == "too few tasks":
        return f"{start}too few tasks to judge{tail}"
    low, high = row["low"], row["high"]
    if said in ("better", "worse"):
        sign = 1 if said == "better" else -1
        low, high = sorted((sign * low, sign * high))
        return f"{start}{said} than {row['opponent']} by {sign * row['difference']:.3g} [{low:.3g}, {high:.3g}]{tail}"
    shown = f"difference {row['difference']:+.3g} [{low:.3g}, {high:.3g}] to {row['opponent']}"
    could = f"; these tasks could show one of {row['detectable']:.2g}"
    if said == "no worse":
        return f"{start}no worse than by the margin of {row['margin']:.2g}: {shown}{could}{tail}"
    return f"{start}undecided: {shown}{could}{tail}"


def _exceptions(table: pd.DataFrame) -> str:
    worse = table[table["conclusion"] == "worse"]
    if worse.empty:
        return ""
    sizes = ", ".join(str(int(k)) for k in worse["shots"])
    return f", but with {sizes} it is worse: use {worse['opponent'].iloc[0]} there"


def _instead(table: pd.DataFrame) -> str:
    worse = table[table["conclusion"] == "worse"]
    sizes = ", ".join(str(int(k)) for k in worse["shots"])
    return f"It is worse with {sizes} support row(s): use {worse['opponent'].iloc[0]} instead."
