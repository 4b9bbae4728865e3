"""Rows, task sets and the sampler protocol: how data of many tasks are held.

A batch of tasks is one set of tensors with leading axes ``(tasks, rows)``; tasks of unequal size are padded with rows
of weight 0, so nothing downstream loops over tasks. A table of many tasks is held once, sorted by task, and indexed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeGuard, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from .errors import InvalidDataError

__all__ = ["Rows", "TaskSampler", "TaskSet", "factorize", "is_sampler", "ranges", "require_column"]

NO_EXTRA: Mapping[str, Tensor] = {}


class Rows(NamedTuple):
    """Rows of a batch of tasks (or, inside a per-task function, of one task: the same without the first axis).

    Parameters
    ----------
    x : Tensor of shape (tasks, rows, *features)
        Inputs.
    y : Tensor of shape (tasks, rows) or (tasks, rows, outputs)
        Targets: floats for regression, integer class codes for classification.
    weight : Tensor of shape (tasks, rows)
        Non-negative weight of each row in its task's loss. A padded row is a row of weight 0; its other values are
        arbitrary but finite.
    extra : dict of str to Tensor of shape (tasks, rows, ...), default={}
        Further columns that a loss or a penalty reads (class masks, sensitive attributes, advantages).

    Examples
    --------
    >>> import torch
    >>> rows = Rows(torch.zeros(2, 3, 1), torch.zeros(2, 3), torch.ones(2, 3))
    >>> rows.weight.sum(1)
    tensor([3., 3.])
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    extra: Mapping[str, Tensor] = NO_EXTRA

    def to(self, device: torch.device | str | None) -> Rows:
        """Move all tensors to a device; None, or where they are already, moves nothing."""
        if device is None or self.x.device == torch.device(device):
            return self
        extra = {name: value.to(device) for name, value in self.extra.items()}
        return Rows(self.x.to(device), self.y.to(device), self.weight.to(device), extra)


