"""Whether a family of environments keeps its promises, found out in seconds and before hours of training.

What goes wrong in families of one's own goes wrong in silence: tasks that are all the same, a sampler that draws from a global
generator, a step that does not follow from the seed, a batch in arrays that is not what the single environment is.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.utils.env_checker import check_env, data_equivalence

from fewshot.errors import InvalidDataError, InvalidParameterError

from ..checks import check_count
from .batch_comparison import Act, Match, compare_batch
from .failures import check_finite, describe_task
from .families import EnvFamily
from .gym_batches import SyncBatch
from .protocols import EpisodeBatch, Family
from .sources import as_family
from .spaces import check_spaces, encode_observations
from .vector_batches import VectorFamily

__all__ = ["check_family"]

EPISODES = 2
MORE_DRAWS = 20  # of a family with few tasks: one of two is drawn so often in a row once in a million times
# Beginnings of what Gymnasium's check_env warns of, and why it does no harm here.
TOLERATED = (
    "A Box observation space m",  # infinite bounds: observations are standardised by what is met, not by their bounds
    "A Box action space m",  # infinite bounds: such an action is taken as the network gives it
    "For Box action spaces, we recommend",  # other bounds than 1: a policy acts in units in which they are
    "The environment (",  # a wrapped environment: what is asked of it is asked of all that a policy will meet
    "Official support for the `seed` function",  # never called
)

Floats = npt.NDArray[np.float64]


def check_family(family: Any, *, n_tasks: int = 3, match: Match | None = None, random_state: int | None = 0) -> Family:
    """Check a family of environments, by a few episodes of random actions.

    It looks at the spaces; at whether `sample` draws the same tasks from equal generators; at one environment with Gymnasium's
    ``check_env``; whether ``make`` gives environments of the same spaces, whose episodes follow from their seeds and hold finite
    numbers; whether tasks differ; and whether a batch begins alike from equal generators and ends within the horizon. A batch in
    arrays is compared with single environments of the family's own ``make``.

    Parameters
    ----------
    family : Family or what :func:`as_family` takes
        The environments.
    n_tasks : int, default=3
        Tasks to draw, each for two episodes.
    match : callable, default=None
        For batches in arrays whose episodes begin at random: ``match(batch, (task, episode), env)`` puts a single environment
        that was just reset into the state of a slot. Without it, slots that begin where the single environment does are compared.
    random_state : int or None, default=0
        Seed of tasks, episodes and actions.

    Returns
    -------
    Family
        As :func:`as_family` makes it.

    Raises
    ------
    InvalidParameterError
        If `family` is none, `sample` or ``make`` give what cannot be used, or Gymnasium refuses an environment.
    InvalidDataError
        If episodes do not follow from their seed, go on past the horizon, or differ between batch and single environments.
    EnvironmentFailedError
        If an environment raises an error or gives numbers that are not finite; it names the task.

    Warns
    -----
    UserWarning
        If all tasks give the same episodes, so that there is nothing to adapt to; if a batch could not be compared; and what
        Gymnasium warns of, but for bounds and wrappers, which do no harm.

    Examples
    --------
    >>> from fewshot.applications.rl import EnvFamily, check_family
    >>> family = check_family(EnvFamily.vary("Pendulum-v1", m=(0.5, 1.5)))
    >>> import gymnasium
    >>> import numpy as np
    >>> def make(gravity):
    ...     return gymnasium.make("Pendulum-v1", g=gravity)
    >>> check_family((make, lambda rng: np.random.uniform(5, 15)))
    Traceback (most recent call last):
        ...
    fewshot.errors.InvalidParameterError: sample: got task 0 (parameters ...) and then task 0 ... from equal generators; ...
    """
    if check_count("n_tasks", n_tasks) < 2:
        raise InvalidParameterError("n_tasks: got 1; expected at least 2, which are compared; give another number")
    source, rng = as_family(family), np.random.default_rng(random_state)
    check_spaces(source.observation_space, source.action_space)
    check_count("horizon", source.horizon)
    tasks = _sampled(source, n_tasks, rng)
    actions = copy.deepcopy(source.action_space)  # whose generator is the family's
    actions.seed(int(rng.integers(2**31)))

    def act(observations: npt.NDArray[Any], rng: np.random.Generator) -> npt.NDArray[Any]:
        one = source.observation_space.shape or ()
        slots = observations.shape[: observations.ndim - len(one)]
        drawn = [actions.sample() for _ in range(int(np.prod(slots)))]
        return np.stack(drawn).reshape(*slots, *(source.action_space.shape or ()))

    if isinstance(source, VectorFamily):
        tasks = tasks[:1]
    else:
        _check_with_gymnasium(source, tasks)
        _check_singles(source, tasks, act, rng)
    _check_batch(source, tasks, act, rng)
    if not isinstance(source, EnvFamily | VectorFamily):
        compared = compare_batch(source, tasks, EPISODES, act, rng, match=match)
        if not compared.any():
            _warn(
                "got episodes of a batch and of single environments that begin apart, which were not compared; expected a common "
                "state; give match="
            )
    return source


def _warn(message: str) -> None:
    warnings.warn(f"family: {message}", UserWarning, stacklevel=3)


def _same(one: Any, other: Any) -> bool:
    """Compare parameters of tasks, also where a class says nothing about equality."""
    compares: Any = type(one).__eq__
    if compares is object.__eq__ and hasattr(one, "__dict__"):
        return type(one) is type(other) and _same(vars(one), vars(other))
    return bool(data_equivalence(one, other, exact=True))


def _sampled(source: Family, n_tasks: int, rng: np.random.Generator) -> list[Any]:
    """Draw tasks twice, from equal generators; where all are the same, the last is drawn again for a while."""
    generators = rng, copy.deepcopy(rng)
    tasks: list[Any] = []
    for i in range(n_tasks + MORE_DRAWS):
        task, other = (source.sample(generator) for generator in generators)
        if not _same(task, other):
            raise InvalidParameterError(
                f"sample: got {describe_task(i, task)} and then {describe_task(i, other)} from equal generators; expected equal "
                "tasks; draw everything random from the rng that sample is given"
            )
        tasks = [*tasks[: n_tasks - 1], task]
        if len(tasks) == n_tasks and not all(_same(task, tasks[0]) for task in tasks):
            return tasks
    return tasks


def _check_with_gymnasium(source: Family, tasks: Sequence[Any]) -> None:
    """Give one environment to Gymnasium's own check."""
    # Built in a batch, so that an error names the task and spaces are compared.
    spaces = source.observation_space, source.action_space
    built: list[gymnasium.Env[Any, Any]] = []

    def make(task: Any) -> gymnasium.Env[Any, Any]:
        built.append(source.make(task))
        return built[-1]

    with (
        contextlib.closing(SyncBatch(make, tasks[:1], 1, source.horizon, spaces)),
        warnings.catch_warnings(record=True) as met,
    ):
        warnings.simplefilter("always")
        env = built[0]
        env.action_space.seed(0)
        try:
            check_env(env, skip_render_check=True, skip_close_check=True)
        except Exception as error:
            cause = " ".join(f"{error}".split()) or type(error).__name__
            # What a family of single steps is meant to do.
            if not (source.horizon == 1 and cause.startswith("Environment truncates after 1 step")):
                raise InvalidParameterError(
                    f"make: got {env} for {describe_task(0, tasks[0])}, which gymnasium's check_env refuses: {cause}; expected "
                    "an environment that passes; mend it"
                ) from error
    for text in dict.fromkeys(_plain(str(warning.message)) for warning in met):
        if not text.startswith(TOLERATED):
            _warn(f"gymnasium's check_env says of {env}: {text}")


