r"""The most probable deviation of a task from its offset, under a Gaussian prior whose covariance is given.

A task's outputs are ``f = offset + g`` with ``g ~ N(0, K)`` over its rows, the same K for every output. What the support says is
kept as dual weights ``a``, so that a new row deviates by ``k_*^T a``. With values, ``a = (K + sigma^2 / W)^{-1} r``, exactly. With
classes, ``a = W (y - softmax(f))`` at the mode, found by Newton's method in the form that inverts neither K nor the curvature
(Rasmussen, Williams 2006, algorithm 3.3, here with row weights). Rows of weight 0 leave no trace.

References
----------
Rasmussen, Williams (2006), Gaussian processes for machine learning, algorithms 2.1 and 3.3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..tasks import Rows

__all__ = [
    "coefficients",
    "coefficients_of_two_classes",
    "coefficients_of_values",
    "dual_of_classes",
    "dual_of_values",
    "half_inverse",
]

NEWTON_STEPS = 50
# Change of a logit in one step: far from the mode the likelihood is nearly linear, and Newton overshoots.
FARTHEST = 4.0
CONVERGED = 1e-9


def half_inverse(covariance: Tensor, root: Tensor) -> Tensor:
    """Return H with ``H^T H = (K + P^{-1})^{-1}``, given the root of a diagonal P; shapes (..., n, n), (..., n) -> (..., n, n)."""
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype)
    factor = torch.linalg.cholesky(eye + root[..., :, None] * covariance * root[..., None, :])
    return torch.linalg.solve_triangular(factor, torch.diag_embed(root), upper=False)


def dual_of_values(half: Tensor, residual: Tensor) -> Tensor:
    """Return the dual weights of residuals of shape (..., n, outputs), given :func:`half_inverse` for P = W / sigma^2."""
    return half.transpose(-1, -2) @ (half @ residual)


def dual_of_classes(covariance: Tensor, offset: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return the dual weights at the mode; differentiable in `covariance`.

    Parameters
    ----------
    covariance : Tensor of shape (..., n, n)
        K.
    offset : Tensor of shape (..., n, classes)
        Logits without the deviation.
    y : Tensor of int, shape (..., n)
        Class codes.
    weight : Tensor of shape (..., n)
        Row weights.

    Returns
    -------
    Tensor of shape (..., n, classes)
    """
    if offset.shape[-1] == 2:
        # One latent is enough: the difference of two that vary independently.
        apart = offset[..., 1] - offset[..., 0]
        dual = _mode(_newton_of_two, 2 * covariance, apart[..., None], y.to(apart)[..., None], weight)
        return torch.cat([-dual, dual], -1)
    observed = torch.nn.functional.one_hot(y, offset.shape[-1]).to(offset)
    return _mode(_newton, covariance, offset, observed, weight)


def coefficients(classifies: bool, features: Tensor, rows: Rows, noise: float) -> Tensor:
    """Return the most probable coefficients under the prior N(0, I), through the smaller of the two: rows or features.

    Parameters
    ----------
    classifies : bool
        Whether the targets are class codes.
    features : Tensor of shape (tasks, n, p)
        Columns that the coefficients multiply.
    rows : Rows
        Targets and weights of shape (tasks, n), and ``extra["offset"]``, values or logits, (tasks, n, outputs).
    noise : float
        Variance of the noise of values.

    Returns
    -------
    Tensor of shape (tasks, p, outputs)
    """
    offset, many = rows.extra["offset"], features.shape[1] > features.shape[2]
    if not classifies:
        residual, precision = rows.y - offset, rows.weight / noise
        if many:
            return coefficients_of_values(features, precision, residual)
        half = half_inverse(features @ features.transpose(1, 2), precision.sqrt())
        return features.transpose(1, 2) @ dual_of_values(half, residual)
    if many and offset.shape[2] == 2:
        return coefficients_of_two_classes(features, offset, rows.y, rows.weight)
    dual = dual_of_classes(features @ features.transpose(1, 2), offset, rows.y, rows.weight)
    return features.transpose(1, 2) @ dual


