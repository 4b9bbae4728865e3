"""The error of an environment that fails, with the task it belongs to, and what all batches refuse: wrong calls, wrong numbers."""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from fewshot.errors import FewShotError, InvalidDataError, InvalidParameterError

__all__ = [
    "EnvironmentFailedError",
    "check_actions",
    "check_finite",
    "check_running",
    "check_tasks",
    "describe_cause",
    "describe_task",
]


class EnvironmentFailedError(FewShotError, RuntimeError):
    """An environment raised an error, or its process died; the message names the task."""


def describe_task(index: int, parameters: Any) -> str:
    """Name a task in an error message, in one line of bounded length."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = short.maxtuple = 8
    short.maxstring, short.maxother = 60, 120
    text = " ".join(short.repr(parameters).split())
    return f"task {index} (parameters {text})"


def describe_cause(error: BaseException) -> str:
    """Put an error into one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def check_tasks(parameters: Sequence[Any]) -> None:
    """Refuse a batch of no tasks.

    Parameters
    ----------
    parameters : sequence
        Of each task.

    Raises
    ------
    InvalidParameterError
        If there are none.
    """
    if not len(parameters):
        raise InvalidParameterError("parameters: got none; expected those of at least one task; call sample(rng)")


def check_running(is_running: bool) -> None:
    """Refuse a step of episodes that have not begun, or are all over.

    Parameters
    ----------
    is_running : bool
        Whether time steps are left.

    Raises
    ------
    EnvironmentFailedError
        If none are.
    """
    if not is_running:
        raise EnvironmentFailedError(
            "step: got called after the last time step; expected a reset before; call reset(rng)"
        )


def check_actions(actions: npt.NDArray[Any], slots: tuple[int, int], action_space: gymnasium.Space[Any]) -> None:
    """Refuse actions that are not one for each slot.

    Parameters
    ----------
    actions : ndarray of shape (tasks, episodes, *action)
        Of all slots.
    slots : (int, int)
        Tasks and episodes.
    action_space : gymnasium.Space
        Of a single environment.

    Raises
    ------
    InvalidDataError
        If their shape is another.

    Examples
    --------
    >>> from gymnasium.spaces import Discrete
    >>> check_actions(np.zeros((2, 3), int), (2, 3), Discrete(4))
    >>> check_actions(np.zeros((3, 2), int), (2, 3), Discrete(4))
    Traceback (most recent call last):
        ...
    fewshot.errors.InvalidDataError: actions: got shape (3, 2); expected (2, 3): tasks, episodes, then the action's; ...
    """
    expected = (*slots, *(action_space.shape or ()))
    if actions.shape != expected:
        raise InvalidDataError(
            f"actions: got shape {actions.shape}; expected {expected}: tasks, episodes, then the action's; "
            "give one action for each slot"
        )


def check_finite(
    valid: npt.NDArray[np.bool_], time: int | None, tasks: Sequence[Any] | None = None, **given: npt.NDArray[Any]
) -> None:
    """Refuse numbers that would make all parameters useless.

    Parameters
    ----------
    valid : ndarray of bool of shape (time, tasks, episodes)
        Which numbers count.
    time : int or None
        After how many time steps the first of them came, 0 for those of a reset; None after the last one of each episode.
    tasks : sequence, default=None
        Parameters of the tasks, to name one by.
    **given : ndarray of shape (time, tasks, episodes) or (time, tasks, episodes, n)
        By name.

    Raises
    ------
    EnvironmentFailedError
        If a number is infinite or none; it names the first.

    Examples
    --------
    >>> reward = np.array([[[1.0, np.nan]]])
    >>> check_finite(np.array([[[True, False]]]), 5, reward=reward)
    >>> check_finite(np.array([[[True, True]]]), 5, reward=reward)
    Traceback (most recent call last):
        ...
    fewshot.applications.rl.environments.failures.EnvironmentFailedError: step: got reward nan in time step 5 of episode 1 of ...
    """
    for name, values in given.items():
        finite = np.isfinite(values)
        if finite.all():
            continue
        wrong = valid & ~finite.reshape(*valid.shape, -1).all(-1)
        if wrong.any():
            t, task, episode = np.argwhere(wrong)[0]
            call = "reset" if time is not None and time + t == 0 else "step"
            place = (
                "the last time step"
                if time is None
                else "the beginning"
                if call == "reset"
                else f"time step {time + t}"
            )
            where = f"task {task}" if tasks is None else describe_task(task, tasks[task])
            raise EnvironmentFailedError(
                f"{call}: got {name} {values[t, task, episode].tolist()} in {place} of episode {episode} of {where}; "
                "expected finite numbers; mend the environment"
            )
