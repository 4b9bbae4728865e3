"""Distributions of actions, given what a policy network puts out for each observation.

Every function is elementwise over leading axes and free of state, so it can be differentiated twice and vectorised over tasks.
Actions are *raw*: real numbers for a Box, a class code for a Discrete space; :mod:`.spaces` maps them to the environment's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Categorical", "Distribution", "Gaussian"]

HALF_LOG_2_PI = 0.5 * math.log(2 * math.pi)


class Distribution(Protocol):
    """What surrogates and rollouts ask of a distribution."""

    @property
    def n_outputs(self) -> int:
        """Outputs of the network for each observation."""
        ...

    @property
    def n_values(self) -> int:
        """Numbers that one raw action consists of."""
        ...

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """Log-probability (density) of raw actions; shapes (..., n_outputs), (..., n_values) -> (...)."""
        ...

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        """Turn noise of :meth:`noise` into raw actions of shape (..., n_values)."""
        ...

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw what :meth:`sample` needs for one action at each place of `shape`."""
        ...

    def mode(self, output: Tensor) -> Tensor:
        """Most likely raw actions."""
        ...

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the new outputs' distribution from the old ones'; (..., n_outputs) -> (...)."""
        ...


@dataclass(frozen=True)
class Gaussian:
    """Independent normal distributions; the outputs are the means, then the logarithms of the standard deviations.

    Parameters
    ----------
    n_values : int
        Dimensions of an action.

    Examples
    --------
    >>> standard = torch.zeros(1, 4)
    >>> Gaussian(2).log_prob(standard, torch.zeros(1, 2))
    tensor([-1.8379])
    """

    n_values: int

    @property
    def n_outputs(self) -> int:
        """Means and logarithms of standard deviations."""
        return 2 * self.n_values

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """Log-density of actions; see :class:`Distribution`."""
        mean, log_std = output.chunk(2, -1)
        return -(0.5 * ((action - mean) * (-log_std).exp()) ** 2 + log_std + HALF_LOG_2_PI).sum(-1)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers, `n_values` for each place of `shape`."""
        return torch.randn(*shape, self.n_values, generator=generator)

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        """Shift and scale `noise`."""
        mean, log_std = output.chunk(2, -1)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, output: Tensor) -> Tensor:
        """Means."""
        return output.chunk(2, -1)[0]

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence; see :class:`Distribution`."""
        (m0, s0), (m1, s1) = old.chunk(2, -1), new.chunk(2, -1)
        return (s1 - s0 + 0.5 * ((2 * (s0 - s1)).exp() + ((m0 - m1) * (-s1).exp()) ** 2 - 1)).sum(-1)


@dataclass(frozen=True)
class Categorical:
    """One of several actions; the outputs are unnormalised log-probabilities, a raw action its code as a float.

    Parameters
    ----------
    n_outputs : int
        Number of actions.

    Examples
    --------
    >>> Categorical(4).log_prob(torch.zeros(1, 4), torch.tensor([[2.0]])).exp()
    tensor([0.2500])
    """

    n_outputs: int

    @property
    def n_values(self) -> int:
        """The code."""
        return 1

    def log_prob(self, output: Tensor, action: Tensor) -> Tensor:
        """Log-probability of actions; see :class:`Distribution`."""
        return F.log_softmax(output, -1).gather(-1, action.long()).squeeze(-1)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw standard Gumbel numbers, `n_outputs` for each place of `shape`."""
        uniform = torch.rand(*shape, self.n_outputs, generator=generator)
        return -(-uniform.clamp(1e-20, 1 - 1e-7).log()).log()

    def sample(self, output: Tensor, noise: Tensor) -> Tensor:
        """Take the action whose log-probability plus Gumbel noise is largest: an exact draw."""
        return (output + noise).argmax(-1, keepdim=True).to(output.dtype)

    def mode(self, output: Tensor) -> Tensor:
        """Most likely codes."""
        return output.argmax(-1, keepdim=True).to(output.dtype)

    def kl(self, old: Tensor, new: Tensor) -> Tensor:
        """Kullback-Leibler divergence; see :class:`Distribution`."""
        before, after = F.log_softmax(old, -1), F.log_softmax(new, -1)
        return (before.exp() * (before - after)).sum(-1)
