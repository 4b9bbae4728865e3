"""Families of MuJoCo's runners that hide the task in the reward, as the MAML paper does (section 5.3).

Tasks differ in the goal velocity, or in the direction in which to run; the observation says neither. Single environments are
Gymnasium's own; batches keep all episodes in arrays and simulate them over threads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidParameterError, MissingDependencyError

from ..checks import check_count, check_range
from .failures import check_tasks
from .mujoco_batches import AntBatch, HalfCheetahBatch, Runner, RunnerBatch
from .protocols import Floats

__all__ = ["GoalVelocity", "RunnerFamily", "ant_direction", "half_cheetah_direction", "half_cheetah_velocity"]

Env = gymnasium.Env[Any, Any]

logger = logging.getLogger("fewshot")

# Constructor arguments that follow the numbers which batches compute with.
ENVIRONMENTS: dict[str, tuple[type[RunnerBatch], dict[str, Any]]] = {
    "HalfCheetah-v5": (HalfCheetahBatch, {"reset_noise_scale": HalfCheetahBatch.RESET_NOISE}),
    "Ant-v5": (
        AntBatch,
        {
            "reset_noise_scale": AntBatch.RESET_NOISE,
            "main_body": AntBatch.TORSO,
            "healthy_z_range": AntBatch.HEIGHTS,
            "healthy_reward": AntBatch.HEALTHY_REWARD,
            "contact_force_range": (-AntBatch.MOST_FORCE, AntBatch.MOST_FORCE),
            "contact_cost_weight": AntBatch.CONTACT_COST,
        },
    ),
}


class GoalVelocity(gymnasium.Wrapper[Any, Any, Any, Any]):
    r"""Reward an environment for moving at one velocity: :math:`-|v - v^*|`, plus what its controls cost.

    Parameters
    ----------
    env : gymnasium.Env
        With ``x_velocity`` and ``reward_ctrl`` in the ``info`` of its steps, as MuJoCo's runners.
    velocity : float
        The wanted one, in m/s.

    Examples
    --------
    >>> import gymnasium
    >>> class Still(gymnasium.Env):
    ...     def step(self, action):
    ...         return 0.0, 1.0, False, False, {"x_velocity": 0.5, "reward_ctrl": -0.125}
    >>> GoalVelocity(Still(), velocity=2.0).step(None)[1]
    -1.625
    """

    def __init__(self, env: Env, velocity: float) -> None:
        super().__init__(env)
        self.velocity = velocity

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance the environment, and replace its reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        reward = float(info["reward_ctrl"]) - abs(float(info["x_velocity"]) - self.velocity)
        return observation, reward, terminated, truncated, info


class _Direction:
    """Tasks that differ in the sign of the reward for moving along x."""

    name, expected = "direction", "1 or -1 as"

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.choice([-1.0, 1.0]))

    def allows(self, value: float) -> bool:
        return value in (-1.0, 1.0)

    def drive(self, velocities: Floats, directions: Floats) -> Floats:
        return directions * velocities

    def env(self, build: Callable[..., Env], value: float) -> Env:
        return build(forward_reward_weight=value)


@dataclass(frozen=True)
class _Velocity:
    """Tasks that differ in the velocity at which to move along x."""

    low: float
    high: float
    name, expected = "velocity", "a finite number as"

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))

    def allows(self, value: float) -> bool:
        return math.isfinite(value)

    def drive(self, velocities: Floats, wanted: Floats) -> Floats:
        return -np.abs(velocities - wanted)

    def env(self, build: Callable[..., Env], value: float) -> Env:
        return GoalVelocity(build(), value)


class RunnerFamily:
    """A family of one of Gymnasium's MuJoCo runners with a hidden goal; made by the functions of this module.

    Parameters
    ----------
    env_id : {"HalfCheetah-v5", "Ant-v5"}
        Which one.
    goal : object
        What differs between tasks.
    control_cost : float
        Weight of the squares of actions in the reward.
    horizon : int
        Most time steps of an episode.
    threads : int or None
        Threads that simulate a batch; None: as many as there are cores.

    Attributes
    ----------
    observation_space, action_space : gymnasium.spaces.Box
        Of the environment.
    """

    def __init__(
        self, env_id: str, goal: _Direction | _Velocity, control_cost: float, horizon: int, threads: int | None
    ) -> None:
        self.env_id, self.control_cost, self.horizon = env_id, control_cost, check_count("horizon", horizon)
        self.threads = None if threads is None else check_count("threads", threads)
        self._goal = goal
        with contextlib.closing(self._build()) as env:
            self._runner = Runner.of(env)
        self.observation_space, self.action_space = self._runner.observation_space, self._runner.action_space

    def __repr__(self) -> str:
        return f"RunnerFamily({self.env_id!r}, {self._goal.name}, horizon={self.horizon}, threads={self.threads})"

    def _build(self, **options: Any) -> Env:
        with _without_deprecations():
            # The checker compares every observation with the space, in each step.
            return gymnasium.make(
                self.env_id,
                max_episode_steps=self.horizon,
                disable_env_checker=True,
                ctrl_cost_weight=self.control_cost,
                **{**ENVIRONMENTS[self.env_id][1], **options},
            )

    def _number(self, parameters: Any) -> float:
        """Return the goal in some parameters, or say what is wrong with them."""
        name = self._goal.name
        try:
            value = float(parameters[name]) if isinstance(parameters, Mapping) and len(parameters) == 1 else math.nan
        except (KeyError, TypeError, ValueError):
            value = math.nan
        if not self._goal.allows(value):
            raise InvalidParameterError(
                f"parameters: got {parameters!r}; expected a dict with {self._goal.expected} its {name}; call sample(rng)"
            )
        return value

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw the goal of one task."""
        return {self._goal.name: self._goal.draw(rng)}

    def make(self, parameters: Any, render_mode: str | None = None) -> Env:
        """Build Gymnasium's environment with a task's reward; `render_mode` is Gymnasium's."""
        return self._goal.env(partial(self._build, render_mode=render_mode), self._number(parameters))

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> RunnerBatch:
        """Make `n_episodes` slots for each of some tasks."""
        check_tasks(parameters)
        goals, drive = np.array([self._number(p) for p in parameters])[:, None], self._goal.drive
        return ENVIRONMENTS[self.env_id][0](
            self._runner,
            lambda velocities: drive(velocities, goals),
            self.control_cost,
            len(parameters),
            n_episodes,
            self.horizon,
            self.threads,
        )

    def told(self, parameters: Any) -> npt.NDArray[np.float32]:
        """Describe a task by its goal, shape (1,)."""
        return np.array([self._number(parameters)], np.float32)


