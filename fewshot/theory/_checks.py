"""Checks of what the closed forms are given."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError

__all__ = ["Floats", "array", "count", "number", "shares"]

Floats = npt.NDArray[np.float64]


def array(name: str, values: Any, *ndims: int) -> Floats:
    """Return finite numbers as float64, with one of these numbers of axes."""
    try:
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidParameterError(f"{name}: got {type(values).__name__}; expected an array of numbers.") from None
    if found.ndim not in ndims:
        expected = " or ".join(map(str, ndims))
        raise InvalidParameterError(f"{name}: got an array of shape {found.shape}; expected {expected} axes.")
    if found.size == 0 or not np.isfinite(found).all():
        raise InvalidParameterError(
            f"{name}: got {'no' if found.size == 0 else 'infinite or missing'} values; expected finite numbers."
        )
    return found


def number(name: str, value: Any, *, zero: bool = False) -> float:
    """Return a finite number above 0, or of 0 or more."""
    good = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not good or not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected a number {'of 0 or more' if zero else 'above 0'}."
        )
    return float(value)


def count(name: str, value: Any, least: int) -> int:
    """Return a whole number of `least` or more."""
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise InvalidParameterError(f"{name}: got {value!r}; expected a whole number of {least} or more.")
    return int(value)


def shares(name: str, probabilities: Any, n_tasks: int) -> Floats:
    """Return the probability of each task, summing to 1; None gives equal ones."""
    if probabilities is None:
        return np.full(n_tasks, 1 / n_tasks)
    found = array(name, probabilities, 1)
    if len(found) != n_tasks or (found < 0).any() or found.sum() == 0:
        raise InvalidParameterError(
            f"{name}: got {len(found)} values from {found.min():g} to {found.max():g}; expected one of 0 or more for each "
            f"of {n_tasks} tasks, not all 0."
        )
    normalised: Floats = found / found.sum()
    return normalised
