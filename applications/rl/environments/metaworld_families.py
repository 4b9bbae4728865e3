"""Families of Meta-World's robot arm: the benchmarks ML1 and ML10.

In ML1 all tasks are one manipulation, and differ in where the object and the goal are. ML10 trains on ten manipulations and
tests on five others. There are 50 tasks of each manipulation in either part. The goal is in the reward alone: observations show
zeros in its place, and where the object is, which tells the task where that is all that differs (a drawer's place, say).

Tasks come from ``metaworld.ML1`` and ``metaworld.ML10`` themselves: under the name ``Meta-World/ML1-train``,
``gymnasium.make_vec`` serves the *test* tasks in Meta-World 3.1.1. Unlike the paper's iterations, which have equally many tasks of
each manipulation, tasks are drawn independently.

References
----------
Yu, Quillen, He, Julian, Hausman, Finn, Levine (2020), Meta-World: a benchmark and evaluation for multi-task and meta
reinforcement learning, CoRL.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import functools
import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidParameterError, MissingDependencyError

from ..checks import check_count, check_positive
from .async_batches import AsyncBatch
from .gym_batches import SyncBatch
from .protocols import EpisodeBatch

__all__ = ["FirstSuccess", "MetaWorldFamily", "metaworld_ml1", "metaworld_ml10"]

Env = gymnasium.Env[Any, Any]

MOST_STEPS = 500  # after which the environments refuse another
REWARDS = "shaped", "success"
SPLITS = "train", "test"


class FirstSuccess(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Reward the first time step in which the task is solved with 1 and end the episode there; reward others with 0.

    The return is 1 if the task was solved at any time in the episode, the measure of the literature; so whatever computes mean
    returns computes success rates.

    Parameters
    ----------
    env : gymnasium.Env
        With ``success`` in the ``info`` of its steps.

    Examples
    --------
    >>> import gymnasium
    >>> class Solved(gymnasium.Env):
    ...     def step(self, action):
    ...         return 0.0, 7.5, False, False, {"success": float(action > 0)}
    >>> FirstSuccess(Solved()).step(1)[:3]
    (0.0, 1.0, True)
    >>> FirstSuccess(Solved()).step(0)[:3]
    (0.0, 0.0, False)
    """

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Advance the environment, and replace its reward."""
        observation, _, terminated, truncated, info = self.env.step(action)
        solved = bool(info["success"])
        return observation, float(solved), terminated or solved, truncated, info


class _Seeded(gymnasium.Wrapper[Any, Any, Any, Any]):
    """An environment whose generator follows the seed, which Meta-World's environments ignore."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        gymnasium.Env.reset(self.unwrapped, seed=seed)
        return self.env.reset(options=options)


