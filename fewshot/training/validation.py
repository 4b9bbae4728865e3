"""Meta-validation: fixed episodes of held-out tasks, on which training is judged and stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ..engine import Engine
from ..errors import InvalidParameterError
from ..metagradient import MetaParameters
from ..tasks import TaskSampler, TaskSet
from .task_weights import tasks_of_last_draw

__all__ = ["Validation", "split_tasks"]

FEWEST_TASKS = 5  # with fewer, holding one out costs more than early stopping brings
FEWEST_FOR_AUTO = 50  # a tenth of fewer is too noisy a judge, and worth more as training tasks
EXPECTED = "expected a number of tasks, a fraction in [0, 1), task labels, 'auto' or None."


class Validation:
    """Episodes drawn once from validation tasks; the same ones judge every state of training.

    Parameters
    ----------
    sampler : TaskSampler
        Draws the episodes.
    n_episodes : int
        How many.
    rng : numpy.random.Generator
        Source of the draw.
    device : torch.device, default=None
        Where the episodes are kept; None leaves them.
    worst : bool, default=False
        Judge by the task with the largest mean loss, not by all alike.
    """

    def __init__(
        self,
        sampler: TaskSampler,
        n_episodes: int,
        rng: np.random.Generator,
        device: torch.device | None = None,
        *,
        worst: bool = False,
    ) -> None:
        self.support, self.query = (rows.to(device) for rows in sampler.sample(n_episodes, rng))
        self._tasks = torch.from_numpy(tasks_of_last_draw(sampler)) if worst else None

    def loss(self, engine: Engine, parameters: MetaParameters) -> float:
        """Mean query loss after adaptation, of all episodes or of the worst task; infinite if it is not a number."""
        losses = engine.losses(parameters, self.support, self.query)
        judged = self.query.weight.sum(1) > 0
        if not bool(judged.any()):
            return math.inf
        if self._tasks is None:
            value = float(losses[judged].mean())
        else:
            tasks, mine = self._tasks[judged].unique(return_inverse=True)
            count = torch.bincount(mine, minlength=len(tasks))
            value = float((torch.zeros(len(tasks)).double().index_add(0, mine, losses[judged].double()) / count).max())
        return value if math.isfinite(value) else math.inf


def split_tasks(
    task_set: TaskSet, validation_tasks: Any, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Positions of the training and of the validation tasks.

    Parameters
    ----------
    task_set : TaskSet
        All tasks.
    validation_tasks : int, float, sequence of task labels, "auto" or None
        So many tasks, a fraction of them (none below five tasks; "auto": a tenth from 50 tasks on), their labels, or none.
    rng : numpy.random.Generator
        Chooses the tasks when a fraction is given.

    Raises
    ------
    InvalidParameterError
        If it is a number below 0 or a fraction outside [0, 1), a label is unknown, or no training task would be left.
    """
    n = task_set.n_tasks
    everything = np.arange(n)
    if isinstance(validation_tasks, str) and validation_tasks == "auto":
        validation_tasks = 0.1 if n >= FEWEST_FOR_AUTO else None
    if validation_tasks is None:
        return everything, everything[:0]
    if isinstance(validation_tasks, int | np.integer) and not isinstance(validation_tasks, bool | np.bool_):
        if validation_tasks < 0:
            raise InvalidParameterError(
                f"validation_tasks: got {validation_tasks}; expected a number of tasks of 0 or more."
            )
        held = np.sort(rng.permutation(n)[:validation_tasks])
    elif isinstance(validation_tasks, float | np.floating):
        if not 0 <= validation_tasks < 1:
            raise InvalidParameterError(f"validation_tasks: got {validation_tasks!r}; {EXPECTED}")
        if validation_tasks == 0 or n < FEWEST_TASKS:
            return everything, everything[:0]
        held = np.sort(rng.permutation(n)[: max(1, round(validation_tasks * n))])
    elif isinstance(validation_tasks, Sequence | np.ndarray) and not isinstance(validation_tasks, str):
        held = np.flatnonzero(np.isin(task_set.labels, np.asarray(validation_tasks)))
        unknown = [v for v in validation_tasks if v not in set(task_set.labels.tolist())]
        if unknown:
            raise InvalidParameterError(
                f"validation_tasks: {unknown[0]!r} is not among the {n} task labels; pass labels that occur in tasks=."
            )
    else:
        raise InvalidParameterError(f"validation_tasks: got {validation_tasks!r}; {EXPECTED}")
    training = np.setdiff1d(everything, held)
    if not len(training):
        raise InvalidParameterError(f"validation_tasks: all {n} task(s) are held out; leave at least one for training.")
    return training, held
