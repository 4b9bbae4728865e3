r"""Learning a decision itself: one regression of what decides, in place of a probability and a guess of the group put together.

A row is favoured where its expected gain is above zero,

.. math:: E\Big[y - \tfrac12 - \sum_{e, g} \mu_{eg} 1[e, g] \,\Big|\, x\Big] > 0,

y being 1 for a favourable outcome, and the multipliers :math:`\mu` those of :mod:`.rule`, given the distances and the shares of the
groups in the row's task. Plugging in a model of y and a model of the groups, each fitted for its own sake, adds up the errors of
both. Regressing the gain on x directly fits, and regularises, what decides. A classifier of the sign of the gain, weighted by its
size, is the reduction of Agarwal et al. (2018); a regression has the same best solution.

References
----------
Agarwal, Beygelzimer, Dudik, Langford, Wallach (2018), A reductions approach to fair classification, ICML, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingRegressor

from .evidence import EXPECTED_ROWS
from .gaps import count_by_group
from .guess import TREES
from .linear import task_folds
from .notions import Notion
from .scored import shifts_of

__all__ = ["DirectLearner"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class DirectLearner:
    """Training rows from which decisions are learned.

    Parameters
    ----------
    notion : Notion
        What is compared.
    x : ndarray of shape (rows, features)
        Inputs.
    group, task : ndarray of int, shape (rows,)
        Group and task of each row.
    favourable : ndarray of bool, shape (rows,)
        Outcomes.
    n_groups : int
        Number of groups.
    seed : int
        Seed of the trees.
    """

    notion: Notion
    x: Floats
    group: Ints
    task: Ints
    favourable: Bools
    n_groups: int
    seed: int

    # Decisions are learned at many distances, and shares are the same at all of them.
    @cached_property
    def shares(self) -> Floats:
        """Shares of the groups in each task, shape (tasks, events, groups), drawn a little towards those of all tasks."""
        among, n_tasks = self.notion.among(self.favourable), int(self.task.max()) + 1
        held = count_by_group(self.favourable, among, self.group, self.n_groups, self.task, n_tasks)[1]
        usual = held.sum(1, keepdims=True) + 1.0
        shares = held + EXPECTED_ROWS * usual / usual.sum(-1, keepdims=True)
        return np.asarray((shares / shares.sum(-1, keepdims=True)).transpose(1, 0, 2))

    def gains(self, values: Floats) -> Floats:
        """Gain of favouring each row, shape (rows,), at distances (events, pairs)."""
        shifts = shifts_of(values, self.shares)
        cost = (self.notion.among(self.favourable).T * shifts[self.task, :, self.group]).sum(1)
        return np.asarray(self.favourable - 0.5 - cost)

    def fit(self, values: Floats) -> tuple[Any, Floats]:
        """Return a model of the gains, and what models that did not see a row's task say of it, shape (rows,)."""
        gains = self.gains(values)
        held_out = np.zeros(len(gains))
        for train, test in task_folds(self.task):
            held_out[test] = self._fit(train, gains).predict(self.x[test])
        return self._fit(np.arange(len(gains)), gains), held_out

    def _fit(self, rows: Ints, gains: Floats) -> Any:
        return HistGradientBoostingRegressor(random_state=self.seed, **TREES).fit(self.x[rows], gains[rows])
