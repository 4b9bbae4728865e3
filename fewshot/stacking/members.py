"""Ways to adapt, of which the stack mixes several; each starts from an offset, what the pooled base says of a row.

Offsets and predictions are values of standardised targets, or logits of all classes, in numpy and double precision.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..tasks import TaskSet
from .responses import Response

__all__ = ["Member"]

Floats = npt.NDArray[np.float64]
State = dict[str, Any]


class Member(Protocol):
    """One way to adapt, in one or several strengths ("variants")."""

    name: str
    response: Response
    from_base: bool  # whether its offset is the pooled base's prediction, or a constant
    expensive: bool  # whether it is worth leaving out early
    on_trial: bool  # whether it stays only if the mixture is better with it on held-out tasks
    variants: list[str]

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Learn across tasks.

        Parameters
        ----------
        pool : TaskSet
            The training tasks, in double precision.
        offset : ndarray of shape (rows, outputs)
            What models that were not fitted to a row's task say of it.
        rng : numpy.random.Generator
            Source of everything random.
        """
        ...

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Adapt to every task of a task set, all rows being support."""
        ...

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict rows of the tasks at these positions of the support; shape (rows, variants, outputs)."""
        ...
