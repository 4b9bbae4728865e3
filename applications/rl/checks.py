"""Checks of numbers that users give."""

from __future__ import annotations

import numpy as np

from fewshot.errors import InvalidParameterError

__all__ = ["check_count", "check_positive", "check_range"]


def check_count(name: str, value: object, least: int = 1) -> int:
    """Return a count, or say what is wrong with it."""
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected an integer of at least {least}; give another number"
        )
    return int(value)


def check_positive(name: str, value: object) -> float:
    """Return a finite positive number, or say what is wrong with it."""
    is_number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not is_number or not 0 < value < np.inf:  # type: ignore[operator]
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected a finite number above 0, or None; give another number"
        )
    return float(value)  # type: ignore[arg-type]


def check_range(name: str, value: object) -> tuple[float, float]:
    """Return the ends of a range, or say what is wrong with it."""
    try:
        low, high = (float(end) for end in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError):
        low, high = 1.0, 0.0
    if not (np.isfinite([low, high]).all() and low <= high):
        raise InvalidParameterError(
            f"{name}: got {value!r}; expected two finite numbers (low, high) with low <= high; give them in this order"
        )
    return low, high
