"""What users bring, made into a family: a name, an environment, a vector environment, a factory with a sampler.

An environment with a method ``set_task`` and one that samples tasks (the convention of the first meta-learning code for
reinforcement learning, still found in learn2learn, garage and many benchmarks) is a family by itself. Any other single environment
is a family of one task, which is what a policy adapts to. Episodes run side by side, so environments are copied.
"""

from __future__ import annotations

import random
import reprlib
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from fewshot.errors import InvalidParameterError

from ._copying import copy_env
from .families import EnvFamily
from .protocols import Family
from .vector_batches import VectorFamily

__all__ = ["as_family", "as_one_task"]

Env = gymnasium.Env[Any, Any]

SET_TASK = ("set_task", "reset_task")
SAMPLE_TASKS = ("sample_tasks", "sample_task")
FAMILY = ("observation_space", "action_space", "horizon", "sample", "make", "batch", "told")


def as_family(
    source: Any, *, horizon: int | None = None, workers: int | None = None, worker_timeout: float | None = None
) -> Family:
    """Make a family of environments of what a user has.

    Parameters
    ----------
    source : Family, str, gymnasium.Env, type, gymnasium.vector.VectorEnv or pair of callables
        * A family (such as :class:`~.families.EnvFamily` or :class:`~.point_navigation.PointNavigation`) is returned as it is.
        * ``(make, sample)``, two functions as :class:`~.families.EnvFamily` takes them.
        * An environment with ``set_task(task)`` and ``sample_tasks(n)``, or its class.
        * Any other environment, or the name of a registered one: a family of this one task.
        * A vector environment: a family of one task, with as many episodes at a time as it has sub-environments.
    horizon : int, default=None
        Most time steps of an episode; by default what the environment says.
    workers : int, default=None
        Processes in which single environments run; None for this one.
    worker_timeout : float, default=None
        Most seconds that such a process may take for a time step or a reset, as in :class:`~.families.EnvFamily`.

    Returns
    -------
    Family

    Raises
    ------
    InvalidParameterError
        If `source` is none of these, cannot be copied, or has no limit of time steps.

    Examples
    --------
    >>> import gymnasium
    >>> family = as_family("CartPole-v1")
    >>> family.horizon
    500
    >>> env = gymnasium.make("Pendulum-v1")
    >>> env.unwrapped.m = 2.0
    >>> as_family(env).make({}).unwrapped.m
    2.0
    """
    processes = {"workers": workers, "worker_timeout": worker_timeout}
    single: dict[str, Any] = {"horizon": horizon, **processes}
    if isinstance(source, VectorEnv):
        for name, value in processes.items():
            if value is not None:
                raise InvalidParameterError(
                    f"{name}: got a number and a vector environment; expected None; it has its own way to run"
                )
        return VectorFamily(source, horizon)
    if isinstance(source, gymnasium.Env):
        return _of_env(source, lambda: copy_env(source), single)
    if isinstance(source, type) and issubclass(source, gymnasium.Env):
        return _of_env(source(), source, single)
    if isinstance(source, Family):
        for name, value in single.items():
            if value is not None:
                raise InvalidParameterError(
                    f"{name}: got {value!r} for a family; expected None, since it has its own; build it with another {name}"
                )
        return source
    if isinstance(source, EnvSpec):
        source = source.id
    if isinstance(source, str):
        return EnvFamily.vary(source, **single)
    if isinstance(source, tuple) and len(source) == 2 and all(map(callable, source)):
        return EnvFamily(make=source[0], sample=source[1], **single)
    if isinstance(source, type) and all(hasattr(source, name) for name in ("sample", "make", "batch")):
        raise InvalidParameterError(
            f"family: got the class {source.__name__}; expected a family; build one with {source.__name__}(...)"
        )
    missing = [name for name in FAMILY if not hasattr(source, name)]
    if hasattr(source, "sample") and hasattr(source, "make") and missing:
        raise InvalidParameterError(
            f"family: got {type(source).__name__} without {', '.join(missing)}; expected all of {', '.join(FAMILY)}; write what is "
            "missing, or build an EnvFamily of its make and sample"
        )
    raise InvalidParameterError(
        f"family: got {reprlib.repr(source)}; expected a family, the name of an environment, a gymnasium.Env (with set_task and "
        "sample_tasks for several tasks), a VectorEnv or a pair (make, sample); build an EnvFamily(make=..., sample=...)"
    )


def as_one_task(env: Any, *, horizon: int) -> Family:
    """Make a family of one task: an environment as it is.

    Parameters
    ----------
    env : gymnasium.Env or gymnasium.vector.VectorEnv
        One with ``set_task`` stays with the task that it was given.
    horizon : int
        Most time steps of an episode.

    Returns
    -------
    Family

    Raises
    ------
    InvalidParameterError
        If `env` is something else, or cannot be copied.

    Examples
    --------
    >>> import gymnasium
    >>> as_one_task(gymnasium.make("CartPole-v1"), horizon=100).horizon
    100
    """
    if isinstance(env, VectorEnv):
        return as_family(env, horizon=horizon)
    if not isinstance(env, gymnasium.Env):
        raise InvalidParameterError(
            f"env: got {type(env).__name__}; expected one gymnasium.Env, or a VectorEnv; build it by gymnasium.make(...) or "
            "family.make(parameters)"
        )
    return EnvFamily(make=lambda parameters: copy_env(env), sample=lambda rng: {}, horizon=horizon)


def _method(env: Env, names: tuple[str, ...]) -> tuple[str, Callable[..., Any]] | None:
    """Find the first of some methods, through wrappers."""
    found = ((name, env.get_wrapper_attr(name)) for name in names if env.has_wrapper_attr(name))
    return next(((name, method) for name, method in found if callable(method)), None)


def _of_env(env: Env, build: Callable[[], Env], single: dict[str, Any]) -> EnvFamily:
    """Make a family of an environment that can be built again and may be told its task."""
    setter, sampler = _method(env, SET_TASK), _method(env, SAMPLE_TASKS)
    if setter is None:
        return EnvFamily(make=lambda parameters: build(), sample=lambda rng: {}, **single)
    if sampler is None:
        raise InvalidParameterError(
            f"family: got {env} with {setter[0]} but none of {', '.join(SAMPLE_TASKS)}; expected both; "
            "give EnvFamily(make=..., sample=...) with a sampler of tasks"
        )

    def make(task: Any) -> Env:
        made = build()
        set_task = _method(made, SET_TASK)
        assert set_task is not None
        set_task[1](task)
        return made

    return EnvFamily(make=make, sample=lambda rng: _sample(env, *sampler, rng), **single)


def _sample(env: Env, name: str, sampler: Callable[..., Any], rng: np.random.Generator) -> Any:
    """Draw a task from an environment's own sampler, in a way that follows from `rng`.

    Such methods draw from the environment's generator, from numpy's global state or from Python's, so all three are set; the
    global ones are put back.
    """
    seed = int(rng.integers(2**31))
    env.unwrapped.np_random = np.random.default_rng(seed)
    before = np.random.get_state(), random.getstate()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    random.seed(seed)
    try:
        return sampler() if name == "sample_task" else sampler(1)[0]
    finally:
        np.random.set_state(before[0])  # noqa: NPY002
        random.setstate(before[1])
