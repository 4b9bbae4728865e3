"""The report of a study: one HTML file that needs nothing else, with table, curve and how it was done."""

from __future__ import annotations

import io
import platform
from importlib import resources
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .errors import FewShotError, MissingDependencyError
from .study import StudyResult
from .study.verdict import META, decimals_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_curve", "render_report", "require_jinja2", "write_report"]

# Okabe and Ito's colours, told apart by colour-blind readers too; black stands for meta-learning.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A"]
MARKERS = ["s", "^", "v", "D", "P", "X", "<"]
PACKAGES = ["fewshot", "torch", "scikit-learn", "pandas", "numpy"]


def require_jinja2() -> Any:
    """Import jinja2, or raise MissingDependencyError naming the extra that brings it."""
    try:
        import jinja2
    except ImportError as error:
        raise MissingDependencyError(
            "the report needs the package jinja2, which is not installed; run: pip install 'fewshot[report]' (or pass "
            "--no-report)"
        ) from error
    return jinja2


def write_report(result: StudyResult, path: str | Path, *, command: str = "") -> Path:
    """Write the report of a study.

    Parameters
    ----------
    result : StudyResult
        What was found.
    path : path
        The HTML file to write.
    command : str, default=""
        The command that does the study again.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingDependencyError
        If jinja2, of the extra `report`, is not installed.
    FewShotError
        If the file cannot be written.
    """
    path = Path(path)
    html = render_report(result, command=command)
    try:
        path.write_text(html, encoding="utf-8")
    except OSError as error:
        raise FewShotError(f"{path}: cannot be written ({error.strerror}).") from error
    return path


def render_report(result: StudyResult, *, command: str = "") -> str:
    """Return the report as HTML; arguments as for :func:`write_report`."""
    jinja2 = require_jinja2()
    template = resources.files("fewshot").joinpath("templates", "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    context = {
        "data": result.data,
        "settings": result.settings,
        "verdict": result.verdict,
        "facts": result.data.facts(),
        "tables": [_table(result, protocol) for protocol in result.protocols],
        "comparison": _comparison(result),
        "notes": [*result.data.notes, *result.notes],
        "curve": _svg(draw_curve(result)),
        "curve_text": f"Support-size curve: {result.data.error_name} against the number of support {result.data.row_noun}s.",
        "sizes": result.sizes,
        "command": command,
        "seconds": round(result.seconds),
        "versions": _versions(),
        "meta": META,
    }
    return str(environment.from_string(template).render(context))


