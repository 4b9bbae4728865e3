"""How far each layer moves in each step: the learned step sizes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..errors import InvalidParameterError
from ._plotting import COLOURS, axes_for, tidy, whole_numbers
from ._reading import inner_loop_of

__all__ = ["StepSizesDisplay"]


class StepSizesDisplay:
    """Learned step sizes against the inner step, a line for each tensor.

    Make one by :meth:`from_estimator`. Sizes are those for a large support; one of n rows gets n / (n + c) of them.

    Parameters
    ----------
    sizes : DataFrame
        Columns ``tensor``, ``step`` (from 1), ``size`` (of Meta-SGD the geometric mean over a tensor's parameters), ``low`` and
        ``high`` (a tenth of the parameters is below, a tenth above).

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, sizes: pd.DataFrame) -> None:
        self.sizes = sizes

    @classmethod
    def from_estimator(cls, estimator: Any, *, ax: Any = None) -> StepSizesDisplay:
        """Read and draw.

        Parameters
        ----------
        estimator : MAMLRegressor or MAMLClassifier
            Meta-trained, with learned step sizes.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        StepSizesDisplay

        Raises
        ------
        NotFittedError, InvalidParameterError
            If the estimator is not fitted, or its step sizes are fixed.
        """
        inner = inner_loop_of(estimator, "StepSizesDisplay")
        if not inner.adaptation.learns:
            raise InvalidParameterError(
                "estimator: its step sizes are fixed (learn_step_sizes=False), so there is nothing to show."
            )
        rows = []
        for name, value in inner.parameters.sizes.items():
            if not name.startswith("log_alpha."):
                continue
            per_step = value.detach().double().reshape(len(value), -1)
            for k, logs in enumerate(per_step, 1):
                rows.append(
                    {
                        "tensor": name.removeprefix("log_alpha."),
                        "step": k,
                        "size": float(logs.mean().exp()),
                        "low": float(logs.quantile(0.1).exp()),
                        "high": float(logs.quantile(0.9).exp()),
                    }
                )
        return cls(sizes=pd.DataFrame(rows)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> StepSizesDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        groups = list(self.sizes.groupby("tensor", sort=False))
        for i, (name, part) in enumerate(groups):
            # Colours come again with another dash where there are many tensors.
            style = ["-", (0, (4, 1.5)), (0, (1, 1.5))][i // len(COLOURS) % 3]
            colour = COLOURS[i % len(COLOURS)]
            self.ax_.plot(
                part["step"], part["size"], marker="o", markersize=4, color=colour, linestyle=style, label=name
            )
            if (part["high"] > part["low"]).any():
                self.ax_.fill_between(part["step"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
        self.ax_.set(xlabel="inner step", ylabel="step size", yscale="log")
        whole_numbers(self.ax_)
        # Lines cross everywhere, so their names stand beside the axes.
        self.ax_.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
        tidy(self.ax_)
        return self
