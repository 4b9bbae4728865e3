"""Episodes: which rows of a task support the adaptation and which rows judge it.

All tasks of a batch are drawn by index arithmetic on flat arrays. The one idea: give every row of a task a *rank* and a
*barrier*. With K shots the support is ``rank < K`` and the query ``barrier >= K``. So supports are nested in K, and rows of
one block (one visit) never stand on both sides: the barrier of a row is the smallest rank in its block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .errors import InvalidDataError, InvalidParameterError
from .tasks import Rows, TaskSet, ranges

__all__ = ["EpisodeSampler", "PerTaskLabels", "RowRanks", "check_shots", "rank_rows"]

NEVER = np.int64(2**40)  # a rank that no number of shots reaches
Ints = npt.NDArray[np.int64]
Support = Literal["random", "first"]


@dataclass(frozen=True)
class RowRanks:
    """Ranks of the rows of some tasks, from which the support and query of any number of shots are read off.

    Parameters
    ----------
    segment : ndarray of int, shape (rows,)
        Which episode a row belongs to, ascending.
    row : ndarray of int, shape (rows,)
        Position of the row in its task set; within a segment in random order.
    rank, barrier : ndarray of int, shape (rows,)
        With K shots, support rows are those with ``rank < K``, query rows those with ``barrier >= K``.
    limit : ndarray of int, shape (episodes,)
        The largest K that leaves the episode at least one query row.
    """

    segment: Ints
    row: Ints
    rank: Ints
    barrier: Ints
    limit: Ints

    def split(self, shots: npt.ArrayLike) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """Masks of the support and the query rows for `shots` (a number, or one per episode)."""
        k = np.broadcast_to(np.asarray(shots, dtype=np.int64), self.limit.shape)[self.segment]
        return self.rank < k, self.barrier >= k


def rank_rows(
    task_set: TaskSet,
    tasks: npt.ArrayLike,
    rng: np.random.Generator,
    *,
    support: Support = "random",
    per_class: bool = False,
) -> RowRanks:
    """Rank the rows of the tasks at these positions (a task may occur more than once).

    Parameters
    ----------
    task_set : TaskSet
        Where the rows are.
    tasks : array-like of int
        Positions of the tasks; each occurrence is one episode with an order of its own.
    rng : numpy.random.Generator
        Source of the random order.
    support : {"random", "first"}, default="random"
        "random": any rows. "first": without blocks the first rows in time; with blocks one random row of each of the
        first blocks in time, leaving at least three blocks (or, with fewer than five, at least one) to the query.
    per_class : bool, default=False
        Count shots within each class of integer targets. One row of every class that has two stays with the query.

    Returns
    -------
    RowRanks
    """
    tasks = np.asarray(tasks, dtype=np.int64)
    sizes = task_set.sizes[tasks]
    segment = np.repeat(np.arange(len(tasks)), sizes)
    row = ranges(task_set.offsets[tasks], sizes)
    return _rank(task_set, segment, row, len(tasks), rng, support, per_class)


def _rank(
    task_set: TaskSet,
    segment: Ints,
    row: Ints,
    n_segments: int,
    rng: np.random.Generator,
    support: Support,
    per_class: bool,
) -> RowRanks:
    shuffle = np.argsort(segment + rng.random(len(row)), kind="stable")
    row = row[shuffle]  # `segment` is ascending, so shuffling within segments leaves it as it is
    blocks = None
    if task_set.blocks is not None:
        # A block code per episode, so that a task drawn twice has its blocks twice.
        key = segment * (int(task_set.blocks.max()) + 1) + task_set.blocks[row]
        blocks = np.unique(key, return_inverse=True)[1].astype(np.int64)
    if support == "first":
        rank, barrier, limit = _first_in_time(task_set, segment, row, blocks, n_segments)
        return RowRanks(segment, row, rank, barrier, limit)
    if per_class:
        group = segment * (int(task_set.y.max()) + 1) + task_set.y[torch.from_numpy(row)].numpy()
        rank, count = _count_within(group)
        rank = np.where((rank == count - 1) & (count > 1), NEVER, rank)
    else:
        rank = _count_within(segment)[0]
    barrier = rank if blocks is None else _minimum_of(rank, blocks)[blocks]
    limit = np.zeros(n_segments, dtype=np.int64)
    np.maximum.at(limit, segment, barrier)
    return RowRanks(segment, row, rank, barrier, limit)


def _first_in_time(
    task_set: TaskSet, segment: Ints, row: Ints, blocks: Ints | None, n_segments: int
) -> tuple[Ints, Ints, Ints]:
    if task_set.time is None:
        raise InvalidParameterError('support="first" needs time=, one time per row; pass it or use support="random".')
    time = task_set.time[row]
    if blocks is None:
        in_time = np.lexsort((row, time, segment))  # equal times keep the order of the table
        rank = np.empty(len(row), dtype=np.int64)
        rank[in_time] = _count_within(segment)[0]
        return rank, rank, np.bincount(segment, minlength=n_segments) - 1
    start = _minimum_of(time, blocks)
    owner = np.zeros(len(start), dtype=np.int64)
    owner[blocks] = segment
    block_rank = np.empty(len(start), dtype=np.int64)
    block_rank[np.lexsort((start, owner))] = _count_within(np.sort(owner))[0]
    first_of_block = np.zeros(len(row), dtype=bool)
    first_of_block[np.unique(blocks, return_index=True)[1]] = True  # rows are shuffled: a random row of each block
    barrier = block_rank[blocks]
    n_blocks = np.bincount(owner, minlength=n_segments)
    limit = np.maximum(n_blocks - 3, np.minimum(n_blocks - 1, 1))
    return np.where(first_of_block, barrier, NEVER), barrier, limit


def _count_within(group: Ints) -> tuple[Ints, Ints]:
    """Return the running number of each entry among the earlier ones of its group, and the group's size."""
    order = np.argsort(group, kind="stable")
    in_order = group[order]
    new = np.concatenate([[True], in_order[1:] != in_order[:-1]])[: len(group)]
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(group)))
    running, size = np.empty(len(group), dtype=np.int64), np.empty(len(group), dtype=np.int64)
    running[order] = np.arange(len(group)) - np.repeat(starts, sizes)
    size[order] = np.repeat(sizes, sizes)
    return running, size


