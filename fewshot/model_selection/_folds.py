"""Which tasks train and which judge: folds never divide a task."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import GroupKFold

from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError

__all__ = ["Folds", "read_folds"]

Folds = list[tuple[npt.NDArray[np.int64] | None, npt.NDArray[np.bool_]]]  # training rows (None: prefit), test tasks


def read_folds(cv: Any, table: Table) -> Folds:
    """Divide the tasks into folds: training rows and a mask of test tasks for each."""
    n = len(table.labels)
    if isinstance(cv, str):
        if cv != "prefit":
            raise InvalidParameterError(f'cv: got {cv!r}; expected None, a number of folds, a splitter or "prefit".')
        return [(None, np.ones(n, dtype=bool))]
    if cv is None or isinstance(cv, int | np.integer):
        n_folds = min(5, n) if cv is None else int(cv)
        if not 2 <= n_folds <= n:
            raise InvalidDataError(
                f"cv: {n_folds} fold(s) of {n} task(s); expected 2 or more folds and a task for each: give more tasks, "
                'fewer folds, or cv="prefit" for fitted models.'
            )
        cv = GroupKFold(n_folds)
    pairs = _split(cv, table) if hasattr(cv, "split") else cv
    folds: Folds = []
    for train, test in pairs:
        chosen = np.zeros(n, dtype=bool)
        chosen[table.codes[test]] = True
        both = chosen[table.codes[train]]
        if both.any():
            task = table.labels[table.codes[train][both][0]]
            raise InvalidDataError(
                f"cv: task {task!s} is on both sides of a fold; use a splitter that keeps groups together, such as GroupKFold."
            )
        folds.append((np.asarray(train), chosen))
    return folds


def _split(cv: Any, table: Table) -> list[tuple[Any, Any]]:
    with warnings.catch_warnings():
        # A splitter that ignores groups says so; the error about the task that it divides says more.
        warnings.filterwarnings("ignore", message="The groups parameter is ignored", category=UserWarning)
        # Splitters look at the number of rows, the groups and at most the targets.
        return list(cv.split(np.empty((table.n_rows, 1)), table.y, table.codes))
