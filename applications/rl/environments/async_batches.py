"""Episode batches whose environments run in several processes.

A process for each of some hundred environments would spend its time on messages, so each worker of Gymnasium's ``AsyncVectorEnv``
runs a share of the slots, by a :class:`~.gym_batches.SyncBatch` of its own: one message to and one from each worker make a time
step. It pays only where an environment's step takes long; with CartPole it is slower than a single process.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box
from gymnasium.vector import AsyncVectorEnv, AutoresetMode

from fewshot.errors import FewShotError, InvalidParameterError

from ..checks import check_count
from ._vector_calls import close_workers, dead_workers, wait_for_workers
from .failures import EnvironmentFailedError, check_actions, check_running, check_tasks, describe_cause, describe_task
from .gym_batches import Make, SyncBatch
from .protocols import Bools, Floats

__all__ = ["AsyncBatch"]

Spaces = tuple["gymnasium.Space[Any]", "gymnasium.Space[Any]"]


def _stacked(space: gymnasium.Space[Any], n: int) -> Box:
    """Space of `n` values at once, without bounds: those of two tasks may differ."""
    dtype = np.dtype(space.dtype)
    low, high = (-np.inf, np.inf) if dtype.kind == "f" else (0, 1)  # numbers pass through, whatever the bounds say
    return Box(low, high, (n, *(space.shape or ())), dtype.type)


class _Share(gymnasium.Env[Any, Any]):
    """The slots of one worker as if they were one environment: what they give and take is stacked.

    An error travels in ``info``: if it were raised here, Gymnasium would print a warning and end the worker.
    """

    def __init__(
        self, number: int, make: Make, parameters: list[Any], tasks: list[int], size: int, spaces: Spaces, horizon: int
    ) -> None:
        self.observation_space: gymnasium.Space[Any] = _stacked(spaces[0], size)
        self.action_space: gymnasium.Space[Any] = _stacked(spaces[1], size)
        self._arguments = make, parameters, 1, horizon, spaces, tasks
        self._number, self._n, self._size = number, len(parameters), size
        # Built by the first reset: Gymnasium makes and throws away an environment in the main process to see its spaces.
        self._batch: SyncBatch | None = None

    def _filled(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Drop the axis of episodes, and fill up to the size of all shares."""
        out = np.zeros((self._size, *values.shape[2:]), values.dtype)
        out[: self._n] = values[:, 0]
        return out

    def _nothing(self, error: Exception) -> tuple[npt.NDArray[Any], dict[str, Any]]:
        """Answer with an error."""
        kind = "parameter" if isinstance(error, InvalidParameterError) else "environment"
        text = str(error) if isinstance(error, FewShotError) else describe_cause(error)
        return np.zeros(self.observation_space.shape or (), self.observation_space.dtype), {kind: text}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode in each slot with the seeds in `options`."""
        assert options is not None
        try:
            if self._batch is None:
                self._batch = SyncBatch(*self._arguments)
            return self._filled(self._batch.begin(np.array(options["seeds"][self._number])[:, None])), {}
        except Exception as error:
            return self._nothing(error)

    def step(self, action: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Advance each slot."""
        assert self._batch is not None
        try:
            values = self._batch.step(action[: self._n, None])
        except Exception as error:
            observation, info = self._nothing(error)
            empty = np.zeros(self._size)
            return observation, empty, empty > 0, empty > 0, info
        return *(self._filled(value) for value in values), {}  # type: ignore[return-value]

    def close(self) -> None:
        """Close the environments."""
        if self._batch is not None:
            self._batch.close()