class MetaWorldFamily:
    """A family of Meta-World's tasks; made by the functions of this module.

    Parameters
    ----------
    name : str
        Of the benchmark, for messages.
    classes : mapping of str to type
        Classes of environments, by manipulation.
    tasks : sequence of metaworld.Task
        Of all of them.
    known : sequence of str
        Manipulations of the benchmark, those of other splits included, which :meth:`told` tells apart.
    horizon : int
        Most time steps of an episode, at most 500.
    reward : {"shaped", "success"}
        See :func:`metaworld_ml1`.
    workers : int or None
        Processes in which the environments run; None for this one.
    worker_timeout : float or None
        Most seconds that one of them may take for a step or a reset.

    Attributes
    ----------
    observation_space, action_space : gymnasium.spaces.Box
        Of all environments.
    names : tuple of str
        Manipulations.
    """

    def __init__(
        self,
        name: str,
        classes: Mapping[str, Any],
        tasks: Sequence[Any],
        known: Sequence[str],
        *,
        horizon: int,
        reward: str,
        workers: int | None,
        worker_timeout: float | None,
    ) -> None:
        _check_choice("reward", reward, REWARDS)
        if check_count("horizon", horizon) > MOST_STEPS:
            raise InvalidParameterError(
                f"horizon: got {horizon}; expected at most {MOST_STEPS}, where Meta-World ends episodes; give a smaller number"
            )
        self.name, self.reward, self.horizon = name, reward, int(horizon)
        self.workers = None if workers is None else check_count("workers", workers)
        self.worker_timeout = None if worker_timeout is None else check_positive("worker_timeout", worker_timeout)
        self.names = tuple(classes)
        self._classes, self._known = dict(classes), tuple(known)
        self._tasks = {key: tuple(task for task in tasks if task.env_name == key) for key in self.names}
        self._most_numbers = max(len(_numbers_of(task)) for task in tasks)
        with contextlib.closing(self.make({"env_name": self.names[0], "index": 0})) as env:
            self.observation_space, self.action_space = env.observation_space, env.action_space

    def __repr__(self) -> str:
        return f"MetaWorldFamily({self.name}, reward={self.reward!r}, horizon={self.horizon}, workers={self.workers})"

    def _key(self, parameters: Any) -> tuple[str, int]:
        """Return the manipulation and the number of a task, or say what is wrong with its parameters."""
        key: Any = ("", -1)
        if isinstance(parameters, Mapping) and set(parameters) == {"env_name", "index"}:
            key = parameters["env_name"], parameters["index"]
        known = self._tasks.get(key[0], ()) if isinstance(key[0], str) else ()
        if not (isinstance(key[1], int | np.integer) and not isinstance(key[1], bool) and 0 <= key[1] < len(known)):
            raise InvalidParameterError(
                f"parameters: got {parameters!r}; expected a dict with an env_name of {self.name} ({', '.join(self.names)}) and an "
                "index among its tasks; call sample(rng)"
            )
        return key[0], int(key[1])

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw one task: a manipulation, and one of its tasks, equally likely each."""
        name = self.names[rng.integers(len(self.names))]
        return {"env_name": name, "index": int(rng.integers(len(self._tasks[name])))}

    def task(self, parameters: Any) -> Any:
        """Return the ``metaworld.Task`` that some parameters name."""
        name, index = self._key(parameters)
        return self._tasks[name][index]

    def make(self, parameters: Any) -> Env:
        """Build the environment of a task."""
        return self._prepared(self._classes[self._key(parameters)[0]](), parameters)

    def _prepared(self, env: Any, parameters: Any) -> Env:
        """Give a new environment its task, reward and limit of time."""
        env.set_task(self.task(parameters))
        judged = FirstSuccess(env) if self.reward == "success" else env
        return gymnasium.wrappers.TimeLimit(_Seeded(judged), self.horizon)

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> EpisodeBatch:
        """Make `n_episodes` slots for each of some tasks; those of a task share the model of its world."""
        n_episodes = check_count("n_episodes", n_episodes)
        for name in {self._key(p)[0] for p in parameters}:
            _unused_model(self._classes[name])  # read before processes are forked, which then have it
        build, spaces = _SharedModels(self), (self.observation_space, self.action_space)
        if self.workers is None:
            return SyncBatch(build, parameters, n_episodes, self.horizon, spaces)
        return AsyncBatch(build, parameters, n_episodes, self.horizon, spaces, self.workers, self.worker_timeout)

    def told(self, parameters: Any) -> npt.NDArray[np.float32]:
        """Describe a task: which manipulation, if there are several (one-hot), and the numbers drawn for it, with zeros behind."""
        numbers = _numbers_of(self.task(parameters))
        which = [float(self._key(parameters)[0] == name) for name in self._known] if len(self._known) > 1 else []
        return np.array([*which, *numbers, *[0.0] * (self._most_numbers - len(numbers))], np.float32)


class _SharedModels:
    """Builds environments of which those of one task have one model: it holds 20 MB, and nothing but the task changes it."""

    def __init__(self, family: MetaWorldFamily) -> None:
        self._family = family
        self._models: dict[tuple[str, int], Any] = {}

    def __call__(self, parameters: Any) -> Env:
        key = self._family._key(parameters)
        own = self._family._classes[key[0]]
        if key not in self._models:
            self._models[key] = copy.copy(_unused_model(own))
        return self._family._prepared(_taking_model(own)(self._models[key]), parameters)


@functools.cache  # a class for each environment would keep its model until cyclic garbage is collected
def _taking_model(env_class: Any) -> Any:
    """Return the same class of environments, but for a model that is given rather than read from a file."""
    import mujoco

    def begin(env: Any, model: Any) -> None:
        env.given_model = model
        env_class.__init__(env)

    def simulation(env: Any) -> tuple[Any, Any]:
        return env.given_model, mujoco.MjData(env.given_model)

    return type(env_class.__name__, (env_class,), {"__init__": begin, "_initialize_simulation": simulation})


@functools.lru_cache(maxsize=16)  # ML10's ten stay; 50 would hold a gigabyte
def _unused_model(env_class: Any) -> Any:
    """Read the model of a class of environments, to be copied."""
    with contextlib.closing(env_class()) as env:
        return env.model


@functools.lru_cache(maxsize=16)
def _benchmark(task_name: str | None, seed: int) -> Any:
    """Draw the tasks of ML1, or with no name of ML10, which takes 5 to 20 seconds; a seed gives the same ones each time."""
    import metaworld

    return metaworld.ML10(seed=seed) if task_name is None else metaworld.ML1(task_name, seed=seed)


def _numbers_of(task: Any) -> list[float]:
    """Return what distinguishes a task from others of its manipulation: where the object, the goal or both are, in m."""
    found: list[float] = pickle.loads(task.data)["rand_vec"].tolist()  # Meta-World wrote it in this process
    return found


def _check_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse what is not one of some names."""
    if value not in allowed:
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected {' or '.join(map(repr, allowed))}; give one of them"
        )


