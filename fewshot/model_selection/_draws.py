"""The supports and queries that all methods are judged on.

A draw of a task depends on the seed, the task's label and the number of the draw, and on nothing else: not on the methods
compared, nor on the folds, nor on which other tasks there are.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from ..baselines._table import Table, sampled_rows
from ..episodes import NEVER, RowRanks, rank_rows
from ..errors import InvalidDataError, InvalidParameterError
from ..tasks import TaskSampler

__all__ = ["Draws", "Shots", "class_codes", "draw_tasks", "sample_tasks", "seed_of"]

Ints = npt.NDArray[np.int64]


class Shots(NamedTuple):
    """The support sizes asked for, checked.

    Parameters
    ----------
    name : {"shots", "shots_per_class"}
        The parameter they came from.
    values : list of int
        Support sizes, in rows or in rows of each class.
    """

    name: str
    values: list[int]

    @classmethod
    def read(cls, shots: Any, shots_per_class: Any) -> Shots:
        """Take `shots_per_class` if given, else `shots`; each is a number or a sequence of numbers."""
        name = "shots" if shots_per_class is None else "shots_per_class"
        value = shots if shots_per_class is None else shots_per_class
        values = list(value) if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str) else [value]
        whole = all(isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 0 for k in values)
        if not values or not whole or len(set(values)) < len(values):
            raise InvalidParameterError(
                f"{name}: got {value!r}; expected a number of support rows (0 or more) or a list of different ones."
            )
        return cls(name, [int(k) for k in values])

    @property
    def per_class(self) -> bool:
        """Whether rows are counted within each class."""
        return self.name == "shots_per_class"


@dataclass(frozen=True)
class Draws:
    """For every draw the rank of each row, from which supports and queries of any size are read off.

    Parameters
    ----------
    shots : Shots
        Support sizes.
    ranks : list of RowRanks
        One per draw; segments are task codes, rows are positions in the table.
    most : ndarray of int, shape (tasks,)
        The largest K for which each draw leaves the task a query row.
    cut : bool
        Whether a larger K is cut down to what a draw allows (support="first" with blocks) or leaves the task out.
    """

    shots: Shots
    ranks: list[RowRanks]
    most: Ints
    cut: bool = False

    def included(self, k: int) -> npt.NDArray[np.bool_]:
        """Tell which tasks are large enough for K shots."""
        return self.most >= (min(k, 1) if self.cut else k)

    def left_out(self) -> dict[int, int]:
        """Count the tasks too small for each K; warn once if there are any, raise if no K leaves any task."""
        counts = {k: int((~self.included(k)).sum()) for k in self.shots.values}
        name, n = self.shots.name, len(self.most)
        if not n or min(counts.values()) == n:
            raise InvalidDataError(
                f"{name}: {min(self.shots.values)} support row(s) leave none of the {n} task(s) a query row; lower {name}, "
                "merge small tasks or, if blocks are given, use smaller ones."
            )
        if any(counts.values()):
            told = ", ".join(f"{count} of {n} for {name}={k}" for k, count in counts.items() if count)
            warnings.warn(
                f"{name}: tasks too small to leave a query row are left out: {told}.", UserWarning, stacklevel=3
            )
        return counts

    def split(self, draw: int, k: int, tasks: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Support and query rows of the tasks chosen by the mask that are large enough, query rows sorted by task."""
        ranks = self.ranks[draw]
        chosen = (tasks & self.included(k))[ranks.segment]
        support, query = ranks.split(np.minimum(k, self.most) if self.cut else k)
        return ranks.row[support & chosen], ranks.row[query & chosen]


