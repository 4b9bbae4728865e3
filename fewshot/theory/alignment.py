r"""Gradient alignment: whether the first step goes towards the task's optimum.

The cosine of :math:`-\nabla L_i(\theta_0)` with :math:`\theta_i^* - \theta_0` is 1 where the step goes straight there, and with the
right step size arrives. For a quadratic loss with Hessian H and :math:`d = \theta_i^* - \theta_0`, the gradient is :math:`-H d` and

.. math:: \cos = \frac{d^\top H d}{\lVert d \rVert \, \lVert H d \rVert} \ge \frac{2 \sqrt\kappa}{1 + \kappa},

with :math:`\kappa` the condition number of H (Kantorovich's inequality). It is 1 where d is an eigenvector. Meta-training moves
:math:`\theta_0` to where the directions d that are left are those in which tasks differ; it raises the alignment where these are
close to eigenvectors, which an arbitrary start's directions are not.

References
----------
Kantorovich (1948), Functional analysis and applied mathematics, Uspekhi Matematicheskikh Nauk 3(6) (the inequality).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import Floats, array

__all__ = ["gradient_alignment", "least_alignment", "quadratic_alignment"]


def gradient_alignment(
    gradients: npt.ArrayLike, optima: npt.ArrayLike, initialization: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    r"""Cosine of :math:`-\nabla L_i(\theta_0)` with :math:`\theta_i^* - \theta_0`, for each task.

    Parameters
    ----------
    gradients : array-like of shape (tasks, parameters)
        Of each task's support loss at the initialisation.
    optima : array-like of shape (tasks, parameters)
        Where each task's loss is least.
    initialization : array-like of shape (parameters,)
        Where every task starts.

    Returns
    -------
    ndarray of shape (tasks,)
        NaN for a task that starts at its optimum, or whose gradient is 0.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> gradient_alignment([[-1.0, 0.0], [-1.0, -1.0]], [[2.0, 0.0], [2.0, 0.0]], [0.0, 0.0]).round(3)
    array([1.   , 0.707])
    """
    g, star = array("gradients", gradients, 2), array("optima", optima, 2)
    start = array("initialization", initialization, 1)
    if g.shape != star.shape or g.shape[1] != len(start):
        raise InvalidParameterError(
            f"gradients: got shape {g.shape}, beside optima of {star.shape} and an initialization of {start.shape}; expected "
            "(tasks, parameters) twice, and (parameters,)."
        )
    return _cosine(-g, star - start)


def quadratic_alignment(hessians: npt.ArrayLike, displacements: npt.ArrayLike) -> npt.NDArray[np.float64]:
    r"""Alignment for quadratic losses, :math:`d^\top H d / (\lVert d \rVert \lVert H d \rVert)`.

    Parameters
    ----------
    hessians : array-like of shape (tasks, parameters, parameters) or (parameters, parameters)
        Of each task's loss, or one for all.
    displacements : array-like of shape (tasks, parameters)
        Optimum less initialisation.

    Returns
    -------
    ndarray of shape (tasks,)
        NaN for a displacement of 0.

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a value is not finite.

    Examples
    --------
    >>> quadratic_alignment([[1.0, 0.0], [0.0, 9.0]], [[1.0, 0.0], [3.0, 1.0]])
    array([1. , 0.6])
    """
    d, h = array("displacements", displacements, 2), array("hessians", hessians, 2, 3)
    if h.shape[-2:] != (d.shape[1], d.shape[1]) or (h.ndim == 3 and len(h) != len(d)):
        raise InvalidParameterError(
            f"hessians: got shape {h.shape}; expected ({len(d)}, {d.shape[1]}, {d.shape[1]}) or ({d.shape[1]}, {d.shape[1]})."
        )
    return _cosine(np.einsum("...ij,...j->...i", h, d), d)


def least_alignment(hessian: npt.ArrayLike) -> float:
    r"""Least alignment that a quadratic loss allows in any direction, :math:`2 \sqrt\kappa / (1 + \kappa)`.

    Parameters
    ----------
    hessian : array-like of shape (parameters, parameters)
        Positive definite.

    Returns
    -------
    float

    Raises
    ------
    InvalidParameterError
        If it is not a positive definite matrix.

    Examples
    --------
    >>> round(least_alignment([[1.0, 0.0], [0.0, 9.0]]), 12)
    0.6
    """
    h = array("hessian", hessian, 2)
    if h.shape[0] != h.shape[1] or not np.allclose(h, h.T):
        raise InvalidParameterError(f"hessian: got shape {h.shape}; expected a symmetric matrix.")
    values = np.linalg.eigvalsh(h)
    if values[0] <= 0:
        raise InvalidParameterError(
            f"hessian: got a least eigenvalue of {values[0]:g}; expected a positive one, or a direction may point away."
        )
    kappa = values[-1] / values[0]
    return float(2 * np.sqrt(kappa) / (1 + kappa))


def _cosine(a: Floats, b: Floats) -> Floats:
    size = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    found = np.full(len(size), np.nan)
    np.divide((a * b).sum(-1), size, out=found, where=size > 0)
    return found
