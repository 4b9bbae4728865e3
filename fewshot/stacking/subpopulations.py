"""More tasks out of few: a member that is trained on subpopulations of the training tasks.

With three hospitals there is little to learn from about how hospitals differ. Cut along a direction of its inputs, a hospital gives
several populations that differ in their covariates, and in what the base gets wrong about them (subpopulation shift; Koh et al.
2021). What a member learns there is worth something only if real tasks differ alike: so it stands in the stack beside the member
trained on the real tasks, on trial: it stays if the mixture with it loses less on held-out real tasks.

References
----------
Koh et al. (2021), WILDS: a benchmark of in-the-wild distribution shifts, ICML.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..tasks import TaskSet
from .base import task_codes
from .members import Member, State

__all__ = ["OnSubpopulations", "cut_tasks"]

Floats = npt.NDArray[np.float64]
CUTS = 6  # directions, each of which cuts a task once
MOST_PARTS = 4
ROWS_OF_A_PART = 30
MOST_ROWS = 30_000


class OnSubpopulations:
    """A member that learns from subpopulations of the training tasks.

    Parameters
    ----------
    member : Member
        Unfitted.
    """

    on_trial = True

    def __init__(self, member: Member) -> None:
        self.member = member
        self.response, self.from_base, self.variants = member.response, member.from_base, member.variants
        self.expensive, self.name = member.expensive, f"{member.name} on subpopulations"

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Cut the tasks and train on the parts."""
        parts, rows = cut_tasks(pool, rng)
        self.member.fit(parts, offset[rows], rng)

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Adapt to real tasks."""
        return self.member.adapt(support, offset)

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict rows of real tasks."""
        return self.member.predict(state, x, task, offset)


def cut_tasks(pool: TaskSet, rng: np.random.Generator) -> tuple[TaskSet, npt.NDArray[np.int64]]:
    """Cut every task along random directions of its inputs.

    Parameters
    ----------
    pool : TaskSet
        The tasks.
    rng : numpy.random.Generator
        Source of the directions.

    Returns
    -------
    parts : TaskSet
        Each row stands in as many parts as there are directions, rows of a part having neighbouring projections.
    rows : ndarray of int
        Which row of `pool` each row of `parts` is.
    """
    x, codes = pool.x.numpy(), task_codes(pool)
    cuts = int(np.clip(MOST_ROWS // pool.n_rows, 1, CUTS))
    n_parts = np.clip(pool.sizes // ROWS_OF_A_PART, 1, MOST_PARTS)
    starts = np.concatenate([[0], np.cumsum(n_parts)])
    labels = []
    for cut in range(cuts):
        along = x @ rng.normal(size=x.shape[1])
        order = np.lexsort((along, codes))
        place = np.empty(len(x), dtype=np.int64)  # of a row in its task, by its projection
        place[order] = np.arange(len(x)) - np.repeat(np.cumsum(pool.sizes) - pool.sizes, pool.sizes)
        labels.append(cut * starts[-1] + starts[codes] + place * n_parts[codes] // pool.sizes[codes])
    rows = np.tile(np.arange(len(x)), cuts)
    parts = TaskSet.from_arrays(
        x[rows],
        pool.y.numpy()[rows],
        np.concatenate(labels),
        blocks=None if pool.blocks is None else pool.blocks[rows],
        time=None if pool.time is None else pool.time[rows],
        sample_weight=pool.weight.numpy()[rows],
        dtype=torch.float64,
    )
    return parts, rows[parts.order]
