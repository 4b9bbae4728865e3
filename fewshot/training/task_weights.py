"""Weights of the training tasks that seek out the worst ones: task-robust MAML.

Instead of the mean loss over tasks, ``max over p of sum_i p_i L_i`` is minimised, p being weights of the tasks that add up to one:
the loss of the worst task (Collins, Mokhtari, Shakkottai 2020, Task-robust model-agnostic meta-learning, NeurIPS, section 3).
After each meta-step the weights of the tasks that were drawn rise with their losses. The paper takes a step along the losses and
projects onto the simplex; here the step is multiplicative (exponentiated gradient), with losses relative to their mean, so that
no step size depends on the unit of the target. A tenth of the weight stays spread evenly: what a task without weight needs would
be forgotten.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..tasks import Rows

__all__ = ["equal", "raised", "shares", "tasks_of_last_draw"]

Weights = npt.NDArray[np.float64]
STEP = 0.02  # a task with twice the mean loss gains that part each time that it is drawn; larger steps follow the noise
SPREAD_EVENLY = 0.1
MOST = 5.0  # times the mean loss that counts


def tasks_of_last_draw(sampler: Any) -> npt.NDArray[np.int64]:
    """Return which of a sampler's tasks each episode of its last draw is of."""
    drawn: npt.NDArray[np.int64] = sampler.drawn_
    return drawn


def equal(sampler: Any) -> Weights:
    """Return the weights before the first meta-step."""
    n_tasks: int = sampler.n_tasks
    return np.full(n_tasks, 1 / n_tasks)


def shares(weights: Weights, drawn: npt.NDArray[np.int64], query: Rows) -> Tensor:
    """Weights of the tasks of a batch, such that their weighted loss is in expectation that of all tasks; shape (tasks,)."""
    judged = (query.weight.sum(1) > 0).to(query.weight.dtype)
    share = torch.from_numpy(weights[drawn] * len(weights) / len(drawn))
    return share.to(judged) * judged


def raised(weights: Weights, drawn: npt.NDArray[np.int64], losses: Tensor, query: Rows, rate: float = 1.0) -> Weights:
    """Return the weights after a meta-step in which tasks had these losses; not finite ones change nothing.

    `rate` falls with the learning rate of the parameters: weights that go on moving when those stand still mean nothing.

    Examples
    --------
    >>> rows = Rows(torch.zeros(2, 1, 1), torch.zeros(2, 1), torch.ones(2, 1))
    >>> raised(np.full(3, 1 / 3), np.array([0, 2]), torch.tensor([1.0, 3.0]), rows).round(3)
    array([0.33 , 0.333, 0.336])
    """
    found = losses.detach().double().cpu().numpy()
    judged = np.isfinite(found) & (query.weight.sum(1) > 0).cpu().numpy()
    if not judged.any():
        return weights
    # Losses may be negative (log densities): what counts is how far they are from the mean, in units of its size.
    mean = found[judged].mean()
    size = max(np.abs(found[judged]).mean(), np.finfo(np.float64).tiny)
    relative = np.clip((found[judged] - mean) / size, -MOST, MOST)
    # What is spread evenly is no part of what is stepped from.
    sharp = np.maximum((weights - SPREAD_EVENLY / len(weights)) / (1 - SPREAD_EVENLY), np.finfo(np.float64).tiny)
    np.multiply.at(sharp, drawn[judged], np.exp(STEP * rate * relative))
    new: Weights = (1 - SPREAD_EVENLY) * sharp / sharp.sum() + SPREAD_EVENLY / len(weights)
    return new
