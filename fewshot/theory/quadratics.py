r"""Tasks with one parameter and quadratic losses: what an initialisation is the mean of.

Task i has the loss :math:`L_i(\theta) = \frac{h_i}2 (\theta - \theta_i^*)^2` and is met with probability :math:`p_i`. A step of
size :math:`\alpha` leaves :math:`\theta_i' - \theta_i^* = (1 - \alpha h_i)(\theta_0 - \theta_i^*)`. Then two questions have two
answers, both weighted means of the optima:

* where must one start for the adapted parameters to be *nearest* to the optima, in expected squared distance? Weights
  :math:`p_i (1 - \alpha h_i)^2`;
* for the *loss* after adaptation to be least, which is what MAML trains? Weights :math:`p_i h_i (1 - \alpha h_i)^2`.

A weight says how much of its distance a task still has after its step. A task that one step solves (:math:`\alpha h_i = 1`) has
none left, weight 0, and no say in where to start. A task on which the step diverges (:math:`\alpha h_i > 2`) ends further off than
it began, so its weight is *large*, and it pulls the initialisation *towards* its own optimum: starting there is the only thing that
helps it. A text that says that large weights down-weight a task has it backwards.

These are the case of one feature of :mod:`.linear_regression`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import Floats, array, number, shares

__all__ = [
    "adapted_losses",
    "maml_initialization",
    "maml_weights",
    "nearest_initialization",
    "nearest_weights",
]


def nearest_weights(
    curvatures: npt.ArrayLike, step_size: float, *, probabilities: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    r"""Weights :math:`p_i (1 - \alpha h_i)^2`, not normalised.

    Parameters
    ----------
    curvatures : array-like of shape (tasks,)
        :math:`h_i`, each above 0.
    step_size : float
        :math:`\alpha`; 0 stays at the initialisation.
    probabilities : array-like of shape (tasks,), default=None
        How often each task is met; None: equally often.

    Returns
    -------
    ndarray of shape (tasks,)

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> nearest_weights([1.0, 2.0, 6.0], 0.5) * 3  # half solved, solved, diverging
    array([0.25, 0.  , 4.  ])
    """
    h = _curvatures(curvatures)
    return shares("probabilities", probabilities, len(h)) * (1 - number("step_size", step_size, zero=True) * h) ** 2


def maml_weights(
    curvatures: npt.ArrayLike, step_size: float, *, probabilities: npt.ArrayLike | None = None
) -> npt.NDArray[np.float64]:
    r"""Weights :math:`p_i h_i (1 - \alpha h_i)^2`, not normalised.

    Parameters
    ----------
    curvatures, step_size, probabilities
        As of :func:`nearest_weights`.

    Returns
    -------
    ndarray of shape (tasks,)

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> maml_weights([1.0, 2.0, 6.0], 0.5) * 3
    array([ 0.25,  0.  , 24.  ])
    """
    return nearest_weights(curvatures, step_size, probabilities=probabilities) * _curvatures(curvatures)


def nearest_initialization(
    optima: npt.ArrayLike, curvatures: npt.ArrayLike, step_size: float, *, probabilities: npt.ArrayLike | None = None
) -> float:
    """Return the initialisation whose adapted parameters are nearest to the optima, in expected squared distance.

    Parameters
    ----------
    optima : array-like of shape (tasks,)
        Where each task's loss is least.
    curvatures, step_size, probabilities
        As of :func:`nearest_weights`.

    Returns
    -------
    float

    Raises
    ------
    InvalidParameterError
        If a value cannot be used, or one step solves every task, so that no initialisation is better than another.

    Examples
    --------
    >>> nearest_initialization([0.0, 1.0], [1.0, 6.0], 0.5)  # weights 1 and 16
    0.941...
    """
    return _mean(optima, nearest_weights(curvatures, step_size, probabilities=probabilities))


def maml_initialization(
    optima: npt.ArrayLike, curvatures: npt.ArrayLike, step_size: float, *, probabilities: npt.ArrayLike | None = None
) -> float:
    """Return the initialisation with the least expected loss after one step: where MAML lands.

    Parameters
    ----------
    optima : array-like of shape (tasks,)
        Where each task's loss is least.
    curvatures, step_size, probabilities
        As of :func:`nearest_weights`.

    Returns
    -------
    float

    Raises
    ------
    InvalidParameterError
        If a value cannot be used, or one step solves every task, so that no initialisation is better than another.

    Examples
    --------
    >>> maml_initialization([0.0, 1.0], [1.0, 6.0], 0.5)  # weights 1 and 96
    0.989...
    """
    return _mean(optima, maml_weights(curvatures, step_size, probabilities=probabilities))


def adapted_losses(
    initialization: float, optima: npt.ArrayLike, curvatures: npt.ArrayLike, step_size: float
) -> npt.NDArray[np.float64]:
    r"""Loss of each task after one step, :math:`\frac{h_i}2 (1 - \alpha h_i)^2 (\theta_0 - \theta_i^*)^2`.

    Parameters
    ----------
    initialization : float
        Where every task starts.
    optima : array-like of shape (tasks,)
        Where each task's loss is least.
    curvatures, step_size
        As of :func:`nearest_weights`.

    Returns
    -------
    ndarray of shape (tasks,)

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> adapted_losses(0.0, [1.0, 2.0], [1.0, 2.0], 0.5)
    array([0.125, 0.   ])
    """
    star, h = array("optima", optima, 1), _curvatures(curvatures)
    _same_length(star, h)
    start = float(array("initialization", initialization, 0))
    found: Floats = h / 2 * (1 - number("step_size", step_size, zero=True) * h) ** 2 * (start - star) ** 2
    return found


def _curvatures(curvatures: npt.ArrayLike) -> Floats:
    h = array("curvatures", curvatures, 1)
    if (h <= 0).any():
        raise InvalidParameterError(f"curvatures: got {h.min():g}; expected each above 0, or a loss has no optimum.")
    return h


def _same_length(optima: Floats, others: Floats) -> None:
    if len(optima) != len(others):
        raise InvalidParameterError(
            f"optima: got {len(optima)} values for {len(others)} curvatures; expected one a task in both."
        )


def _mean(optima: npt.ArrayLike, weights: Floats) -> float:
    star = array("optima", optima, 1)
    _same_length(star, weights)
    if weights.sum() == 0:
        raise InvalidParameterError(
            "step_size: one step solves every task (step_size * curvature = 1), so every initialisation is as good; use another "
            "step_size."
        )
    return float(weights @ star / weights.sum())
