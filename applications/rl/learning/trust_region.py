"""The outer step of MAML for policies: a natural-gradient step inside a trust region around the *adapted* policies.

The constraint is on the mean Kullback-Leibler divergence of the policies after adaptation, on the observations that these met
(Finn, Abbeel, Levine 2017, section 5.3; Schulman et al. 2015). Its second derivative at the current point is J^T F J: F the Fisher
information of the adapted policies, J the derivative of the adapted parameters in the initial ones, K factors (I - alpha H). All
of it is products with symmetric second derivatives of losses of rows, so nothing is unrolled.

Conjugate gradients need many such products and no accuracy: they run on a part of the rows, and the product is recorded once as
a graph, in which what the Hessians of one step have in common is computed once. What does not depend on the vector, all forward
passes and gradients, is computed once for all products.

References
----------
Schulman, Levine, Moritz, Jordan, Abbeel (2015), Trust region policy optimization, ICML, appendix C.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import grad, vjp, vmap
from torch.utils._pytree import tree_leaves

from fewshot.adaptation import Adaptation
from fewshot.functional import FunctionalModule, differentiable_forward
from fewshot.metagradient import MetaParameters, task_shares
from fewshot.recording import Recorded
from fewshot.step_sizes import Tensors, effective_rows
from fewshot.tasks import Rows

__all__ = ["AdaptedFisher", "conjugate_gradient", "trust_region_step"]

logger = logging.getLogger("fewshot")


class AdaptedFisher:
    """Second derivative, in the initial parameters, of the divergence between adapted policies.

    Parameters
    ----------
    functional : FunctionalModule
        The policy network under its surrogate.
    divergence : callable
        Row loss ``(output, target) -> loss``: from the outputs that are the targets to others.
    adaptation : Adaptation
        The inner loop.
    order : {"exact", "first"}, default="exact"
        "first" leaves out the Hessians: J is the identity, as in the first-order meta-gradient.
    damping : float, default=0.01
        Added to the diagonal.
    """

    def __init__(
        self,
        functional: FunctionalModule,
        divergence: Callable[[Tensor, Tensor], Tensor],
        adaptation: Adaptation,
        order: str = "exact",
        damping: float = 1e-2,
    ) -> None:
        self.functional, self.adaptation, self.order, self.damping = functional, adaptation, order, damping
        self._judged = functional.copy()
        self._judged.row_loss = divergence
        self._recorded: dict[Any, tuple[Callable[..., Any], Callable[..., Any]] | None] = {}

    def product(
        self, parameters: MetaParameters, path: Sequence[Tensors], supports: Sequence[Rows], query: Rows
    ) -> Callable[[Tensor], Tensor]:
        """Return the function that multiplies by a vector; shapes (n,) -> (n,).

        Parameters
        ----------
        parameters : MetaParameters
            Where it is taken; everything moves.
        path : sequence of dict of str to Tensor
            Adapted parameters before the first step, after it, ...; each with a leading task axis.
        supports : sequence of Rows
            Of each step.
        query : Rows
            Observations of the adapted policies, with their outputs as targets.
        """
        if self.order == "first":
            path, supports = path[-1:], []
        scales = []
        for k, support in enumerate(supports):
            ones = {name: torch.ones_like(value) for name, value in path[k].items()}
            scales.append(self.adaptation.at(parameters.sizes, k).direction(ones, effective_rows(support.weight)))
        share = task_shares(query)
        arguments = list(path), scales, dict(self.functional.constant), list(supports), query
        shapes = {name: p.shape for name, p in parameters.moving.items()}

        def split(vector: Tensor) -> Tensors:
            parts = vector.split([s.numel() for s in shapes.values()])
            return {name: part.view(s) for (name, s), part in zip(shapes.items(), parts, strict=True)}

        def multiplied(vector: Tensor, arguments: Any, share: Tensor) -> Tensor:
            out = vmap(self._of_task, (None, 0, 0, None, 0, 0))(split(vector), *arguments)
            return torch.cat([torch.tensordot(share, t, 1).reshape(-1) for t in out.values()])

        example = torch.zeros(sum(s.numel() for s in shapes.values()), dtype=share.dtype)
        key = tuple((t.shape, t.dtype) for t in tree_leaves(arguments))
        if key not in self._recorded:
            self._recorded[key] = _recorded(multiplied, (example, arguments, share))
        recorded = self._recorded[key]
        if recorded is None:
            return lambda vector: multiplied(vector, arguments, share) + self.damping * vector
        before, after = recorded
        bound = before(*(t.contiguous() for t in tree_leaves((arguments, share))))
        return lambda vector: after(vector, *bound)[0] + self.damping * vector

    def _of_task(
        self,
        v: Tensors,
        path: list[Tensors],
        scales: list[Tensors],
        constant: Tensors,
        supports: list[Rows],
        query: Rows,
    ) -> Tensors:
        pulls: list[Callable[[Tensors], tuple[Tensors]]] = []
        for theta, scale, support in zip(path, scales, supports, strict=False):
            pulls.append(_curvature(self.functional, theta, constant, support))
            along = pulls[-1](v)[0]
            v = {name: t - scale[name] * along[name] for name, t in v.items()}
        v = _curvature(self._judged, path[-1], constant, query)(v)[0]
        for pull, scale in zip(reversed(pulls), reversed(scales), strict=True):
            along = pull({name: scale[name] * t for name, t in v.items()})[0]
            v = {name: t - along[name] for name, t in v.items()}
        return v


def _curvature(
    functional: FunctionalModule, theta: Tensors, constant: Tensors, rows: Rows
) -> Callable[[Tensors], tuple[Tensors]]:
    """Product with the second derivative of one task's loss, which is symmetric."""
    result: Any = vjp(lambda m: grad(functional.support_loss)(m, {}, constant, rows), theta)
    pull_back: Callable[[Tensors], tuple[Tensors]] = result[1]
    return pull_back


def _recorded(
    function: Callable[..., Any], arguments: tuple[Any, ...]
) -> tuple[Callable[..., Any], Callable[..., Any]] | None:
    """Record a function, if it can be, in two parts: what the first argument does not change, and the rest."""
    try:
        with differentiable_forward():
            return Recorded(function, arguments).split(1)
    except RuntimeError as error:
        logger.debug("trust region: running unrecorded (%s)", error)
        return None


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
