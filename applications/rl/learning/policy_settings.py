"""What a policy is made of and how it adapts: what stays as it is from the beginning of its training on."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.errors import InvalidParameterError

from ..environments.spaces import n_actions
from .actor import Actor
from .building import build_functional, build_network, check_network, distribution_for
from .networks import LEAST_LOG_STD, PolicyNetwork

__all__ = ["PolicySettings"]

UNCALIBRATED = 0.1  # inner step size that calibration begins with


@dataclass(frozen=True)
class PolicySettings:
    """Settings of the same names of :class:`~.policy.MAMLPolicy`.

    A trained policy keeps those that it was trained with, whatever its parameters are set to afterwards.

    Parameters
    ----------
    module, hidden, activation, log_std, normalise_observations
        Of the network.
    inner_steps, inner_lr, learn_step_sizes, later_step_factor
        Of the inner loop.
    surrogate, clip
        Of the losses; `clip` is None unless the outer step clips.
    discount, gae_lambda
        Of the advantages.

    Raises
    ------
    InvalidParameterError
        If one cannot be used.
    """

    module: Any = None
    hidden: Any = (64, 64)
    activation: str = "tanh"
    log_std: float = -0.5
    normalise_observations: bool = True
    inner_steps: int = 1
    inner_lr: float | None = None
    learn_step_sizes: Any = None
    later_step_factor: float = 0.5
    surrogate: str = "lvc"
    clip: float | None = None
    discount: float = 0.99
    gae_lambda: float = 0.97

    def __post_init__(self) -> None:
        if isinstance(self.hidden, list | np.ndarray):  # which the same numbers in a tuple do not equal
            object.__setattr__(self, "hidden", tuple(self.hidden))
        for name in ("discount", "gae_lambda"):
            self._check(name, 0 <= self._number(name) <= 1, "a number from 0 to 1")
        for name in ("later_step_factor", "clip"):
            if getattr(self, name) is not None:
                self._check(name, 0 < self._number(name) <= 1, "a number above 0, of at most 1")
        if self.inner_lr is not None:
            self._check("inner_lr", 0 < self._number("inner_lr") < math.inf, "a positive number, or None")
        what = f"a finite number above {LEAST_LOG_STD:.1f}, below which deviations are too small to be learned"
        self._check("log_std", LEAST_LOG_STD < self._number("log_std") < math.inf, what)

    def _number(self, name: str) -> float:
        """Return a number, or one that lies in no range."""
        value = getattr(self, name)
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        return float(value) if is_number else math.nan

    def _check(self, name: str, is_good: bool, expected: str) -> None:
        if not is_good:
            raise InvalidParameterError(f"{name}: got {getattr(self, name)!r}; expected {expected}.")

    @property
    def calibrates(self) -> bool:
        """Whether the inner step size is chosen by what it does."""
        return self.inner_lr is None

    def adaptation(self) -> Adaptation:
        """Return the inner loop."""
        learn = "tensor" if self.learn_step_sizes is None else self.learn_step_sizes
        start = UNCALIBRATED if self.inner_lr is None else self.inner_lr
        return Adaptation(self.inner_steps, start, learn_step_sizes=learn, half_trust=None)

    def build(self, observation_space: Space[Any], action_space: Space[Any], seed: int) -> tuple[PolicyNetwork, Actor]:
        """Build the network for some spaces, and what acts with it.

        Parameters
        ----------
        observation_space, action_space : gymnasium.Space
            Of the environments.
        seed : int
            Of the random initial weights.

        Raises
        ------
        InvalidParameterError
            If a network of the user's own cannot be a policy.
        """
        network = build_network(
            self.module,
            observation_space,
            action_space,
            hidden=self.hidden,
            activation=self.activation,
            log_std=self.log_std,
            seed=seed,
            standardise=self.standardises(observation_space),
        )
        distribution = distribution_for(action_space)
        functional = build_functional(network, distribution, self.surrogate, self.clip)
        if self.module is not None:
            check_network(functional, network.mean, n_actions(action_space))
        factor = self.later_step_factor
        return network, Actor(functional, distribution, self.adaptation(), self.discount, self.gae_lambda, factor)

    def standardises(self, observation_space: Space[Any]) -> bool:
        """Whether observations are standardised: one of several values has units already."""
        return self.normalise_observations and isinstance(observation_space, Box)

    def check_same(self, began: PolicySettings) -> None:
        """Refuse to go on with a training that began with other settings."""
        for name in (field.name for field in fields(self)):
            got, expected = getattr(self, name), getattr(began, name)
            if got is not expected and got != expected:
                raise InvalidParameterError(
                    f"{name}: got {_named(got)} to go on with a training that began with {_named(expected)}; pass that, or "
                    "warm_start=False to begin anew."
                )


def _named(value: Any) -> str:
    """Name a value in a message; of networks the type is enough."""
    return type(value).__name__ if isinstance(value, nn.Module) else repr(value)