@runtime_checkable
class TaskSampler(Protocol):
    """Anything that draws episodes: a support and a query set for each of some tasks."""

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw support and query rows of `n_tasks` tasks; every random choice comes from `rng`."""
        ...


def is_sampler(X: Any) -> TypeGuard[TaskSampler]:
    """Whether `X` is a sampler of episodes rather than a table; data frames have a method `sample` too."""
    return callable(getattr(X, "sample", None)) and not hasattr(X, "__array__") and not hasattr(X, "__len__")


@dataclass(frozen=True, eq=False)
class TaskSet:
    """A table of rows that belong to tasks, sorted by task and never copied per task.

    Build it with :meth:`from_arrays` or :meth:`from_frame`.

    Parameters
    ----------
    x : Tensor of shape (rows, *features)
        Inputs, sorted by task.
    y : Tensor of shape (rows,) or (rows, outputs)
        Targets.
    weight : Tensor of shape (rows,)
        Row weights.
    offsets : ndarray of int, shape (tasks + 1,)
        Task ``t`` owns the rows ``offsets[t]`` to ``offsets[t + 1] - 1``.
    labels : ndarray of shape (tasks,)
        The task labels, sorted.
    order : ndarray of int, shape (rows,)
        Position of each row in the table it was built from.
    blocks : ndarray of int, shape (rows,), or None
        Block codes (a visit, a session); no two tasks share one.
    time : ndarray of float, shape (rows,), or None
        When each row was recorded; only its order within a task matters.
    extra : dict of str to Tensor of shape (rows, ...)
        Further columns, handed on to :class:`Rows`.

    Examples
    --------
    >>> ts = TaskSet.from_arrays([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0], tasks=["b", "a", "b"])
    >>> ts.labels.tolist(), ts.sizes.tolist(), ts.order.tolist()
    (['a', 'b'], [1, 2], [1, 0, 2])
    """

    x: Tensor
    y: Tensor
    weight: Tensor
    offsets: npt.NDArray[np.int64]
    labels: npt.NDArray[Any]
    order: npt.NDArray[np.int64]
    blocks: npt.NDArray[np.int64] | None = None
    time: npt.NDArray[np.float64] | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.labels)

    @property
    def n_rows(self) -> int:
        """Number of rows of all tasks together."""
        return len(self.order)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Number of rows of each task, shape (tasks,)."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return self.n_tasks

    def __repr__(self) -> str:
        sizes = self.sizes
        span = f"{sizes.min()} to {sizes.max()} rows each" if len(sizes) else "no rows"
        return f"TaskSet({self.n_tasks} tasks, {self.n_rows} rows, {span})"

    @classmethod
    def from_arrays(
        cls,
        X: Any,
        y: Any,
        tasks: Any,
        *,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
        dtype: torch.dtype = torch.float32,
    ) -> TaskSet:
        """Build a task set from arrays and one task label per row.

        Parameters
        ----------
        X : array-like of shape (rows, *features)
            Numeric inputs.
        y : array-like of shape (rows,) or (rows, outputs)
            Targets; integers stay integers (class codes), everything else becomes `dtype`.
        tasks : array-like of shape (rows,)
            Task label of each row, any sortable type.
        blocks : array-like of shape (rows,), default=None
            Block label of each row; compared within a task only.
        time : array-like of shape (rows,), default=None
            Numbers or timestamps; compared within a task only.
        sample_weight : array-like of shape (rows,), default=None
            Row weights; None is 1 for each.
        dtype : torch.dtype, default=torch.float32
            Floating type of `x`, `weight` and float targets.

        Returns
        -------
        TaskSet

        Raises
        ------
        InvalidDataError
            If lengths differ, a label is missing or there are no rows.
        """
        X, y = _numeric("X", X), _numeric("y", y)
        n = len(X)
        labels, codes = factorize("tasks", tasks, n)
        for name, column in (("y", y), ("blocks", blocks), ("time", time), ("sample_weight", sample_weight)):
            if column is not None and np.shape(column)[:1] != (n,):
                got = np.shape(column)[0] if np.ndim(column) else "one value"
                raise InvalidDataError(f"{name}: got {got} values for {n} rows of X; give one per row.")
        if n == 0:
            raise InvalidDataError("X: got 0 rows; expected at least one.")
        order = np.argsort(codes, kind="stable")
        offsets = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(labels)))]).astype(np.int64)
        weight = np.ones(n) if sample_weight is None else _numeric("sample_weight", sample_weight).astype(np.float64)
        y_dtype = torch.int64 if y.dtype.kind in "iub" else dtype
        return cls(
            x=torch.as_tensor(_sorted(X, order), dtype=dtype),
            y=torch.as_tensor(_sorted(y, order), dtype=y_dtype),
            weight=torch.as_tensor(_sorted(weight, order), dtype=dtype),
            offsets=offsets,
            labels=labels,
            order=order,
            blocks=None if blocks is None else _block_codes(blocks, codes, n)[order],
            time=None if time is None else _time_values(time)[order],
        )

    @classmethod
    def from_frame(
        cls,
        frame: pd.DataFrame,
        *,
        target: str | Sequence[str],
        tasks: str,
        features: Sequence[str] | None = None,
        blocks: str | None = None,
        time: str | None = None,
        sample_weight: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> TaskSet:
        """Build a task set from the columns of a data frame.

        Parameters
        ----------
        frame : DataFrame
            One row per observation.
        target : str or list of str
            Target column(s).
        tasks : str
            Column of task labels.
        features : list of str, default=None
            Input columns; None takes every column that has no other role here, except that `time`, being a
            measurement too, stays an input.
        blocks, time, sample_weight : str, default=None
            Columns of block labels, of times and of row weights.
        dtype : torch.dtype, default=torch.float32
            Floating type of the tensors.

        Returns
        -------
        TaskSet

        Raises
        ------
        InvalidDataError
            If a column does not exist, or an input column is not numeric.

        Examples
        --------
        >>> import pandas as pd
        >>> frame = pd.DataFrame({"patient": [1, 1, 2], "dose": [0.1, 0.2, 0.3], "effect": [1.0, 2.0, 3.0]})
        >>> TaskSet.from_frame(frame, target="effect", tasks="patient")
        TaskSet(2 tasks, 3 rows, 1 to 2 rows each)
        """
        targets = [target] if isinstance(target, str) else list(target)
        roles = {"tasks": tasks, "blocks": blocks, "time": time, "sample_weight": sample_weight}
        for name, column in [("target", t) for t in targets] + list(roles.items()):
            require_column(frame, name, column)
        if features is None:
            taken = {*targets, tasks, blocks, sample_weight}
            features = [c for c in frame.columns if c not in taken]
        for column in features:
            require_column(frame, "features", column)
        wrong = [str(c) for c in features if not pd.api.types.is_numeric_dtype(frame[c])]
        if wrong:
            raise InvalidDataError(
                f"features: column(s) {', '.join(map(repr, wrong))} are not numeric; encode them first (for example "
                "with sklearn's OneHotEncoder) or leave them out of features=."
            )
        return cls.from_arrays(
            frame[list(features)].to_numpy(dtype=np.float64),
            frame[targets[0] if isinstance(target, str) else targets].to_numpy(),
            frame[tasks].to_numpy(),
            blocks=None if blocks is None else frame[blocks].to_numpy(),
            time=None if time is None else frame[time].to_numpy(),
            sample_weight=None if sample_weight is None else frame[sample_weight].to_numpy(),
            dtype=dtype,
        )

    def rows(self, tasks: npt.ArrayLike) -> Rows:
        """All rows of the tasks at these positions, padded to the largest."""
        chosen = np.asarray(tasks, dtype=np.int64)
        sizes = self.sizes[chosen]
        index = np.arange(max(int(sizes.max(initial=0)), 1))
        real = torch.from_numpy(index < sizes[:, None])
        take = torch.from_numpy(np.where(real, self.offsets[chosen][:, None] + index, 0))
        extra = {k: v[take] for k, v in self.extra.items()}
        return Rows(self.x[take], self.y[take], self.weight[take] * real, extra)

    def select(self, tasks: npt.ArrayLike) -> TaskSet:
        """Return the tasks at these positions as a task set of its own, in the given order."""
        chosen = np.asarray(tasks, dtype=np.int64)
        sizes = self.sizes[chosen]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        rows = ranges(self.offsets[chosen], sizes)
        index = torch.from_numpy(rows)
        return TaskSet(
            self.x[index],
            self.y[index],
            self.weight[index],
            offsets,
            self.labels[chosen],
            self.order[rows],
            None if self.blocks is None else _renumbered(np.repeat(np.arange(len(chosen)), sizes), self.blocks[rows]),
            None if self.time is None else self.time[rows],
            {k: v[index] for k, v in self.extra.items()},
        )


def ranges(starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Concatenate ``arange(start, start + length)`` over all pairs, without a loop."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)


def factorize(name: str, labels: Any, n_rows: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Return the sorted distinct labels and each row's code; missing labels are an error."""
    column = labels if isinstance(labels, pd.Series) else pd.Series(_one_dimensional(name, labels))
    if len(column) != n_rows:
        raise InvalidDataError(f"{name}: got {len(column)} labels for {n_rows} rows of X; give one per row.")
    if isinstance(column.dtype, pd.CategoricalDtype):
        column = column.astype(column.cat.categories.dtype)  # or labels would come in the order of the categories
    missing = int(column.isna().sum())
    if missing:
        raise InvalidDataError(f"{name}: {missing} of {n_rows} labels are missing; drop those rows or label them.")
    try:
        codes, unique = pd.factorize(column, sort=True)
    except TypeError:
        kinds = sorted({type(v).__name__ for v in column})
        raise InvalidDataError(
            f"{name}: got labels of types {' and '.join(kinds)}, which cannot be sorted; convert them to one type."
        ) from None
    return np.asarray(unique), codes.astype(np.int64)