def _check_seed(value: object) -> int:
    """Return the seed of a benchmark, or say what is wrong with it; ML1's test tasks are drawn with the next one."""
    most = 2**32 - 2
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value <= most:
        raise InvalidParameterError(
            f"random_state: got {value!r}; expected an integer from 0 to {most}, the seed of the tasks; give another"
        )
    return int(value)


def _need_metaworld(name: str) -> None:
    """Refuse where Meta-World is not installed."""
    if importlib.util.find_spec("metaworld") is None:
        raise MissingDependencyError(
            f"{name} needs the package metaworld, which is not installed; run, in an environment of its own since it needs an old "
            "mujoco: pip install 'fewshot[metaworld]'"
        )


def metaworld_ml1(
    task_name: str,
    split: str = "train",
    *,
    horizon: int = MOST_STEPS,
    reward: str = "shaped",
    random_state: int = 0,
    workers: int | None = None,
    worker_timeout: float | None = None,
) -> MetaWorldFamily:
    """Meta-World's ML1: one manipulation with hidden goals, 50 for training and 50 others for testing.

    Parameters
    ----------
    task_name : str
        Manipulation, such as ``"reach-v3"``, ``"push-v3"`` or ``"pick-place-v3"``, which the literature uses.
    split : {"train", "test"}, default="train"
        Which tasks.
    horizon : int, default=500
        Most time steps of an episode; at most 500, which the literature uses.
    reward : {"shaped", "success"}, default="shaped"
        Meta-World's own reward, from 0 to 10 a time step, to learn from; or that of :class:`FirstSuccess`, by which returns are
        success rates: for ``score_family`` of :func:`~fewshot.applications.rl.adaptation_curve`.
    random_state : int, default=0
        Seed of the tasks. Give both splits the same one: the test tasks are the training tasks of the next seed.
    workers : int, default=None
        Processes in which the environments run; by default they take turns in this one. The numbers are the same.
    worker_timeout : float, default=None
        Most seconds that such a process may take for a time step of its environments, or for a reset.

    Returns
    -------
    MetaWorldFamily
        Its parameters are dicts with the keys ``env_name`` and ``index``.

    Raises
    ------
    InvalidParameterError
        If a setting cannot be used.
    MissingDependencyError
        If Meta-World is not installed.
    """
    _need_metaworld("metaworld_ml1")
    import metaworld

    names = metaworld.ML1.ENV_NAMES
    if task_name not in names:
        near = difflib.get_close_matches(str(task_name), names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"they are {', '.join(names)}"
        raise InvalidParameterError(f"task_name: got {task_name!r}; expected a name of Meta-World's; {hint}")
    options = {"horizon": horizon, "reward": reward, "workers": workers, "worker_timeout": worker_timeout}
    return _family("ML1", task_name, split, seed=random_state, **options)


def metaworld_ml10(
    split: str = "train",
    *,
    horizon: int = MOST_STEPS,
    reward: str = "shaped",
    random_state: int = 0,
    workers: int | None = None,
    worker_timeout: float | None = None,
) -> MetaWorldFamily:
    """Meta-World's ML10: ten manipulations for training and five others for testing, with 50 hidden goals each.

    Parameters
    ----------
    split : {"train", "test"}, default="train"
        Which manipulations.
    horizon : int, default=500
        As in :func:`metaworld_ml1`.
    reward : {"shaped", "success"}, default="shaped"
        As in :func:`metaworld_ml1`.
    random_state : int, default=0
        Seed of the tasks.
    workers : int, default=None
        As in :func:`metaworld_ml1`.
    worker_timeout : float, default=None
        As in :func:`metaworld_ml1`.

    Returns
    -------
    MetaWorldFamily
        Its parameters are dicts with the keys ``env_name`` and ``index``.

    Raises
    ------
    InvalidParameterError
        If a setting cannot be used.
    MissingDependencyError
        If Meta-World is not installed.
    """
    _need_metaworld("metaworld_ml10")
    options = {"horizon": horizon, "reward": reward, "workers": workers, "worker_timeout": worker_timeout}
    return _family("ML10", None, split, seed=random_state, **options)


def _family(name: str, task_name: str | None, split: str, *, seed: int, **options: Any) -> MetaWorldFamily:
    """Make a family of one part of a benchmark."""
    _check_choice("split", split, SPLITS)
    drawn = _benchmark(task_name, _check_seed(seed))
    known = list(dict.fromkeys([*drawn.train_classes, *drawn.test_classes]))
    classes, tasks = (
        (drawn.train_classes, drawn.train_tasks) if split == "train" else (drawn.test_classes, drawn.test_tasks)
    )
    return MetaWorldFamily(f"{name} {split}", classes, tasks, known, **options)
