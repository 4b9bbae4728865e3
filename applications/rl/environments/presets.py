"""Ready-made families of classic control problems, whose physics vary.

Ranges are arguments, and more attributes may be given, as to :meth:`~.families.EnvFamily.vary`. Beware: a policy that sees
velocities can often do well in all of them without adapting, since they tell it what its pushes do.
"""

from __future__ import annotations

from typing import Any

from .families import EnvFamily

__all__ = ["acrobot", "cartpole", "mountain_car_continuous", "pendulum"]


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
