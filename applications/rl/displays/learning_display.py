"""Picture of meta-training: return before and after adapting against the time steps of all environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fewshot.errors import InvalidDataError

from ..checks import check_count
from ._plotting import AFTER, BEFORE, axes_for, need_columns, tidy

__all__ = ["LearningCurveDisplay"]

POINTS = 200  # at which the curves of several seeds are compared


class LearningCurveDisplay:
    """Return before and after adapting, in the course of meta-training.

    Make one by :meth:`from_policy` or :meth:`from_histories`. One training is drawn with its single iterations, pale, behind their
    moving mean; several (seeds) as the median of their moving means in the range from worst to best, as far as all of them
    got.

    Parameters
    ----------
    curves : list of pandas.DataFrame
        Of each training: ``env_steps`` (since its beginning), ``before`` and ``after`` (missing without inner steps).
    window : int
        Iterations of the moving mean.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    lines_ : list of matplotlib.lines.Line2D
        Means or medians, before and after.

    Examples
    --------
    >>> import pandas as pd
    >>> history = pd.DataFrame({"env_steps": [100, 100], "return_0": [-9.0, -8.0], "return_1": [-7.0, -5.0]})
    >>> display = LearningCurveDisplay.from_histories([history], window=1)
    >>> display.curves[0].to_dict("list")
    {'env_steps': [100, 200], 'before': [-9.0, -8.0], 'after': [-7.0, -5.0]}
    """

    def __init__(self, *, curves: Sequence[pd.DataFrame], window: int = 5) -> None:
        self.curves, self.window = list(curves), window

    @classmethod
    def from_policy(cls, policy: Any, *, window: int = 5, ax: Any = None) -> LearningCurveDisplay:
        """Draw the history of a policy, or of several that differ in their seed.

        Parameters
        ----------
        policy : MAMLPolicy or sequence of MAMLPolicy
            Meta-trained.
        window : int, default=5
            Iterations of the moving mean; 1 draws them as they are.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        LearningCurveDisplay
        """
        policies = list(policy) if isinstance(policy, Sequence) else [policy]
        for one in policies:
            one._check_fitted("LearningCurveDisplay")
        # The first episodes, which measure observations, are no iteration.
        ahead = [one.n_env_steps_ - int(one.history_["env_steps"].sum()) for one in policies]
        return cls.from_histories([one.history_ for one in policies], window=window, ahead=ahead, ax=ax)

    @classmethod
    def from_histories(
        cls, histories: Any, *, window: int = 5, ahead: Sequence[int] | None = None, ax: Any = None
    ) -> LearningCurveDisplay:
        """Draw histories, read from files perhaps.

        Parameters
        ----------
        histories : pandas.DataFrame, sequence or dict of them
            ``history_`` of one policy, or of each seed.
        window : int, default=5
            Iterations of the moving mean.
        ahead : sequence of int, default=None
            Time steps before the first iteration of each; None: none.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        LearningCurveDisplay

        Raises
        ------
        InvalidDataError
            If something else than histories is given.
        InvalidParameterError
            If `window` is below 1.
        """
        check_count("window", window)
        if isinstance(histories, pd.DataFrame):
            histories = [histories]
        found = list(histories.values()) if isinstance(histories, Mapping) else list(histories)
        if not found:
            raise InvalidDataError("histories: got none; expected history_ of at least one policy; pass it")
        curves = []
        for history, first in zip(found, ahead or [0] * len(found), strict=True):
            need_columns("histories", history, ["env_steps", "return_0"], "MAMLPolicy.history_")
            curve = pd.DataFrame({"env_steps": history["env_steps"].cumsum() + first, "before": history["return_0"]})
            last = sum(column.startswith("return_") for column in history.columns) - 1
            if last:
                curve["after"] = history[f"return_{last}"]
            curves.append(curve)
        return cls(curves=curves, window=window).plot(ax)

    def plot(self, ax: Any = None) -> LearningCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where; None: in a new figure.

        Returns
        -------
        LearningCurveDisplay
            Itself.
        """
        from matplotlib.ticker import EngFormatter

        self.figure_, self.ax_ = axes_for(ax)
        adapts = all("after" in curve for curve in self.curves)
        self.lines_ = [
            self._line(name, style, label)
            for name, style, label in (("after", AFTER, "after adapting"), ("before", BEFORE, "before adapting"))
            if name == "before" or adapts
        ]
        self.ax_.xaxis.set_major_formatter(EngFormatter(sep=""))
        self.ax_.set_xlabel("environment steps in meta-training")
        n = len(self.curves)
        self.ax_.set_ylabel("return" if n == 1 else f"return\n(median and range of {n} seeds)")
        tidy(self.ax_)
        if adapts:
            self.ax_.legend(frameon=False)
        return self

    def _line(self, name: str, style: dict[str, Any], label: str) -> Any:
        """Draw the mean of one training, or the median and range of several; return the line."""
        means = [curve[name].rolling(self.window, min_periods=1, center=True).mean() for curve in self.curves]
        steps = [curve["env_steps"].to_numpy(float) for curve in self.curves]
        x, middle = steps[0], means[0].to_numpy()
        if len(self.curves) == 1:
            if self.window > 1:
                self.ax_.plot(x, self.curves[0][name], color=style["color"], alpha=0.3, linewidth=0.8)
        else:
            x = np.linspace(max(s[0] for s in steps), min(s[-1] for s in steps), POINTS)
            table = np.array([np.interp(x, s, mean) for s, mean in zip(steps, means, strict=True)])
            middle = np.median(table, axis=0)
            self.ax_.fill_between(x, table.min(0), table.max(0), color=style["color"], alpha=0.2, linewidth=0)
        return self.ax_.plot(x, middle, **style, linewidth=2, label=label)[0]
