"""What pictures share: colours, and axes with nothing on them that says nothing.

Colours are Okabe and Ito's, which colour-blind readers tell apart; before and after adapting look the same in every picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import InvalidParameterError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AFTER", "BEFORE", "COLOURS", "axes_for", "tidy", "whole_numbers"]

BEFORE: dict[str, Any] = {"color": "#D55E00", "linestyle": (0, (4, 1.5))}
AFTER: dict[str, Any] = {"color": "#0072B2", "linestyle": "-"}
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A"]
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


def whole_numbers(ax: Axes) -> None:
    """Mark whole numbers only on the horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
