"""What natively vectorised families share: counting time, ended slots, checks of actions.

A family of this kind holds the state of all episodes of all tasks in arrays and advances them in a few numpy operations, which
is a hundred times as fast as stepping environments one after another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from ..checks import check_count
from .failures import check_actions, check_running
from .protocols import Bools, Floats

__all__ = ["NativeBatch"]


class NativeBatch(ABC):
    """An episode batch in arrays; a subclass says how episodes begin and how states advance.

    Parameters
    ----------
    n_tasks, n_episodes : int
        Numbers of slots.
    horizon : int
        Time steps after which episodes are cut off.
    observation_space, action_space : gymnasium.Space
        Of a single environment.
    """

    def __init__(
        self,
        n_tasks: int,
        n_episodes: int,
        horizon: int,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
    ) -> None:
        self.observation_space = observation_space
        self.action_space = action_space
        self.slots = n_tasks, check_count("n_episodes", n_episodes)
        self.horizon = horizon
        self.time = horizon  # so that a step before the first reset is refused like one after the end
        self.alive: Bools = np.zeros(self.slots, np.bool_)

    @abstractmethod
    def _begin(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Set all states to the start of an episode; return observations that are not written to later."""

    @abstractmethod
    def _advance(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools]:
        """Advance the states of slots that are alive; return observations, rewards and whether the state is terminal."""

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Begin an episode in every slot; see :class:`~.protocols.EpisodeBatch`."""
        self.time = 0
        self.alive = np.ones(self.slots, np.bool_)
        return self._begin(rng)

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        """Advance every slot by one time step; see :class:`~.protocols.EpisodeBatch`."""
        check_running(self.time < self.horizon)
        actions = np.asarray(actions)
        check_actions(actions, self.slots, self.action_space)
        self.time += 1
        observations, rewards, terminal = self._advance(actions)
        terminated = terminal & self.alive
        self.alive = self.alive & ~terminated
        truncated = self.alive & (self.time >= self.horizon)
        return observations, rewards, terminated, truncated

    def close(self) -> None:
        """Take no further steps."""
        self.time = self.horizon
