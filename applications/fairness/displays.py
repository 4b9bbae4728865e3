"""Pictures: gaps with their intervals, before and after adapting, and what accuracy a small gap costs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.inspection._plotting import AFTER, BEFORE, COLOURS, axes_for, tidy

from .report import FairnessReport

__all__ = ["FrontierDisplay", "GapDisplay"]

RATES = {
    "selection_rate": "selection rate",
    "true_positive_rate": "true positive rate",
    "false_positive_rate": "false positive rate",
}


class GapDisplay:
    """Signed gaps between groups with their intervals, and what groups drawn by lot would show.

    Make one by :meth:`from_report`.

    Parameters
    ----------
    gaps : DataFrame
        As in a :class:`FairnessReport`.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, gaps: pd.DataFrame) -> None:
        self.gaps = gaps

    @classmethod
    def from_report(cls, report: FairnessReport, *, ax: Any = None) -> GapDisplay:
        """Draw the gaps of a report.

        Parameters
        ----------
        report : FairnessReport
            What :func:`fairness_report` returned.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        GapDisplay
        """
        if not isinstance(report, FairnessReport):
            raise InvalidParameterError(f"report: got {type(report).__name__}; expected what fairness_report returns.")
        return cls(gaps=report.gaps).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> GapDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        rows = self.gaps[["rate", "first", "second"]].drop_duplicates().reset_index(drop=True)
        several = len(rows[["first", "second"]].drop_duplicates()) > 1
        names = [
            row["rate"].replace("_", " ") + (f"\n{row['first']} - {row['second']}" if several else "")
            for row in rows.to_dict("records")
        ]
        models = [name for name in ("before", "after") if (self.gaps["model"] == name).any()]
        for model, style in (("before", BEFORE), ("after", AFTER)):
            part = self.gaps[self.gaps["model"] == model].reset_index(drop=True)
            known = part[np.isfinite(part["gap"])]
            height = known.index + (0.0 if len(models) == 1 else 0.14 if model == "after" else -0.14)
            if model == models[-1]:
                self.ax_.barh(
                    known.index, 2 * known["floor"], left=-known["floor"], height=0.62, color="#E4E4E4", zorder=0
                )
            error = [known["gap"] - known["low"], known["high"] - known["gap"]]
            self.ax_.errorbar(
                known["gap"], height, xerr=error, fmt="o", markersize=4, capsize=2, color=style["color"], label=model
            )
        for i in rows.index[self.gaps[self.gaps["model"] == models[-1]]["gap"].isna().to_numpy()]:
            self.ax_.text(0, i, "undefined: a group has no such row", ha="center", va="center", fontsize="small")
        self.ax_.axvline(0, color="#7A7A7A", linewidth=0.8)
        self.ax_.set_yticks(range(len(names)), names)
        self.ax_.invert_yaxis()
        between = "" if several else f", {rows['first'][0]} less {rows['second'][0]}"
        self.ax_.set_xlabel(f"gap{between}\n95 % interval; grey: mean size by lot")
        tidy(self.ax_)
        self.ax_.grid(axis="x", color="#E4E4E4", linewidth=0.8)
        if len(models) > 1:
            self.ax_.legend(frameon=False)
        return self


class FrontierDisplay:
    """Accuracy against the gap, for methods along their operating points.

    Make one by :meth:`from_summary`.

    Parameters
    ----------
    curve : DataFrame
        Columns ``method``, ``gap``, ``accuracy``, ``floor``.
    metric : str
        Which gap.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, curve: pd.DataFrame, metric: str) -> None:
        self.curve, self.metric = curve, metric

    @classmethod
    def from_summary(
        cls, summary: pd.DataFrame, *, metric: str = "selection_rate_gap", ax: Any = None
    ) -> FrontierDisplay:
        """Draw what :func:`summarize_fairness` returned.

        Parameters
        ----------
        summary : DataFrame
            One support size; of several pairs of groups the largest gap counts.
        metric : {"selection_rate_gap", "true_positive_rate_gap", "false_positive_rate_gap"}, default="selection_rate_gap"
            Which gap.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        FrontierDisplay
        """
        missing = [name for name in ("method", "setting", "shots", "metric", "mean", "floor") if name not in summary]
        if missing:
            raise InvalidDataError(f"summary: no column {missing[0]!r}; expected what summarize_fairness returns.")
        if metric not in set(summary["metric"]) - {"accuracy"}:
            raise InvalidParameterError(f"metric: got {metric!r}; expected one of the gaps in the summary.")
        if summary["shots"].nunique() > 1:
            raise InvalidDataError(f"summary: got {summary['shots'].nunique()} support sizes; choose the rows of one.")
        keys = ["method", "setting"]
        gaps = summary[summary["metric"] == metric].groupby(keys, dropna=False, sort=False)[["mean", "floor"]].max()
        accuracy = summary.loc[summary["metric"] == "accuracy", [*keys, "mean"]].rename(columns={"mean": "accuracy"})
        # A merge matches settings that are missing, of methods with one operating point; a join of indices does not.
        curve = gaps.rename(columns={"mean": "gap"}).reset_index().merge(accuracy, on=keys, how="left")
        return cls(curve=curve, metric=metric).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> FrontierDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        for i, (name, part) in enumerate(self.curve.groupby("method", sort=False)):
            part = part.sort_values("setting")
            self.ax_.plot(
                part["gap"],
                part["accuracy"],
                marker="o",
                markersize=4,
                color=COLOURS[i % len(COLOURS)],
                label=str(name),
            )
        floor = float(self.curve["floor"].mean())
        self.ax_.axvline(floor, color="#7A7A7A", linewidth=0.8, linestyle=(0, (2, 2)))
        self.ax_.annotate(
            "by lot",
            (floor, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            fontsize="small",
            color="#7A7A7A",
        )
        self.ax_.set_xlabel(self.metric.replace("_", " ") + ", mean absolute")
        self.ax_.set_ylabel("accuracy")
        tidy(self.ax_)
        self.ax_.legend(frameon=False, fontsize="small")
        return self