class AsyncBatch:
    """Environments that run in several processes; see :class:`~.protocols.EpisodeBatch`.

    It gives the same numbers as :class:`~.gym_batches.SyncBatch`.

    Parameters
    ----------
    make : callable
        ``make(parameters)`` builds the environment of a task.
    parameters : sequence
        Of each task.
    n_episodes : int
        Environments of each task.
    horizon : int
        Time steps after which an episode is cut off, if it has not ended before.
    spaces : (gymnasium.Space, gymnasium.Space)
        Of observations and actions of a single environment.
    workers : int
        Processes.
    timeout : float, default=None
        Most seconds of a time step, and of a reset, the first of which builds the environments; after them an environment counts
        as stuck. None waits as long as the processes live.

    Raises
    ------
    InvalidParameterError
        If there are no tasks or a number is none.
    EnvironmentFailedError
        From `reset` and `step`, if an environment raises an error, a process dies or takes too long; it names the tasks, and the
        batch is closed.

    Examples
    --------
    >>> import gymnasium
    >>> import numpy as np
    >>> env = gymnasium.make("CartPole-v1")
    >>> spaces = env.observation_space, env.action_space
    >>> batch = AsyncBatch(lambda _: gymnasium.make("CartPole-v1"), [{}], 3, horizon=50, spaces=spaces, workers=2)
    >>> batch.reset(np.random.default_rng(0)).shape
    (1, 3, 4)
    >>> batch.step(np.zeros((1, 3), dtype=int))[1]
    array([[1., 1., 1.]])
    >>> batch.close()
    """

    def __init__(
        self,
        make: Make,
        parameters: Sequence[Any],
        n_episodes: int,
        horizon: int,
        spaces: Spaces,
        workers: int,
        timeout: float | None = None,
    ) -> None:
        check_tasks(parameters)
        self.observation_space, self.action_space = spaces
        self.horizon, self.timeout = horizon, timeout
        self._parameters = list(parameters)
        self._slots = len(self._parameters), check_count("n_episodes", n_episodes)
        self._time = horizon  # so that a step before the first reset is refused like one after the end
        tasks = np.repeat(np.arange(self._slots[0]), n_episodes).tolist()
        self._size = math.ceil(len(tasks) / min(check_count("workers", workers), len(tasks)))
        self._shares = [tasks[i : i + self._size] for i in range(0, len(tasks), self._size)]
        self._env: AsyncVectorEnv | None = None
        functions = [
            functools.partial(_Share, i, make, [self._parameters[j] for j in share], share, self._size, spaces, horizon)
            for i, share in enumerate(self._shares)
        ]
        try:
            self._env = AsyncVectorEnv(functions, autoreset_mode=AutoresetMode.DISABLED)
        except (OSError, EOFError) as error:
            raise EnvironmentFailedError(
                f"workers: got {type(error).__name__} while {len(functions)} processes started; expected them to run; "
                "give fewer workers, or workers=None for a single process"
            ) from error

    def _give_up(self, call: str, workers: Sequence[int]) -> EnvironmentFailedError:
        """Close, and say which tasks were run by workers that no longer answer."""
        assert self._env is not None
        dead = [code for i in workers if (code := self._env.processes[i].exitcode) is not None]
        what = f"a process that ended with code {dead[0]}" if dead else f"no answer within {self.timeout} seconds"
        tasks = list(dict.fromkeys(task for i in workers for task in self._shares[i]))
        names = ", ".join(describe_task(i, self._parameters[i]) for i in tasks[:3])
        more = f" and {len(tasks) - 3} more" if len(tasks) > 3 else ""
        self.close()
        return EnvironmentFailedError(
            f"{call}: got {what} from the environments of {names}{more}; expected an answer; "
            "mend the environment, or find the cause with workers=None, which runs it in this process"
        )

    def _call(self, call: str, *arguments: Any, **keywords: Any) -> Any:
        """Send a call to all workers and return what they answer."""
        env = self._env
        if env is None:
            raise EnvironmentFailedError(
                f"{call}: got called on a closed batch; expected an open one; make another batch"
            )
        try:
            getattr(env, f"{call}_async")(*arguments, **keywords)
            silent = wait_for_workers(env, self.timeout)
            answers: Any = () if silent else getattr(env, f"{call}_wait")()
        except (OSError, EOFError) as error:
            silent = dead_workers(env, patience=1.0) or list(range(len(self._shares)))
            raise self._give_up(call, silent) from error
        except BaseException:  # an interruption leaves answers in the pipes, for the next call to mistake for its own
            self.close()
            raise
        if silent:
            raise self._give_up(call, silent)
        for kind, error_type in (("parameter", InvalidParameterError), ("environment", EnvironmentFailedError)):
            if kind in answers[-1]:
                text = next(text for text in answers[-1][kind] if text)
                self.close()
                raise error_type(text)
        return answers

    def _arranged(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """From (workers, slots of each, ...) to (tasks, episodes, ...)."""
        flat = values.reshape(-1, *values.shape[2:])[: math.prod(self._slots)]
        return flat.reshape(*self._slots, *flat.shape[1:])

    def reset(self, rng: np.random.Generator) -> npt.NDArray[Any]:
        """Begin an episode in every slot; see :class:`~.protocols.EpisodeBatch`."""
        seeds = rng.integers(2**31, size=self._slots).ravel().tolist()
        shares = [seeds[i : i + self._size] for i in range(0, len(seeds), self._size)]
        observations, _ = self._call("reset", options={"seeds": shares})
        self._time = 0
        return self._arranged(observations)

    def step(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], Floats, Bools, Bools]:
        """Advance every slot by one time step; see :class:`~.protocols.EpisodeBatch`."""
        check_running(self._time < self.horizon)
        actions = np.asarray(actions)
        check_actions(actions, self._slots, self.action_space)
        self._time += 1
        one = self.action_space.shape or ()
        spread = np.zeros((len(self._shares) * self._size, *one), actions.dtype)
        spread[: math.prod(self._slots)] = actions.reshape(-1, *one)
        answers = self._call("step", spread.reshape(len(self._shares), self._size, *one))
        observations, rewards, terminated, truncated = (self._arranged(values) for values in answers[:4])
        return observations, rewards, terminated, truncated

    def close(self) -> None:
        """End all processes."""
        env, self._env = self._env, None
        if env is not None:
            close_workers(env)
