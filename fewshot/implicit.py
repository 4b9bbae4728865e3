"""The derivative of a query loss in the initialisation through the solution of a proximal inner problem.

Where the inner loop has solved ``theta* = argmin L_S(theta) + lambda/2 ||theta - theta_0||^2``, the influence of the initialisation
follows from that equation alone: ``d theta* / d theta_0 = (I + H_S / lambda)^{-1}``, whatever path led there. So the meta-gradient
u solves ``(I + H_S / lambda) u = grad L_Q(theta*)``, by conjugate gradients with Hessian products only, and memory does not
depend on the number of inner steps (Rajeswaran, Finn, Kakade, Levine 2019, section 2). Shared parameters act on theta* through
the support loss too: ``- (d^2 L_S / ds d theta) u / lambda`` is added to their gradient, for which the paper, where all parameters
move, has no need.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .kernels import Kernels
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["implicit_pull_back"]

CG_STEPS = 5  # as the paper's experiments
CONVERGED = 1e-20  # squared residual, relative to the first
LEAST_CURVATURE = 0.5  # of I + H / lambda along a direction; it is 1 or more wherever the support loss is convex


def implicit_pull_back(
    kernels: Kernels,
    theta: Tensors,
    shared: Tensors,
    support: Rows,
    cotangent: Tensors,
    proximal: float,
    *,
    seed: int = 0,
    step: int = 0,
    cg_steps: int = CG_STEPS,
) -> tuple[Tensors, Tensors]:
    """Pull a cotangent of the solutions of the inner problem back to what they depend on.

    Parameters
    ----------
    kernels : Kernels
        How Hessian products are made.
    theta : dict of str to Tensor
        Solutions, with a leading task axis.
    shared : dict of str to Tensor
        Parameters that do not move.
    support : Rows
        Support rows.
    cotangent : dict of str to Tensor
        Of `theta`.
    proximal : float
        Strength lambda of the proximal term, above 0.
    seed, step : int
        Of the inner loop's last step, see :class:`fewshot.kernels.Kernels`.
    cg_steps : int, default=5
        Steps of conjugate gradients at most. A task stops at a direction of negative curvature, as its solution is no minimum.

    Returns
    -------
    of_start : dict of str to Tensor
        Cotangent of the initial parameters, with a leading task axis.
    of_shared : dict of str to Tensor
        What shared parameters get through the solutions, with a leading task axis.
    """

    def apply(direction: Tensors) -> Tensors:
        _, hv, _ = kernels.curvature(theta, shared, support, direction, seed, step)
        return {name: v + hv[name] / proximal for name, v in direction.items()}

    u = {name: torch.zeros_like(v) for name, v in cotangent.items()}
    residual = direction = cotangent
    size = first = _dot(residual, residual)
    for _ in range(cg_steps):
        image = apply(direction)
        curvature = _dot(direction, image)
        active = (curvature > LEAST_CURVATURE * _dot(direction, direction)) & (size > CONVERGED * first)
        if not bool(active.any()):
            break
        length = torch.where(active, size / torch.where(active, curvature, 1.0), 0.0)
        u = _add(u, length, direction)
        residual = _add(residual, -length, image)
        before, size = size, _dot(residual, residual)
        ratio = torch.where(active & (before > 0), size / torch.where(before > 0, before, 1.0), 0.0)
        direction = _add(residual, ratio, direction)
    _, _, of_shared = kernels.curvature(theta, shared, support, u, seed, step) if shared else ({}, {}, {})
    return u, {name: -v / proximal for name, v in of_shared.items()}


def _dot(a: Tensors, b: Tensors) -> Tensor:
    """Products of each task's tensors, summed; shape (tasks,)."""
    total: Tensor = torch.stack([(a[name] * b[name]).flatten(1).sum(1) for name in a]).sum(0)
    return total


def _add(a: Tensors, factor: Tensor, b: Tensors) -> Tensors:
    """Return ``a + factor * b``, with one factor for each task."""
    return {name: v + factor.reshape(-1, *(1,) * (v.ndim - 1)) * b[name] for name, v in a.items()}
