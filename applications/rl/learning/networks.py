"""The policy network: a user's network, observations standardised in front of it, and a spread that does not depend on the state.

Standardisation uses buffers, which neither adaptation nor meta-gradients touch: within a meta-step, and in whatever adapts
later, all tasks see observations in the same units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["PolicyNetwork"]

LEAST_LOG_STD = math.log(1e-3)
MOST_DEVIATIONS = 10.0  # of a standardised observation from the mean


class PolicyNetwork(nn.Module):
    """Maps observations to the parameters of a distribution of actions.

    Parameters
    ----------
    body : torch.nn.Module
        Takes (rows, n_observed) and returns (rows, n_values): means or unnormalised log-probabilities.
    n_observed : int
        Numbers of an observation.
    n_values : int
        Outputs of `body`.
    log_std : float or None
        Starting value of the logarithm of the standard deviations, in units of the raw action; None for discrete actions,
        which have none.
    standardise : bool, default=False
        Whether `mean` and `scale` will be set to standardise observations; what lies 10 deviations from the mean, or beyond, is
        seen there. Untrained policies meet but a part of what there is to see, and one outlier must not decide.

    Examples
    --------
    >>> network = PolicyNetwork(nn.Linear(3, 2), 3, 2, log_std=-0.5)
    >>> network(torch.zeros(5, 3)).shape
    torch.Size([5, 4])
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self, body: nn.Module, n_observed: int, n_values: int, log_std: float | None, standardise: bool = False
    ) -> None:
        super().__init__()
        self.standardise = standardise
        self.register_buffer("mean", torch.zeros(n_observed))
        self.register_buffer("scale", torch.ones(n_observed))
        self.body = body
        self.log_std = None if log_std is None else nn.Parameter(torch.full((n_values,), float(log_std)))

    def forward(self, x: Tensor) -> Tensor:
        """Return distribution parameters of observations x; (rows, n_observed) -> (rows, n_outputs)."""
        seen = (x - self.mean) * self.scale
        out = self.body(seen.clamp(-MOST_DEVIATIONS, MOST_DEVIATIONS) if self.standardise else seen)
        if self.log_std is None:
            return out
        return torch.cat([out, self.log_std.clamp(min=LEAST_LOG_STD).expand_as(out)], -1)
