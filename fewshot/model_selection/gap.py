"""Meta-overfitting: how much worse a model is on tasks that it was not meta-trained on.

Every task is judged twice, by models that were trained without it and by models that were trained with it, from the same
supports; so the gap is a difference within tasks, and how hard a task is drops out of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed

from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError
from ..tasks import is_sampler
from ._draws import Shots, class_codes, draw_tasks, seed_of
from ._folds import read_folds
from ._methods import as_method, classify_all, read_methods
from ._scoring import raise_if_never_defined, read_scoring, score_model

__all__ = ["TaskGap", "leave_one_task_out", "task_gap"]


@dataclass(frozen=True)
class TaskGap:
    """Scores on tasks that were trained on and on tasks that were left out; greater is better, as in scikit-learn.

    Parameters
    ----------
    trained_on, left_out : float
        Mean scores over tasks.
    gap : float
        Mean over tasks of the difference: how much is lost on a task that was not trained on.
    low, high : float
        95 % interval of the gap: Student's t over tasks, which are what varies; NaN for fewer than two.
    n_tasks : int
        Tasks that were judged both ways.
    metric : str
        Name of the score.
    frame : DataFrame
        Columns task, fold, left_out, draw, value.
    """

    trained_on: float
    left_out: float
    gap: float
    low: float
    high: float
    n_tasks: int
    metric: str
    frame: pd.DataFrame = field(repr=False, compare=False)

    def __str__(self) -> str:
        verdict = "it does better on tasks that it was trained on" if self.low > 0 else "no more than chance"
        return (
            f"{self.metric}: {self.trained_on:.3g} on training tasks, {self.left_out:.3g} on tasks left out; gap {self.gap:.3g} "
            f"[{self.low:.3g}, {self.high:.3g}] over {self.n_tasks} tasks: {verdict}"
        )


def task_gap(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: int | None = None,
    shots_per_class: int | None = None,
    draws: int = 5,
    cv: Any = None,
    blocks: Any = None,
    time: Any = None,
    sample_weight: Any = None,
    support: str = "random",
    scoring: Any = None,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> TaskGap:
    """Compare scores on tasks that a model was meta-trained on with those on tasks left out.

    Parameters
    ----------
    estimator : estimator
        A few-shot model, a pipeline that ends in one, or a plain scikit-learn estimator, fitted to the rows of all training tasks.
    X, y, tasks, blocks, time, sample_weight, support
        As of :func:`evaluate_few_shot`; no sampler, whose tasks do not come again.
    shots, shots_per_class : int
        One support size.
    draws : int, default=5
        Supports drawn per task.
    cv : None, int, splitter or iterable, default=None
        Folds of whole tasks; None: five, or fewer if there are fewer tasks.
    scoring : str or callable, default=None
        One scorer; None: "accuracy" for classifiers, "neg_mean_absolute_error" for regressors.
    random_state : int, RandomState or None, default=None
        Seed of the draws; the estimator has its own.
    n_jobs : int, default=None
        Fits at the same time, by joblib.

    Returns
    -------
    TaskGap

    Raises
    ------
    InvalidParameterError
        If several support sizes or scorers are given, or one is out of range.
    InvalidDataError
        If data cannot be used as they are, or no task is judged both ways.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsRegressor
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(10), 10)
    >>> X, y = rng.normal(size=(100, 1)), rng.normal(size=10)[tasks]
    >>> gap = task_gap(KNeighborsRegressor(1), X, y, tasks, shots=0, scoring="neg_mean_absolute_error")
    >>> gap.trained_on == 0, gap.low > 0
    (True, True)
    """
    if is_sampler(X):
        raise InvalidDataError("X: got a sampler, whose tasks do not come again; pass a table of tasks.")
    if tasks is None:
        raise InvalidDataError(
            "tasks: got None; expected the task label of each row, for example tasks=frame['patient']."
        )
    if shots is None and shots_per_class is None:
        raise InvalidParameterError("shots: got None; give one support size, for example shots=5.")
    sizes, seed = Shots.read(shots, shots_per_class), seed_of(random_state)
    if len(sizes.values) > 1:
        raise InvalidParameterError(
            f"{sizes.name}: got {sizes.values}; expected one support size, or call once for each."
        )
    if isinstance(cv, str):
        raise InvalidParameterError(
            f"cv: got {cv!r}; expected None, a number of folds or a splitter: models are fitted here."
        )
    methods = read_methods(estimator, fitted=False)
    if len(methods) > 1:
        raise InvalidParameterError(f"estimator: got {len(methods)}; expected one, or call once for each.")
    classifies = classify_all(methods)
    scorers = read_scoring(scoring, classifies)
    if len(scorers) > 1:
        raise InvalidParameterError(f"scoring: got {len(scorers)} scorers; expected one.")
    table = Table.read(X, y, tasks, blocks=blocks, time=time, sample_weight=sample_weight)
    drawn = draw_tasks(table, sizes, draws, support, seed, class_codes(table, classifies) if sizes.per_class else None)
    drawn.left_out()  # warns of tasks that are too small, and raises if all are
    folds = read_folds(cv, table)
    everything = np.ones(len(table.labels), dtype=bool)

    def fit_and_score(rows: Any) -> Any:
        model = as_method(clone(next(iter(methods.values())))).fit_meta(**table.columns(rows))
        return list(score_model(model, table, drawn, everything, scorers))

    parts = Parallel(n_jobs=n_jobs)(delayed(fit_and_score)(rows) for rows, _ in folds)
    raise_if_never_defined([record for part in parts for record in part])
    frames = []
    for fold, ((rows, chosen), records) in enumerate(zip(folds, parts, strict=True)):
        codes, _, draw, _, value, _ = zip(*records, strict=True)
        code = np.array(codes)
        seen = np.zeros(len(table.labels), dtype=bool)
        seen[np.unique(table.codes[rows])] = True
        part = pd.DataFrame(
            {"task": table.labels[code], "fold": fold, "left_out": chosen[code], "draw": draw, "value": value}
        )
        frames.append(part[chosen[code] | seen[code]])  # tasks that a splitter uses for neither are of no kind
    frame = pd.concat(frames, ignore_index=True)
    return _summary(frame, next(iter(scorers)))


def leave_one_task_out(estimator: Any, X: Any, y: Any = None, tasks: Any = None, **settings: Any) -> TaskGap:
    """Compare as :func:`task_gap` does, with a fit for each task, which is left out of it.

    Parameters
    ----------
    estimator, X, y, tasks
        As of :func:`task_gap`.
    **settings
        Its other parameters, but for `cv`.

    Returns
    -------
    TaskGap

    Raises
    ------
    InvalidParameterError, InvalidDataError
        As :func:`task_gap`.

    Examples
    --------
    >>> from fewshot.baselines import SupportMean
    >>> X, tasks = np.zeros((12, 1)), np.repeat([0, 1, 2], 4)
    >>> leave_one_task_out(SupportMean(), X, tasks * 10.0, tasks, shots=2).gap  # it learns nothing across tasks
    0.0
    """
    if "cv" in settings:
        raise InvalidParameterError("cv: leave_one_task_out has a fold for each task; leave cv out, or call task_gap.")
    n = 2 if tasks is None else max(2, len(pd.unique(np.asarray(tasks).ravel())))
    return task_gap(estimator, X, y, tasks, cv=n, **settings)


def _summary(frame: pd.DataFrame, metric: str) -> TaskGap:
    per_task = frame.groupby(["task", "left_out"], sort=False, observed=True)["value"].mean().unstack("left_out")
    per_task = per_task.reindex(columns=[False, True]).dropna()
    n = len(per_task)
    if not n:
        raise InvalidDataError(
            "cv: no task is left out of one fold and trained on in another, with a score in both; give more folds or larger tasks."
        )
    gaps = (per_task[False] - per_task[True]).to_numpy()
    half = t.ppf(0.975, n - 1) * gaps.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    mean = float(gaps.mean())
    return TaskGap(
        float(per_task[False].mean()),
        float(per_task[True].mean()),
        mean,
        mean - float(half),
        mean + float(half),
        n,
        metric,
        frame,
    )
