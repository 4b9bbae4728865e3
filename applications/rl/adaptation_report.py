"""Whether adapting helped: returns before and after, and what follows from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["AdaptationReport"]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class AdaptationReport:
    """What adapting to one environment did.

    Parameters
    ----------
    episodes : int
        Episodes that were run, or handed in, in all.
    before : float or None
        Mean undiscounted return of the unadapted policy; None where its episodes were recorded elsewhere.
    after : float or None
        That of the adapted policy in fresh episodes, after the step that is best; None if it was not judged.
    gain : float or None
        Their difference.
    interval : (float, float) or None
        95 % confidence interval of the difference (Welch), a little hopeful where the best of several steps was taken; None
        with fewer than two episodes.
    step : int
        Steps that the policy in use has made; 0: it is the unadapted one.
    steps : int
        Steps that were made.

    Examples
    --------
    >>> report = AdaptationReport.compare([np.array([1.0, 2.0, 3.0])], np.array([5.0, 6.0, 7.0]))
    >>> report.gain, report.step
    (4.0, 1)
    >>> print(report)
    return 2.00 before and 6.00 after adapting: gain 4.00 (95 % interval 1.73 to 6.27)
    """

    episodes: int
    before: float | None
    after: float | None
    gain: float | None
    interval: tuple[float, float] | None
    step: int
    steps: int

    @property
    def kept(self) -> bool:
        """Whether an adapted policy is the one in use."""
        return self.step > 0

    @classmethod
    def compare(cls, stages: Sequence[npt.NDArray[Any]], after: npt.NDArray[Any] | None) -> AdaptationReport:
        """Compare returns.

        Parameters
        ----------
        stages : sequence of ndarray of shape (episodes,)
            Returns before the first step, after it, ...: of the episodes that were adapted from.
        after : ndarray of shape (episodes,) or None
            Returns of fresh episodes after the last step. Without them nothing is judged.
        """
        before, n = np.asarray(stages[0], float), sum(len(s) for s in stages)
        if after is None:
            return cls(n, float(before.mean()), None, None, None, len(stages), len(stages))
        judged = [
            np.asarray(returns, float) for returns in [*stages[1:], after]
        ]  # each fresh to the policy that it judges
        best = int(np.argmax([returns.mean() for returns in judged]))
        means = float(before.mean()), float(judged[best].mean())
        gain = means[1] - means[0]
        step = best + 1 if gain > 0 else 0
        return cls(n + len(after), *means, gain, _welch(before, judged[best]), step, len(stages))

    @classmethod
    def of_recorded(cls, episodes: int) -> AdaptationReport:
        """Nothing can be judged without an environment."""
        return cls(episodes, None, None, None, None, 1, 1)

    def __str__(self) -> str:
        if self.before is None:
            return f"adapted from {self.episodes} recorded episodes; nothing was judged"
        if self.after is None or self.gain is None:
            return f"return {self.before:.2f} before adapting; not judged after"
        text = f"return {self.before:.2f} before and {self.after:.2f} after adapting: gain {self.gain:.2f}"
        if self.interval is not None:
            text += f" (95 % interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"
        if not self.kept:
            return f"{text}; the unadapted policy is kept"
        return (
            text if self.step == self.steps else f"{text}; kept is the policy after {self.step} of {self.steps} steps"
        )


def _welch(before: npt.NDArray[Any], after: npt.NDArray[Any]) -> tuple[float, float] | None:
    if min(len(before), len(after)) < 2:
        return None
    if not before.std() + after.std() > 0:
        difference = float(after.mean() - before.mean())
        return difference, difference
    found = stats.ttest_ind(after, before, equal_var=False).confidence_interval(CONFIDENCE)
    return float(found.low), float(found.high)