def require_column(frame: pd.DataFrame, name: str, column: Any) -> None:
    """Raise unless `column` is None or one of the frame's columns; `name` is the parameter that asked for it."""
    if column is not None and column not in frame.columns:
        known = ", ".join(map(str, frame.columns[:12])) + (", ..." if frame.shape[1] > 12 else "")
        raise InvalidDataError(f"{name}: no column {column!r}; the columns are: {known}.")


def _one_dimensional(name: str, labels: Any) -> npt.NDArray[Any]:
    if isinstance(labels, str):
        raise InvalidDataError(
            f"{name}: got the string {labels!r}; expected one label per row, for example frame[{labels!r}]."
        )
    array = np.asarray(labels)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InvalidDataError(f"{name}: got an array of shape {array.shape}; expected one label per row.")
    return array


def _numeric(name: str, values: Any) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "biuf" and array.ndim:
        return array
    if array.dtype.kind == "O" and array.ndim:
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError):
            pass  # said below, with the parameter's name
    got = f"dtype {array.dtype}" if array.ndim else "a single value"
    raise InvalidDataError(
        f"{name}: got {got}; expected an array of numbers, one row per observation; encode text first."
    )


def _sorted(array: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(array[order])


def _block_codes(blocks: Any, task_codes: npt.NDArray[np.int64], n: int) -> npt.NDArray[np.int64]:
    # Blocks are compared within a task: visit 1 of two patients is two blocks.
    return _renumbered(task_codes, factorize("blocks", blocks, n)[1])


def _renumbered(tasks: npt.NDArray[np.int64], blocks: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Codes 0, 1, ... without gaps for the pairs of task and block."""
    return np.unique(tasks * (int(blocks.max(initial=0)) + 1) + blocks, return_inverse=True)[1].astype(np.int64)


def _time_values(time: Any) -> npt.NDArray[np.float64]:
    column = pd.Series(np.asarray(time))
    if column.isna().any():
        raise InvalidDataError(f"time: {int(column.isna().sum())} of {len(column)} values are missing; fill them.")
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("int64")
    if not pd.api.types.is_numeric_dtype(column):
        raise InvalidDataError(f"time: got dtype {column.dtype}; expected numbers or timestamps.")
    return column.to_numpy(dtype=np.float64)
