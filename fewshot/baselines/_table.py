"""The columns of a many-task table, checked once and indexed together.

`X` may be a data frame: it is never turned into an array here, because pipelines inside a model choose columns by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils import _safe_indexing, column_or_1d

from ..errors import InvalidDataError
from ..tasks import Rows, TaskSampler, TaskSet, factorize

__all__ = ["Table", "as_rows", "sampled_rows"]

SAMPLED_TASKS = 500  # tasks drawn where a model that needs a table is given a sampler


@dataclass(frozen=True)
class Table:
    """Rows, targets and labels of many tasks, in the order in which they were given.

    Parameters
    ----------
    X : array or data frame of shape (rows, features)
        Inputs.
    y : ndarray of shape (rows,) or (rows, outputs)
        Targets.
    codes : ndarray of int, shape (rows,)
        Position of each row's task in `labels`.
    labels : ndarray of shape (tasks,)
        The task labels, sorted.
    blocks, time, weight : ndarray of shape (rows,), or None
        Block labels, times and row weights.
    """

    X: Any
    y: npt.NDArray[Any]
    codes: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    blocks: npt.NDArray[Any] | None = None
    time: npt.NDArray[Any] | None = None
    weight: npt.NDArray[np.float64] | None = None

    @classmethod
    def read(
        cls, X: Any, y: Any, tasks: Any = None, *, blocks: Any = None, time: Any = None, sample_weight: Any = None
    ) -> Table:
        """Check the columns; without `tasks` all rows are one task."""
        X = as_rows(X)
        n = X.shape[0]
        if y is None:
            raise InvalidDataError(
                "y: requires y to be passed, but the target y is None; give one target per row of X."
            )
        y = np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        columns = {"y": y}
        for name, column in (("blocks", blocks), ("time", time), ("sample_weight", sample_weight)):
            if column is not None:
                columns[name] = np.asarray(column, dtype=np.float64 if name == "sample_weight" else None)
        for name, column in columns.items():
            if column.ndim == 0 or len(column) != n:
                got = "a single value" if column.ndim == 0 else f"{len(column)} values"
                raise InvalidDataError(f"{name}: got {got} for {n} rows of X; give one per row.")
        weight = columns.get("sample_weight")
        if weight is not None and (weight.ndim != 1 or not (weight >= 0).all() or (n and not weight.any())):
            raise InvalidDataError(
                "sample_weight: expected a one-dimensional array, no weight negative or NaN and not all of them zero."
            )
        if tasks is None:
            labels, codes = np.zeros(1, dtype=np.int64), np.zeros(n, dtype=np.int64)
        else:
            labels, codes = factorize("tasks", tasks, n)
        return cls(X, y, codes, labels, columns.get("blocks"), columns.get("time"), weight)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.codes)

    def task_set(self, y: Any = None) -> TaskSet:
        """Hold tasks, blocks and times, without inputs, for drawing episodes; `y` are class codes, if needed."""
        codes = np.zeros(self.n_rows, dtype=np.int64) if y is None else y
        return TaskSet.from_arrays(np.empty((self.n_rows, 0)), codes, self.codes, blocks=self.blocks, time=self.time)

    def columns(self, rows: npt.NDArray[Any], *, roles: bool = True) -> dict[str, Any]:
        """Return the arguments of ``fit_meta`` (of ``adapt`` without `roles`) for these rows."""
        picked: dict[str, Any] = {
            "X": _safe_indexing(self.X, rows),
            "y": self.y[rows],
            "tasks": self.labels[self.codes[rows]],
        }
        extra = {"sample_weight": self.weight}
        if roles:
            extra.update(blocks=self.blocks, time=self.time)
        picked.update({name: column[rows] for name, column in extra.items() if column is not None})
        return picked


def as_rows(X: Any) -> Any:
    """Return frames and two-dimensional arrays as they are, and images and the like as flat rows."""
    X = X if hasattr(X, "shape") else np.asarray(X)
    if len(X.shape) < 2:
        raise InvalidDataError(
            f"X: expected rows of features, got an array of shape {X.shape}. Reshape your data: X.reshape(-1, 1) if it is "
            "one feature, X.reshape(1, -1) if it is one row."
        )
    return X.reshape(len(X), -1) if len(X.shape) > 2 else X


def sampled_rows(rows: Rows) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return inputs, targets, task numbers and weights (None if all are 1) of a sampled batch, without padding."""
    task, row = (rows.weight > 0).nonzero(as_tuple=True)
    weight = rows.weight[task, row]
    plain = bool(torch.all(weight == 1))
    return (
        rows.x[task, row].numpy(),
        rows.y[task, row].numpy(),
        task.numpy(),
        None if plain else weight.numpy().astype(np.float64),
    )


def table_of_sampler(sampler: TaskSampler, n_tasks: int = SAMPLED_TASKS, seed: int = 0) -> Table:
    """Draw tasks and lay their support and query rows out as one table."""
    both = [sampled_rows(rows) for rows in sampler.sample(n_tasks, np.random.default_rng(seed))]
    X, y, tasks = (np.concatenate([part[i] for part in both]) for i in range(3))
    weighted = any(part[3] is not None for part in both)
    weight = [np.ones(len(part[2])) if part[3] is None else part[3] for part in both]
    return Table.read(X, y, tasks, sample_weight=np.concatenate(weight) if weighted else None)
