"""What an inner step does with a gradient: plain descent, momentum, Adam; each also towards a proximal point.

A rule is elementwise in tensors with a leading task axis. What it remembers from step to step (velocities, moments, the point
that adaptation started from) are tensors beside the parameters, under names that begin with ``~``, so that whatever carries
parameters through the steps (the path that the meta-gradient keeps, a compiled program) carries them too, and the derivative of
a step is that of one function from (parameters, memory, gradient, step sizes) to (parameters, memory).

References
----------
Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML (descent). Kingma, Ba (2015),
Adam: a method for stochastic optimization, ICLR. Rajeswaran, Finn, Kakade, Levine (2019), Meta-learning with implicit gradients,
NeurIPS, equation 3 (the proximal term).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.func import vjp

from .step_sizes import StepSizes, Tensors, by_name

__all__ = ["RULES", "Adam", "GradientDescent", "InnerOptimizer", "Momentum", "is_memory"]

MARK = "~"
ANCHOR = "anchor"
Pulled = tuple[Tensors, Tensors, Tensors]


def is_memory(name: str) -> bool:
    """Whether a tensor of this name is an inner optimiser's memory, and no parameter of the network."""
    return name.startswith(MARK)


class InnerOptimizer(ABC):
    """A rule of one inner step.

    Parameters
    ----------
    proximal : float, default=0.0
        Strength of a term ``proximal / 2 * ||theta - theta_0||^2`` added to the support loss.
    """

    remembers: tuple[str, ...] = ()

    def __init__(self, proximal: float = 0.0) -> None:
        self.proximal = proximal

    @property
    def slots(self) -> tuple[str, ...]:
        """What is remembered for each tensor."""
        return (*self.remembers, ANCHOR) if self.proximal else self.remembers

    @property
    def is_plain(self) -> bool:
        """Whether the step is a sum of the parameters and a multiple of the gradient."""
        return False

    def begin(self, moving: Tensors) -> Tensors:
        """Return `moving`, without a task axis, and the memory of an adaptation that has not begun."""
        memory = {
            f"{MARK}{slot}.{name}": p if slot == ANCHOR else self.empty(slot, p)
            for slot in self.slots
            for name, p in moving.items()
        }
        return {**moving, **memory}

    def empty(self, slot: str, p: Tensor) -> Tensor:
        """Memory of a tensor before the first step."""
        return p.new_zeros(p.shape)

    @abstractmethod
    def update(self, p: Tensor, g: Tensor, scale: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        """Return a tensor and its memory after a step along `g`, with step sizes `scale`."""

    def step(self, theta: Tensors, gradients: Tensors, sizes: StepSizes, n: Tensor) -> Tensors:
        """Take the step.

        Parameters
        ----------
        theta : dict of str to Tensor
            Parameters and memory, with a leading task axis.
        gradients : dict of str to Tensor
            Of the support loss in the parameters.
        sizes : StepSizes
            Of this step.
        n : Tensor of shape (tasks,)
            Effective number of support rows.
        """
        after: Tensors = {}
        for name, g in gradients.items():
            p = theta[name]
            memory = {slot: theta[f"{MARK}{slot}.{name}"] for slot in self.slots}
            if self.proximal:
                g = g + self.proximal * (p - memory[ANCHOR])
            new, remembered = self.update(p, g, sizes.scale(name, n, p), memory)
            after[name] = new
            after |= {f"{MARK}{slot}.{name}": {**memory, **remembered}[slot] for slot in self.slots}
        return {name: after[name] for name in theta}

    def pull_back(self, theta: Tensors, gradients: Tensors, sizes: StepSizes, n: Tensor, cotangent: Tensors) -> Pulled:
        """Pull a cotangent of what a step gives back to what it was taken from.

        Returns
        -------
        of_theta : dict of str to Tensor
            Cotangent of parameters and memory, for fixed gradients.
        of_gradients : dict of str to Tensor
            Cotangent of the gradients.
        of_sizes : dict of str to Tensor
            Derivatives in ``log_alpha.*`` and ``log_c.*``, summed over tasks.
        """

        def whole(theta: Tensors, gradients: Tensors, log_alpha: Tensors, log_c: Tensors) -> Tensors:
            return self.step(theta, gradients, StepSizes(log_alpha, log_c or None), n)

        found: Any = vjp(whole, theta, gradients, sizes.log_alpha, sizes.log_c or {})
        of_theta, of_gradients, alpha, c = found[1](cotangent)
        return of_theta, of_gradients, by_name(alpha, c)

    def of_start(self, cotangent: Tensors) -> Tensors:
        """Cotangent of the initial parameters: those that the path began with, and that the proximal term holds on to."""
        if not self.proximal:
            return {name: v for name, v in cotangent.items() if not is_memory(name)}
        return {name: v + cotangent[f"{MARK}{ANCHOR}.{name}"] for name, v in cotangent.items() if not is_memory(name)}

    def fold(self, theta: Tensors, vector: Tensor) -> Tensor:
        """Turn a gradient in `theta` and more, one after another in a vector, into that in the initial parameters and more."""
        if not self.slots:
            return vector
        sizes = [t.numel() for t in theta.values()]
        *parts, rest = vector.split([*sizes, len(vector) - sum(sizes)])
        named = {name: part.view(t.shape) for (name, t), part in zip(theta.items(), parts, strict=True)}
        return torch.cat([*(t.reshape(-1) for t in self.of_start(named).values()), rest])


class GradientDescent(InnerOptimizer):
    """``theta' = theta - scale * g``."""

    @property
    def is_plain(self) -> bool:
        """Whether it is without a proximal term."""
        return not self.proximal

    def update(self, p: Tensor, g: Tensor, scale: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        """See :class:`InnerOptimizer`."""
        return p.addcmul(scale, g, value=-1), {}

    def pull_back(self, theta: Tensors, gradients: Tensors, sizes: StepSizes, n: Tensor, cotangent: Tensors) -> Pulled:
        """See :class:`InnerOptimizer`; written out where there is no proximal term."""
        if self.proximal:
            return super().pull_back(theta, gradients, sizes, n, cotangent)
        along = {name: -value for name, value in sizes.direction(cotangent, n).items()}
        return cotangent, along, by_name(*sizes.derivative(cotangent, gradients, n))


class Momentum(InnerOptimizer):
    """``u' = beta * u + g``, ``theta' = theta - scale * u'`` (heavy ball, as in :class:`torch.optim.SGD`)."""

    remembers = ("velocity",)
    beta = 0.9

    def update(self, p: Tensor, g: Tensor, scale: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        """See :class:`InnerOptimizer`."""
        velocity = self.beta * memory["velocity"] + g
        return p.addcmul(scale, velocity, value=-1), {"velocity": velocity}


class Adam(InnerOptimizer):
    """Adam's step, with bias correction.

    The root is ``sqrt(v + eps^2)`` rather than ``sqrt(v) + eps``, whose derivative is not finite where a gradient has always been
    zero, as behind a unit that never was active; `eps` is larger than usual, since it bounds that derivative.
    """

    remembers = ("count", "first", "second")
    betas = 0.9, 0.999
    eps = 1e-6

    def empty(self, slot: str, p: Tensor) -> Tensor:
        """See :class:`InnerOptimizer`; one count of steps serves a tensor."""
        return p.new_zeros((1,) * p.ndim if slot == "count" else p.shape)

    def update(self, p: Tensor, g: Tensor, scale: Tensor, memory: Tensors) -> tuple[Tensor, Tensors]:
        """See :class:`InnerOptimizer`."""
        beta1, beta2 = self.betas
        count = memory["count"] + 1
        first = beta1 * memory["first"] + (1 - beta1) * g
        second = beta2 * memory["second"] + (1 - beta2) * g * g
        of_first, of_second = (1 - (count * math.log(beta)).exp() for beta in self.betas)
        along = first / of_first * (second / of_second + self.eps**2).rsqrt()
        return p.addcmul(scale, along, value=-1), {"count": count, "first": first, "second": second}


RULES: dict[str, Callable[[float], InnerOptimizer]] = {
    "gradient_descent": GradientDescent,
    "momentum": Momentum,
    "adam": Adam,
}
