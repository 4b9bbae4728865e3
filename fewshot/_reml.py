r"""Restricted maximum likelihood for a linear mixed model with independent random effects.

For task t, :math:`y_t = X_t \beta + Z_t b_t + e_t` with :math:`b_t \sim N(0, \sigma^2 \Lambda)`, :math:`\Lambda` diagonal,
:math:`e_t \sim N(0, \sigma^2 I)`. Only the products of the columns enter, task by task, so a step costs the same however
many rows there are; :math:`\beta` and :math:`\sigma^2` are profiled out and the ratios :math:`\Lambda` found by L-BFGS.

References
----------
Patterson and Thompson (1971), Recovery of inter-block information when block sizes are unequal. Biometrika 58.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

__all__ = ["Moments", "Variances", "blup", "estimate", "moments", "products_by_task", "restricted_likelihood"]

Floats = npt.NDArray[np.float64]
LOG_RATIO = (-16.0, 10.0)  # beyond these an effect is absent, or as good as unpenalised
RIDGE = 1e-10  # relative; lets collinear features share a coefficient and constant ones have none, instead of failing


class Moments(NamedTuple):
    """Weighted products of targets y, fixed columns X (d of them) and random columns Z (q), in tasks.

    Parameters
    ----------
    n : int
        Number of rows.
    yy, xy, xx : float, ndarray of shape (d,), ndarray of shape (d, d)
        Products over all rows.
    zz, zx, zy : ndarray of shape (tasks, q, q), (tasks, q, d), (tasks, q)
        Products within each task.
    """

    n: int
    yy: float
    xy: Floats
    xx: Floats
    zz: Floats
    zx: Floats
    zy: Floats


class Variances(NamedTuple):
    """Estimates: coefficients (d,), ratios of random-effect variances to the noise's (q,), noise variance."""

    beta: Floats
    ratios: Floats
    noise: float


def products_by_task(a: Floats, b: Floats, codes: npt.NDArray[np.int64], n_tasks: int) -> Floats:
    """Return ``a.T @ b`` of the rows of each task, shape (tasks, columns of a, columns of b)."""
    order = np.argsort(codes, kind="stable")
    a, b = a[order], b[order]
    ends = np.cumsum(np.bincount(codes, minlength=n_tasks))
    out = np.empty((n_tasks, a.shape[1], b.shape[1]))
    for task, (start, end) in enumerate(pairwise([0, *ends])):
        out[task] = a[start:end].T @ b[start:end]
    return out


def moments(x: Floats, n_random: int, y: Floats, weight: Floats, codes: npt.NDArray[np.int64], n_tasks: int) -> Moments:
    """Work out the products for columns of which the first `n_random` vary from task to task.

    Parameters
    ----------
    x : ndarray of shape (rows, d)
        Columns, a column of ones among them if there is an intercept.
    n_random : int
        How many have random effects.
    y : ndarray of shape (rows,)
        Targets.
    weight : ndarray of shape (rows,)
        Row weights; rows of weight 0 do not count.
    codes : ndarray of int, shape (rows,)
        Task of each row.
    n_tasks : int
        Number of tasks.
    """
    weighted = x * weight[:, None]
    within = products_by_task(x[:, :n_random], np.column_stack([weighted, weight * y]), codes, n_tasks)
    return Moments(
        n=int((weight > 0).sum()),
        yy=float((weight * y * y).sum()),
        xy=weighted.T @ y,
        xx=x.T @ weighted,
        zz=within[:, :, :n_random],
        zx=within[:, :, :-1],
        zy=within[:, :, -1],
    )


def _profile(log_ratios: Floats, m: Moments) -> tuple[float, Floats, Floats, float]:
    """Minus twice the restricted log-likelihood (up to a constant), its gradient, coefficients and noise variance."""
    scale, d = np.exp(log_ratios / 2), len(m.xy)
    # By Woodbury's identity Z'V^-1 B = Z'B - Z'Z L (I + L Z'Z L)^-1 L Z'B, with L the square root of the ratios.
    inner = scale[:, None] * m.zz * scale + np.eye(len(scale))
    zb = np.concatenate([m.zx, m.zy[:, :, None], m.zz], axis=2)
    solved = np.linalg.solve(inner, scale[:, None] * zb)
    zvb = zb - (m.zz * scale) @ solved
    explained = np.tensordot(scale[:, None] * zb[:, :, : d + 1], solved[:, :, : d + 1], axes=([0, 1], [0, 1]))
    xvx = m.xx - explained[:d, :d] + RIDGE * np.trace(m.xx) / d * np.eye(d)
    root = cholesky(xvx, lower=True)
    u = solve_triangular(root, m.xy - explained[:d, d], lower=True)
    beta = solve_triangular(root, u, lower=True, trans=1)
    freedom = max(m.n - d, 1)
    rest = max(m.yy - explained[d, d] - u @ u, 1e-12 * m.yy + 1e-300)
    value = freedom * np.log(rest / freedom)
    value += np.linalg.slogdet(inner)[1].sum() + 2 * np.log(np.diagonal(root)).sum()

    zvx, zvy, zvz = zvb[:, :, :d], zvb[:, :, d], zvb[:, :, d + 1 :]
    through_beta = solve_triangular(root, zvx.reshape(-1, d).T, lower=True).reshape(d, *zvy.shape)
    by_ratio = (
        np.diagonal(zvz, axis1=1, axis2=2).sum(0)
        - (through_beta**2).sum((0, 1))
        - freedom / rest * ((zvy - zvx @ beta) ** 2).sum(0)
    )
    return float(value), by_ratio * scale**2, beta, rest / freedom


def restricted_likelihood(m: Moments, ratios: npt.ArrayLike) -> tuple[float, Floats]:
    """Minus twice the restricted log-likelihood up to a constant, and its gradient in the log ratios."""
    return _profile(np.log(np.asarray(ratios, dtype=np.float64)), m)[:2]


def estimate(m: Moments) -> Variances:
    """Return the restricted-maximum-likelihood estimates."""
    q = m.zz.shape[1]
    start = np.full(q, -3.0)
    start[0] = 0.0  # tasks differ in level more than in slopes
    found = minimize(lambda at: _profile(at, m)[:2], start, jac=True, method="L-BFGS-B", bounds=[LOG_RATIO] * q)
    _, _, beta, noise = _profile(found.x, m)
    ratios = np.where(found.x <= LOG_RATIO[0] + 1e-6, 0.0, np.exp(found.x))
    return Variances(beta, ratios, float(noise))


def blup(zz: Floats, zr: Floats, ratios: Floats) -> Floats:
    """Best linear unbiased predictions of the random effects from each task's products.

    Parameters
    ----------
    zz : ndarray of shape (tasks, q, q)
        Products of the random columns.
    zr : ndarray of shape (tasks, q)
        Products of the random columns with the residuals of the fixed part.
    ratios : ndarray of shape (q,)
        Variances of the random effects over the noise variance.

    Returns
    -------
    ndarray of shape (tasks, q)
    """
    scale = np.sqrt(ratios)
    inner = scale[:, None] * zz * scale + np.eye(len(scale))
    return scale * np.linalg.solve(inner, (scale * zr)[..., None])[..., 0]
