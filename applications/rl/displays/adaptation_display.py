"""Picture of what adapting brings: return against adaptation step, over unseen environments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from fewshot.model_selection.summary import summarize

from ..evaluation import adaptation_curve
from ._plotting import COLOURS, MARKERS, axes_for, named_frames, need_columns, tidy

__all__ = ["AdaptationCurveDisplay"]

APART = 0.035  # steps by which policies' intervals are moved apart


class AdaptationCurveDisplay:
    """Return before adapting and after each step, with 95 % intervals over tasks.

    Make one by :meth:`from_policy` or :meth:`from_curves`. The intervals say where the mean over other tasks would lie; policies
    that were scored with the same `random_state` met the same tasks, so their difference is known better than the intervals of
    each suggest.

    Parameters
    ----------
    summary : pandas.DataFrame
        A row for each policy and step: ``policy``, ``step``, ``mean``, ``low``, ``high``, ``n_tasks``.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    lines_ : list of matplotlib.lines.Line2D
        One for each policy.

    Examples
    --------
    >>> import pandas as pd
    >>> rows = {"task": [0, 1, 0, 1], "step": [0, 0, 1, 1], "return": [-5.0, -4.0, -2.0, -1.0], "length": 10.0}
    >>> display = AdaptationCurveDisplay.from_curves({"MAML": pd.DataFrame(rows)})
    >>> display.summary["mean"].tolist()
    [-4.5, -1.5]
    >>> display.ax_.get_xlabel()
    'adaptation steps'
    """

    def __init__(self, *, summary: pd.DataFrame) -> None:
        self.summary = summary

    @classmethod
    def from_policy(
        cls,
        policy: Any,
        family: Any,
        *,
        n_tasks: int = 40,
        episodes: int = 20,
        steps: int = 1,
        inner_lr: float | None = None,
        random_state: int | None = 0,
        ax: Any = None,
    ) -> AdaptationCurveDisplay:
        """Adapt to unseen tasks, and draw what that brought.

        Parameters
        ----------
        policy : MAMLPolicy or dict of str to MAMLPolicy
            One, or several by their names.
        family, n_tasks, episodes, steps, inner_lr
            As of :func:`~fewshot.applications.rl.adaptation_curve`.
        random_state : int or None, default=0
            Seed of tasks and episodes, the same for all policies.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        AdaptationCurveDisplay
        """
        options: dict[str, Any] = {"n_tasks": n_tasks, "episodes": episodes, "steps": steps, "inner_lr": inner_lr}
        policies = policy if isinstance(policy, Mapping) else {"": policy}
        curves = {
            name: adaptation_curve(one, family, random_state=random_state, **options) for name, one in policies.items()
        }
        return cls.from_curves(curves, ax=ax)

    @classmethod
    def from_curves(cls, curves: Any, *, ax: Any = None) -> AdaptationCurveDisplay:
        """Draw curves that were computed before.

        Parameters
        ----------
        curves : pandas.DataFrame or dict of str to pandas.DataFrame
            What :func:`~fewshot.applications.rl.adaptation_curve` returned: one frame, or several by the names of policies.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        AdaptationCurveDisplay

        Raises
        ------
        InvalidDataError
            If something else than such frames is given.
        """
        parts = []
        for name, frame in named_frames("curves", curves).items():
            need_columns("curves", frame, ["task", "step", "return"], "adaptation_curve")
            parts.append(
                pd.DataFrame(
                    {"method": name, "task": frame["task"], "shots": frame["step"], "value": frame["return"]}
                ).assign(metric="return")
            )
        found = summarize(pd.concat(parts, ignore_index=True)).rename(columns={"method": "policy", "shots": "step"})
        return cls(summary=found.drop(columns="metric")).plot(ax)

    def plot(self, ax: Any = None) -> AdaptationCurveDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, default=None
            Where; None: in a new figure.

        Returns
        -------
        AdaptationCurveDisplay
            Itself.
        """
        from matplotlib.ticker import MaxNLocator

        self.figure_, self.ax_ = axes_for(ax)
        policies = list(dict.fromkeys(self.summary["policy"]))
        self.lines_ = []
        for i, policy in enumerate(policies):
            rows = self.summary[self.summary["policy"] == policy].sort_values("step")
            ends = np.array([rows["mean"] - rows["low"], rows["high"] - rows["mean"]], dtype=float)
            container = self.ax_.errorbar(
                rows["step"] + APART * (i - (len(policies) - 1) / 2),
                rows["mean"],
                np.nan_to_num(ends),
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=5.5,
                linewidth=1.8,
                elinewidth=1.2,
                capsize=2.5,
                label=policy,
            )
            self.lines_.append(container.lines[0])
        self.ax_.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        self.ax_.set_xlabel("adaptation steps")
        counts = sorted(set(self.summary["n_tasks"]))
        tasks = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
        self.ax_.set_ylabel(f"return\n(mean of {tasks} tasks, 95 % interval)")
        tidy(self.ax_)
        if policies != [""]:
            self.ax_.legend(frameon=False)
        return self
