"""The error of an environment that fails, with the task it belongs to."""

from __future__ import annotations

import reprlib
from typing import Any

from fewshot.errors import FewShotError

__all__ = ["EnvironmentFailedError", "describe_task"]


class EnvironmentFailedError(FewShotError, RuntimeError):
    """An environment raised an error, or its process died; the message names the task."""


def describe_task(index: int, parameters: Any) -> str:
    """Name a task in an error message, in one line of bounded length."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = short.maxtuple = 8
    short.maxstring, short.maxother = 60, 120
    text = " ".join(short.repr(parameters).split())
    return f"task {index} (parameters {text})"
