"""Linear regressions whose weights vary around a common mean: all of MAML has a closed form here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows

from ._families import Floats, TaskFamily, check_counts, check_scale, make_rows

__all__ = ["LinearRegressionTasks", "LinearRegressions"]


@dataclass(frozen=True, eq=False)
class LinearRegressionTasks:
    """Parameters of linear-regression tasks.

    Parameters
    ----------
    weights : ndarray of shape (tasks, features)
        True regression weights, in units of the target per unit of the input.
    """

    weights: Floats


class LinearRegressions(TaskFamily[LinearRegressionTasks]):
    r"""Linear regressions without intercept, their weights drawn from one Gaussian.

    .. math:: w_i \sim N(m, C), \quad x \sim N(0, S), \quad y = w_i^T x + ε, \quad ε \sim N(0, σ^2)

    Parameters
    ----------
    n_features : int, default=5
        Number of inputs.
    mean : float or array-like of shape (n_features,), default=0.0
        Mean m of the weights.
    cov : float or array-like of shape (n_features, n_features), default=1.0
        Covariance C of the weights; a number stands for that multiple of the identity. May be singular.
    input_cov : float or array-like of shape (n_features, n_features), default=1.0
        Covariance S of the inputs; a number as above.
    noise : float, default=0.1
        Standard deviation σ of the noise, in units of the target.
    shots, queries : int, default=10
        Support and query rows of each task.

    Attributes
    ----------
    mean : ndarray of shape (n_features,)
        The mean of the weights.
    cov, input_cov : ndarray of shape (n_features, n_features)
        The covariances.

    Raises
    ------
    InvalidParameterError
        If a shape does not fit `n_features`, or a matrix is not symmetric and positive semi-definite.

    References
    ----------
    N. Tripuraneni, C. Jin and M. I. Jordan (2021), Provable meta-learning of linear representations, ICML,
    study the case of a `cov` of low rank; the closed form of MAML's optimum is derived on the theory pages.

    Examples
    --------
    >>> import numpy as np
    >>> family = LinearRegressions(n_features=2, mean=[1.0, -1.0], cov=0.0, noise=0.0, shots=4)
    >>> rng = np.random.default_rng(0)
    >>> tasks = family.sample_tasks(1, rng)
    >>> tasks.weights
    array([[ 1., -1.]])
    >>> rows = family.rows(tasks, 4, rng)
    >>> bool((rows.y - (rows.x[..., 0] - rows.x[..., 1])).abs().max() < 1e-6)
    True
    """

    def __init__(
        self,
        n_features: int = 5,
        *,
        mean: npt.ArrayLike = 0.0,
        cov: npt.ArrayLike = 1.0,
        input_cov: npt.ArrayLike = 1.0,
        noise: float = 0.1,
        shots: int = 10,
        queries: int = 10,
    ) -> None:
        check_counts(n_features=n_features, shots=shots, queries=queries)
        check_scale("noise", noise)
        self.n_features, self.noise, self.shots, self.queries = n_features, noise, shots, queries
        vector = np.asarray(mean, dtype=np.float64)
        if vector.shape not in ((), (n_features,)) or not np.isfinite(vector).all():
            raise InvalidParameterError(f"mean: got {mean!r}; expected a number or {n_features} of them.")
        self.mean = np.full(n_features, vector)
        self.cov = _covariance("cov", cov, n_features)
        self.input_cov = _covariance("input_cov", input_cov, n_features)
        self._root, self._input_root = _root("cov", self.cov), _root("input_cov", self.input_cov)

    def __repr__(self) -> str:
        return (
            f"LinearRegressions(n_features={self.n_features}, noise={self.noise}, shots={self.shots}, "
            f"queries={self.queries})"
        )

    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> LinearRegressionTasks:
        """Draw the weights of `n_tasks` tasks from `rng`."""
        return LinearRegressionTasks(self.mean + rng.standard_normal((n_tasks, self.n_features)) @ self._root)

    def rows(self, tasks: LinearRegressionTasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Draw `n_rows` inputs of each task and their targets; x of shape (tasks, n_rows, n_features)."""
        n_tasks = len(tasks.weights)
        x = rng.standard_normal((n_tasks, n_rows, self.n_features)) @ self._input_root
        noise = self.noise * rng.standard_normal((n_tasks, n_rows))
        return make_rows(x, np.einsum("trf,tf->tr", x, tasks.weights) + noise)


def _covariance(name: str, value: npt.ArrayLike, n: int) -> Floats:
    matrix = np.asarray(value, dtype=np.float64)
    if matrix.shape == ():
        matrix = matrix * np.eye(n)
    if matrix.shape != (n, n) or not np.allclose(matrix, matrix.T) or not np.isfinite(matrix).all():
        raise InvalidParameterError(
            f"{name}: got shape {np.shape(value)}; expected a number or a symmetric ({n}, {n}) matrix."
        )
    return matrix


def _root(name: str, matrix: Floats) -> Floats:
    """Symmetric square root; unlike a Cholesky factor it exists for singular matrices."""
    values, vectors = np.linalg.eigh(matrix)
    if values.min() < -1e-10 * max(1.0, abs(values).max()):
        raise InvalidParameterError(f"{name}: has the eigenvalue {values.min():g}; expected none below 0.")
    return np.asarray((vectors * np.sqrt(values.clip(0))) @ vectors.T)
