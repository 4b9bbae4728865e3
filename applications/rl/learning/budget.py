"""How long meta-training may go on."""

from __future__ import annotations

import math
import time

import numpy as np

from fewshot.errors import InvalidParameterError

__all__ = ["Budget"]

DEFAULT_SECONDS = 300.0
ITERATION_SECONDS = 0.5  # about what one takes; only whether compiling pays hangs on it


class Budget:
    """Time steps, or seconds from now on; with neither, five minutes.

    Parameters
    ----------
    total_env_steps : int or None
        Most time steps of all environments together.
    max_time : float or None
        Most seconds.

    Raises
    ------
    InvalidParameterError
        If one is not positive.

    Examples
    --------
    >>> Budget(1000, None).is_spent(999), Budget(1000, None).is_spent(1000)
    (False, True)
    """

    def __init__(self, total_env_steps: int | None, max_time: float | None) -> None:
        for name, value in (("total_env_steps", total_env_steps), ("max_time", max_time)):
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise InvalidParameterError(f"{name}: got {value!r}; expected a positive number, or None.")
        if total_env_steps is None and max_time is None:
            max_time = DEFAULT_SECONDS
        self._steps = math.inf if total_env_steps is None else total_env_steps
        self._seconds = math.inf if max_time is None else max_time
        self._began = time.perf_counter()

    def is_spent(self, env_steps: int) -> bool:
        """Whether to stop after so many time steps."""
        return env_steps >= self._steps or time.perf_counter() - self._began >= self._seconds

    def iterations(self, most_steps: int) -> int:
        """About how many iterations there will be, if one takes at most so many time steps."""
        return math.ceil(min(self._steps / most_steps, self._seconds / ITERATION_SECONDS))
