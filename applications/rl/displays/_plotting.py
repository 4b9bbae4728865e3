"""What the displays share beside the colours and axes of all of the package's: checks of what they are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from fewshot.errors import InvalidDataError
from fewshot.inspection._plotting import AFTER, BEFORE, COLOURS, axes_for, tidy

__all__ = ["AFTER", "BEFORE", "COLOURS", "GOAL", "MARKERS", "axes_for", "named_frames", "need_columns", "tidy"]

GOAL = "#009E73"
MARKERS = ["o", "s", "^", "v", "D", "P", "X"]


def named_frames(name: str, given: Any) -> dict[str, pd.DataFrame]:
    """Return frames by name; one alone has the name "".

    Parameters
    ----------
    name : str
        Of the argument.
    given : pandas.DataFrame or mapping of str to pandas.DataFrame
        What a user handed in.
    """
    frames = dict(given) if isinstance(given, Mapping) else {"": given}
    for frame in frames.values():
        if not isinstance(frame, pd.DataFrame):
            raise InvalidDataError(
                f"{name}: got {type(frame).__name__}; expected a frame, or a dict of frames by name; pass one of them"
            )
    if not frames:
        raise InvalidDataError(f"{name}: got an empty dict; expected at least one frame; pass one")
    return {str(key): frame for key, frame in frames.items()}


def need_columns(name: str, frame: pd.DataFrame, columns: list[str], source: str) -> None:
    """Refuse a frame that is something else."""
    missing = [column for column in columns if column not in frame.columns]
    if missing or frame.empty:
        what = f"no column {missing[0]!r}" if missing else "no rows"
        raise InvalidDataError(f"{name}: got a frame with {what}; expected what {source} gives; pass that")
