"""Ready-made families of well-known Gymnasium environments.

The first four vary the physics of classic control problems by :meth:`~.families.EnvFamily.vary`; ranges are arguments, and more
attributes may be given. Beware: a policy that sees velocities can often do well in all of them without adapting, since they tell
it what its pushes do. The MuJoCo ones hide the task in the reward, as the MAML paper does (section 5.3): the goal velocity, or
the direction in which to run.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import gymnasium
import numpy as np

from fewshot.errors import InvalidParameterError, MissingDependencyError

from ._native import check_range
from .families import EnvFamily

__all__ = [
    "GoalVelocity",
    "acrobot",
    "ant_direction",
    "cartpole",
    "half_cheetah_direction",
    "half_cheetah_velocity",
    "mountain_car_continuous",
    "pendulum",
]

Env = gymnasium.Env[Any, Any]


def cartpole(**options: Any) -> EnvFamily:
    """Vary the physics of ``CartPole-v1``: gravity, masses, half the pole's length, and the push.

    Parameters
    ----------
    **options
        Other ranges than ``gravity=(6, 14)``, ``masscart=(0.5, 2)``, ``masspole=(0.05, 0.5)``, ``length=(0.25, 1)`` and
        ``force_mag=(5, 15)``, and the other arguments of :meth:`~.families.EnvFamily.vary`, such as ``horizon``.

    Returns
    -------
    EnvFamily

    Examples
    --------
    >>> import numpy as np
    >>> family = cartpole(length=[0.5], horizon=200)
    >>> sorted(family.sample(np.random.default_rng(0)))
    ['force_mag', 'gravity', 'length', 'masscart', 'masspole']
    """
    ranges = {
        "gravity": (6.0, 14.0),
        "masscart": (0.5, 2.0),
        "masspole": (0.05, 0.5),
        "length": (0.25, 1.0),
        "force_mag": (5.0, 15.0),
    }
    return EnvFamily.vary("CartPole-v1", **{**ranges, **options})


def pendulum(**options: Any) -> EnvFamily:
    """Vary the physics of ``Pendulum-v1``: gravity, mass and length.

    Parameters
    ----------
    **options
        Other ranges than ``g=(5, 15)``, ``m=(0.5, 1.5)`` and ``l=(0.5, 1.5)``, and the other arguments of
        :meth:`~.families.EnvFamily.vary`.

    Returns
    -------
    EnvFamily

    Examples
    --------
    >>> pendulum().make({"g": 9.8, "m": 0.5, "l": 1.2}).unwrapped.g
    9.8
    """
    return EnvFamily.vary("Pendulum-v1", **{"g": (5.0, 15.0), "m": (0.5, 1.5), "l": (0.5, 1.5), **options})


def acrobot(**options: Any) -> EnvFamily:
    """Vary the physics of ``Acrobot-v1``: lengths and masses of its links, whose centres of mass follow the lengths.

    Parameters
    ----------
    **options
        Other ranges than ``(0.75, 1.25)`` for each of ``LINK_LENGTH_1``, ``LINK_LENGTH_2``, ``LINK_MASS_1`` and ``LINK_MASS_2``,
        and the other arguments of :meth:`~.families.EnvFamily.vary`.

    Returns
    -------
    EnvFamily

    Examples
    --------
    >>> task = {"LINK_LENGTH_1": 1.2, "LINK_LENGTH_2": 0.8, "LINK_MASS_1": 1.0, "LINK_MASS_2": 1.0}
    >>> acrobot().make(task).unwrapped.LINK_COM_POS_1
    0.6
    """
    names = "LINK_LENGTH_1", "LINK_LENGTH_2", "LINK_MASS_1", "LINK_MASS_2"
    return EnvFamily.vary("Acrobot-v1", **{**dict.fromkeys(names, (0.75, 1.25)), **options})


def mountain_car_continuous(**options: Any) -> EnvFamily:
    """Vary ``MountainCarContinuous-v0``: the power of the engine, where the goal is and how fast to arrive there.

    Parameters
    ----------
    **options
        Other ranges than ``power=(0.001, 0.002)``, ``goal_position=(0.3, 0.5)`` and ``goal_velocity=(0, 0.02)``, and the other
        arguments of :meth:`~.families.EnvFamily.vary`.

    Returns
    -------
    EnvFamily

    Examples
    --------
    >>> family = mountain_car_continuous(goal_velocity=[0.0])
    >>> family.horizon
    999
    """
    ranges = {"power": (0.001, 0.002), "goal_position": (0.3, 0.5), "goal_velocity": (0.0, 0.02)}
    return EnvFamily.vary("MountainCarContinuous-v0", **{**ranges, **options})


def _need_mujoco(name: str) -> None:
    """Refuse where MuJoCo is not installed."""
    if importlib.util.find_spec("mujoco") is None:
        raise MissingDependencyError(
            f"{name} needs the package mujoco, which is not installed; run: pip install 'fewshot[mujoco]'"
        )


def half_cheetah_direction(horizon: int = 200, **options: Any) -> EnvFamily:
    """Let ``HalfCheetah-v5`` run forwards in one task and backwards in the other.

    There are two tasks only, so both are seen in meta-training. The direction is the sign of ``forward_reward_weight``.

    Parameters
    ----------
    horizon : int, default=200
        Most time steps of an episode.
    **options
        Other arguments of :meth:`~.families.EnvFamily.vary`, such as ``workers``.

    Returns
    -------
    EnvFamily

    Raises
    ------
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("half_cheetah_direction")
    return EnvFamily.vary("HalfCheetah-v5", horizon=horizon, **{"forward_reward_weight": [-1.0, 1.0], **options})


