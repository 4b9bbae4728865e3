"""Which tasks are held out together, and the episodes of held-out tasks that members are judged on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..episodes import Support, rank_rows
from ..tasks import TaskSet

__all__ = ["Episodes", "draw_episodes", "enough_judges", "folds_of", "support_sizes"]

Ints = npt.NDArray[np.int64]
SIZES = (1, 2, 5, 10, 20, 50, 100)
ENOUGH = 10.0  # tasks that can tell members apart, even if most tasks are too small
MOST_FOLDS = 5


@dataclass(frozen=True)
class Episodes:
    """Support and query rows of some tasks, each drawn several times, for one support size.

    Parameters
    ----------
    shots : int
        Support size asked for; a task gives at most what leaves a query row.
    task : ndarray of int, shape (episodes,)
        Position of each episode's task in the task set.
    support, query : ndarray of int
        Positions of rows in the task set.
    support_episode, query_episode : ndarray of int
        Which episode each of these rows belongs to, ascending.
    """

    shots: int
    task: Ints
    support: Ints
    query: Ints
    support_episode: Ints
    query_episode: Ints

    def support_set(self, task_set: TaskSet) -> TaskSet:
        """Return the support rows as a task set, a task for each episode."""
        sizes = np.bincount(self.support_episode, minlength=len(self.task))
        rows = self.support
        return TaskSet(
            task_set.x[rows],
            task_set.y[rows],
            task_set.weight[rows],
            np.concatenate([[0], np.cumsum(sizes)]),
            np.arange(len(self.task)),
            rows,
        )


def folds_of(n_tasks: int, rng: np.random.Generator) -> Ints:
    """Fold of each task: as even as possible, at most five."""
    n_folds = min(MOST_FOLDS, n_tasks)
    return rng.permutation(np.arange(n_tasks) % n_folds)


def support_sizes(sizes: Ints) -> list[int]:
    """Return the support sizes that enough tasks can be judged at."""
    return [k for k in SIZES if (sizes > k).sum() >= enough_judges(len(sizes))]


def enough_judges(n_tasks: float) -> float:
    """How many of so many tasks must be large enough for a support size: half of them, but no more than ten, and two at least."""
    return max(2.0, min(n_tasks / 2, ENOUGH))


def draw_episodes(
    task_set: TaskSet, tasks: Ints, shots: int, draws: int, queries: int, rng: np.random.Generator, support: Support
) -> Episodes:
    """Draw the episodes of these tasks.

    Parameters
    ----------
    task_set : TaskSet
        Where the rows are.
    tasks : ndarray of int
        Positions of the tasks.
    shots : int
        Support rows; tasks too small for this many are left out.
    draws : int
        Episodes of each task.
    queries : int
        Query rows of an episode at most.
    rng : numpy.random.Generator
        Source of the draws.
    support : {"random", "first"}
        Which rows may be support.
    """
    repeated = np.repeat(tasks, draws)
    ranks = rank_rows(task_set, repeated, rng, support=support)
    k = np.minimum(shots, ranks.limit) if support == "first" else shots
    is_support, is_query = ranks.split(k)
    large = ranks.limit >= (1 if support == "first" else shots)
    number = np.cumsum(large) - 1
    keep = large[ranks.segment]
    is_support, is_query = is_support & keep, is_query & keep
    before = np.concatenate([[0], np.cumsum(is_query)])
    starts = np.searchsorted(ranks.segment, np.arange(len(repeated)))
    running = before[:-1] - before[starts][ranks.segment]  # number of the row among its episode's query rows
    is_query &= running < queries
    return Episodes(
        shots,
        repeated[large],
        ranks.row[is_support],
        ranks.row[is_query],
        number[ranks.segment[is_support]],
        number[ranks.segment[is_query]],
    )
