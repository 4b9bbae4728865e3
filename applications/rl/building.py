"""From spaces and settings to a policy under its surrogate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.spaces import Box, Space
from torch import nn

from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.networks import build_module

from .distributions import Categorical, Distribution, Gaussian
from .networks import PolicyNetwork
from .spaces import n_actions, n_observed
from .surrogates import Surrogate

__all__ = ["build_functional", "build_network", "distribution_for"]

SMALL = 0.1  # factor of the last layer's weights: no action is preferred before anything is learned


def distribution_for(action_space: Space[Any]) -> Distribution:
    """Return normal actions for a Box, one of several for a Discrete space.

    Examples
    --------
    >>> from gymnasium.spaces import Discrete
    >>> distribution_for(Discrete(3))
    Categorical(n_outputs=3)
    """
    n = n_actions(action_space)
    return Gaussian(n) if isinstance(action_space, Box) else Categorical(n)


def build_network(
    module: Any,
    observation_space: Space[Any],
    action_space: Space[Any],
    *,
    hidden: Sequence[int],
    activation: str,
    log_std: float,
    seed: int,
) -> PolicyNetwork:
    """Build the policy network; see :func:`fewshot.networks.build_module` for `module`.

    Parameters
    ----------
    module : torch.nn.Module, callable or None
        Takes observations, returns means or unnormalised log-probabilities of actions.
    observation_space, action_space : gymnasium.Space
        Of the environments.
    hidden, activation
        Of the built-in network.
    log_std : float
        Starting value of the logarithm of the standard deviations; a discrete action has none.
    seed : int
        Of the random initial weights.
    """
    n_in, n_out = n_observed(observation_space), n_actions(action_space)
    body = build_module(module, n_in, n_out, hidden=hidden, activation=activation, seed=seed)
    if any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in body.modules()):
        raise InvalidParameterError(
            "module: got one with batch normalisation, by which the policy that acts, time step by time step, is another than the "
            "one that learns from all of them; expected none; use LayerNorm or GroupNorm."
        )
    if module is None:
        last = [m for m in body.modules() if isinstance(m, nn.Linear)][-1]
        with torch.no_grad():
            last.weight.mul_(SMALL)
            last.bias.zero_()
    return PolicyNetwork(body, n_in, n_out, log_std if isinstance(action_space, Box) else None)


def build_functional(
    network: PolicyNetwork, distribution: Distribution, surrogate: str, clip: float | None = None
) -> FunctionalModule:
    """Put a network under a surrogate; all its parameters move.

    Parameters
    ----------
    network : PolicyNetwork
        Copied.
    distribution : Distribution
        Of the actions.
    surrogate : {"lvc", "dice", "reinforce"}
        Of the inner loop, and of the query unless that is clipped.
    clip : float, default=None
        Judge the adapted policies by the clipped probability ratio.
    """
    loss = Surrogate(distribution, surrogate)
    query = None if clip is None else Surrogate(distribution, "lvc", clip)
    return FunctionalModule(copy.deepcopy(network), loss, "all", distribution.n_outputs, query)
