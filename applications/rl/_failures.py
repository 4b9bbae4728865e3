"""The error of an environment that fails, with the task it belongs to, and numbers that are one."""

from __future__ import annotations

import reprlib
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot.errors import FewShotError

__all__ = ["EnvironmentFailedError", "check_finite", "describe_task"]


class EnvironmentFailedError(FewShotError, RuntimeError):
    """An environment raised an error, or its process died; the message names the task."""


def describe_task(index: int, parameters: Any) -> str:
    """Name a task in an error message, in one line of bounded length."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = short.maxtuple = 8
    short.maxstring, short.maxother = 60, 120
    text = " ".join(short.repr(parameters).split())
    return f"task {index} (parameters {text})"


def check_finite(valid: npt.NDArray[np.bool_], time: int | None, **given: npt.NDArray[Any]) -> None:
    """Refuse numbers that would make all parameters useless.

    Parameters
    ----------
    valid : ndarray of bool of shape (time, tasks, episodes)
        Which numbers count.
    time : int or None
        After how many time steps the first of them came, 0 for those of a reset; None after the last one of each episode.
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
    fewshot.applications.rl._failures.EnvironmentFailedError: step: got reward nan in time step 5 of episode 1 of task 0; ...
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
            raise EnvironmentFailedError(
                f"{call}: got {name} {values[t, task, episode].tolist()} in {place} of episode {episode} of task {task}; "
                "expected finite numbers; mend the environment"
            )