def _plain(message: str) -> str:
    """Take the colour and the level off a message of Gymnasium's logger."""
    return message.removeprefix("\x1b[33m").removesuffix("\x1b[0m").removeprefix("WARN: ")


def _check_singles(source: Family, tasks: Sequence[Any], act: Act, rng: np.random.Generator) -> None:
    """Run the same seeds and actions in all tasks, twice."""
    spaces = source.observation_space, source.action_space
    seeds = np.tile(rng.integers(2**31, size=(1, EPISODES)), (len(tasks), 1))
    given = [act(np.zeros((1, EPISODES, *(spaces[0].shape or ()))), rng) for _ in range(source.horizon)]
    runs = []
    for _ in range(2):
        with contextlib.closing(SyncBatch(source.make, tasks, EPISODES, source.horizon, spaces)) as singles:
            runs.append(_episodes(source, singles, singles.begin(seeds), given, tasks))
    if (where := _difference(runs[0], runs[1])) is not None:
        raise InvalidDataError(
            f"make: got two environments of {describe_task(where, tasks[where])} whose episodes differ with the same seed and "
            "actions; expected equal ones; draw everything random from self.np_random, and call super().reset(seed=seed)"
        )
    if all(_same(task, tasks[0]) for task in tasks):
        _warn("got one task only; expected several, since there is nothing to adapt to; draw parameters in sample")
    elif all(_difference(runs[0][i : i + 1], runs[0][:1]) is None for i in range(1, len(tasks))):
        _warn(
            f"got {len(tasks)} tasks whose episodes are alike with the same seeds and actions; expected tasks that differ; there "
            "is nothing to adapt to, unless rewards are rare: see that make uses its parameters"
        )


