"""From spaces and settings to a policy under its surrogate."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn
from torch.func import vmap

from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule, differentiable_forward
from fewshot.metagradient import expand
from fewshot.networks import build_module

from ..environments.spaces import n_actions, n_observed
from .distributions import Categorical, Distribution, Gaussian
from .networks import PolicyNetwork
from .surrogates import Surrogate

__all__ = ["build_functional", "build_network", "check_network", "distribution_for"]

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
    standardise: bool = False,
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
    standardise : bool, default=False
        Whether observations will be standardised.
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
    body = body.to(torch.float32)  # as observations are
    return PolicyNetwork(body, n_in, n_out, log_std if isinstance(action_space, Box) else None, standardise)


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


def check_network(functional: FunctionalModule, example: Tensor, n_values: int) -> None:
    """Refuse a network of the user's own that cannot be a policy.

    Parameters
    ----------
    functional : FunctionalModule
        With the policy network.
    example : Tensor of shape (n_observed,)
        An observation.
    n_values : int
        Means, or unnormalised log-probabilities, that the user's network is to return for each observation.

    Raises
    ------
    InvalidParameterError
        If it does not return what actions are made of, draws random numbers, or cannot be run for several tasks at once.
    """
    x = example.expand(2, 3, -1)
    try:
        with torch.no_grad(), differentiable_forward():
            out = functional.skeleton.get_submodule("body")(x[0])
            found = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            if found != (3, n_values):
                raise InvalidParameterError(f"module: returned {found} for 3 observations; expected (3, {n_values}).")
            vmap(functional.output, (0, None, None, 0))(expand(functional.moving, 2), {}, functional.constant, x)
    except InvalidParameterError:
        raise
    except Exception as error:  # of code that is not ours
        raise InvalidParameterError(
            f"module: got one that cannot act in several environments at once ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); expected one that returns a row for each row, draws no random numbers and "
            "decides nothing by the values it sees; leave out dropout and recurrent layers."
        ) from error
