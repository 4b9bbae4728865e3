r"""The meta-gradient is the query gradient times a product of ``I - alpha H``, and first-order MAML leaves the product out.

With :math:`\theta_{k+1} = \theta_k - \alpha_k \nabla L_S(\theta_k)` and :math:`H_k = \nabla^2 L_S(\theta_k)`,

.. math:: \nabla_{\theta_0} L_Q(\theta_K) = (I - \alpha_0 H_0) \cdots (I - \alpha_{K-1} H_{K-1}) \nabla L_Q(\theta_K).

Written as a recursion, :math:`v_K = \nabla L_Q(\theta_K)` and :math:`v_k = v_{k+1} - \alpha_k H_k v_{k+1}`. First-order MAML takes
:math:`v_K` for :math:`v_0`, so its error is the sum of what the recursion takes off,
:math:`v_K - v_0 = \sum_k \alpha_k H_k v_{k+1}`: the Hessian terms and nothing else.

The engine never forms a Hessian; these functions do, and are what it is compared with.

References
----------
Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML, section 5.2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import Floats, array

__all__ = ["first_order_error", "meta_gradient_product"]


def meta_gradient_product(
    hessians: npt.ArrayLike, step_sizes: npt.ArrayLike, query_gradient: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""Meta-gradient of one task from the Hessians of its support loss along the way.

    Parameters
    ----------
    hessians : array-like of shape (steps, parameters, parameters)
        Second derivatives of the support loss before each step.
    step_sizes : array-like of shape (), (steps,) or (steps, parameters)
        :math:`\alpha_k`, one for all, one for each step, or one for each step and parameter.
    query_gradient : array-like of shape (parameters,)
        Gradient of the query loss at the adapted parameters.

    Returns
    -------
    ndarray of shape (parameters,)
        Gradient of the query loss after adaptation in the initialisation.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> H = [[2.0, 0.0], [0.0, 1.0]]
    >>> meta_gradient_product([H], 0.25, [1.0, 1.0])  # one step: (I - alpha H) g
    array([0.5 , 0.75])
    """
    h, alpha, g = _checked(hessians, step_sizes, query_gradient)
    return g - _removed(h, alpha, g)


def first_order_error(
    hessians: npt.ArrayLike, step_sizes: npt.ArrayLike, query_gradient: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""First-order meta-gradient less the exact one, :math:`\sum_k \alpha_k H_k v_{k+1}`.

    Parameters
    ----------
    hessians, step_sizes, query_gradient : array-like
        As of :func:`meta_gradient_product`.

    Returns
    -------
    ndarray of shape (parameters,)
        With one step :math:`\alpha H \nabla L_Q`.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> H = [[2.0, 0.0], [0.0, 1.0]]
    >>> first_order_error([H], 0.25, [1.0, 1.0])
    array([0.5 , 0.25])
    """
    return _removed(*_checked(hessians, step_sizes, query_gradient))


def _removed(hessians: Floats, alpha: Floats, query_gradient: Floats) -> Floats:
    removed = np.zeros_like(query_gradient)
    for h, a in zip(hessians[::-1], alpha[::-1], strict=True):
        removed = removed + h @ (a * (query_gradient - removed))
    return removed


def _checked(hessians: npt.ArrayLike, step_sizes: npt.ArrayLike, query_gradient: npt.ArrayLike) -> tuple[Floats, ...]:
    g, h = array("query_gradient", query_gradient, 1), array("hessians", hessians, 3)
    if h.shape[1:] != (len(g), len(g)):
        raise InvalidParameterError(
            f"hessians: got shape {h.shape}; expected (steps, {len(g)}, {len(g)}) for a query_gradient of {len(g)} values."
        )
    alpha = array("step_sizes", step_sizes, 0, 1, 2)
    if alpha.ndim and alpha.shape not in ((len(h),), (len(h), len(g))):
        raise InvalidParameterError(
            f"step_sizes: got shape {alpha.shape}; expected one number, ({len(h)},) or ({len(h)}, {len(g)})."
        )
    return h, np.broadcast_to(alpha[:, None] if alpha.ndim == 1 else alpha, (len(h), len(g))), g
