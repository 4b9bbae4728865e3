"""The outer optimiser step.

All meta-parameters are views of one vector. Clipping and stepping are then a few operations however many tensors a network has:
torch's optimisers spend longer on bookkeeping for a small network than a compiled meta-gradient takes. An optimiser of the
user's own gets the tensors one by one. The formulas are those of :class:`torch.optim.Adam` (Kingma, Ba 2015),
:class:`torch.optim.AdamW` (Loshchilov, Hutter 2019) and :class:`torch.optim.SGD` with their default settings.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..metagradient import MetaParameters

__all__ = ["OPTIMIZERS", "OuterOptimizer"]

OPTIMIZERS = ("adam", "adamw", "sgd")
BETAS, EPSILON = (0.9, 0.999), 1e-8
ADAMW_DECAY = 0.01


class OuterOptimizer:
    """Meta-parameters and what moves them.

    Parameters
    ----------
    parameters : MetaParameters
        Starting values; copied.
    optimizer : str or callable
        One of :data:`OPTIMIZERS`, or ``(parameters, lr=...) -> torch.optim.Optimizer``.
    rates : tuple of float
        Learning rates of weights and of step sizes.
    max_grad_norm : float or None
        The gradient is scaled down to this norm.
    state : dict, default=None
        What :meth:`state_dict` gave, to go on from there.
    device : torch.device or str, default="cpu"
        Where the parameters live.

    Attributes
    ----------
    parameters : MetaParameters
        Views of the current values.
    steps : int
        Steps done; it tells after a KeyboardInterrupt whether the last one was.
    """

    def __init__(
        self,
        parameters: MetaParameters,
        optimizer: Any,
        rates: tuple[float, float],
        max_grad_norm: float | None,
        state: dict[str, Any] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        flat = parameters.flat()
        values = torch.cat([t.detach().to(device).reshape(-1) for t in flat.values()])
        n_sizes = sum(t.numel() for t in parameters.sizes.values())
        self._n_weights = len(values) - n_sizes
        every_rate = torch.full_like(values, rates[0])
        every_rate[self._n_weights :] = rates[1]
        # Values and both moments in one tensor, so that a step is one assignment: it is interrupted before or after.
        self._state = torch.stack([values, torch.zeros_like(values), torch.zeros_like(values)])
        # On the CPU as arrays: a dozen operations on a small vector take numpy a quarter of torch's time.
        small = _has_arrays(values)
        self._on_arrays, self._rates = (t.numpy() if small else t for t in (self._state, every_rate))
        self._after: Any = np.empty_like(self._on_arrays) if small else torch.empty_like(self._state)
        self.steps = 0
        parts = self._state[0].split([t.numel() for t in flat.values()])
        views = {name: part.view(t.shape) for (name, t), part in zip(flat.items(), parts, strict=True)}
        self.parameters = MetaParameters.from_flat(views)
        self._bound = math.inf if max_grad_norm is None else max_grad_norm
        self._made_with = optimizer, rates, max_grad_norm
        self._name = optimizer if isinstance(optimizer, str) else None
        self._theirs: torch.optim.Optimizer | None = None
        if self._name is None:
            leaves = [t.detach().requires_grad_() for t in views.values()]
            n = len(leaves) - len(parameters.sizes)
            groups = [{"params": p, "lr": r} for p, r in zip((leaves[:n], leaves[n:]), rates, strict=True) if p]
            self._theirs = optimizer(groups, lr=rates[0])
            self._full_rates = [group["lr"] for group in self._theirs.param_groups]
            self._leaves = leaves
        if state is not None:
            self._load(state)

    def step(self, gradient: Tensor, factor: float, also: Tensor | None = None) -> float:
        """Step along a gradient, unless it is not finite.

        A KeyboardInterrupt leaves the step done or not done, see `steps`; only inside an optimiser of the user's own it may
        leave a part of one, which counts as done.

        Parameters
        ----------
        gradient : Tensor of shape (n,)
            In the order of ``parameters.flat()``; without step sizes where these are not learned. Changed in place.
        factor : float
            Of the learning rates.
        also : Tensor of shape (m,), default=None
            Added to the first m values, for whoever moves some of them by other means; not with an optimiser of the user's own.

        Returns
        -------
        float
            Norm of the gradient.
        """
        norm = float(torch.linalg.vector_norm(gradient))
        if not math.isfinite(norm):
            return norm
        if norm > self._bound:
            gradient.mul_(self._bound / (norm + 1e-6))
        if self._theirs is not None:
            self._their_step(self._theirs, gradient, factor)
            return norm
        n, steps, ready = len(gradient), self.steps, False
        state, after, rates = self._on_arrays[:, :n], self._after[:, :n], self._rates[:n]
        g: Any = gradient if isinstance(state, Tensor) else gradient.numpy()
        try:
            self._update(state, after, rates, g, factor)
            if also is not None:
                after[0, : len(also)] += also if isinstance(state, Tensor) else also.numpy()
            ready = True
            state[:] = after
            self.steps = steps + 1
        except KeyboardInterrupt:
            self.steps = steps + (ready and bool((state == after).all()))
            raise
        return norm

    def _update(self, state: Any, after: Any, rates: Any, g: Any, factor: float) -> None:
        """Write values and moments after a step to `after`; what is said here holds for arrays and for tensors."""
        value, first, second = state[0], state[1], state[2]
        if self._name == "sgd":
            after[0], after[1:] = value - factor * rates * g, state[1:]
            return
        beta1, beta2 = BETAS
        after[1] = first = first + (1 - beta1) * (g - first)
        after[2] = second = beta2 * second + (1 - beta2) * g * g
        # With both corrections taken out of the arrays, m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).
        first_correction, root = 1 - beta1 ** (self.steps + 1), math.sqrt(1 - beta2 ** (self.steps + 1))
        after[0] = value - factor * root / first_correction * rates * (first / (second**0.5 + EPSILON * root))
        if self._name == "adamw":  # of the weights: decaying a logarithm would pull step sizes to 1
            m = min(len(g), self._n_weights)
            after[0, :m] -= factor * ADAMW_DECAY * rates[:m] * value[:m]

    def _their_step(self, theirs: torch.optim.Optimizer, gradient: Tensor, factor: float) -> None:
        for group, rate in zip(theirs.param_groups, self._full_rates, strict=True):
            group["lr"] = rate * factor
        first = 0
        for leaf in self._leaves:
            if first < len(gradient):
                leaf.grad = gradient[first : first + leaf.numel()].view(leaf.shape)
                first += leaf.numel()
        steps, before = self.steps, self._state[0].clone()
        try:
            theirs.step()
            self.steps = steps + 1
        except KeyboardInterrupt:
            self.steps = steps + (not torch.equal(self._state[0], before))
            raise

    def copy(self) -> OuterOptimizer:
        """Return one that goes on from here on its own."""
        return OuterOptimizer(self.parameters, *self._made_with, self.state_dict(), self._state.device)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of what the next step depends on beside the parameters."""
        if self._theirs is not None:
            return {"theirs": copy.deepcopy(self._theirs.state_dict())}
        return {"moments": self._state[1:].clone(), "steps": self.steps}

    def _load(self, state: dict[str, Any]) -> None:
        if self._theirs is not None:
            self._theirs.load_state_dict(copy.deepcopy(state["theirs"]))
        else:
            self._state[1:].copy_(state["moments"])
            self.steps = state["steps"]


def _has_arrays(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.float64)