def _versions() -> list[tuple[str, str]]:
    found = [("Python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:  # run from a folder, without installation
            continue
    return found


def _table(result: StudyResult, protocol: str) -> dict[str, Any]:
    """One protocol's summary as rows of text."""
    summary = result.summary[result.summary["protocol"] == protocol]
    shots = sorted(set(summary["shots"]))
    n = decimals_for(float(((summary["high"] - summary["low"]) / 2).median()))
    lowest = summary.loc[summary.groupby("shots")["mean"].idxmin()]
    best = set(zip(lowest["method"], lowest["shots"], strict=True))
    cells = {(row.method, row.shots): row for row in summary.itertuples()}
    rows = []
    for method in dict.fromkeys(summary["method"]):
        row = []
        for k in shots:
            cell: Any = cells[method, k]
            interval = f"[{cell.low:.{n}f}, {cell.high:.{n}f}]" if pd.notna(cell.low) else ""
            row.append({"mean": f"{cell.mean:.{n}f}", "interval": interval, "best": (method, k) in best})
        rows.append({"method": method, "cells": row})
    counts = summary.drop_duplicates("shots").set_index("shots")["n_tasks"]
    name = result.protocol_name(protocol)
    return {
        "name": f"{name[0].upper()}{name[1:]}",
        "columns": [{"shots": k, "n_tasks": int(counts[k])} for k in shots],
        "rows": rows,
    }


def _comparison(result: StudyResult) -> list[dict[str, str]]:
    rows = []
    row: Any
    for row in result.comparison.itertuples():
        finite = bool(np.isfinite(row.low))
        n = decimals_for(float(row.high - row.low) / 2 if finite else np.nan)
        rows.append(
            {
                "protocol": result.protocol_name(str(row.protocol)),
                "shots": str(row.shots),
                "baseline": str(row.baseline),
                "difference": f"{row.difference:+.{n}f}",
                "interval": f"[{row.low:+.{n}f}, {row.high:+.{n}f}]" if finite else "too few tasks",
                "n_tasks": str(row.n_tasks),
                "better": META if finite and row.low > 0 else "baseline" if finite and row.high < 0 else "",
            }
        )
    return rows


def draw_curve(result: StudyResult) -> Figure:
    """Draw error against support size, one panel for each protocol, with 95 % intervals over tasks.

    Parameters
    ----------
    result : StudyResult
        What was found.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    panels = result.protocols
    figure = Figure(figsize=(5.6 * len(panels) + 0.4, 4.9), layout="constrained")
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    means = result.summary["mean"]
    for axis, protocol in zip(axes, panels, strict=True):
        _draw_panel(axis, result, protocol)
        if means.min() > 0 and means.max() > 8 * means.min():
            axis.set_yscale("log")
    axes[0].set_ylabel(f"{result.data.error_name} (lower is better)")
    for axis in axes:
        _label_lines(axis)
    return figure


def _draw_panel(axis: Axes, result: StudyResult, protocol: str) -> None:
    summary = result.summary[result.summary["protocol"] == protocol]
    shots, methods = sorted(set(summary["shots"])), list(dict.fromkeys(summary["method"]))
    others = [m for m in methods if m != META]
    for i, method in enumerate([*others, META]):
        rows = summary[summary["method"] == method].sort_values("shots")
        where = np.array([shots.index(k) for k in rows["shots"]]) + 0.05 * (i - len(others) / 2)
        is_meta = method == META
        colour = "black" if is_meta else COLOURS[i % len(COLOURS)]
        error = np.nan_to_num(np.array([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], dtype=float))
        axis.errorbar(
            where,
            rows["mean"],
            error,
            color=colour,
            marker="o" if is_meta else MARKERS[i % len(MARKERS)],
            markersize=6 if is_meta else 4.5,
            linewidth=2.4 if is_meta else 1.3,
            elinewidth=1.4 if is_meta else 0.8,
            zorder=3 if is_meta else 2,
            label=method,
        )
    counts = summary.drop_duplicates("shots").set_index("shots")["n_tasks"]
    noun = result.data.task_noun
    axis.set_xticks(range(len(shots)), [f"{k}\n{counts[k]}" for k in shots])
    axis.set_xlim(-0.35, len(shots) - 0.65)
    name = result.protocol_name(protocol)
    axis.set_title(f"{name[0].upper()}{name[1:]}", fontsize=11, loc="left")
    axis.set_xlabel(f"support {result.data.row_noun}s; below, the number of test {noun}s")
    axis.grid(axis="y", color="#e4e4e4", linewidth=0.8)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(length=0)


def _label_lines(axis: Axes) -> None:
    """Write each method's name at the right end of its line, apart from its neighbours."""
    from matplotlib.colors import to_rgb

    transform, inverse = axis.transData.transform, axis.transData.inverted().transform
    ends = []
    container: Any
    for container in axis.containers:
        line = container.lines[0]
        x, y = line.get_xdata()[-1], line.get_ydata()[-1]
        ends.append((float(transform((x, y))[1]), float(y), line.get_color(), str(container.get_label())))
    ends.sort()
    apart = 11.5 / 72 * axis.figure.dpi
    heights = np.array([e[0] for e in ends])
    for _ in range(200):  # push neighbours apart until none overlap; a handful of labels settles in a few rounds
        gaps = np.diff(heights)
        short = np.clip(apart - gaps, 0, None) / 2
        if not (short > 0.01).any():
            break
        heights[:-1] -= short
        heights[1:] += short
    right = axis.get_xlim()[1]
    for height, (_, y, colour, name) in zip(heights, ends, strict=True):
        label_y = float(inverse((0, height))[1])
        axis.annotate(
            name,
            xy=(right - 0.1, y),
            xytext=(right + 0.06, label_y),
            color=tuple(0.72 * part for part in to_rgb(colour)),  # darker than the line, to be read on white
            fontsize=9,
            va="center",
            fontweight="bold" if name == META else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def _svg(figure: Figure) -> str:
    """Return a figure as an SVG element without the parts that name other addresses."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "fewshot", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
