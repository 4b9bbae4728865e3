r"""The best initialisation of linear regression, where MAML has a closed form.

The squared error of a linear model is quadratic: its gradient on a task's support is :math:`A_i \theta - b_i` with
:math:`A_i = \frac2n X^\top X`, :math:`b_i = \frac2n X^\top y`, and on its query :math:`Q_i \theta - q_i`. One step of size
:math:`\alpha` gives :math:`\theta_i' = M_i \theta_0 + \alpha b_i` with :math:`M_i = I - \alpha A_i`, linear in :math:`\theta_0`;
so the expected query loss after adaptation is a quadratic too, and its minimum solves

.. math:: \Big(\sum_i p_i M_i^\top Q_i M_i\Big)\, \theta_0 = \sum_i p_i M_i^\top (q_i - \alpha Q_i b_i).

Where support and query have one optimum :math:`\theta_i^*`, this is a mean of the optima with matrix weights
:math:`W_i = p_i M_i^\top Q_i M_i`. After K steps :math:`M_i = (I - \alpha A_i)^K` and :math:`\alpha b_i` becomes
:math:`\alpha \sum_{k<K} (I - \alpha A_i)^k b_i`. With :math:`\alpha = 0` it is the pooled regression.

References
----------
Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML (the objective); the normal
equations are those of weighted least squares.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import Floats, array, count, number, shares

__all__ = ["adapted_linear", "linear_initialization", "linear_weights", "squared_error_moments"]

Moments = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]
MOST_CONDITION = 1e12  # of the matrix that is solved with; beyond it a direction is not determined


def squared_error_moments(X: npt.ArrayLike, y: npt.ArrayLike) -> Moments:
    r"""Hessian and linear term of each task's mean squared error, whose gradient is :math:`A \theta - b`.

    Parameters
    ----------
    X : array-like of shape (tasks, rows, features)
        Inputs.
    y : array-like of shape (tasks, rows)
        Targets.

    Returns
    -------
    hessians : ndarray of shape (tasks, features, features)
        Twice the second moments of the inputs.
    linear : ndarray of shape (tasks, features)
        Twice the mean products of inputs and target.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> squared_error_moments([[[1.0], [2.0]]], [[2.0, 4.0]])
    (array([[[5.]]]), array([[10.]]))
    """
    x, target = array("X", X, 3), array("y", y, 2)
    if target.shape != x.shape[:2]:
        raise InvalidParameterError(f"y: got shape {target.shape}; expected {x.shape[:2]}, (tasks, rows) as in X.")
    n = x.shape[1]
    return 2 / n * np.einsum("tri,trj->tij", x, x), 2 / n * np.einsum("tri,tr->ti", x, target)


def adapted_linear(
    initialization: npt.ArrayLike, support: Moments, step_size: float, *, steps: int = 1
) -> npt.NDArray[np.float64]:
    """Parameters of each task after its gradient steps.

    Parameters
    ----------
    initialization : array-like of shape (features,)
        Where every task starts.
    support : tuple of ndarray
        What :func:`squared_error_moments` gives for the support.
    step_size : float
        Size of every step.
    steps : int, default=1
        Number of steps.

    Returns
    -------
    ndarray of shape (tasks, features)

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a setting cannot be used.

    Examples
    --------
    >>> adapted_linear([0.0], squared_error_moments([[[1.0], [2.0]]], [[2.0, 4.0]]), 0.1)
    array([[1.]])
    """
    start = array("initialization", initialization, 1)
    shrink, shift = _steps(*_pair("support", support), step_size, steps)
    if shift.shape[1] != len(start):
        raise InvalidParameterError(
            f"initialization: got {len(start)} values; expected {shift.shape[1]}, one a feature."
        )
    return shrink @ start + shift


def linear_weights(
    support_hessians: npt.ArrayLike,
    query_hessians: npt.ArrayLike,
    step_size: float,
    *,
    steps: int = 1,
    probabilities: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    r"""Matrix weights :math:`p_i M_i^\top Q_i M_i` of the tasks in the best initialisation.

    Parameters
    ----------
    support_hessians, query_hessians : array-like of shape (tasks, features, features)
        Hessians of each task's loss on its support and on its query.
    step_size : float
        Size of every inner step; 0 gives pooled regression.
    steps : int, default=1
        Number of inner steps.
    probabilities : array-like of shape (tasks,), default=None
        How often each task is met; None: equally often.

    Returns
    -------
    ndarray of shape (tasks, features, features)

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a setting cannot be used.

    Examples
    --------
    >>> linear_weights([[[2.0]], [[10.0]]], [[[2.0]], [[10.0]]], 0.1).ravel()  # the second is solved in one step
    array([0.64, 0.  ])
    """
    a, q = array("support_hessians", support_hessians, 3), array("query_hessians", query_hessians, 3)
    if a.shape != q.shape or a.shape[1] != a.shape[2]:
        raise InvalidParameterError(
            f"query_hessians: got shape {q.shape} beside {a.shape} of support_hessians; expected (tasks, features, features) twice."
        )
    shrink, _ = _steps(a, np.zeros(a.shape[:2]), step_size, steps)
    p = shares("probabilities", probabilities, len(a))
    return p[:, None, None] * (shrink.swapaxes(1, 2) @ q @ shrink)


def linear_initialization(
    support: Moments,
    query: Moments,
    step_size: float,
    *,
    steps: int = 1,
    probabilities: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """Return the initialisation with the least expected query loss after adaptation: where MAML lands.

    Parameters
    ----------
    support, query : tuple of ndarray
        What :func:`squared_error_moments` gives for each.
    step_size : float
        Size of every inner step; 0 gives pooled regression.
    steps : int, default=1
        Number of inner steps.
    probabilities : array-like of shape (tasks,), default=None
        How often each task is met; None: equally often.

    Returns
    -------
    ndarray of shape (features,)

    Raises
    ------
    InvalidParameterError
        If shapes do not fit, a setting cannot be used, or the tasks leave a direction undetermined.

    Examples
    --------
    >>> x = [[[1.0]], [[2.0]]]  # two tasks of one row: slopes 0 and 1, the second with a curvature four times as large
    >>> moments = squared_error_moments(x, [[0.0], [2.0]])
    >>> linear_initialization(moments, moments, 0.1).round(2)  # weights 2 * .8^2 and 8 * .2^2
    array([0.2])
    """
    (a, b), (q_hessian, q) = _pair("support", support), _pair("query", query)
    if a.shape != q_hessian.shape:
        raise InvalidParameterError(
            f"query: got Hessians of shape {q_hessian.shape}; expected {a.shape}, as those of support."
        )
    shrink, shift = _steps(a, b, step_size, steps)
    p = shares("probabilities", probabilities, len(a))
    total = linear_weights(a, q_hessian, step_size, steps=steps, probabilities=p).sum(0)
    if not np.linalg.cond(total) < MOST_CONDITION:
        raise InvalidParameterError(
            "query: after adaptation no task's loss depends on some direction of the initialisation, so none is best; give more "
            "rows or tasks, or another step_size (1 over a curvature solves that direction in one step)."
        )
    rest = q - np.einsum("tij,tj->ti", q_hessian, shift)
    found: Floats = np.linalg.solve(total, np.einsum("t,tji,tj->i", p, shrink, rest))
    return found


def _pair(name: str, moments: Moments) -> Moments:
    if not isinstance(moments, tuple) or len(moments) != 2:
        raise InvalidParameterError(
            f"{name}: got {type(moments).__name__}; expected the pair of squared_error_moments."
        )
    a, b = array(name, moments[0], 3), array(name, moments[1], 2)
    if a.shape != (*b.shape, b.shape[1]):
        raise InvalidParameterError(
            f"{name}: got shapes {a.shape} and {b.shape}; expected (tasks, features, features) and (tasks, features)."
        )
    return a, b


def _steps(a: Floats, b: Floats, step_size: float, steps: int) -> Moments:
    """Return M and c of theta_K = M theta_0 + c."""
    alpha = number("step_size", step_size, zero=True)
    one = np.eye(a.shape[1]) - alpha * a
    shrink, shift = np.broadcast_to(np.eye(a.shape[1]), a.shape), np.zeros_like(b)
    for _ in range(count("steps", steps, 0)):
        shrink, shift = one @ shrink, np.einsum("tij,tj->ti", one, shift) + alpha * b
    return shrink, shift