def ant_direction(horizon: int = 200, **options: Any) -> EnvFamily:
    """Let ``Ant-v5`` run forwards in one task and backwards in the other.

    Parameters
    ----------
    horizon : int, default=200
        Most time steps of an episode.
    **options
        Other arguments of :meth:`~.families.EnvFamily.vary`, such as ``workers``.

    Returns
    -------
    EnvFamily

    Raises
    ------
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("ant_direction")
    return EnvFamily.vary("Ant-v5", horizon=horizon, **{"forward_reward_weight": [-1.0, 1.0], **options})


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


def half_cheetah_velocity(
    velocities: tuple[float, float] = (0.0, 2.0), horizon: int = 200, *, workers: int | None = None
) -> EnvFamily:
    """Let ``HalfCheetah-v5`` run at a velocity that differs from task to task.

    Parameters
    ----------
    velocities : (float, float), default=(0.0, 2.0)
        Range of the goal velocity, in m/s, which is drawn uniformly. The reward is that of :class:`GoalVelocity`, with half the
        usual cost of controls (0.05 times their squares), as in the MAML paper.
    horizon : int, default=200
        Most time steps of an episode.
    workers : int, default=None
        As in :class:`~.families.EnvFamily`.

    Returns
    -------
    EnvFamily
        Its parameters are dicts with the key ``velocity``.

    Raises
    ------
    InvalidParameterError
        If `velocities` is not a range.
    MissingDependencyError
        If MuJoCo is not installed.
    """
    _need_mujoco("half_cheetah_velocity")
    low, high = check_range("velocities", velocities)
    plain = EnvFamily.vary("HalfCheetah-v5", horizon=horizon, constants={"ctrl_cost_weight": 0.05})

    def make(parameters: Any) -> Env:
        try:
            return GoalVelocity(plain.make({}), float(parameters["velocity"]))
        except (KeyError, TypeError, ValueError, IndexError):
            raise InvalidParameterError(
                f"parameters: got {parameters!r}; expected a dict with a number velocity; call sample(rng)"
            ) from None

    def sample(rng: np.random.Generator) -> dict[str, float]:
        return {"velocity": float(rng.uniform(low, high))}

    return EnvFamily(make=make, sample=sample, horizon=horizon, workers=workers)
