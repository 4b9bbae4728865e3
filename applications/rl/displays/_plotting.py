"""What the displays share: colours, axes and the checks of what they are given.

Colours are Okabe and Ito's, which colour-blind readers tell apart; before and after adapting look the same in every picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from fewshot.errors import InvalidDataError, InvalidParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AFTER", "BEFORE", "COLOURS", "GOAL", "MARKERS", "axes_for", "named_frames", "need_columns", "tidy"]

BEFORE: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (4, 1.5))}
AFTER: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}
GOAL = "#009E73"
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A"]
MARKERS = ["o", "s", "^", "v", "D", "P", "X"]
FIGURE_SIZE = 5.0, 3.6  # inches; 400 pixels wide, labels are still some ten pixels high


def axes_for(ax: Any) -> tuple[Figure, Axes]:
    """Return given axes with their figure, or new ones."""
    from matplotlib import pyplot as plt
    from matplotlib.axes import Axes

    if ax is None:
        return plt.subplots(figsize=FIGURE_SIZE, layout="constrained")
    if not isinstance(ax, Axes):
        raise InvalidParameterError(
            f"ax: got {type(ax).__name__}; expected matplotlib axes; leave it out to get new ones"
        )
    return ax.figure, ax  # type: ignore[return-value]


def tidy(ax: Axes) -> None:
    """Leave out what says nothing."""
    ax.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


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
