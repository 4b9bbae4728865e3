"""Training tasks against tasks left out: whether a model is better on what it knows."""

from __future__ import annotations

from typing import Any

from ..model_selection import TaskGap, task_gap
from ._plotting import AFTER, BEFORE, axes_for, tidy

__all__ = ["GeneralizationGapDisplay"]


class GeneralizationGapDisplay:
    """Score of each task where it was trained on against that where it was left out.

    Make one by :meth:`from_estimator`. Tasks on the dashed line are served as well when they are new; above it, worse.

    Parameters
    ----------
    gap : TaskGap
        As :func:`~fewshot.model_selection.task_gap` returns.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, gap: TaskGap) -> None:
        self.gap = gap

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, tasks: Any, *, ax: Any = None, **settings: Any
    ) -> GeneralizationGapDisplay:
        """Fit without and with each task, and draw; the estimator is cloned, parameters as of :func:`task_gap`."""
        return cls(gap=task_gap(estimator, X, y, tasks, **settings)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> GeneralizationGapDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        scores = (
            self.gap.frame.groupby(["task", "left_out"], observed=True)["value"].mean().unstack("left_out").dropna()
        )
        self.ax_.plot(scores[True], scores[False], "o", color=AFTER["color"], alpha=0.7)
        low, high = float(scores.min().min()), float(scores.max().max())
        self.ax_.plot([low, high], [low, high], color=BEFORE["color"], linestyle=BEFORE["linestyle"], linewidth=1)
        name = self.gap.metric.replace("_", " ")
        self.ax_.set(
            xlabel=f"{name}, task left out",
            ylabel=f"{name}, task trained on",
            title=f"gap {self.gap.gap:.3g} [{self.gap.low:.3g}, {self.gap.high:.3g}]",
        )
        tidy(self.ax_)
        return self
