"""A family whose policies are told the task: what adapting can hope for at most.

The numbers that describe a task are put behind every observation, so one policy without adaptation can act in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from .protocols import Bools, EpisodeBatch, Family, Floats
from .spaces import encode_observations, n_observed

__all__ = ["Told"]


class Told:
    """A family with the description of the task in its observations.

    Parameters
    ----------
    family : Family
        Which tasks; its ``told(parameters)`` is the description.

    Examples
    --------
    >>> from fewshot.applications.rl import PointNavigation
    >>> family = Told(PointNavigation())
    >>> env = family.make((0.3, -0.2))
    >>> env.reset(seed=0)[0]
    array([ 0. ,  0. ,  0.3, -0.2], dtype=float32)
    """

    def __init__(self, family: Family) -> None:
        self.family = family
        n = len(family.told(family.sample(np.random.default_rng(0))))
        self._seen = family.observation_space
        self.observation_space = Box(-np.inf, np.inf, (n_observed(self._seen) + n,), np.float32)
        self.action_space, self.horizon = family.action_space, family.horizon

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw the parameters of one task."""
        return self.family.sample(rng)

    def make(self, parameters: Any) -> gymnasium.Env[Any, Any]:
        """Build the environment of a task."""
        told = np.asarray(self.family.told(parameters), np.float32)

        def longer(observation: Any) -> npt.NDArray[np.float32]:
            return np.concatenate([encode_observations(self._seen, observation), told])

        return gymnasium.wrappers.TransformObservation(self.family.make(parameters), longer, self.observation_space)

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> EpisodeBatch:
        """Make `n_episodes` slots for each of some tasks."""
        told = np.stack([np.asarray(self.family.told(p), np.float32) for p in parameters])
        return _ToldBatch(self.family.batch(parameters, n_episodes), told, self.observation_space)

    def told(self, parameters: Any) -> Floats:
        """Describe a task in numbers."""
        return self.family.told(parameters)


class _ToldBatch:
    def __init__(self, batch: EpisodeBatch, told: npt.NDArray[np.float32], observation_space: Box) -> None:
        self._batch, self._told = batch, told[:, None]
        self.observation_space: gymnasium.Space[Any] = observation_space
        self.action_space = batch.action_space

    def _longer(self, observations: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        seen = encode_observations(self._batch.observation_space, observations)
        return np.concatenate([seen, np.broadcast_to(self._told, (*seen.shape[:-1], self._told.shape[-1]))], -1)

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        return self._longer(self._batch.reset(rng))

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        observations, *rest = self._batch.step(actions)
        return self._longer(observations), *rest  # type: ignore[return-value]

    def close(self) -> None:
        self._batch.close()
