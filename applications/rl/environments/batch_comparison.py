"""A natively vectorised batch, held step by step against single environments of the same family.

Arrays and single environments are two writings of one problem, and only the single ones can be read like the problem's
description. A batch begins its episodes in its own way, so slots are comparable where the single environment is in the same
state: it began there, because it always does or because both drew from equal generators, or `match` put it there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidDataError

from .failures import describe_task
from .gym_batches import SyncBatch
from .protocols import Bools, EpisodeBatch, Family

__all__ = ["Act", "Match", "compare_batch"]

Env = gymnasium.Env[Any, Any]
Match = Callable[[Any, tuple[int, int], Env], None]
Act = Callable[[npt.NDArray[Any], np.random.Generator], npt.NDArray[Any]]

NAMES = ("observation", "reward", "terminated", "truncated")


def compare_batch(
    family: Family,
    parameters: Sequence[Any],
    n_episodes: int,
    act: Act,
    rng: np.random.Generator,
    *,
    match: Match | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-6,
) -> Bools:
    """Run a family's batch beside single environments of its own ``make``, with the same actions.

    Parameters
    ----------
    family : Family
        Whose ``batch`` and ``make`` are compared.
    parameters : sequence
        Of the tasks.
    n_episodes : int
        Episodes of each.
    act : callable
        ``act(observations, rng) -> actions`` of all slots.
    rng : numpy.random.Generator
        Source of everything random.
    match : callable, default=None
        ``match(batch, (task, episode), env)`` puts a single environment that was just reset into the state of a slot. By default
        nothing is put anywhere, and slots are compared whose first observation is the single environment's.
    rtol, atol : float, default=1e-4, 1e-6
        Relative and absolute tolerance of observations and rewards: arrays round otherwise than single numbers.

    Returns
    -------
    ndarray of bool of shape (tasks, episodes)
        Which slots were compared.

    Raises
    ------
    InvalidDataError
        At the first difference: an observation, a reward, an end; what was returned is written to later; or an episode goes on
        after `horizon` steps.
    EnvironmentFailedError
        If an environment raises an error.

    Examples
    --------
    >>> from fewshot.applications.rl import PointNavigation
    >>> family = PointNavigation(horizon=20)
    >>> def act(observations, rng):
    ...     return rng.uniform(-0.1, 0.1, observations.shape).astype(np.float32)
    >>> compare_batch(family, [(0.1, 0.2), (0.3, 0.4)], 3, act, np.random.default_rng(0)).all()
    np.True_
    """
    envs: list[Env] = []

    def make(task: Any) -> Env:
        envs.append(family.make(task))
        return envs[-1]

    spaces, slots = (family.observation_space, family.action_space), (len(parameters), n_episodes)
    with (
        contextlib.closing(family.batch(parameters, n_episodes)) as batch,
        # One step more than an episode has: environments have to end by themselves.
        contextlib.closing(SyncBatch(make, parameters, n_episodes, family.horizon + 1, spaces)) as singles,
    ):
        start = rng.bit_generator.state
        now = batch.reset(rng)
        rng.bit_generator.state = start
        theirs = singles.reset(rng)
        if match is None:
            equal = np.isclose(now, theirs, rtol, atol).reshape(*slots, -1).all(-1)
        else:
            equal = np.ones(slots, np.bool_)
            for env, i in zip(envs, np.ndindex(slots), strict=True):
                match(batch, (i[0], i[1]), env)
        _run(batch, singles, parameters, equal, now, act, rng, family.horizon, (rtol, atol))
    return equal


def _run(
    batch: EpisodeBatch,
    singles: SyncBatch,
    parameters: Sequence[Any],
    compared: Bools,
    now: npt.NDArray[Any],
    act: Act,
    rng: np.random.Generator,
    horizon: int,
    tolerances: tuple[float, float],
) -> None:
    """Step both until every episode of the batch is over."""
    alive = np.ones(compared.shape, np.bool_)
    for t in range(1, horizon + 1):
        actions, before = act(now, rng), now.copy()
        ours, theirs = batch.step(actions), singles.step(actions)
        if not np.array_equal(before, now):
            raise InvalidDataError(
                f"batch: got observations that changed in time step {t} after they had been returned; expected arrays that are "
                "not written to later; return a copy"
            )
        for name, mine, other in zip(NAMES, ours, theirs, strict=True):
            close = np.isclose(mine, other, *tolerances) if name in NAMES[:2] else mine == other
            wrong = alive & compared & ~close.reshape(*alive.shape, -1).all(-1)
            if wrong.any():
                task, episode = np.argwhere(wrong)[0]
                raise InvalidDataError(
                    f"batch: got {name} {np.asarray(mine)[task, episode]} in time step {t} of episode {episode} of "
                    f"{describe_task(int(task), parameters[task])}; expected {np.asarray(other)[task, episode]}, as the "
                    "environment that make builds gives; make both follow the same rules"
                )
        over = ours[2] | ours[3]
        if (over & ~alive).any():
            raise InvalidDataError(
                f"batch: got an end in time step {t} in a slot whose episode had ended; expected one end for each episode; "
                "remember which slots are over"
            )
        alive = alive & ~over
        now = ours[0]
        if not alive.any():
            return
    task, episode = np.argwhere(alive)[0]
    raise InvalidDataError(
        f"batch: got episode {episode} of {describe_task(int(task), parameters[task])} that goes on after {horizon} time steps, "
        "the family's horizon; expected an end; set truncated in the last step"
    )
