"""One-dimensional quadratic losses: the family whose best initialisation is known in closed form.

The tasks are a finite list, because the answers are sums over tasks and only depend on how curvature and
optimum go together; any other distribution is a list drawn from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows

from ._families import Floats, TaskFamily, check_counts, make_rows

__all__ = ["QuadraticTasks", "Quadratics"]


@dataclass(frozen=True, eq=False)
class QuadraticTasks:
    """Parameters of quadratic tasks.

    Parameters
    ----------
    optimum : ndarray of shape (tasks,)
        Minimisers θ*.
    curvature : ndarray of shape (tasks,)
        Second derivatives h, positive.
    """

    optimum: Floats
    curvature: Floats

    def loss(self, theta: npt.ArrayLike) -> Floats:
        """Loss h/2 (θ - θ*)² of each task at `theta`, one number or one of each task; shape (tasks,)."""
        return np.asarray(0.5 * self.curvature * (np.asarray(theta) - self.optimum) ** 2)


class Quadratics(TaskFamily[QuadraticTasks]):
    r"""Quadratic losses of one parameter, written as rows of a regression through the origin.

    .. math:: L_i(θ) = \frac{h_i}{2} (θ - θ_i^*)^2

    Every row of task i is the same, :math:`x = \sqrt{h_i / 2}` and :math:`y = x θ_i^*`. The model is :math:`θ
    x`, one weight and no intercept; its squared error on a row is exactly :math:`L_i(θ)`, and so is the mean
    over any number of rows, however rows are weighted. (A row *weight* of h would vanish in that mean, which
    is why the curvature sits in x.) Support and query are equal, there is no noise, and a gradient step of
    size α maps θ to θ - α h_i (θ - θ_i*).

    Tasks are drawn with replacement from a given list.

    Parameters
    ----------
    optimum : array-like of shape (n_listed,), default=(-1, 0, 2)
        Minimisers of the listed tasks.
    curvature : float or array-like of shape (n_listed,), default=(0.5, 1, 1.5)
        Second derivatives of the listed tasks; positive, in units of loss per squared unit of θ.
    probability : array-like of shape (n_listed,), default=None
        How often each listed task is drawn; None draws all equally often. Scaled to sum to 1.
    shots, queries : int, default=1
        Support and query rows of each task; more than one only repeats the row.

    Attributes
    ----------
    all_tasks : QuadraticTasks
        The listed tasks.
    probability : ndarray of shape (n_listed,)
        Their probabilities.

    Raises
    ------
    InvalidParameterError
        If lengths differ, a curvature is not positive or the probabilities cannot be scaled to sum to 1.

    References
    ----------
    A. Fallah, A. Mokhtari and A. Ozdaglar (2020). On the convergence theory of gradient-based model-agnostic
    meta-learning algorithms. AISTATS.

    Examples
    --------
    >>> import numpy as np
    >>> family = Quadratics(optimum=[-1.0, 3.0], curvature=[2.0, 8.0])
    >>> rows = family.rows(family.all_tasks, 1, np.random.default_rng(0))
    >>> rows.x[:, 0, 0], rows.y[:, 0]
    (tensor([1., 2.]), tensor([-1.,  6.]))
    >>> theta = 1.0
    >>> ((theta * rows.x[..., 0] - rows.y) ** 2).mean(1)  # the mean squared error of each task ...
    tensor([ 4., 16.])
    >>> family.all_tasks.loss(theta)  # ... is its quadratic loss
    array([ 4., 16.])
    """

    def __init__(
        self,
        optimum: Sequence[float] | npt.NDArray[np.floating] = (-1.0, 0.0, 2.0),
        curvature: float | Sequence[float] | npt.NDArray[np.floating] = (0.5, 1.0, 1.5),
        probability: Sequence[float] | npt.NDArray[np.floating] | None = None,
        *,
        shots: int = 1,
        queries: int = 1,
    ) -> None:
        check_counts(shots=shots, queries=queries)
        self.shots, self.queries = shots, queries
        optima = _vector("optimum", optimum)
        n = len(optima)
        curvatures = _vector("curvature", np.full(n, curvature) if np.ndim(curvature) == 0 else curvature, n)
        if (curvatures <= 0).any():
            raise InvalidParameterError(f"curvature: got {curvatures.min():g}; expected positive numbers.")
        weights = np.ones(n) if probability is None else _vector("probability", probability, n)
        if (weights < 0).any() or weights.sum() == 0:
            raise InvalidParameterError("probability: expected numbers of at least 0 that are not all 0.")
        self.all_tasks = QuadraticTasks(optima, curvatures)
        self.probability = weights / weights.sum()

    def __repr__(self) -> str:
        return f"Quadratics({len(self.probability)} tasks, shots={self.shots}, queries={self.queries})"

    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> QuadraticTasks:
        """Draw `n_tasks` of the listed tasks, with replacement, from `rng`."""
        chosen = rng.choice(len(self.probability), n_tasks, p=self.probability)
        return QuadraticTasks(self.all_tasks.optimum[chosen], self.all_tasks.curvature[chosen])

    def rows(self, tasks: QuadraticTasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Write each task as `n_rows` equal rows; x of shape (tasks, n_rows, 1). Leaves `rng` alone."""
        x = np.repeat(np.sqrt(tasks.curvature / 2)[:, None], n_rows, axis=1)
        return make_rows(x[..., None], x * tasks.optimum[:, None])


def _vector(name: str, values: npt.ArrayLike, length: int | None = None) -> Floats:
    vector = np.array(values, dtype=np.float64)
    if vector.ndim != 1 or len(vector) == 0 or not np.isfinite(vector).all():
        raise InvalidParameterError(f"{name}: got {values!r}; expected a list of finite numbers.")
    if length is not None and len(vector) != length:
        raise InvalidParameterError(f"{name}: got {len(vector)} values for {length} optima; give one of each.")
    return vector
