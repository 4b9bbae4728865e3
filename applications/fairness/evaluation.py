"""How fair and how right methods are on tasks they have not seen, given K examples and whatever else is declared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from inspect import signature
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.utils import _safe_indexing
from sklearn.utils.parallel import Parallel, delayed

from fewshot.baselines._table import Table
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection._draws import Draws, Shots, draw_tasks, seed_of
from fewshot.model_selection._folds import read_folds

from .baselines import PlainClassifier
from .favourable import favourable_label
from .gaps import count_by_group, debiased_squared_gap, pairs_of, permutation_floor, signed_gap
from .groups import Groups
from .notions import Notion
from .report import last_step

__all__ = ["GIVEN", "evaluate_fairness", "summarize_fairness"]

Ints = npt.NDArray[np.int64]
GIVEN = ("sensitive_features", "X_unlabelled", "sensitive_unlabelled", "sensitive_at_predict")
EVERY = Notion("every rate", ("all", "positive", "negative"))
METRIC_OF = {"all": "selection_rate_gap", "positive": "true_positive_rate_gap", "negative": "false_positive_rate_gap"}


def evaluate_fairness(
    methods: Any,
    X: Any,
    y: Any,
    tasks: Any,
    *,
    sensitive_features: Any,
    shots: Any,
    draws: int = 5,
    cv: Any = None,
    given: Sequence[str] = GIVEN,
    scored: int | None = None,
    frontier: bool = False,
    pos_label: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Adapt methods to held-out tasks from K support rows, and score accuracy and gaps on the tasks' other rows.

    All methods see the same draws, and are given the same: `fit_meta` always gets the groups of the training tasks; `adapt` and
    `predict` get what `given` says. The unlabelled rows of a task are all of its rows outside the support.

    Parameters
    ----------
    methods : estimator or dict of str to estimator
        With the methods ``fit_meta(X, y, tasks=, sensitive_features=)``, ``adapt`` and ``predict`` of
        :class:`FairnessConstrainedClassifier`.
    X : array-like of shape (rows, features)
        Inputs.
    y : array-like of shape (rows,)
        Two classes.
    tasks : array-like of shape (rows,)
        Task label of each row.
    sensitive_features : array-like of shape (rows,) or (rows, features)
        Group of each row.
    shots : int or list of int
        Support sizes.
    draws : int, default=5
        Supports drawn per task.
    cv : None, int, splitter, iterable or "prefit", default=None
        As for :func:`~fewshot.model_selection.evaluate_few_shot`.
    given : sequence of str, default=all
        Which of "sensitive_features" (of the support), "X_unlabelled", "sensitive_unlabelled" and "sensitive_at_predict" methods
        are given.
    scored : int, default=None
        Score at most so many rows of each task, drawn at random; None: all.
    frontier : bool, default=False
        Score a method that has ``predict_frontier`` or ``operating_points`` at each of them; False: as it is.
    pos_label : label, default=None
        The favourable outcome; None: what methods have as their `pos_label`, or the greater of two numbers.
    random_state : int, RandomState or None, default=None
        Seed of the draws; methods have their own.
    n_jobs : int, default=None
        Fits (methods times folds) at the same time, by joblib.

    Returns
    -------
    DataFrame
        Columns method, setting (the operating point, NaN if there is one only), task, draw, shots, metric, pair, value, signed,
        debiased, floor. The metric "accuracy" has a value only. "selection_rate_gap", "true_positive_rate_gap" and
        "false_positive_rate_gap" have, for each pair of groups, the absolute gap, the signed one, the squared gap less its
        sampling variance, and the mean absolute gap of groups drawn by lot; NaN where a group has no such row in the task.

    Raises
    ------
    InvalidParameterError, InvalidDataError
        If a setting is out of range, or the columns disagree.

    Examples
    --------
    >>> from fewshot.applications.fairness import FairnessConstrainedClassifier
    >>> from fewshot import MAMLClassifier
    >>> rng = np.random.default_rng(0)
    >>> tasks, group = np.repeat(np.arange(6), 60), rng.choice(["a", "b"], 360)
    >>> X = rng.normal(size=(360, 2)) - (group == "b")[:, None]
    >>> y = (X.sum(1) > -1).astype(int)
    >>> model = FairnessConstrainedClassifier(classifier=MAMLClassifier(algorithm="map", random_state=0), random_state=0)
    >>> frame = evaluate_fairness(model, X, y, tasks, sensitive_features=group, shots=5, draws=2, cv=2, random_state=0)
    >>> sorted(frame["metric"].unique())
    ['accuracy', 'false_positive_rate_gap', 'selection_rate_gap', 'true_positive_rate_gap']
    """
    unknown = [name for name in given if name not in GIVEN]
    if isinstance(given, str) or unknown:
        raise InvalidParameterError(f"given: got {given!r}; expected some of {', '.join(map(repr, GIVEN))}.")
    if scored is not None and (not isinstance(scored, int | np.integer) or scored < 1):
        raise InvalidParameterError(f"scored: got {scored!r}; expected a whole number of 1 or more, or None.")
    named = methods if isinstance(methods, Mapping) else {type(methods).__name__: methods}
    named = {name: _with_groups(name, method, isinstance(cv, str)) for name, method in named.items()}
    table = Table.read(X, y, tasks)
    groups = Groups.learn(sensitive_features, table.n_rows)
    favourable = favourable_label(table.y, _named_by(named) if pos_label is None else pos_label)
    seed = seed_of(random_state)
    drawn = draw_tasks(table, Shots.read(shots, None), draws, "random", seed)
    left_out = drawn.left_out()
    work = _Work(
        table,
        _safe_indexing(sensitive_features, np.arange(table.n_rows)),
        groups,
        favourable,
        given,
        scored,
        frontier,
        seed,
    )
    folds = read_folds(cv, table)
    parts = Parallel(n_jobs=n_jobs)(
        delayed(work.run)(name, method, rows, drawn, test) for name, method in named.items() for rows, test in folds
    )
    frame = pd.DataFrame([record for part in parts for record in part], columns=COLUMNS)
    frame.attrs["left_out"] = left_out
    return frame


