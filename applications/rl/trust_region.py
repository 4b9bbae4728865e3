"""The outer step of MAML for policies: a natural-gradient step inside a trust region around the *adapted* policies.

The constraint is on the mean Kullback-Leibler divergence of the policies after adaptation, on the observations that these met
(Finn, Abbeel, Levine 2017, section 5.3; Schulman et al. 2015). Its second derivative at the current point is J^T F J: F the Fisher
information of the adapted policies, J the derivative of the adapted parameters in the initial ones, K factors (I - alpha H). Both
J and its transpose are made of products with the Hessian H, which is symmetric, so the kernel of the meta-gradient's pull-back
serves all three and nothing is unrolled.

Conjugate gradients need many such products and no accuracy: they run on a part of the rows.

References
----------
Schulman, Levine, Moritz, Jordan, Abbeel (2015), Trust region policy optimization, ICML, appendix C.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.adaptation import Adaptation, Tensors, effective_rows
from fewshot.kernels import Kernels
from fewshot.metagradient import MetaParameters, task_shares
from fewshot.tasks import Rows

__all__ = ["AdaptedFisher", "conjugate_gradient", "trust_region_step"]


@dataclass(frozen=True)
class AdaptedFisher:
    """Second derivative, in the initial parameters, of the divergence between adapted policies.

    Parameters
    ----------
    kernels : Kernels
        Of the surrogate.
    divergence : Kernels
        Of the Kullback-Leibler divergence from the outputs in the rows' targets.
    adaptation : Adaptation
        The inner loop.
    parameters : MetaParameters
        Where it starts; everything moves.
    path : list of dict of str to Tensor
        Adapted parameters before the first step, after it, ...
    supports : sequence of Rows
        Of each step.
    query : Rows
        Observations of the adapted policies, with their outputs as targets.
    damping : float
        Added to the diagonal.
    """

    kernels: Kernels
    divergence: Kernels
    adaptation: Adaptation
    parameters: MetaParameters
    path: list[Tensors]
    supports: Sequence[Rows]
    query: Rows
    damping: float = 1e-2

    def __call__(self, vector: Tensor) -> Tensor:
        """Multiply by a vector; shapes (n,) -> (n,)."""
        n_tasks = len(self.query.x)
        shape = {name: p.shape for name, p in self.parameters.moving.items()}
        parts = vector.split([s.numel() for s in shape.values()])
        v = {
            name: part.view(shape[name]).expand(n_tasks, *shape[name]) for name, part in zip(shape, parts, strict=True)
        }
        steps = range(len(self.supports))
        for k in steps:
            along = self._curvature(k, v)
            scaled = self._scaled(k, along)
            v = {name: t - scaled[name] for name, t in v.items()}
        fisher = self.divergence.curvature(self.path[-1], self.parameters.shared, self.query, v, 0)[1]
        share = task_shares(self.query)
        v = {name: t * share.reshape(-1, *(1,) * (t.ndim - 1)) for name, t in fisher.items()}
        for k in reversed(steps):
            along = self._curvature(k, self._scaled(k, v))
            v = {name: t - along[name] for name, t in v.items()}
        return torch.cat([t.sum(0).reshape(-1) for t in v.values()]) + self.damping * vector

    def _curvature(self, k: int, direction: Tensors) -> Tensors:
        return self.kernels.curvature(self.path[k], self.parameters.shared, self.supports[k], direction, 0)[1]

    def _scaled(self, k: int, v: Tensors) -> Tensors:
        sizes = self.adaptation.at(self.parameters.sizes, k)
        return sizes.direction(v, effective_rows(self.supports[k].weight))


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, iterations: int, tolerance: float = 1e-6
) -> Tensor:
    """Solve ``product(x) = b`` approximately, for a symmetric positive definite product.

    Parameters
    ----------
    product : callable
        Linear.
    b : Tensor of shape (n,)
        Right-hand side.
    iterations : int
        At most so many products.
    tolerance : float, default=1e-6
        Stop at this squared norm of the residual, relative to that of `b`.

    Examples
    --------
    >>> conjugate_gradient(lambda v: 2 * v, torch.tensor([4.0, 6.0]), 5)
    tensor([2., 3.])
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    size = start = float(torch.dot(residual, residual))
    for _ in range(iterations):
        if not size > tolerance * start:
            break
        along = product(direction)
        curvature = float(torch.dot(direction, along))
        if not curvature > 0:  # rounding, or a Hessian from a part of the rows
            break
        step = size / curvature
        x += step * direction
        residual -= step * along
        before, size = size, float(torch.dot(residual, residual))
        direction = residual + (size / before) * direction
    return x


def trust_region_step(
    gradient: Tensor,
    fisher: Callable[[Tensor], Tensor],
    evaluate: Callable[[Tensor], tuple[float, float]],
    *,
    max_kl: float,
    loss: float,
    iterations: int = 10,
    backtracks: int = 10,
    shrink: float = 0.5,
) -> tuple[Tensor, float, float]:
    """Find the change of the parameters.

    Parameters
    ----------
    gradient : Tensor of shape (n,)
        Of the loss.
    fisher : callable
        Product with the second derivative of the divergence.
    evaluate : callable
        ``change -> (loss, divergence)`` at changed parameters.
    max_kl : float
        Bound of the divergence.
    loss : float
        Before the change.
    iterations : int, default=10
        Of conjugate gradients.
    backtracks : int, default=10
        The change is shortened so many times at most.
    shrink : float, default=0.5
        By this factor.

    Returns
    -------
    change : Tensor of shape (n,)
        Zero if no length gave less loss within the bound.
    loss, divergence : float
        After it.
    """
    direction = conjugate_gradient(fisher, -gradient, iterations)
    curvature = float(torch.dot(direction, fisher(direction)))
    nothing = torch.zeros_like(gradient)
    if not curvature > 0 or not torch.isfinite(direction).all():
        return nothing, loss, 0.0
    change = direction * (2 * max_kl / curvature) ** 0.5
    for _ in range(backtracks):
        after, divergence = evaluate(change)
        if after < loss and divergence <= max_kl:
            return change, after, divergence
        change = change * shrink
    return nothing, loss, 0.0
