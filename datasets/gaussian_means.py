"""Means of a Gaussian: the smallest family with a Bayesian answer in closed form.

Meta-learning an initialisation here is learning the prior mean, and one gradient step of the right size is
the posterior mode (Grant et al. 2018), which makes the family an oracle for both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot.tasks import Rows

from ._families import Floats, TaskFamily, check_counts, check_scale, make_rows

__all__ = ["GaussianMeanTasks", "GaussianMeans"]


@dataclass(frozen=True, eq=False)
class GaussianMeanTasks:
    """Parameters of Gaussian-mean tasks.

    Parameters
    ----------
    mean : ndarray of shape (tasks,)
        True means θ, in units of the target.
    """

    mean: Floats


@dataclass(frozen=True)
class GaussianMeans(TaskFamily[GaussianMeanTasks]):
    r"""Observations around a mean that differs from task to task.

    .. math:: θ_i \sim N(μ, τ^2), \qquad y \mid θ_i \sim N(θ_i, σ^2), \qquad x = 1

    The only input is a column of ones, so a linear model without intercept has θ as its one parameter. With n
    rows of mean :math:`\bar y` the posterior of a task is Gaussian with

    .. math:: E[θ_i] = \frac{μ / τ^2 + n \bar y / σ^2}{1 / τ^2 + n / σ^2}, \qquad
              \mathrm{Var}[θ_i] = \frac{1}{1 / τ^2 + n / σ^2}.

    Parameters
    ----------
    shots : int, default=10
        Support rows of each task.
    queries : int, default=10
        Query rows of each task.
    mu : float, default=0.0
        Mean of the task means.
    tau : float, default=1.0
        Standard deviation of the task means, in units of the target.
    sigma : float, default=1.0
        Standard deviation of a row around its task's mean, in units of the target.

    Raises
    ------
    InvalidParameterError
        If a count is below 1 or a standard deviation is negative.

    References
    ----------
    E. Grant, C. Finn, S. Levine, T. Darrell and T. Griffiths (2018). Recasting gradient-based meta-learning
    as hierarchical Bayes. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> family = GaussianMeans(shots=3, mu=5.0, tau=2.0, sigma=0.0)
    >>> rng = np.random.default_rng(0)
    >>> tasks = family.sample_tasks(2, rng)
    >>> tasks.mean.round(2)
    array([5.25, 4.74])
    >>> family.rows(tasks, 3, rng).y
    tensor([[5.2515, 5.2515, 5.2515],
            [4.7358, 4.7358, 4.7358]])
    """

    shots: int = 10
    queries: int = 10
    mu: float = 0.0
    tau: float = 1.0
    sigma: float = 1.0

    def __post_init__(self) -> None:
        check_counts(shots=self.shots, queries=self.queries)
        check_scale("tau", self.tau)
        check_scale("sigma", self.sigma)

    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> GaussianMeanTasks:
        """Draw the means of `n_tasks` tasks from `rng`."""
        return GaussianMeanTasks(rng.normal(self.mu, self.tau, n_tasks))

    def rows(self, tasks: GaussianMeanTasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Draw `n_rows` observations of each task; x of shape (tasks, n_rows, 1) is all ones."""
        y = tasks.mean[:, None] + rng.normal(0.0, self.sigma, (len(tasks.mean), n_rows))
        return make_rows(np.ones((*y.shape, 1)), y)
