"""From measurements to a page: do the libraries agree, which is the fastest, and the tables that say so.

Nothing is measured here and no library is imported, so all of it has ordinary tests.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "OURS",
    "Cell",
    "Line",
    "comparison",
    "details",
    "disagreement",
    "fastest",
    "markdown",
    "replace_block",
    "summary",
]

OURS, JAX = "fewshot", "jax"
LIBRARIES = ("higher", "torchopt", "learn2learn")
TOLERANCE = 1e-3  # relative; rounding in single precision stays a hundred times below it
BEGIN, END = "<!-- speed: begin -->", "<!-- speed: end -->"
NOTHING = "–"


@dataclass(frozen=True)
class Cell:
    """Medians over rounds of what one library needs on one problem.

    Parameters
    ----------
    ms : float
        Milliseconds of a meta-step.
    first_s : float
        Seconds of the first meta-step, with whatever is traced, compiled or checked before it.
    peak_mib : float
        Most memory the process held, in MiB, the imported libraries included.
    """

    ms: float
    first_s: float
    peak_mib: float


@dataclass(frozen=True)
class Line:
    """One problem and what each library needs on it; text in place of a cell says why there is none."""

    label: str
    cells: dict[str, Cell | str]


def summary(rounds: Sequence[dict[str, Any]], clock: str = "wall") -> Cell:
    """Medians over the rounds of one library on one problem; `clock` is "wall" or "cpu"."""
    ms = "ms" if clock == "wall" else "cpu_ms"
    return Cell(*(median(r[name] for r in rounds) for name in (ms, "first_s", "peak_mib")))


def disagreement(
    reference_loss: float,
    reference_gradient: npt.NDArray[np.floating],
    loss: float,
    gradient: npt.NDArray[np.floating],
    tolerance: float = TOLERANCE,
) -> str | None:
    """Why a library's first step is not the reference's, or None if it is.

    Gradients are compared as vectors, not by their norms alone: a mistake in a few parameters hardly changes the norm.
    """
    if gradient.shape != reference_gradient.shape:
        return f"{gradient.size} derivatives in place of {reference_gradient.size}"
    error = abs(loss - reference_loss) / abs(reference_loss)
    if not error <= tolerance:  # true for NaN
        return f"loss off by {error:.1g}"
    reference = reference_gradient.astype(np.float64)
    size = float(np.linalg.norm(reference))
    for what, difference in (
        ("gradient norm", abs(float(np.linalg.norm(gradient.astype(np.float64))) - size)),
        ("gradient", float(np.linalg.norm(gradient - reference))),
    ):
        if not difference <= tolerance * size:
            return f"{what} off by {difference / size:.1g}"
    return None


def fastest(line: Line, names: Iterable[str]) -> str | None:
    """Name of the library among `names` that needs least time, or None if none of them has a time."""
    times = {name: cell.ms for name in names if isinstance(cell := line.cells.get(name), Cell)}
    return min(times, key=lambda name: times[name]) if times else None


def comparison(lines: Sequence[Line]) -> str:
    """Table of our time beside the fastest PyTorch library's, the fastest plain PyTorch's and JAX's.

    Ratios are theirs divided by ours, and left out where either side has no time, which is so for whoever got the
    gradient wrong.
    """
    rows = []
    for line in lines:
        ours = line.cells.get(OURS, NOTHING)
        row = [line.label, _time(ours)]
        for group in (LIBRARIES, [n for n in line.cells if n not in (OURS, JAX, *LIBRARIES)], [JAX]):
            name = fastest(line, group)
            cell = line.cells.get(name, NOTHING) if name is not None else NOTHING
            both = isinstance(ours, Cell) and isinstance(cell, Cell)
            shown = f"{_time(cell)} ({name})" if isinstance(cell, Cell) and name != JAX else _time(cell)
            row += [shown, f"**{_number(cell.ms / ours.ms)}**" if both else NOTHING]
        rows.append(row)
    header = ["ms per meta-step", OURS, "fastest library on PyTorch", "ratio", "plain PyTorch", "ratio", "JAX", "ratio"]
    return markdown(header, rows)


def details(lines: Sequence[Line], quantity: str, title: str) -> str:
    """Table of one quantity of :class:`Cell` for every library; text in place of a cell is shown as it is."""
    names = list(dict.fromkeys(name for line in lines for name in line.cells))

    def shown(cell: Cell | str) -> str:
        return cell if isinstance(cell, str) else _number(getattr(cell, quantity))

    rows = [[line.label, *(shown(line.cells.get(name, NOTHING)) for name in names)] for line in lines]
    return markdown([title, *names], rows)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Table in Markdown, its columns padded so that it reads well on a terminal too."""
    table = [list(header), *(list(row) for row in rows)]
    widths = [max(3, *(len(row[column]) for row in table)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"

    return "\n".join(
        [line(table[0]), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, table[1:])]
    )


def replace_block(page: str, block: str) -> str:
    """Put `block` between the markers of a page.

    Raises
    ------
    ValueError
        If the page does not have each marker once, in order.
    """
    if page.count(BEGIN) != 1 or page.count(END) != 1 or page.index(BEGIN) > page.index(END):
        raise ValueError(f"the page needs the lines {BEGIN} and {END}, once each and in this order")
    return f"{page.partition(BEGIN)[0]}{BEGIN}\n\n{block.strip()}\n\n{END}{page.partition(END)[2]}"


def _time(cell: Cell | str) -> str:
    return cell if isinstance(cell, str) else _number(cell.ms)


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"