def coefficients_of_values(features: Tensor, precision: Tensor, residual: Tensor) -> Tensor:
    """Coefficients with the prior N(0, I), where there are more rows than features: the same deviation as by dual weights.

    Parameters
    ----------
    features : Tensor of shape (..., n, p)
        Whose products are the covariance.
    precision : Tensor of shape (..., n)
        W / sigma^2.
    residual : Tensor of shape (..., n, outputs)
        What the offset leaves.

    Returns
    -------
    Tensor of shape (..., p, outputs)
    """
    weighted = (features * precision[..., None]).transpose(-1, -2)
    eye = torch.eye(features.shape[-1], dtype=features.dtype)
    found: Tensor = torch.linalg.solve(weighted @ features + eye, weighted @ residual)
    return found


def coefficients_of_two_classes(features: Tensor, offset: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Return the coefficients at the mode; shapes as of :func:`coefficients_of_values` and :func:`dual_of_classes`."""
    wide = math.sqrt(2) * features  # of the difference of two logits, which has twice the variance
    apart, observed = (offset[..., 1] - offset[..., 0])[..., None], y.to(offset)[..., None]
    w, eye = weight[..., None], torch.eye(features.shape[-1], dtype=features.dtype)
    found = torch.zeros(*features.shape[:-2], features.shape[-1], 1, dtype=features.dtype)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(apart + wide @ found)
        gradient = wide.transpose(-1, -2) @ (w * (observed - p)) - found
        step = torch.linalg.solve(wide.transpose(-1, -2) @ (w * p * (1 - p) * wide) + eye, gradient)
        size = (wide @ step).abs().amax((-1, -2), keepdim=True)
        found = found + step / (size / FARTHEST).clamp(min=1)
        if float(size.max()) < CONVERGED:
            break
    return torch.cat([-found, found], -1) / math.sqrt(2)


def _mode(
    newton: Callable[..., Tensor], covariance: Tensor, offset: Tensor, observed: Tensor, weight: Tensor
) -> Tensor:
    """Dual weights at the mode, by damped Newton steps."""
    with torch.no_grad():
        dual = torch.zeros_like(offset + covariance[..., :1] * 0)
        for _ in range(NEWTON_STEPS):
            new = newton(covariance, offset, observed, weight, covariance @ dual)
            change = covariance @ (new - dual)
            size = change.abs().amax((-1, -2), keepdim=True) if change.numel() else change
            dual = dual + (new - dual) / (size / FARTHEST).clamp(min=1)
            if not size.numel() or float(size.max()) < CONVERGED:
                break
    if not (covariance.requires_grad or offset.requires_grad):
        return dual
    # Newton's iteration has no derivative by its starting point at the mode, so that one more step has the mode's derivative.
    return newton(covariance, offset, observed, weight, (covariance @ dual).detach())


def _newton_of_two(covariance: Tensor, offset: Tensor, observed: Tensor, weight: Tensor, deviation: Tensor) -> Tensor:
    """Dual weights of the difference of two logits after one step from this deviation."""
    p = torch.sigmoid(offset + deviation)
    w = weight[..., None]
    curvature = w * p * (1 - p)
    target = curvature * deviation + w * (observed - p)
    half = half_inverse(covariance, (w.sqrt() * (p * (1 - p)).sqrt())[..., 0])
    return target - half.transpose(-1, -2) @ (half @ (covariance @ target))


def _newton(covariance: Tensor, offset: Tensor, observed: Tensor, weight: Tensor, deviation: Tensor) -> Tensor:
    """Dual weights after one step from this deviation."""
    p = torch.softmax(offset + deviation, -1)
    w = weight[..., None]
    # The likelihood's curvature times the deviation.
    curved = w * (p * deviation - p * (p * deviation).sum(-1, keepdim=True))
    target = curved + w * (observed - p)
    root = (w.sqrt() * p.sqrt()).transpose(-1, -2)  # (..., classes, n); weights may be 0, but have no derivative
    half = half_inverse(covariance.unsqueeze(-3), root)
    e = half.transpose(-1, -2) @ half  # (..., classes, n, n)
    c = (e @ (covariance @ target).transpose(-1, -2)[..., None])[..., 0]  # (..., classes, n)
    total = e.sum(-3) + torch.diag_embed((weight <= 0).to(e.dtype))
    shared = torch.linalg.solve(total, c.sum(-2)[..., None])
    back = (e @ shared.unsqueeze(-3))[..., 0]
    return target + (back - c).transpose(-1, -2)