@contextlib.contextmanager
def _without_deprecations() -> Iterator[None]:
    """Keep MuJoCo from printing, and writing to a file, that Gymnasium's models use what it will drop; log its other warnings."""
    import mujoco

    def handle(message: str) -> None:
        if "deprecated" not in message:
            logger.warning("mujoco: %s", message)

    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(handle)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def _need_mujoco(name: str) -> None:
    """Refuse where MuJoCo is not installed."""
    if importlib.util.find_spec("mujoco") is None:
        raise MissingDependencyError(
            f"{name} needs the package mujoco, which is not installed; run: pip install 'fewshot[mujoco]'"
        )


def half_cheetah_direction(horizon: int = 200, *, threads: int | None = None) -> RunnerFamily:
    """Let ``HalfCheetah-v5`` run forwards in one task and backwards in the other.

    There are two tasks only, so both are seen in meta-training. The reward is the environment's own, its forward part times the
    direction.

    Parameters
    ----------
    horizon : int, default=200
        Most time steps of an episode.
    threads : int, default=None
        Threads that simulate; by default as many as there are cores. The numbers do not depend on it.

    Returns
    -------
    RunnerFamily
        Its parameters are dicts with the key ``direction``: 1 or -1.

    Raises
    ------
    InvalidParameterError
        If a number is below 1.
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("half_cheetah_direction")
    return RunnerFamily("HalfCheetah-v5", _Direction(), 0.1, horizon, threads)


def ant_direction(horizon: int = 200, *, threads: int | None = None) -> RunnerFamily:
    """Let ``Ant-v5`` run forwards in one task and backwards in the other.

    Parameters
    ----------
    horizon : int, default=200
        Most time steps of an episode, which ends before where the ant falls over.
    threads : int, default=None
        As in :func:`half_cheetah_direction`.

    Returns
    -------
    RunnerFamily
        Its parameters are dicts with the key ``direction``: 1 or -1.

    Raises
    ------
    InvalidParameterError
        If a number is below 1.
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("ant_direction")
    return RunnerFamily("Ant-v5", _Direction(), 0.5, horizon, threads)


def half_cheetah_velocity(
    velocities: tuple[float, float] = (0.0, 2.0), horizon: int = 200, *, threads: int | None = None
) -> RunnerFamily:
    """Let ``HalfCheetah-v5`` run at a velocity that differs from task to task.

    Parameters
    ----------
    velocities : (float, float), default=(0.0, 2.0)
        Range of the goal velocity, in m/s, which is drawn uniformly. The reward is that of :class:`GoalVelocity`, with half the
        usual cost of controls (0.05 times their squares), as in the MAML paper.
    horizon : int, default=200
        Most time steps of an episode.
    threads : int, default=None
        As in :func:`half_cheetah_direction`.

    Returns
    -------
    RunnerFamily
        Its parameters are dicts with the key ``velocity``.

    Raises
    ------
    InvalidParameterError
        If `velocities` is not a range, or a number is below 1.
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("half_cheetah_velocity")
    low, high = check_range("velocities", velocities)
    return RunnerFamily("HalfCheetah-v5", _Velocity(low, high), 0.05, horizon, threads)
