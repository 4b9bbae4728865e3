"""Training that goes on for long can lose again what it has learned; the policy is then the one from before.

Exploration fades as the policies get sure of themselves, say, until the episodes tell too little to adapt from. Returns of single
iterations are noisy, so means over windows of them are compared, and the last parameters are the ones to keep unless the return
has fallen by more than chance explains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from fewshot.metagradient import MetaParameters

__all__ = ["Decline"]

WINDOW = 20  # iterations
STANDARD_ERRORS = 5.0  # by which the mean return must have fallen: the best of hundreds of noisy means is high by three


@dataclass
class Decline:
    """The best stretch of a training so far, and whether the last one is worse.

    Attributes
    ----------
    returns : list of float
        Mean return after adaptation of each iteration.
    mean, error : float
        Of the best stretch, and the standard error of that.
    iteration : int
        Its last one, counted from 1; 0 before there was one.
    parameters : MetaParameters or None
        Those that its last iteration began with.
    """

    returns: list[float] = field(default_factory=list)
    mean: float = -math.inf
    error: float = math.nan
    iteration: int = 0
    parameters: MetaParameters | None = None

    def update(self, value: float, parameters: MetaParameters, iteration: int) -> None:
        """Take in the return of an iteration, and the parameters that it began with, which are kept and not copied."""
        self.returns.append(value)
        mean, error = self._last()
        if mean > self.mean:
            self.mean, self.error, self.iteration, self.parameters = mean, error, iteration, parameters

    def has_come(self) -> bool:
        """Whether the last iterations brought less than the best ones, by more than chance explains."""
        mean, error = self._last()
        return self.mean - mean > STANDARD_ERRORS * math.hypot(self.error, error)

    def _last(self) -> tuple[float, float]:
        """Mean of the last iterations and its standard error; not numbers where they are too few, or skipped ones among them."""
        last = np.asarray(self.returns[-WINDOW:])
        if len(last) < WINDOW:
            return math.nan, math.nan
        return float(last.mean()), float(last.std(ddof=1) / math.sqrt(WINDOW))
