"""Episode batches of single Gymnasium environments, built side by side: each slot has an environment of its own.

Never ``gymnasium.make_vec``: a vectorised implementation such as ``CartPoleVectorEnv`` has one physics for its whole batch, so
tasks could not differ. In :class:`SyncBatch` the environments take turns in this process; a slot whose episode has ended is not
stepped again, so no environment resets itself and no observation of a next episode can be mistaken for the last of this one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import FewShotError, InvalidParameterError

from .failures import (
    EnvironmentFailedError,
    check_actions,
    check_running,
    check_tasks,
    describe_cause,
    describe_task,
)
from .protocols import Bools, Floats
from .spaces import check_spaces, differ

__all__ = ["SyncBatch"]

Make = Callable[[Any], "gymnasium.Env[Any, Any]"]


class SyncBatch:
    """Environments that take turns in this process; see :class:`~.protocols.EpisodeBatch`.

    Parameters
    ----------
    make : callable
        ``make(parameters)`` builds the environment of a task.
    parameters : sequence
        Of each task.
    n_episodes : int
        Environments of each task.
    horizon : int
        Time steps after which an episode is cut off, if it has not ended before.
    spaces : (gymnasium.Space, gymnasium.Space), default=None
        Of observations and actions, which all environments must have; by default those of the first.
    tasks : sequence of int, default=None
        Numbers of the tasks in error messages; by default their places in `parameters`.

    Raises
    ------
    InvalidParameterError
        If there are no tasks, or environments differ in their spaces.
    EnvironmentFailedError
        If an environment raises an error while it is built, reset or stepped; it names the task.

    Examples
    --------
    >>> import gymnasium
    >>> import numpy as np
    >>> batch = SyncBatch(lambda parameters: gymnasium.make("CartPole-v1"), [None], n_episodes=2, horizon=50)
    >>> batch.reset(np.random.default_rng(0)).shape
    (1, 2, 4)
    >>> observations, rewards, terminated, truncated = batch.step(np.ones((1, 2), dtype=int))
    >>> rewards
    array([[1., 1.]])
    >>> batch.close()
    """

    def __init__(
        self,
        make: Make,
        parameters: Sequence[Any],
        n_episodes: int,
        horizon: int,
        spaces: tuple[gymnasium.Space[Any], gymnasium.Space[Any]] | None = None,
        tasks: Sequence[int] | None = None,
    ) -> None:
        check_tasks(parameters)
        self.horizon = horizon
        self._parameters = list(parameters)
        self._tasks = list(range(len(self._parameters)) if tasks is None else tasks)
        self._spaces = spaces
        self._slots = len(self._parameters), n_episodes
        self._envs: list[gymnasium.Env[Any, Any]] = []
        self._known: set[int] = set()
        self._time = horizon  # so that a step before the first reset is refused like one after the end
        try:
            for i in np.ndindex(self._slots):
                try:
                    self._envs.append(make(self._parameters[i[0]]))
                except Exception as error:
                    raise self._failure(i[0], "make", error) from error
                self._check(i[0], self._envs[-1])
        except BaseException:
            self.close()
            raise
        self.observation_space, self.action_space = self._spaces or (
            self._envs[0].observation_space,
            self._envs[0].action_space,
        )
        self._observations = np.zeros(
            (*self._slots, *(self.observation_space.shape or ())), self.observation_space.dtype
        )
        self._alive = np.zeros(self._slots, np.bool_)

    def _check(self, index: int, env: gymnasium.Env[Any, Any]) -> None:
        """Compare the spaces of one more environment with what they should be."""
        if self._spaces is None:
            check_spaces(env.observation_space, env.action_space)
            self._spaces = env.observation_space, env.action_space
        if id(env) in self._known:
            raise InvalidParameterError(
                f"make: got the same environment object twice for {self._task(index)}; expected a new one in each call; "
                "build the environment inside make"
            )
        self._known.add(id(env))
        name = differ((env.observation_space, env.action_space), self._spaces)
        if name is not None:
            wanted = self._spaces[name == "action_space"]
            raise InvalidParameterError(
                f"make: got {name} {getattr(env, name)} for {self._task(index)}; expected {wanted}, as for other tasks; "
                "vary nothing that changes the spaces, or pad them to one size"
            )

    def _task(self, index: int) -> str:
        return describe_task(self._tasks[index], self._parameters[index])

    def _failure(self, index: int, call: str, error: Exception) -> FewShotError:
        """Say which task's environment raised an error."""
        return EnvironmentFailedError(
            f"{call}: got {describe_cause(error)} from the environment of {self._task(index)}; expected no error; "
            "mend the environment, or leave this task out"
        )

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Begin an episode in every slot; see :class:`~.protocols.EpisodeBatch`."""
        return self.begin(rng.integers(2**31, size=self._slots))

    def begin(self, seeds: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Begin an episode in every slot with a seed of its own, so that nothing depends on episodes before.

        Parameters
        ----------
        seeds : ndarray of int of shape (tasks, episodes)
            Of the environments.

        Returns
        -------
        ndarray of shape (tasks, episodes, *observation)
        """
        if not self._envs:
            raise EnvironmentFailedError(
                "reset: got called on a closed batch; expected an open one; make another batch"
            )
        for env, i in zip(self._envs, np.ndindex(self._slots), strict=True):
            try:
                observation, _ = env.reset(seed=int(seeds[i]))
                self._observe(i, observation)
            except Exception as error:
                raise self._failure(i[0], "reset", error) from error
        self._time = 0
        self._alive[...] = True
        return self._observations.copy()

    def _observe(self, slot: tuple[int, ...], observation: Any) -> None:
        """Keep an observation of the space's own shape and kind: an assignment would broadcast, and cut off decimals."""
        found, kept = np.asarray(observation), self._observations
        if found.shape != kept.shape[2:]:
            raise ValueError(f"observation of shape {found.shape} for {self.observation_space}")
        if found.dtype != kept.dtype and not _can_be_kept(found.dtype, kept.dtype):
            raise TypeError(f"observation of type {found.dtype} for {self.observation_space}")
        kept[slot] = found

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        """Advance every slot by one time step; see :class:`~.protocols.EpisodeBatch`."""
        check_running(self._time < self.horizon and bool(self._envs))
        actions = np.array(actions)  # a copy: environments may keep the action, and callers reuse their arrays
        check_actions(actions, self._slots, self.action_space)
        self._time += 1
        rewards = np.zeros(self._slots)
        terminated, truncated = np.zeros(self._slots, np.bool_), np.zeros(self._slots, np.bool_)
        for env, i in zip(self._envs, np.ndindex(self._slots), strict=True):
            if self._alive[i]:
                try:
                    observation, rewards[i], terminated[i], truncated[i], _ = env.step(actions[i])
                    self._observe(i, observation)
                except Exception as error:
                    raise self._failure(i[0], "step", error) from error
        truncated = (truncated | (self._alive & (self._time >= self.horizon))) & ~terminated
        self._alive &= ~(terminated | truncated)
        return self._observations.copy(), rewards, terminated, truncated

    def close(self) -> None:
        """Close all environments."""
        envs, self._envs = self._envs, []
        for env in envs:
            env.close()


def _can_be_kept(given: np.dtype[Any], kept: np.dtype[Any]) -> bool:
    """Whether numbers keep their value in another type; lists of integers come as int64, for whatever space they are."""
    return np.can_cast(given, kept, "same_kind") or (given.kind in "biu" and kept.kind in "biu")
