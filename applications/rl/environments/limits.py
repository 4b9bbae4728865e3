"""How long an episode may last, as environments say themselves."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv

__all__ = ["horizon_of"]

# TimeLimit keeps its limit under a private name, and one that was added by hand is written nowhere else.
NAMES = ("_max_episode_steps", "horizon")


def horizon_of(env: gymnasium.Env[Any, Any] | VectorEnv[Any, Any, Any]) -> int | None:
    """Find the most time steps that an environment's episodes may have.

    Parameters
    ----------
    env : gymnasium.Env or gymnasium.vector.VectorEnv
        Its ``spec``, its ``TimeLimit`` wrapper or an attribute ``horizon`` of its own may say; of a vector environment
        ``max_episode_steps`` as well, and its sub-environments, the longest of which counts.

    Returns
    -------
    int or None
        None if nothing says.

    Examples
    --------
    >>> import gymnasium
    >>> horizon_of(gymnasium.make("CartPole-v1"))
    500
    >>> env = gymnasium.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync", max_episode_steps=30)
    >>> horizon_of(env)
    30
    >>> env.close()
    """
    registered = getattr(env.spec, "max_episode_steps", None)
    if isinstance(env, VectorEnv):
        # The specification comes last: it does not know of a limit given to make_vec.
        own = [getattr(env.unwrapped, name, None) for name in ("max_episode_steps", "horizon")]
        return _first(*own, *_of_parts(env.unwrapped), registered)
    return _first(registered, *(env.get_wrapper_attr(name) for name in NAMES if env.has_wrapper_attr(name)))


def _of_parts(env: VectorEnv[Any, Any, Any]) -> list[int | None]:
    """Ask sub-environments, where there is a way to."""
    if not isinstance(env, SyncVectorEnv | AsyncVectorEnv):
        return []
    # A process that is asked for what it lacks ends, so whether it lacks it is asked first.
    known = (name for name in NAMES if all(env.call("has_wrapper_attr", name)))
    limits = ([_first(value) for value in env.call(name)] for name in known)
    return [max(found) for each in limits if len(found := [n for n in each if n is not None]) == env.num_envs]


def _first(*found: Any) -> int | None:
    """Return the first that is a number of time steps."""
    return next((int(n) for n in found if isinstance(n, int | np.integer) and n >= 1), None)