def _minimum_of(values: npt.NDArray[Any], group: Ints) -> npt.NDArray[Any]:
    """Smallest value of each group; groups are numbered 0, 1, ... without gaps."""
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    return np.minimum.reduceat(values[order], starts)


def check_shots(name: str, value: Any) -> tuple[int, int]:
    """Return `value`, a whole number or a range of two, as ``(low, high)``; else raise InvalidParameterError."""
    pair = (value, value) if isinstance(value, int | np.integer) else value
    try:
        low, high = pair
        whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in (low, high))
    except (TypeError, ValueError):
        whole = False
    if not whole or low < 0 or high < max(low, 1):
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected a number of support rows (1 or more) or a range (low, high)."
        )
    return int(low), int(high)


class EpisodeSampler:
    """Draw episodes from a task set.

    Parameters
    ----------
    task_set : TaskSet
        The tasks. Its blocks keep rows of one block on one side; its times order rows for ``support="first"``.
    shots : int or (int, int), default=(1, 20)
        Support rows per episode. A range is drawn from uniformly, task by task, after it was cut to what leaves at
        least one query row. Tasks too small for its lower end are left out (`n_left_out_`).
    queries : int or None, default=20
        Query rows per episode at most, drawn at random from those allowed; None takes all.
    shots_per_class : int or (int, int), default=None
        Support rows per class of integer targets, in place of `shots`: N-way K-shot.
    support : {"random", "first"}, default="random"
        Which rows may be support, see :func:`rank_rows`.
    min_rows : int, default=2
        Tasks with fewer rows are left out too.
    split_single : bool, default=False
        If there is only one task, cut it anew at every call into disjoint random parts and treat these as tasks.

    Attributes
    ----------
    tasks_ : ndarray of int
        Positions in `task_set` of the tasks that episodes are drawn from.
    n_left_out_ : int
        Number of tasks that are too small.
    drawn_ : ndarray of int
        Which of ``tasks_`` the episodes of the last draw are of.

    Raises
    ------
    InvalidParameterError
        If a setting is out of range.
    InvalidDataError
        If every task is too small.

    Examples
    --------
    >>> import numpy as np
    >>> ts = TaskSet.from_arrays(np.arange(12.0)[:, None], np.arange(12.0), tasks=np.repeat([0, 1, 2], 4))
    >>> support, query = EpisodeSampler(ts, shots=2, queries=2).sample(3, np.random.default_rng(0))
    >>> support.x.shape, query.y.shape
    (torch.Size([3, 2, 1]), torch.Size([3, 2]))
    """

    def __init__(
        self,
        task_set: TaskSet,
        shots: int | tuple[int, int] = (1, 20),
        queries: int | None = 20,
        *,
        shots_per_class: int | tuple[int, int] | None = None,
        support: Support = "random",
        min_rows: int = 2,
        split_single: bool = False,
    ) -> None:
        if support not in ("random", "first"):
            raise InvalidParameterError(f"support: got {support!r}; expected 'random' or 'first'.")
        if queries is not None and (not isinstance(queries, int | np.integer) or queries < 1):
            raise InvalidParameterError(f"queries: got {queries!r}; expected a whole number of 1 or more, or None.")
        if support == "first" and task_set.time is None:
            raise InvalidParameterError('support="first" needs time=, one time per row; pass it or support="random".')
        self.per_class = shots_per_class is not None
        if self.per_class and support == "first":
            raise InvalidParameterError('shots_per_class: cannot be combined with support="first"; use shots=.')
        if self.per_class and task_set.y.is_floating_point():
            raise InvalidParameterError(
                "shots_per_class: needs integer class codes as targets, got floats; use shots=."
            )
        name = "shots_per_class" if self.per_class else "shots"
        self.low, self.high = check_shots(name, shots_per_class if self.per_class else shots)
        self.task_set, self.queries, self.support = task_set, queries, support
        self.split_single = split_single and task_set.n_tasks == 1
        self.tasks_ = np.flatnonzero((task_set.sizes >= min_rows) & (self._most_shots() >= self.low))
        self.n_left_out_ = task_set.n_tasks - len(self.tasks_)
        # Every draw is padded to the same widths: recurring shapes are what compiled kernels and caches live on.
        self._support_width = self._widest_support()
        self._query_width = int(min(queries or NEVER, task_set.sizes.max()))
        if not len(self.tasks_):
            sizes = task_set.sizes
            raise InvalidDataError(
                f"{name}: {self.low} support row(s) leave none of the {len(sizes)} task(s) a query row (the largest has "
                f"{sizes.max()} rows{'' if task_set.blocks is None else ' in blocks that stay together'}); "
                f"lower {name} or merge small tasks."
            )

    @property
    def n_tasks(self) -> int:
        """Number of tasks that are drawn: those that are large enough."""
        return len(self.tasks_)

    def _most_shots(self) -> Ints:
        """Most shots that can leave each task a query row, in its luckiest draw."""
        ts = self.task_set
        owner = np.repeat(np.arange(ts.n_tasks), ts.sizes)
        if self.per_class:
            classes = int(ts.y.max()) + 1
            counts = np.bincount(owner * classes + ts.y.numpy(), minlength=ts.n_tasks * classes)
            most = counts.reshape(ts.n_tasks, classes).max(1) - 1
            return most if ts.blocks is None else np.where(self._n_blocks() > 1, most, 0)
        if ts.blocks is None:
            return ts.sizes - 1
        block_sizes = np.bincount(ts.blocks)
        block_owner = np.empty(len(block_sizes), dtype=np.int64)
        block_owner[ts.blocks] = owner
        if self.support == "first":  # K is cut to the visits that there are, so one earlier visit is enough
            return np.where(self._n_blocks() > 1, NEVER, 0)
        smallest = np.full(ts.n_tasks, NEVER)
        np.minimum.at(smallest, block_owner, block_sizes)
        return ts.sizes - smallest

    def _n_blocks(self) -> Ints:
        ts = self.task_set
        assert ts.blocks is not None
        owner = np.repeat(np.arange(ts.n_tasks), ts.sizes)
        return np.bincount(owner[np.unique(ts.blocks, return_index=True)[1]], minlength=ts.n_tasks)

    def _widest_support(self) -> int:
        ts = self.task_set
        if not self.per_class:
            return max(1, int(min(self.high, ts.sizes.max())))
        classes = int(ts.y.max()) + 1
        counts = np.bincount(np.repeat(np.arange(ts.n_tasks), ts.sizes) * classes + ts.y.numpy())
        return max(1, int(np.add.reduceat(np.minimum(counts, self.high), np.arange(0, len(counts), classes)).max()))

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw `n_tasks` episodes, going round the tasks as evenly as possible.

        Parameters
        ----------
        n_tasks : int
            Number of episodes.
        rng : numpy.random.Generator
            Source of every random choice.

        Returns
        -------
        support, query : Rows
            With leading axes (n_tasks, rows); the number of rows is the same in every draw, shorter episodes are padded.
        """
        ranks = self._split_one_task(n_tasks, rng) if self.split_single else self._rank_tasks(n_tasks, rng)
        high = np.clip(ranks.limit, self.low, self.high)
        # A draw whose blocks leave no query row at all keeps its support; without query rows it judges nothing.
        shots = np.maximum(np.minimum(rng.integers(self.low, high + 1), ranks.limit), min(self.low, 1))
        is_support, is_query = ranks.split(shots)
        n = len(ranks.limit)
        return (
            self.rows(ranks, is_support, n, width=self._support_width),
            self.rows(ranks, is_query, n, self.queries, width=self._query_width),
        )

    def _rank_tasks(self, n_tasks: int, rng: np.random.Generator) -> RowRanks:
        rounds = -(-n_tasks // len(self.tasks_))
        chosen = np.concatenate([rng.permutation(self.tasks_) for _ in range(rounds)])[:n_tasks]
        self.drawn_ = np.searchsorted(self.tasks_, chosen)  # sorted, as found
        return rank_rows(self.task_set, chosen, rng, support=self.support, per_class=self.per_class)

    def _split_one_task(self, n_tasks: int, rng: np.random.Generator) -> RowRanks:
        n = self.task_set.n_rows
        parts = max(1, min(n_tasks, n // (self.high + (self.queries or self.high))))
        segment = np.arange(n) * parts // n
        self.drawn_ = np.zeros(parts, dtype=np.int64)
        return _rank(self.task_set, segment, rng.permutation(n), parts, rng, self.support, self.per_class)

    def rows(
        self,
        ranks: RowRanks,
        mask: npt.NDArray[np.bool_],
        n: int,
        at_most: int | None = None,
        width: int | None = None,
    ) -> Rows:
        """Gather the masked rows of `n` episodes (of each the first `at_most`, in random order), padded to `width`."""
        segment, row = ranks.segment[mask], ranks.row[mask]
        position = _count_within(segment)[0]
        if at_most is not None:
            keep = position < at_most
            segment, row, position = segment[keep], row[keep], position[keep]
        if width is None:
            width = int(position.max(initial=0)) + 1
        index = np.zeros((n, width), dtype=np.int64)
        real = np.zeros((n, width), dtype=bool)
        index[segment, position] = row
        real[segment, position] = True
        take = torch.from_numpy(index)
        ts = self.task_set
        extra = {k: v[take] for k, v in ts.extra.items()}
        return Rows(ts.x[take], ts.y[take], ts.weight[take] * torch.from_numpy(real), extra)


class PerTaskLabels:
    """Rename the classes of each episode to 0, 1, ... in random order: tasks whose labels mean nothing elsewhere.

    Only classes of the support can be told apart, so query rows of other classes get weight 0. ``extra["classes"]`` marks
    the outputs that stand for a class, shape (tasks, rows, n_outputs); a loss ignores the rest.

    Parameters
    ----------
    sampler : TaskSampler
        Draws episodes with integer targets.
    n_outputs : int
        Most classes that a support may hold.
    """

    def __init__(self, sampler: Any, n_outputs: int) -> None:
        self.sampler, self.n_outputs = sampler, n_outputs

    @property
    def drawn_(self) -> Ints:
        """Tasks of the last draw, where the wrapped sampler knows them."""
        drawn: Ints = self.sampler.drawn_
        return drawn

    @property
    def n_tasks(self) -> int:
        """Number of tasks that are drawn, where the wrapped sampler knows it."""
        n_tasks: int = self.sampler.n_tasks
        return n_tasks

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw episodes from the wrapped sampler and rename their classes."""
        support, query = self.sampler.sample(n_tasks, rng)
        n_classes = int(max(support.y.max(), query.y.max())) + 1
        present = torch.zeros(len(support.y), n_classes, dtype=torch.bool)
        owner, column = (support.weight > 0).nonzero(as_tuple=True)
        present[owner, support.y[owner, column]] = True
        scores = torch.from_numpy(rng.random(present.shape)).masked_fill(~present, torch.inf)
        code = scores.argsort(1).argsort(1)  # present classes come first: codes 0 .. n_present - 1
        n_present = present.sum(1, keepdim=True)
        outputs = torch.arange(self.n_outputs) < n_present

        def rename(rows: Rows) -> Rows:
            y = code.gather(1, rows.y)
            known = y < n_present
            classes: Tensor = outputs[:, None, :].expand(-1, y.shape[1], -1)
            return Rows(rows.x, y * known, rows.weight * known, {**rows.extra, "classes": classes})

        return rename(support), rename(query)