def _with_groups(name: str, method: Any, prefit: bool) -> Any:
    """Return a method that takes groups, if only to pass them over."""
    parameters = signature(last_step(method).fit_meta).parameters if hasattr(last_step(method), "fit_meta") else {}
    if "sensitive_features" in parameters:
        return method
    if prefit:
        raise InvalidParameterError(
            f"methods: {name!r}, a {type(method).__name__}, takes no sensitive_features; wrap it in "
            "fewshot.applications.fairness.baselines.PlainClassifier before it is fitted."
        )
    return PlainClassifier(method)


def _named_by(methods: Mapping[str, Any]) -> Any:
    """Return the favourable outcome that methods name, or None."""
    named = {getattr(last_step(method), "pos_label", None) for method in methods.values()} - {None}
    if len(named) > 1:
        raise InvalidParameterError(f"pos_label: got None, and the methods have {sorted(map(repr, named))}; name one.")
    return named.pop() if named else None


COLUMNS = ["method", "setting", "task", "draw", "shots", "metric", "pair", "value", "signed", "debiased", "floor"]


class _Work:
    """The data and what is given; one call fits and scores one method on one fold."""

    def __init__(
        self,
        table: Table,
        sensitive: Any,
        groups: Groups,
        favourable: Any,
        given: Sequence[str],
        scored: int | None,
        frontier: bool,
        seed: int,
    ) -> None:
        self.table, self.sensitive, self.groups = table, sensitive, groups
        self.codes = groups.codes(sensitive, table.n_rows)
        self.favourable, self.given, self.scored, self.frontier = favourable, given, scored, frontier
        self.seed = seed

    def run(self, name: str, method: Any, rows: Ints | None, drawn: Draws, test: npt.NDArray[np.bool_]) -> list[Any]:
        """Fit and score."""
        model = method
        if rows is not None:
            part = self.columns(rows)
            model = clone(method).fit_meta(part.pop("X"), part.pop("y"), **part)
        records: list[Any] = []
        for draw in range(len(drawn.ranks)):
            for k in drawn.shots.values:
                support, query = drawn.split(draw, k, test)
                for setting, decision in self.decisions(model, support, query):
                    at = (name, setting, draw, k)
                    records += self.scores(at, query, decision, draw)
        return records

    def columns(self, rows: Ints) -> dict[str, Any]:
        """Return the columns that fit_meta takes."""
        return {
            "X": _safe_indexing(self.table.X, rows),
            "y": self.table.y[rows],
            "tasks": self.table.labels[self.table.codes[rows]],
            "sensitive_features": _safe_indexing(self.sensitive, rows),
        }

    def decisions(self, model: Any, support: Ints, query: Ints) -> Iterator[tuple[float, npt.NDArray[np.bool_]]]:
        """Adapt, and decide the query rows, at every operating point if the frontier is asked for."""
        others, part = self.columns(query), self.columns(support)
        if len(support):
            if "sensitive_features" not in self.given:
                del part["sensitive_features"]
            if "X_unlabelled" in self.given:
                part |= {"X_unlabelled": others["X"], "tasks_unlabelled": others["tasks"]}
                if "sensitive_unlabelled" in self.given:
                    part["sensitive_unlabelled"] = others["sensitive_features"]
            model = model.adapt(part.pop("X"), part.pop("y"), **part)
        told: dict[str, Any] = {"tasks": others["tasks"]} if len(support) else {}
        if "sensitive_at_predict" in self.given:
            told["sensitive_features"] = others["sensitive_features"]
        last, x = last_step(model), others["X"]
        if self.frontier and hasattr(last, "predict_frontier"):
            x = model[:-1].transform(x) if model is not last and len(model.steps) > 1 else x
            decided = last.predict_frontier(x, **told)
        else:
            points = (
                model.operating_points() if self.frontier and hasattr(model, "operating_points") else {np.nan: model}
            )
            decided = {setting: point.predict(x, **told) for setting, point in points.items()}
        for setting, labels in decided.items():
            yield setting, np.asarray(labels == self.favourable)

    def scores(self, at: Any, query: Ints, decision: npt.NDArray[np.bool_], draw: int) -> Iterator[Any]:
        """Score each task."""
        name, setting, _, k = at
        titles = self.groups.titles
        for code in np.unique(self.table.codes[query]):
            mine = np.flatnonzero(self.table.codes[query] == code)
            if self.scored is not None and len(mine) > self.scored:
                mine = np.random.default_rng([self.seed, draw, k, code]).permutation(mine)[: self.scored]
            rows, decided = query[mine], decision[mine]
            truth = self.table.y[rows] == self.favourable
            head = (name, setting, self.table.labels[code], draw, k)
            yield (*head, "accuracy", "", float((decided == truth).mean()), np.nan, np.nan, np.nan)
            counts = count_by_group(decided, EVERY.among(truth), self.codes[rows], len(titles))
            favoured, n = (part[:, 0] for part in counts)
            signed, squared = signed_gap(favoured, n), debiased_squared_gap(favoured, n)
            floor = permutation_floor(favoured, n)
            for e, event in enumerate(EVERY.events):
                for p, (g, h) in enumerate(pairs_of(len(titles))):
                    values = (abs(signed[e, p]), signed[e, p], squared[e, p], floor[e, p])
                    yield (*head, METRIC_OF[event], f"{titles[g]} - {titles[h]}", *map(float, values))


