"""How well methods do on tasks they have not seen, given K examples: the question the package is about."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone
from sklearn.utils.parallel import Parallel, delayed

from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError
from ..tasks import is_sampler
from ._draws import Draws, Shots, class_codes, draw_tasks, sample_tasks, seed_of
from ._folds import Folds, read_folds
from ._methods import as_fitted, as_method, classify_all, read_methods
from ._scoring import Record, raise_if_never_defined, read_scoring, score_model

__all__ = ["evaluate_few_shot"]


def evaluate_few_shot(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: Any = None,
    shots_per_class: Any = None,
    draws: int = 5,
    cv: Any = None,
    blocks: Any = None,
    time: Any = None,
    sample_weight: Any = None,
    support: str = "random",
    scoring: Any = None,
    n_tasks: int = 100,
    random_state: Any = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Adapt methods to held-out tasks from K support rows and score them on the tasks' other rows.

    All methods see the same draws. Supports are nested in K; the query is every row that is neither in the support nor in
    one of its blocks. A draw of a task depends on `random_state`, the task's label and the number of the draw only.

    Parameters
    ----------
    estimator : estimator or dict of str to estimator
        Few-shot models, pipelines that end in one, or plain scikit-learn estimators, which are fitted to the rows of all
        training tasks and not adapted (:class:`~fewshot.baselines.PooledModel`).
    X : array-like of shape (rows, features), or TaskSampler
        Inputs; data frames are passed on as such. From a sampler, methods are meta-trained on the sampler and
        judged on `n_tasks` fresh tasks, where K shots are K rows of the sampled support and the query is the sampled one;
        `y`, `tasks` and all other columns must then be None.
    y : array-like of shape (rows,), default=None
        Targets.
    tasks : array-like of shape (rows,), default=None
        Task label of each row. Required unless `X` is a sampler.
    shots : int or list of int
        Support sizes. 0 scores the unadapted model. Tasks that have no query row left are left out for this K, with one
        warning. With ``support="first"`` and blocks, K is cut instead to what the blocks allow.
    shots_per_class : int or list of int, default=None
        Support rows per class, in place of `shots`. A class with fewer rows gives all but one; a task is left out if no
        class has more rows than this.
    draws : int, default=5
        Supports drawn per task.
    cv : None, int, splitter, iterable or "prefit", default=None
        None: five folds of whole tasks (fewer if there are fewer tasks); an int: so many; a splitter is given the tasks as
        its groups, and a task that it tests twice has its rows twice; "prefit": no fitting, every task is scored.
    blocks, time : array-like of shape (rows,), default=None
        Visits and the like, which never stand on both sides, and times, for ``support="first"``.
    sample_weight : array-like of shape (rows,), default=None
        Row weights for training and adapting. Scores are not weighted.
    support : {"random", "first"}, default="random"
        Which rows may be support, see :func:`fewshot.episodes.rank_rows`.
    scoring : str, callable, list of str or dict, default=None
        Scorers as in scikit-learn, computed per task. None: "accuracy" for classifiers and "neg_mean_absolute_error" for
        regressors, which unlike R² makes sense for queries of one row.
    n_tasks : int, default=100
        Tasks drawn if `X` is a sampler.
    random_state : int, RandomState or None, default=None
        Seed of the draws; methods have their own.
    n_jobs : int, default=None
        Fits (methods times folds) at the same time, by joblib.

    Returns
    -------
    DataFrame
        Columns method, task, shots, draw, metric, value. A metric that is undefined for a task (ROC AUC of one class) is
        NaN. ``attrs["left_out"]`` maps each K to the number of tasks left out.

    Raises
    ------
    InvalidDataError
        If all tasks are too small, a fold divides a task, or columns disagree.
    InvalidParameterError
        If a setting is out of range or a metric fails for every task.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot.baselines import SupportMean
    >>> X, tasks = np.zeros((12, 1)), np.repeat([0, 1, 2], 4)
    >>> frame = evaluate_few_shot(SupportMean(), X, tasks * 10.0, tasks, shots=[0, 2], draws=1, random_state=0)
    >>> frame.groupby("shots")["value"].mean()
    shots
    0   -10.0
    2     0.0
    Name: value, dtype: float64
    """
    if shots is None and shots_per_class is None:
        raise InvalidParameterError("shots: got None; give one or several support sizes, for example shots=[1, 5, 10].")
    sizes, seed = Shots.read(shots, shots_per_class), seed_of(random_state)
    prefit = isinstance(cv, str) and cv == "prefit"
    methods = read_methods(estimator, fitted=prefit)
    classifies = classify_all(methods)
    scorers = read_scoring(scoring, classifies)
    train_on = None
    if is_sampler(X):
        columns = {"y": y, "tasks": tasks, "blocks": blocks, "time": time, "sample_weight": sample_weight}
        for name, column in columns.items():
            if column is not None:
                raise InvalidDataError(f"{name}: X is a TaskSampler, which brings its own; leave {name} out.")
        if not prefit and cv is not None:
            raise InvalidParameterError(
                f'cv: got {cv!r}; a TaskSampler draws fresh tasks: leave cv out or use "prefit".'
            )
        table, drawn = sample_tasks(X, n_tasks, sizes, draws, seed)
        folds: Folds = [(None, np.ones(len(table.labels), dtype=bool))]
        train_on = None if prefit else X
    else:
        if tasks is None:
            raise InvalidDataError(
                "tasks: got None; expected the task label of each row, for example tasks=frame['patient']."
            )
        table = Table.read(X, y, tasks, blocks=blocks, time=time, sample_weight=sample_weight)
        classes = class_codes(table, classifies) if sizes.per_class else None
        drawn = draw_tasks(table, sizes, draws, support, seed, classes)
        folds = read_folds(cv, table)
    left_out = drawn.left_out()
    parts = Parallel(n_jobs=n_jobs)(
        delayed(_fit_and_score)(method, table, rows, train_on, drawn, test, scorers)
        for method in methods.values()
        for rows, test in folds
    )
    of_methods = zip(*[iter(parts)] * len(folds), strict=True)
    records: dict[str, list[Record]] = {
        name: list(chain.from_iterable(found)) for name, found in zip(methods, of_methods, strict=True)
    }
    for of_method in records.values():
        raise_if_never_defined(of_method)
    frame = pd.concat([_frame(name, found, table) for name, found in records.items()], ignore_index=True)
    frame.attrs["left_out"] = left_out
    return frame


def _fit_and_score(
    estimator: Any,
    table: Table,
    rows: npt.NDArray[np.int64] | None,
    sampler: Any,
    draws: Draws,
    test: npt.NDArray[np.bool_],
    scorers: Any,
) -> list[Record]:
    if sampler is not None:
        model = as_method(clone(estimator)).fit_meta(sampler)
    elif rows is None:
        model = as_fitted(estimator, table.X, table.y)
    else:
        model = as_method(clone(estimator)).fit_meta(**table.columns(rows))
    return list(score_model(model, table, draws, test, scorers))


def _frame(name: str, records: list[Record], table: Table) -> pd.DataFrame:
    codes, shots, draw, metric, value, _ = zip(*records, strict=True)
    order = np.lexsort((draw, shots, codes))
    frame = pd.DataFrame(
        {"task": table.labels[np.array(codes)], "shots": shots, "draw": draw, "metric": metric, "value": value}
    )
    frame.insert(0, "method", name)
    return frame.iloc[order].reset_index(drop=True)