def seed_of(random_state: Any) -> int:
    """Return one number for everything drawn: an int stands for itself."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(2**31 - 1))


def class_codes(table: Table, classifies: bool) -> npt.NDArray[np.int64]:
    """Return class codes of the targets, for counting shots per class."""
    if not classifies:
        raise InvalidParameterError(
            "shots_per_class: the methods are regressors, whose targets have no classes; use shots=."
        )
    return np.unique(table.y, return_inverse=True)[1].astype(np.int64)


def draw_tasks(table: Table, shots: Shots, draws: int, support: Any, seed: int, classes: Any = None) -> Draws:
    """Rank the rows of every task of a table, `draws` times.

    Parameters
    ----------
    table : Table
        The tasks.
    shots : Shots
        Support sizes.
    draws : int
        Number of draws.
    support : {"random", "first"}
        As for :func:`fewshot.episodes.rank_rows`.
    seed : int
        Seed.
    classes : ndarray of int, shape (rows,), default=None
        Class codes, needed for `shots_per_class`.
    """
    if support not in ("random", "first"):
        raise InvalidParameterError(f"support: got {support!r}; expected 'random' or 'first'.")
    if shots.per_class and support == "first":
        raise InvalidParameterError('shots_per_class: cannot be combined with support="first"; use shots=.')
    if not isinstance(draws, int | np.integer) or draws < 1:
        raise InvalidParameterError(f"draws: got {draws!r}; expected a whole number of 1 or more.")
    task_set = table.task_set(classes if shots.per_class else None)
    keys = [zlib.crc32(str(label).encode()) for label in table.labels]
    parts: list[list[RowRanks]] = [[] for _ in range(draws)]
    most = np.full(len(keys), NEVER)
    for task, key in enumerate(keys):
        one = task_set.select([task])
        for draw in range(draws):
            rng = np.random.default_rng([seed, draw, key])
            ranks = rank_rows(one, [0], rng, support=support, per_class=shots.per_class)
            most[task] = min(most[task], ranks.limit[0])
            parts[draw].append(
                RowRanks(np.full_like(ranks.row, task), one.order[ranks.row], ranks.rank, ranks.barrier, ranks.limit)
            )
        if shots.per_class:  # one row of every class stays with the query, so a larger K would change nothing
            most[task] = min(most[task], np.bincount(one.y.numpy()).max() - 1)
    return Draws(
        shots,
        [RowRanks(*(np.concatenate(c) for c in zip(*map(_fields, part), strict=True))) for part in parts],
        most,
        cut=support == "first" and table.blocks is not None,
    )


def _fields(ranks: RowRanks) -> tuple[Ints, ...]:
    return ranks.segment, ranks.row, ranks.rank, ranks.barrier, ranks.limit


def sample_tasks(sampler: TaskSampler, n_tasks: int, shots: Shots, draws: int, seed: int) -> tuple[Table, Draws]:
    """Sample tasks and keep the sampler's own support and query apart: K shots are K rows of its support."""
    if shots.per_class:
        raise InvalidParameterError("shots_per_class: a TaskSampler divides classes itself; use shots=.")
    if not isinstance(n_tasks, int | np.integer) or n_tasks < 1:
        raise InvalidParameterError(f"n_tasks: got {n_tasks!r}; expected a whole number of 1 or more.")
    support, query = (sampled_rows(rows) for rows in sampler.sample(n_tasks, np.random.default_rng([seed, 0])))
    X, y, tasks = (np.concatenate([support[i], query[i]]) for i in range(3))
    n = len(support[2])
    order = np.argsort(tasks, kind="stable")
    is_support = order < n
    table = Table.read(X[order], y[order], tasks[order])
    sizes = np.bincount(tasks[:n], minlength=len(table.labels))
    ranks = []
    for draw in range(draws):
        rank, barrier = np.full(len(order), NEVER), np.where(is_support, -1, NEVER)
        mixed = np.random.default_rng([seed, 1, draw]).random(len(order))
        first = np.lexsort((mixed, ~is_support, table.codes))
        starts = np.concatenate([[0], np.cumsum(np.bincount(table.codes))[:-1]])
        rank[first] = np.arange(len(order)) - starts[table.codes[first]]
        rank[~is_support] = NEVER
        ranks.append(RowRanks(table.codes, np.arange(len(order)), rank, barrier, sizes))
    has_query = np.bincount(tasks[n:], minlength=len(sizes)) > 0
    return table, Draws(shots, ranks, np.where(has_query, sizes, -1))
