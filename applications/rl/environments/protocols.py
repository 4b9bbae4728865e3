"""What a family of environments is to the rest of this package: two protocols.

A *family* is a distribution over environments that share their spaces. Meta-training draws tasks (parameters) from it and runs
many episodes of many tasks at once, through an *episode batch*: one slot for each episode of each task, all advancing together,
each for one episode. Whatever users bring (a factory, an environment with ``set_task``, a vector environment) is made into these
two, so collecting trajectories knows nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium
import numpy as np
import numpy.typing as npt

__all__ = ["EpisodeBatch", "Family"]

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@runtime_checkable
class EpisodeBatch(Protocol):
    """Episodes of several tasks that advance together.

    Attributes
    ----------
    observation_space, action_space : gymnasium.Space
        Of a single environment.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Begin an episode in every slot; everything random in it follows from `rng`.

        Returns
        -------
        ndarray of shape (tasks, episodes, *observation)
        """
        ...

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        """Advance every slot by one time step.

        Parameters
        ----------
        actions : ndarray of shape (tasks, episodes, *action)
            In the action space. Those of slots whose episode has ended are ignored.

        Returns
        -------
        observations : ndarray of shape (tasks, episodes, *observation)
            After the step; where an episode ended in this step, its last observation, never that of a next episode.
        rewards : ndarray of shape (tasks, episodes)
        terminated, truncated : ndarray of bool of shape (tasks, episodes)
            Whether the episode ended in this step, in a state from which nothing follows or because it was cut off. What a slot
            gives after its episode has ended is finite and means nothing.
        """
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...


@runtime_checkable
class Family(Protocol):
    """A distribution over environments with the same spaces.

    Attributes
    ----------
    observation_space, action_space : gymnasium.Space
        Of a single environment.
    horizon : int
        Most time steps of an episode.
    """

    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    horizon: int

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw the parameters of one task."""
        ...

    def make(self, parameters: Any) -> gymnasium.Env[Any, Any]:
        """Build the environment of a task."""
        ...

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> EpisodeBatch:
        """Make `n_episodes` slots for each of some tasks."""
        ...

    def told(self, parameters: Any) -> Floats:
        """Describe a task in numbers, shape (n,): what a policy is given that is told the task."""
        ...
