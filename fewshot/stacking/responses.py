"""What is predicted, values or classes: how predictions are mixed and how a mixture is judged on one task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp

__all__ = ["CLASSES", "VALUES", "Classes", "Response", "Values"]

Floats = npt.NDArray[np.float64]


class Response(Protocol):
    """Values or classes. Predictions are arrays of shape (rows, variants, outputs): values, or logits of all classes."""

    @property
    def classifies(self) -> bool:
        """Whether they are classes."""
        ...

    def mix(self, predictions: Floats, weights: Floats) -> Floats:
        """Mix the variants: shapes (rows, variants, outputs), (rows, variants) -> (rows, outputs)."""
        ...

    def losses(
        self, predictions: Floats, y: npt.NDArray[Any], codes: npt.NDArray[np.int64], n_tasks: int
    ) -> TaskLosses:
        """Return what the losses of all mixtures follow from."""
        ...


class TaskLosses(Protocol):
    """The losses of mixtures of given predictions on each of some tasks."""

    def value_and_gradient(self, weights: Floats) -> tuple[Floats, Floats]:
        """Loss of every task, shape (tasks,), and its derivative by the weights, shape (tasks, variants)."""
        ...


@dataclass(frozen=True)
class Values:
    """Values; a mixture is the weighted mean."""

    classifies: ClassVar[bool] = False

    def mix(self, predictions: Floats, weights: Floats) -> Floats:
        """Mix values; see :class:`Response`."""
        mixed: Floats = np.einsum("nvo,nv->no", predictions, weights)
        return mixed

    def losses(
        self, predictions: Floats, y: npt.NDArray[Any], codes: npt.NDArray[np.int64], n_tasks: int
    ) -> RootMeanSquares:
        """Return the errors of all mixtures; see :class:`Response`."""
        return RootMeanSquares(predictions - y[:, None, :], codes, n_tasks)


class RootMeanSquares:
    """The root of each task's mean squared error.

    With weights that sum to one, the error of a mixture is the mixture of the errors ``e_v``, so that all that is needed of a
    task is the matrix ``G_uv = mean(e_u e_v)``. The root keeps a task with large errors from outvoting the others.
    """

    def __init__(self, errors: Floats, codes: npt.NDArray[np.int64], n_tasks: int) -> None:
        n_variants = errors.shape[1]
        self.gram = np.zeros((n_tasks, n_variants, n_variants))
        for task in range(n_tasks):
            mine = errors[codes == task].transpose(0, 2, 1).reshape(-1, n_variants)
            self.gram[task] = mine.T @ mine / max(len(mine), 1)

    def value_and_gradient(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the root mean squared error of each task, and its derivative."""
        product = self.gram @ weights
        root = np.sqrt(np.maximum(product @ weights, 1e-24))
        return root, product / root[:, None]


@dataclass(frozen=True)
class Classes:
    """Classes; a mixture has the weighted mean of the probabilities."""

    classifies: ClassVar[bool] = True

    def mix(self, predictions: Floats, weights: Floats) -> Floats:
        """Mix probabilities; see :class:`Response`."""
        with np.errstate(divide="ignore"):
            logs = np.log(weights)[:, :, None]
        mixed: Floats = logsumexp(log_softmax(predictions, axis=2) + logs, axis=1)
        return mixed

    def losses(self, predictions: Floats, y: npt.NDArray[Any], codes: npt.NDArray[np.int64], n_tasks: int) -> LogLosses:
        """Return the log losses of all mixtures; see :class:`Response`."""
        logs = log_softmax(predictions, axis=2)
        return LogLosses(np.exp(logs[np.arange(len(y)), :, y]), codes, n_tasks)


class LogLosses:
    """Each task's mean negative log-probability of the true class, under a mixture of probabilities."""

    def __init__(self, true: Floats, codes: npt.NDArray[np.int64], n_tasks: int) -> None:
        order = np.argsort(codes, kind="stable")
        self.true = np.maximum(true[order], 1e-12)
        counts = np.bincount(codes, minlength=n_tasks)
        self.there = counts > 0
        self.starts = (np.cumsum(counts) - counts)[self.there]
        self.counts = counts[self.there]

    def value_and_gradient(self, weights: Floats) -> tuple[Floats, Floats]:
        """Return the log loss of each task, and its derivative."""
        mixed = self.true @ weights
        value, gradient = np.zeros(len(self.there)), np.zeros((len(self.there), self.true.shape[1]))
        value[self.there] = np.add.reduceat(-np.log(mixed), self.starts) / self.counts
        gradient[self.there] = np.add.reduceat(-self.true / mixed[:, None], self.starts) / self.counts[:, None]
        return value, gradient


VALUES: Response = Values()
CLASSES: Response = Classes()
