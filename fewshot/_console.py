"""What the command line shows: a study as tables of text, and its progress as a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from .study import StudyResult
from .study.verdict import META, decimals_for

__all__ = ["output_console", "progress_bar", "show", "tables"]

WIDTH = 100
GAP = 2  # between columns


def output_console() -> Console:
    """Return a console on standard output, 100 columns wide or less."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


@contextmanager
def progress_bar(shown: bool) -> Iterator[Callable[[str, float, float], None] | None]:
    """Show a progress bar on standard error, if that is a terminal; yields what :func:`run_study` calls."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal:
        yield None
        return
    columns = (SpinnerColumn(), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def show(result: StudyResult, console: Console, *, notes: bool = True) -> None:
    """Print the data, a table for each protocol, and the verdict.

    Parameters
    ----------
    result : StudyResult
        What to show.
    console : rich.console.Console
        Where.
    notes : bool, default=True
        Whether to print anything but tables and verdict.
    """
    if notes:
        facts = Table.grid(padding=(0, 2))
        for heading, value in result.data.facts():
            facts.add_row(Text(heading, style="bold"), Text(value))
        train, validation, test = result.sizes
        folds = f", in each of {result.settings.folds} folds" if result.settings.folds else ""
        facts.add_row(
            Text("Split", style="bold"),
            Text(f"{train} tasks to train, {validation} to choose by, {test} to judge{folds}"),
        )
        console.print(facts)
    for protocol in result.protocols:
        name = result.protocol_name(protocol)
        console.print()
        console.print(Text(f"{name[0].upper()}{name[1:]}", style="bold"))
        console.print(
            Text(f"{result.data.error_name_and_unit} [95 % interval over {result.data.task_noun}s]; lower is better")
        )
        for table in tables(result, protocol, console.width):
            console.print(table)
    console.print()
    if notes:
        for note in [*result.data.notes, *result.notes]:
            console.print(Text(f"- {note}", style="dim"))
        console.print()
    console.print(Text(result.verdict, style="bold"))


def tables(result: StudyResult, protocol: str, width: int) -> list[Table]:
    """Lay a protocol's summary out as tables no wider than `width`, the interval below the value where need be.

    Parameters
    ----------
    result : StudyResult
        What was found.
    protocol : {"random", "first"}
        How supports were chosen.
    width : int
        Columns of text.

    Returns
    -------
    list of rich.table.Table
    """
    summary = result.summary[result.summary["protocol"] == protocol]
    methods, shots = list(dict.fromkeys(summary["method"])), sorted(set(summary["shots"]))
    cells, best = _cells(summary), _best(summary)
    noun = result.data.task_noun

    def heading(k: int) -> str:
        n = int(summary.loc[summary["shots"] == k, "n_tasks"].iloc[0])
        return f"{k} shot{'' if k == 1 else 's'}\n{n} {noun}{'' if n == 1 else 's'}"

    def widths(joint: str) -> dict[int, int]:
        lines = {
            k: [*heading(k).split("\n"), *(x for m in methods for x in joint.join(cells[m, k]).split("\n"))]
            for k in shots
        }
        return {k: max(map(len, texts)) + GAP for k, texts in lines.items()}

    first = max(len(m) for m in [*methods, "method"]) + GAP
    joint = " " if first + sum(widths(" ").values()) <= width else "\n"
    out = []
    for chosen in _chunks(widths(joint), width - first):
        table = Table(box=SIMPLE_HEAD, padding=(0, GAP - 1, 0, 0), show_edge=False)
        table.add_column("method", no_wrap=True)
        for k in chosen:
            table.add_column(Text(heading(k)), justify="right", no_wrap=True)
        for method in methods:
            row = [Text(method, style="bold" if method == META else "")]
            for k in chosen:
                value, interval = cells[method, k]
                style = "bold" if best.get(k) == method else ""
                row.append(Text.assemble((value, style), joint, (interval, "dim")))
            table.add_row(*row)
        out.append(table)
    return out


def _chunks(widths: dict[int, int], room: int) -> list[list[int]]:
    """Divide columns into runs that fit."""
    chunks: list[list[int]] = [[]]
    used = 0
    for k, width in widths.items():
        if chunks[-1] and used + width > room:
            chunks.append([])
            used = 0
        chunks[-1].append(k)
        used += width
    return chunks


def _cells(summary: pd.DataFrame) -> dict[tuple[str, int], tuple[str, str]]:
    n = decimals_for(float(((summary["high"] - summary["low"]) / 2).median()))
    cells = {}
    row: Any
    for row in summary.itertuples():
        interval = f"[{row.low:.{n}f}, {row.high:.{n}f}]" if pd.notna(row.low) else ""
        cells[str(row.method), int(row.shots)] = (f"{row.mean:.{n}f}", interval)
    return cells


def _best(summary: pd.DataFrame) -> dict[int, str]:
    lowest = summary.loc[summary.groupby("shots")["mean"].idxmin()]
    return dict(zip(lowest["shots"], lowest["method"], strict=True))
