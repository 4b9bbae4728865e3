r"""Meta-overfitting: an initialisation learned from few tasks suits these tasks better than the next one.

The optima of the tasks' quadratic losses, all of curvature h, are independent draws with mean :math:`\mu` and variance :math:`s^2`.
After K steps of size :math:`\alpha` a task's loss is :math:`\frac h2 (1 - \alpha h)^{2K} (\theta_0 - \theta_i^*)^2`, and
meta-training on T tasks ends at the mean of their optima. That mean is nearer to its own T optima than :math:`\mu` is, by
:math:`s^2 / T` in expected squared distance, and further from a new one by as much:

.. math:: E\, L_\text{training} = \tfrac h2 (1 - \alpha h)^{2K} s^2 \Big(1 - \frac1T\Big), \qquad
   E\, L_\text{new} = \tfrac h2 (1 - \alpha h)^{2K} s^2 \Big(1 + \frac1T\Big),

.. math:: \text{gap} = h\, (1 - \alpha h)^{2K} \frac{s^2}T.

It falls like 1/T with the number of *tasks*, however many rows these have. Leaving one of T tasks out measures the gap for T - 1
tasks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import array, count, number

__all__ = ["expected_overfitting_gap", "leave_one_task_out_gap"]


def expected_overfitting_gap(
    n_tasks: int, task_variance: float, curvature: float, step_size: float, *, steps: int = 1
) -> float:
    r"""Return the expected loss of a new task after adaptation, less that of the training tasks.

    It is :math:`h (1 - \alpha h)^{2K} s^2 / T`.

    Parameters
    ----------
    n_tasks : int
        Number T of training tasks.
    task_variance : float
        Variance :math:`s^2` of the tasks' optima; with several parameters, the sum of their variances.
    curvature : float
        h, of every task's loss.
    step_size : float
        :math:`\alpha`.
    steps : int, default=1
        Number K of inner steps.

    Returns
    -------
    float

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> [round(expected_overfitting_gap(n, 1.0, 2.0, 0.1), 3) for n in (2, 4, 8)]
    [0.64, 0.32, 0.16]
    """
    left = _left(curvature, step_size, steps)
    return 2 * left * number("task_variance", task_variance, zero=True) / count("n_tasks", n_tasks, 1)


def leave_one_task_out_gap(optima: npt.ArrayLike, curvature: float, step_size: float, *, steps: int = 1) -> float:
    """Return the loss of a task left out of meta-training, less that of those trained on; the mean over which one is left out.

    Parameters
    ----------
    optima : array-like of shape (tasks,) or (tasks, parameters)
        Where each task's loss is least.
    curvature : float
        Of every task's loss, in every direction.
    step_size : float
        Size of the inner steps.
    steps : int, default=1
        Number of inner steps.

    Returns
    -------
    float
        For these very tasks; over random ones its mean is :func:`expected_overfitting_gap` of one task less.

    Raises
    ------
    InvalidParameterError
        If a value cannot be used, or there are fewer than 2 tasks.

    Examples
    --------
    >>> leave_one_task_out_gap([0.0, 1.0, 2.0], 2.0, 0.0)
    1.0
    """
    star = array("optima", optima, 1, 2)
    n = len(star)
    if n < 2:
        raise InvalidParameterError(f"optima: got {n} task; expected 2 or more, of which one is left out.")
    star = star.reshape(n, -1)
    start = (star.sum(0) - star) / (n - 1)  # learned without each task
    distance = ((start[:, None] - star) ** 2).sum(-1)  # (left out, judged)
    left_out = np.diagonal(distance)
    trained_on = (distance.sum(1) - left_out) / (n - 1)
    return float(_left(curvature, step_size, steps) * (left_out - trained_on).mean())


def _left(curvature: float, step_size: float, steps: int) -> float:
    """Return the loss after adaptation of a task that starts at a distance of 1 from its optimum."""
    h, alpha = number("curvature", curvature), number("step_size", step_size, zero=True)
    return float(h / 2 * (1 - alpha * h) ** (2 * count("steps", steps, 0)))
