"""Families of environments: where tasks come from, and how an environment is made from a task.

:class:`EnvFamily` needs two functions, ``sample(rng) -> parameters`` and ``make(parameters) -> gymnasium.Env``, and runs the
environments side by side; :meth:`EnvFamily.vary` writes both for a registered environment. Anything with the methods of
:class:`~.protocols.Family` is a family too: one that keeps all episodes in arrays, such as
:class:`~.point_navigation.PointNavigation`, is used as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import FewShotError, InvalidParameterError

from ..checks import check_count, check_positive
from ._vary import Variation
from .async_batches import AsyncBatch
from .failures import describe_cause, describe_task
from .gym_batches import SyncBatch
from .limits import horizon_of
from .protocols import EpisodeBatch, Floats
from .spaces import check_spaces

__all__ = ["EnvFamily", "told_numbers"]

Env = gymnasium.Env[Any, Any]


def told_numbers(parameters: Any) -> npt.NDArray[np.float32]:
    """Describe a task by the numbers in its parameters.

    Parameters
    ----------
    parameters : dict, number, sequence or ndarray
        A dict gives its values in the order of its sorted keys, an array its entries.

    Returns
    -------
    ndarray of float32 of shape (n,)

    Raises
    ------
    InvalidParameterError
        If something in it is not a number.

    Examples
    --------
    >>> told_numbers({"masspole": 0.25, "length": 0.5, "goal": [1, -1]})
    array([ 1.  , -1.  ,  0.5 ,  0.25], dtype=float32)
    """
    if isinstance(parameters, Mapping):
        parts = [told_numbers(parameters[key]) for key in sorted(parameters)]
        return np.concatenate([np.zeros(0, np.float32), *parts])
    try:
        numbers = np.asarray(parameters)
    except ValueError:  # a sequence of sequences of different lengths
        numbers = np.array(None)
    if numbers.dtype.kind not in "biuf":
        raise InvalidParameterError(
            f"told: got no function, and {parameters!r} in a task's parameters; expected numbers; "
            "give told=, a function from parameters to an array of numbers"
        )
    return numbers.astype(np.float32).ravel()


class EnvFamily:
    """A family of Gymnasium environments, from a function that makes one and a function that draws its parameters.

    Parameters
    ----------
    make : callable
        ``make(parameters) -> gymnasium.Env``: builds the environment of a task, a new one in each call. Wrappers are allowed.
    sample : callable
        ``sample(rng) -> parameters``: draws a task from a ``numpy.random.Generator``. Parameters may be any object; a dict of
        numbers is convenient.
    told : callable, default=None
        ``told(parameters) -> array of shape (n,)``: a task in numbers, for policies that are told the task. By default the
        numbers in the parameters, those of a dict in the order of its sorted keys.
    horizon : int, default=None
        Most time steps of an episode; by default the limit with which the environment was registered or wrapped.
    workers : int, default=None
        Processes in which the environments run, for those whose steps take long; by default they take turns in this process,
        which is faster for small ones. The numbers are the same.
    worker_timeout : float, default=None
        Most seconds that such a process may take for a time step of its environments, or for a reset, the first of which builds
        them; after them it ends with an error that names its tasks. By default it may take as long as it likes.

    Attributes
    ----------
    observation_space, action_space : gymnasium.Space
        Of the environment of one task; those of the others must agree.

    Raises
    ------
    InvalidParameterError
        If an argument is not callable or raises an error, `make` returns something else than an environment, its spaces are
        neither Box nor Discrete, or its episodes have no limit.

    Examples
    --------
    >>> import gymnasium
    >>> import numpy as np
    >>> def make(parameters):
    ...     return gymnasium.make("Pendulum-v1", g=parameters["gravity"])
    >>> family = EnvFamily(make=make, sample=lambda rng: {"gravity": rng.uniform(5.0, 15.0)})
    >>> family.horizon
    200
    >>> rng = np.random.default_rng(0)
    >>> batch = family.batch([family.sample(rng), family.sample(rng)], n_episodes=3)
    >>> batch.reset(rng).shape
    (2, 3, 3)
    """

    def __init__(
        self,
        make: Callable[[Any], Env],
        sample: Callable[[np.random.Generator], Any],
        *,
        told: Callable[[Any], Any] | None = None,
        horizon: int | None = None,
        workers: int | None = None,
        worker_timeout: float | None = None,
    ) -> None:
        for name, value in (("make", make), ("sample", sample), ("told", told_numbers if told is None else told)):
            if not callable(value):
                raise InvalidParameterError(f"{name}: got {value!r}; expected a function; see the example of EnvFamily")
        self._make, self._sample, self._told = make, sample, told
        self.workers = None if workers is None else check_count("workers", workers)
        self.worker_timeout = None if worker_timeout is None else check_positive("worker_timeout", worker_timeout)
        probe = self._probe()
        try:
            check_spaces(probe.observation_space, probe.action_space)
            limit = horizon_of(probe) if horizon is None else check_count("horizon", horizon)
        finally:
            probe.close()
        if limit is None:
            raise InvalidParameterError(
                f"horizon: got None for {probe}, which sets no limit of time steps; expected an integer; "
                "give horizon= to EnvFamily or as_family, or wrap the environment in gymnasium.wrappers.TimeLimit"
            )
        self.observation_space, self.action_space, self.horizon = probe.observation_space, probe.action_space, limit

    @classmethod
    def vary(
        cls,
        env_id: str,
        /,
        *,
        derive: Callable[[Any], object] | None = None,
        wrap: Callable[[Env], Env] | None = None,
        horizon: int | None = None,
        told: Callable[[Any], Any] | None = None,
        constants: Mapping[str, Any] | None = None,
        workers: int | None = None,
        worker_timeout: float | None = None,
        **choices: Any,
    ) -> EnvFamily:
        """Vary properties of a registered environment.

        Parameters
        ----------
        env_id : str
            Registered name, such as ``"CartPole-v1"``.
        derive : callable, default=None
            Called with the unwrapped environment after its attributes are set, to recompute what depends on them. What CartPole
            and Acrobot derive from masses and lengths is recomputed without it.
        wrap : callable, default=None
            Called with the environment; returns a wrapped one.
        horizon : int, default=None
            Most time steps of an episode; by default the registered number.
        told : callable, default=None
            As in :class:`EnvFamily`.
        constants : dict, default=None
            Constructor arguments that all tasks share, such as ``render_mode``.
        workers : int, default=None
            As in :class:`EnvFamily`.
        worker_timeout : float, default=None
            As in :class:`EnvFamily`.
        **choices : (low, high), list, set or callable
            What varies: an argument of the constructor, an attribute of the unwrapped environment, or a dotted path, as in
            ``**{"model.body_mass": (0.5, 2.0)}``, to something that the drawn value multiplies. A tuple (low, high) is a range
            of equally likely numbers, a list or set holds equally likely values, a callable draws from a
            ``numpy.random.Generator``.

        Returns
        -------
        EnvFamily
            Its parameters are dicts with the names in `choices`.

        Raises
        ------
        InvalidParameterError
            If `env_id` is not registered, or the environment has nothing of a name.

        Examples
        --------
        >>> import numpy as np
        >>> family = EnvFamily.vary("CartPole-v1", length=(0.25, 1.0), force_mag=[5.0, 10.0])
        >>> family.sample(np.random.default_rng(0))
        {'length': 0.72..., 'force_mag': 10.0}
        >>> env = family.make({"length": 1.0, "force_mag": 5.0}).unwrapped
        >>> env.length, env.polemass_length, env.force_mag
        (1.0, 0.1, 5.0)
        >>> EnvFamily.vary("CartPole-v1", lenght=(0.25, 1.0))
        Traceback (most recent call last):
            ...
        fewshot.errors.InvalidParameterError: lenght: got a name that CartPoleEnv lacks; ... did you mean 'length'?
        """
        limit = None if horizon is None else check_count("horizon", horizon)
        variation = Variation(env_id, choices, derive, wrap, limit, constants)
        return cls(
            variation.make,
            variation.sample,
            told=told,
            horizon=limit,
            workers=workers,
            worker_timeout=worker_timeout,
        )

    def _probe(self) -> Env:
        """Build one environment, or say which function fails."""
        try:
            task = self.sample(np.random.default_rng(0))
        except FewShotError:
            raise
        except Exception as error:
            raise InvalidParameterError(
                f"sample: got {describe_cause(error)}; expected no error from sample(rng), which draws a task from a "
                "numpy.random.Generator; mend the function"
            ) from error
        if isinstance(task, gymnasium.Env):
            raise InvalidParameterError(
                f"sample: got a function that returned the environment {task}; expected the parameters of a task; give make "
                "first, then sample"
            )
        try:
            return self.make(task)
        except FewShotError:
            raise
        except Exception as error:
            raise InvalidParameterError(
                f"make: got {describe_cause(error)} for {describe_task(0, task)}; expected no error from make(parameters), which "
                "builds an environment of what sample(rng) returns; mend the function"
            ) from error

    def __repr__(self) -> str:
        make, sample = (getattr(function, "__qualname__", function) for function in (self._make, self._sample))
        return f"EnvFamily(make={make}, sample={sample}, horizon={self.horizon})"

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw the parameters of one task."""
        return self._sample(rng)

    def make(self, parameters: Any) -> Env:
        """Build the environment of a task."""
        env = self._make(parameters)
        if not isinstance(env, gymnasium.Env):
            raise InvalidParameterError(
                f"make: got a function that returned {type(env).__name__}; expected a gymnasium.Env; "
                "return the environment that it builds"
            )
        return env

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> EpisodeBatch:
        """Build `n_episodes` environments for each of some tasks."""
        n_episodes, spaces = check_count("n_episodes", n_episodes), (self.observation_space, self.action_space)
        if self.workers is None:
            return SyncBatch(self.make, parameters, n_episodes, self.horizon, spaces)
        workers, timeout = self.workers, self.worker_timeout
        return AsyncBatch(self.make, parameters, n_episodes, self.horizon, spaces, workers, timeout)

    def told(self, parameters: Any) -> Floats:
        """Describe a task in numbers, shape (n,)."""
        if self._told is None:
            return told_numbers(parameters)
        return np.asarray(self._told(parameters), np.float32).ravel()
