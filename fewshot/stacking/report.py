"""What a stack decided, in a table and in words."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from .fit import StackFit
from .stack import Stack, column_ranges

__all__ = ["AdaptationReport", "report_on"]

SMALL = 0.005


@dataclass(frozen=True)
class AdaptationReport:
    """How strongly a model adapts, with what, and what it lost on training tasks that were held out.

    Parameters
    ----------
    weights : DataFrame
        Index: support size. Columns: the base and each way to adapt; a row sums to one. Without adaptation the base has all.
    losses : DataFrame
        Index: support size. Mean loss over held-out tasks of the base, of each way to adapt in the strength that suits it best, and
        of the mixture ("stack") under weights learned on other tasks: root of the mean squared error of each task in units of
        the target, or log loss.
    base : str
        What the pooled base consists of.
    left_out : tuple of str
        Ways to adapt that were tried and left out.
    n_tasks : int
        Number of training tasks.
    seconds : dict of str to float
        Time that each part took to fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import MAMLRegressor
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(12), 20)
    >>> X = rng.normal(size=(240, 1))
    >>> y = X[:, 0] + rng.normal(size=12)[tasks] + 0.1 * rng.normal(size=240)
    >>> report = MAMLRegressor(algorithm="map", random_state=0).fit_meta(X, y, tasks=tasks).adaptation_report_
    >>> bool(report.weights.loc[10, "base"] < 0.1), bool(report.losses.loc[10, "stack"] < report.losses.loc[10, "base"])
    (True, True)
    """

    weights: pd.DataFrame
    losses: pd.DataFrame
    base: str
    left_out: tuple[str, ...]
    n_tasks: int
    seconds: dict[str, float]

    def strength(self) -> pd.Series:
        """Return how strongly the model adapts at each support size: the weight of all but the base."""
        return (1 - self.weights["base"]).rename("strength")

    def __str__(self) -> str:
        lines = [f"Base: {self.base}. Learned on {self.n_tasks} tasks."]
        if self.weights.empty:
            return (
                lines[0]
                + " Too few tasks, or rows in them, to learn whether adapting helps: predictions are the base's."
            )
        for i, k in enumerate(self.weights.index):
            base, own = float(self.losses["base"].iloc[i]), float(self.losses["stack"].iloc[i])
            row = self.weights.iloc[i].sort_values(ascending=False)
            used = ", ".join(f"{name} {w:.0%}" for name, w in zip(row.index, row.to_numpy(), strict=True) if w >= 0.05)
            gain = 1 - own / base if base > 0 else 0.0
            said = (
                f"{abs(gain):.1%} {'less' if gain > 0 else 'more'} than" if abs(gain) >= SMALL else "no different from"
            )
            lines.append(f"{k} support rows: {used}; loss on held-out tasks {own:.3g}, {said} the base's {base:.3g}.")
        if self.left_out:
            lines.append(f"Tried and left out: {', '.join(self.left_out)}.")
        return "\n".join(lines)


def report_on(fit: StackFit, stack: Stack, unit: float) -> AdaptationReport:
    """Sum up a fit.

    Parameters
    ----------
    fit : StackFit
        As far as it got.
    stack : Stack
        What came out.
    unit : float
        The target's unit, of which losses of values are multiples.
    """
    ranges = column_ranges(stack.members)
    weights = pd.DataFrame(
        {name: stack.weights[:, columns].sum(1) for name, columns in ranges.items()},
        index=pd.Index(stack.sizes, name="support rows"),
    )
    losses = pd.DataFrame.from_dict(fit.losses if stack.sizes else {}, orient="index", dtype=float)
    losses.index.name = "support rows"
    base = ", ".join(f"{name} {w:.0%}" for name, w in zip(stack.base.models, stack.base.weights, strict=True))
    unit = 1.0 if stack.response.classifies else unit
    return AdaptationReport(weights, losses * unit, base, tuple(fit.dropped), fit.pool.n_tasks, dict(fit.seconds))