def summarize_fairness(frame: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Average what :func:`evaluate_fairness` found over draws and tasks, with intervals over tasks.

    Parameters
    ----------
    frame : DataFrame
        As it returns; tasks where a gap is undefined are left out of its mean.
    level : float, default=0.95
        Coverage of Student's t intervals over tasks.

    Returns
    -------
    DataFrame
        One row per method, setting, shots, metric and pair, with columns `mean`, `low`, `high` (of the value, the absolute gap),
        `signed`, `signed_low`, `signed_high`, `debiased` (root of the mean debiased square; 0 if that is negative), `floor` and
        `tasks`. Whether gaps are absent on average is told by the signed interval: the absolute gap is above zero by chance alone.

    Examples
    --------
    >>> row = {"method": "m", "setting": 1.0, "draw": 0, "shots": 5, "metric": "selection_rate_gap", "pair": "a - b"}
    >>> gaps = [-0.1, 0.1]
    >>> frame = pd.DataFrame(
    ...     [row | {"task": i, "value": abs(g), "signed": g, "debiased": g**2 - 0.01, "floor": 0.08} for i, g in enumerate(gaps)]
    ... )
    >>> summarize_fairness(frame)[["mean", "signed", "debiased", "floor"]].round(3).values.tolist()
    [[0.1, 0.0, 0.0, 0.08]]
    """
    keys = ["method", "setting", "shots", "metric", "pair"]
    missing = [name for name in [*keys, "task", "value", "signed", "debiased", "floor"] if name not in frame.columns]
    if missing:
        raise InvalidDataError(f"frame: no column {missing[0]!r}; expected what evaluate_fairness returns.")
    if not isinstance(level, float) or not 0 < level < 1:
        raise InvalidParameterError(f"level: got {level!r}; expected a number between 0 and 1, such as 0.95.")
    values = ["value", "signed", "debiased", "floor"]
    per_task = frame.groupby([*keys, "task"], sort=False, observed=True, dropna=False)[values].mean()
    grouped = per_task.groupby(level=keys, sort=False, dropna=False)
    mean, spread, n = grouped.mean(), grouped.std(), grouped["value"].count()
    half = spread.mul(student.ppf((1 + level) / 2, (n - 1).clip(lower=1)) / np.sqrt(n.clip(lower=1)), axis=0)
    return pd.DataFrame(
        {
            "mean": mean["value"],
            "low": mean["value"] - half["value"],
            "high": mean["value"] + half["value"],
            "signed": mean["signed"],
            "signed_low": mean["signed"] - half["signed"],
            "signed_high": mean["signed"] + half["signed"],
            "debiased": np.sqrt(mean["debiased"].clip(lower=0.0)),
            "floor": mean["floor"],
            "tasks": n,
        }
    ).reset_index()
