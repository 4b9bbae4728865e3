"""What the synthetic task families share: an episode is drawn as tasks first, then rows of these tasks.

Keeping the two apart shows the truth behind an episode: ``tasks = family.sample_tasks(n, rng)`` are the
parameters, ``family.rows(tasks, n_rows, rng)`` as many rows of them as wanted, ``family.sample`` composes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows

Floats = npt.NDArray[np.float64]
Tasks = TypeVar("Tasks")


class TaskFamily(ABC, Generic[Tasks]):
    """A distribution over tasks from which episodes can be drawn; implements ``TaskSampler``."""

    shots: int
    queries: int

    @abstractmethod
    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> Tasks:
        """Draw the true parameters of `n_tasks` tasks.

        Parameters
        ----------
        n_tasks : int
            Number of tasks.
        rng : numpy.random.Generator
            Source of every random choice.

        Returns
        -------
        dataclass of ndarrays of shape (tasks, ...)
            The parameters.
        """

    @abstractmethod
    def rows(self, tasks: Tasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Draw `n_rows` rows of each of these tasks.

        Parameters
        ----------
        tasks : dataclass of ndarrays of shape (tasks, ...)
            Task parameters, from :meth:`sample_tasks` or of one's own making.
        n_rows : int
            Rows of each task.
        rng : numpy.random.Generator
            Source of every random choice.

        Returns
        -------
        Rows
            With leading axes (tasks, n_rows), float32, every weight 1.
        """

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw one episode of each of `n_tasks` new tasks.

        Parameters
        ----------
        n_tasks : int
            Number of tasks.
        rng : numpy.random.Generator
            Source of every random choice.

        Returns
        -------
        support, query : Rows
            With leading axes (n_tasks, shots) and (n_tasks, queries).
        """
        tasks = self.sample_tasks(n_tasks, rng)
        return self.rows(tasks, self.shots, rng), self.rows(tasks, self.queries, rng)


def make_rows(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> Rows:
    """Rows of weight 1 from arrays of shape (tasks, rows, features) and (tasks, rows)."""
    target = torch.from_numpy(y if y.dtype == np.int64 else y.astype(np.float32))
    return Rows(torch.from_numpy(x.astype(np.float32)), target, torch.ones(y.shape))


def check_counts(**counts: int) -> None:
    """Raise unless each of the named counts is an integer of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise InvalidParameterError(f"{name}: got {value!r}; expected an integer of at least 1.")


def check_range(name: str, value: tuple[float, float]) -> None:
    """Raise unless `value` is a pair of finite numbers, the first not above the second."""
    try:
        low, high = map(float, value)
        good = -np.inf < low <= high < np.inf
    except (TypeError, ValueError):
        good = False
    if not good:
        raise InvalidParameterError(f"{name}: got {value!r}; expected (low, high) with low <= high.")


def check_scale(name: str, value: float) -> None:
    """Raise unless `value` is a finite standard deviation, zero or above."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        raise InvalidParameterError(f"{name}: got {value!r}; expected a finite number of at least 0.")
