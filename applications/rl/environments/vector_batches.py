"""A user's own vector environment as an episode batch: one task, one episode in each of its sub-environments.

Vector environments go on by themselves when an episode ends, in one of three ways (``metadata["autoreset_mode"]``). Here an episode
ends and its slot stands still:

* ``NEXT_STEP``: the step after the end ignores its action and gives the reset observation. The slot is masked from there on.
* ``SAME_STEP``: the step that ends gives the observation of the *next* episode; this one's last is in ``info["final_obs"]``.
* ``DISABLED``: nothing happens by itself, and a finished sub-environment must not be stepped (``SyncVectorEnv`` raises a bare
  AssertionError, ``AsyncVectorEnv`` steps it silently): those that have ended are reset before the next step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, VectorEnv

from fewshot.errors import InvalidParameterError

from ..checks import check_count
from ._vector_calls import dead_workers, settle_workers
from .failures import EnvironmentFailedError, check_actions, check_running, describe_cause
from .limits import horizon_of
from .protocols import Bools, EpisodeBatch, Floats
from .spaces import check_spaces

__all__ = ["VectorBatch", "VectorFamily"]

REMEDY = "mend the environment, or build the vector environment anew"


def _mode(env: Any) -> AutoresetMode:
    """Return what a vector environment does after the end of an episode."""
    found = (env.metadata or {}).get("autoreset_mode")
    try:
        mode = AutoresetMode(found)
    except ValueError:
        raise InvalidParameterError(
            f"env: got {env} with metadata['autoreset_mode'] {found!r}; expected a gymnasium.vector.AutoresetMode; "
            "set this entry to say what the environment does when an episode ends"
        ) from None
    inner = env.unwrapped
    if mode is AutoresetMode.NEXT_STEP and isinstance(inner, AsyncVectorEnv) and not inner.shared_memory:
        # Seen in Gymnasium 1.4.0: such a worker still waits to reset itself after it was reset.
        raise InvalidParameterError(
            f"env: got {env} with shared_memory=False and autoreset_mode NEXT_STEP, which ignores the first step after a reset; "
            "expected shared_memory=True, or another mode; pass autoreset_mode=AutoresetMode.SAME_STEP"
        )
    return mode


def _limit(env: Any) -> int | None:
    """Find the most time steps of an episode, for which processes may have to be asked."""
    try:
        return horizon_of(env)
    except Exception as error:
        raise EnvironmentFailedError(
            f"horizon: got {describe_cause(error)} from {env}; expected an answer; give horizon= to as_family, or {REMEDY}"
        ) from error


class VectorFamily:
    """Family of the one task that a vector environment is.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        Which stays the caller's: it is reset and stepped here, never closed.
    horizon : int, default=None
        Most time steps of an episode; by default what the environment or its sub-environments say.

    Attributes
    ----------
    observation_space, action_space : gymnasium.Space
        Of a single sub-environment.
    n_slots : int
        Its number of sub-environments, which is the most episodes of a batch.

    Raises
    ------
    InvalidParameterError
        If its spaces are neither Box nor Discrete, or it does not say when episodes are cut off or what it does then.

    Examples
    --------
    >>> import gymnasium
    >>> import numpy as np
    >>> env = gymnasium.make_vec("CartPole-v1", num_envs=4)
    >>> family = VectorFamily(env)
    >>> family.horizon, family.n_slots
    (500, 4)
    >>> family.batch([{}], n_episodes=4).reset(np.random.default_rng(0)).shape
    (1, 4, 4)
    >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], horizon: int | None = None) -> None:
        if not isinstance(env, VectorEnv):
            raise InvalidParameterError(
                f"env: got {type(env).__name__}; expected a gymnasium.vector.VectorEnv; see as_family"
            )
        check_spaces(env.single_observation_space, env.single_action_space)
        _mode(env)
        limit = _limit(env) if horizon is None else check_count("horizon", horizon)
        if limit is None:
            raise InvalidParameterError(
                f"horizon: got None for {env}, whose sub-environments set no limit of time steps; "
                "expected an integer; give horizon= to as_family"
            )
        self.env, self.horizon, self.n_slots = env, limit, env.num_envs
        self.observation_space: gymnasium.Space[Any] = env.single_observation_space
        self.action_space: gymnasium.Space[Any] = env.single_action_space

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Return the parameters of the only task, an empty dict."""
        return {}

    def make(self, parameters: Any) -> gymnasium.Env[Any, Any]:
        """Refuse: a vector environment has no single ones to give away."""
        raise InvalidParameterError(
            f"make: got {self.env}; expected a family that can build single environments; "
            "use EnvFamily(make=..., sample=...) with the function that makes one"
        )

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> EpisodeBatch:
        """Use the first `n_episodes` sub-environments as the slots of the only task."""
        if len(parameters) != 1:
            raise InvalidParameterError(
                f"parameters: got {len(parameters)} tasks; expected 1, since a vector environment is one task; "
                f"pass tasks_per_batch=1 and at most episodes={self.n_slots}, or use EnvFamily(make=..., sample=...) for several"
            )
        return VectorBatch(self.env, n_episodes, self.horizon)

    def told(self, parameters: Any) -> Floats:
        """Describe the only task: no numbers, shape (0,)."""
        return np.zeros(0, np.float32)


class VectorBatch:
    """One episode in each of some sub-environments of a vector environment; see :class:`~.protocols.EpisodeBatch`.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        Which is not closed with the batch.
    n_episodes : int
        Slots, at most its number of sub-environments; the others are stepped along and ignored.
    horizon : int
        Time steps after which an episode is cut off, if it has not ended before.

    Raises
    ------
    InvalidParameterError
        If there are too few sub-environments.
    EnvironmentFailedError
        From `reset` and `step`, if an environment raises an error or the process of one ends. After an interruption, which is
        passed on, the vector environment can be reset again, unless the interruption has ended its processes, too.

    Examples
    --------
    >>> import gymnasium
    >>> import numpy as np
    >>> env = gymnasium.make_vec("CartPole-v1", num_envs=3, vectorization_mode="sync")
    >>> batch = VectorBatch(env, n_episodes=2, horizon=10)
    >>> batch.reset(np.random.default_rng(0)).shape
    (1, 2, 4)
    >>> batch.step(np.zeros((1, 2), dtype=int))[1]
    array([[1., 1.]])
    >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], n_episodes: int, horizon: int) -> None:
        self._mode = _mode(env)
        if check_count("n_episodes", n_episodes) > env.num_envs:
            raise InvalidParameterError(
                f"n_episodes: got {n_episodes} for {env.num_envs} sub-environments; expected at most as many; "
                f"pass tasks_per_batch=1 and at most episodes={env.num_envs}, or use a vector environment with more of them, or "
                "EnvFamily(make=..., sample=...)"
            )
        self.horizon = horizon
        self.observation_space: gymnasium.Space[Any] = env.single_observation_space
        self.action_space: gymnasium.Space[Any] = env.single_action_space
        self._env, self._n = env, n_episodes
        self._time = horizon  # so that a step before the first reset is refused like one after the end
        self._observations: npt.NDArray[Any] = np.zeros(0)
        self._done: Bools = np.zeros(
            env.num_envs, np.bool_
        )  # of all sub-environments: ended since they were last reset
        self._alive: Bools = np.zeros(env.num_envs, np.bool_)  # in their first episode

    @contextlib.contextmanager
    def _calling(self, call: str) -> Iterator[None]:
        """Pass on what goes wrong in a call to the environment; whatever it is, episodes have to begin anew."""
        try:
            yield
        except BaseException as error:
            self._time = self.horizon
            if isinstance(error, Exception):
                raise self._failure(call, error) from error
            settle_workers(self._env)
            raise

    def _failure(self, call: str, error: Exception) -> Exception:
        """Say what failed, and which processes have ended."""
        dead = dead_workers(self._env, patience=1.0 if isinstance(error, OSError | EOFError) else 0.0)
        which = f"; the processes of sub-environments {dead} have ended" if dead else ""
        return EnvironmentFailedError(
            f"{call}: got {describe_cause(error)} from {self._env}, task 0{which}; expected no error; {REMEDY}"
        )

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Begin an episode in every slot; see :class:`~.protocols.EpisodeBatch`."""
        seed = int(rng.integers(2**31 - self._env.num_envs))  # sub-environment i gets seed + i
        with self._calling("reset"):
            observations, _ = self._env.reset(seed=seed)
        self._observations = np.array(observations)
        self._time = 0
        self._done[...], self._alive[...] = False, True
        return self._observations[None, : self._n].copy()

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        """Advance every slot by one time step; see :class:`~.protocols.EpisodeBatch`."""
        check_running(self._time < self.horizon)
        actions = np.array(actions)
        check_actions(actions, (1, self._n), self.action_space)
        self._time += 1
        # Sub-environments without a slot, and whatever follows in ended ones, repeat the first action: it is a valid one.
        everywhere = np.repeat(actions[0, :1], self._env.num_envs, axis=0)
        everywhere[: self._n] = actions[0]
        everywhere = everywhere.astype(self._env.action_space.dtype, copy=False)
        with self._calling("step"):
            if self._mode is AutoresetMode.DISABLED and self._done.any():
                self._env.reset(options={"reset_mask": self._done.copy()})
            observations, rewards, terminated, truncated, infos = self._env.step(everywhere)
        terminated, truncated = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        self._done = terminated | truncated
        alive = self._alive
        seen = np.asarray(observations)
        self._observations[alive] = seen[alive]
        if self._mode is AutoresetMode.SAME_STEP:
            self._take_final(infos, alive & self._done)
        truncated |= self._time >= self.horizon
        terminated, truncated = terminated & alive, truncated & alive & ~terminated
        self._alive = alive & ~terminated & ~truncated
        own = np.s_[None, : self._n]
        rewards = np.where(alive, rewards, 0.0)
        return self._observations[own].copy(), rewards[own], terminated[own], truncated[own]

    def _take_final(self, infos: dict[str, Any], ended: Bools) -> None:
        """Replace observations of next episodes by the last of those that have just ended."""
        if not ended.any():
            return
        if "final_obs" not in infos:
            raise EnvironmentFailedError(
                f"step: got no info['final_obs'] from {self._env}, which resets in the same step; expected the last observations; "
                "use autoreset_mode NEXT_STEP"
            )
        for i in np.nonzero(ended)[0]:
            self._observations[i] = infos["final_obs"][i]

    def close(self) -> None:
        """Leave the vector environment open: it is the caller's."""
        self._time = self.horizon
