"""What more rows of a task are worth: the score of unseen tasks against the size of the support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import InvalidParameterError
from ..model_selection import evaluate_few_shot, summarize
from ._plotting import COLOURS, axes_for, tidy

__all__ = ["SupportSizeDisplay"]


class SupportSizeDisplay:
    """Score on tasks against the number of support rows, with 95 % intervals over tasks.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    curve : DataFrame
        Columns ``method``, ``shots``, ``mean``, ``low``, ``high``.
    metric : str
        Name of the score.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, curve: pd.DataFrame, metric: str) -> None:
        self.curve, self.metric = curve, metric

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        tasks: Any = None,
        *,
        shots: int | Sequence[int] = (0, 1, 2, 5, 10, 20),
        ax: Any = None,
        **settings: Any,
    ) -> SupportSizeDisplay:
        """Evaluate fitted models and draw.

        Parameters
        ----------
        estimator : estimator or dict of str to estimator
            Meta-trained models, pipelines or baselines, as :func:`~fewshot.model_selection.evaluate_few_shot` takes them.
        X, y, tasks
            A table of tasks that they were not trained on, or a sampler alone.
        shots : int or sequence of int, default=(0, 1, 2, 5, 10, 20)
            Support sizes.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.
        **settings
            Further ones of :func:`~fewshot.model_selection.evaluate_few_shot`, but for `cv`; one scorer.

        Returns
        -------
        SupportSizeDisplay

        Raises
        ------
        InvalidParameterError, InvalidDataError
            If models, data or a setting cannot be used.
        """
        if "cv" in settings:
            raise InvalidParameterError("cv: the models are taken as they are fitted; leave cv out.")
        frame = evaluate_few_shot(estimator, X, y, tasks, shots=np.atleast_1d(shots).tolist(), cv="prefit", **settings)
        if frame["metric"].nunique() > 1:
            raise InvalidParameterError(f"scoring: got {frame['metric'].nunique()} scorers; expected one.")
        curve = summarize(frame)[["method", "shots", "mean", "low", "high"]]
        return cls(curve=curve, metric=str(frame["metric"].iloc[0])).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> SupportSizeDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        groups = list(self.curve.groupby("method", sort=False))
        for i, (name, part) in enumerate(groups):
            colour, part = COLOURS[i % len(COLOURS)], part.sort_values("shots")
            self.ax_.plot(part["shots"], part["mean"], marker="o", markersize=4, color=colour, label=str(name))
            self.ax_.fill_between(part["shots"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
        self.ax_.set(xlabel="support rows", ylabel=self.metric.replace("_", " "))
        if len(groups) > 1:
            self.ax_.legend(frameon=False)
        tidy(self.ax_)
        return self