def _check_batch(source: Family, tasks: Sequence[Any], act: Act, rng: np.random.Generator) -> None:
    """Run a batch twice from equal generators."""
    start = rng.bit_generator.state
    n_episodes = min(EPISODES, getattr(source, "n_slots", EPISODES))
    slots = len(tasks), n_episodes
    example = np.zeros((*slots, *(source.observation_space.shape or ())))
    given = [act(example, rng) for _ in range(source.horizon)]
    runs = []
    for _ in range(2):
        rng.bit_generator.state = start
        batch = source.batch(tasks, n_episodes)
        if not isinstance(batch, EpisodeBatch):
            raise InvalidParameterError(
                f"batch: got {type(batch).__name__}; expected an object with reset, step, close and spaces; see EpisodeBatch"
            )
        with contextlib.closing(batch):
            first = batch.reset(rng)
            if np.shape(first) != example.shape:
                raise InvalidDataError(
                    f"batch: got observations of shape {np.shape(first)} for {len(tasks)} tasks of {n_episodes} episodes; "
                    f"expected {example.shape}; put tasks first, then episodes"
                )
            runs.append(_episodes(source, batch, first, given, tasks))
    if (where := _difference(runs[0], runs[1])) is not None:
        raise InvalidDataError(
            f"batch: got other episodes of {describe_task(where, tasks[where])} from equal generators and actions; expected equal "
            "ones; draw everything random from the rng that reset is given"
        )


def _episodes(
    source: Family,
    batch: EpisodeBatch,
    first: npt.NDArray[Any],
    given: Sequence[npt.NDArray[Any]],
    tasks: Sequence[Any],
) -> Floats:
    """Run one episode in each slot and return what each step showed, 0 after the end.

    Returns
    -------
    ndarray of shape (tasks, episodes, time + 1, numbers)
        Code of the observation, reward, the two ends.
    """
    slots, nothing = first.shape[:2], np.zeros(first.shape[:2])
    rows: list[Floats] = []
    alive = np.ones(slots, np.bool_)
    values: tuple[Any, ...] = (first, nothing, nothing, nothing)
    for t, action in enumerate([*given, None]):
        seen = encode_observations(source.observation_space, values[0])
        check_finite(alive[None], t, tasks, observation=seen[None], reward=values[1][None])
        row = np.concatenate([seen, np.stack(values[1:], -1)], -1).astype(np.float64)
        row[~alive] = 0.0
        rows.append(row)
        alive = alive & ~((values[2] + values[3]) > 0)
        if not alive.any():
            break
        if action is None:
            task = int(np.argwhere(alive)[0][0])
            raise InvalidDataError(
                f"horizon: got an episode of {describe_task(task, tasks[task])} that goes on after {source.horizon} time steps; "
                "expected an end; set truncated in the last step"
            )
        values = batch.step(np.broadcast_to(action, (*slots, *action.shape[2:])).copy())
    rows += [np.zeros_like(rows[0])] * (source.horizon + 1 - len(rows))
    return np.stack(rows, 2)


def _difference(one: Floats, other: Floats) -> int | None:
    """Return the first task in which two runs differ, or None."""
    wrong = (one != other).any(axis=(1, 2, 3))
    return int(np.argmax(wrong)) if wrong.any() else None
