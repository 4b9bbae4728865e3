"""Adapting to many tasks at once, and predicting with what came out: no derivative of the outer kind, no randomness.

A step size that suits almost every task can still make one diverge. So after adaptation the support loss of each task is
compared with what it was; a task that got worse adapts again with all steps halved, up to six times, and stays at the
initialisation if even that fails.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import vmap

from .engine import Engine
from .functional import FunctionalModule, differentiable_forward
from .metagradient import MetaParameters, expand, take_tasks
from .step_sizes import Tensors
from .tasks import Rows, TaskSet

__all__ = ["AdaptedTasks", "adapt_task_set", "halved", "predict"]

logger = logging.getLogger("fewshot")

HALVINGS = 6


@dataclass
class AdaptedTasks:
    """Parameters after adaptation.

    Parameters
    ----------
    moving : dict of str to Tensor
        Adapted parameters with a leading task axis.
    statistics : dict of str to Tensor
        What else predictions need of each task's support, with a leading task axis: batch statistics, a head in closed form.
    step_scale : Tensor of shape (tasks,)
        Factor by which the safeguard shrank each task's steps: 1, or a power of one half, or 0.
    """

    moving: Tensors
    statistics: Tensors
    step_scale: Tensor


def adapt_task_set(
    engine: Engine, parameters: MetaParameters, task_set: TaskSet, steps: int | None = None
) -> AdaptedTasks:
    """Adapt to every task of a task set, all rows being support.

    Tasks go in groups of similar size, so that padding does not grow with the largest one.

    Parameters
    ----------
    engine : Engine
        Runs the kernels.
    parameters : MetaParameters
        Where adaptation starts.
    task_set : TaskSet
        Supports.
    steps : int, default=None
        Number of inner steps; None is as trained.

    Returns
    -------
    AdaptedTasks
        In the order of the task set.
    """
    steps = engine.adaptation.inner_steps if steps is None else steps
    by_size = np.argsort(task_set.sizes, kind="stable")
    groups = _similar(by_size, task_set.sizes[by_size])
    with engine.functional.mode(training=False):
        parts = [_adapt_similar(engine, parameters, task_set.rows(some), steps) for some in groups]
    return AdaptedTasks(
        {k: _in_order(groups, [p.moving[k] for p in parts]) for k in parts[0].moving},
        {k: _in_order(groups, _same_shape([p.statistics[k] for p in parts])) for k in parts[0].statistics},
        _in_order(groups, [p.step_scale for p in parts]),
    )


def _in_order(groups: list[npt.NDArray[np.int64]], parts: list[Tensor]) -> Tensor:
    """Put what was found for groups of tasks into the order of the tasks, copied no more than need be."""
    if len(groups) == 1 and (np.diff(groups[0]) > 0).all():
        return parts[0]
    out = parts[0].new_empty((sum(map(len, groups)), *parts[0].shape[1:]))
    for some, part in zip(groups, parts, strict=True):
        out[torch.from_numpy(some)] = part
    return out


def _same_shape(parts: list[Tensor]) -> list[Tensor]:
    """Pad with zeros to the largest: heads of groups of tasks with fewer rows, where zeros stand for rows without weight."""
    shape = torch.Size(max(sizes) for sizes in zip(*(p.shape[1:] for p in parts), strict=True))
    return [_padded(p, shape) for p in parts]


def _padded(part: Tensor, shape: torch.Size) -> Tensor:
    if part.shape[1:] == shape:
        return part
    out = part.new_zeros((len(part), *shape))
    out[tuple(slice(n) for n in part.shape)] = part
    return out


def _similar(tasks: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Cut tasks, ordered by size, into groups whose largest task is at most about twice the smallest."""
    bucket = np.ceil(np.log2(np.maximum(sizes, 8))).astype(np.int64)
    return np.split(tasks, np.flatnonzero(np.diff(bucket)) + 1)


def _adapt_similar(engine: Engine, parameters: MetaParameters, support: Rows, steps: int) -> AdaptedTasks:
    """Adapt to tasks of similar size, with the safeguard."""
    n_tasks = len(support.x)
    scale = torch.ones(n_tasks, dtype=support.weight.dtype)
    if not steps:
        moving = {k: v.clone() for k, v in expand(parameters.moving, n_tasks).items()}
        return AdaptedTasks(moving, _statistics(engine, moving, parameters.shared, support, steps), scale)
    moving, before, after = engine.adapt(parameters, support, steps)
    remaining = torch.nonzero(~(after <= before))[:, 0]  # the comparison is false for NaN
    for halving in range(1, HALVINGS + 1):
        if not len(remaining):
            break
        sizes = MetaParameters(parameters.moving, parameters.shared, halved(parameters.sizes, halving))
        found, _, after = engine.adapt(sizes, take_tasks(support, remaining), steps)
        good = after <= before[remaining]
        for name, value in found.items():
            moving[name][remaining[good]] = value[good]
        scale[remaining[good]] = 0.5**halving
        remaining = remaining[~good]
    for name, value in moving.items():
        value[remaining] = parameters.moving[name]
    scale[remaining] = 0.0
    return AdaptedTasks(moving, _statistics(engine, moving, parameters.shared, support, steps), scale)


def halved(sizes: Tensors, times: int) -> Tensors:
    """Step sizes divided by two, so many times."""
    return {k: v - times * math.log(2) if k.startswith("log_alpha.") else v for k, v in sizes.items()}


def _statistics(engine: Engine, moving: Tensors, shared: Tensors, support: Rows, steps: int) -> Tensors:
    functional = engine.functional
    after = functional.constants(functional.constant, steps)
    found: Tensors = {}
    if functional.per_step:
        found |= expand({name: after[name] for name in functional.running}, len(support.x))

    def one(mine: Tensors, rows: Rows) -> Tensors:
        return functional.support_statistics(mine, shared, after, rows)

    if functional.captures_support:
        found |= engine.of_tasks(one, moving, support)
    return found


def predict(
    functional: FunctionalModule,
    moving: Tensors,
    shared: Tensors,
    statistics: Tensors,
    x: Sequence[Tensor],
    of_one: Callable[[Tensors, Tensors, Tensors, Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """Compute outputs of adapted networks, each for rows of its own.

    Parameters
    ----------
    functional : FunctionalModule
        The network.
    moving, statistics : dict of str to Tensor
        Adapted parameters and batch statistics with a leading task axis.
    shared : dict of str to Tensor
        Parameters that all tasks share.
    x : sequence of Tensor of shape (rows, ...)
        Inputs of each task; numbers of rows may differ.
    of_one : callable, default=None
        ``(moving, shared, constant, x) -> output`` of one task; None is the network's prediction.

    Returns
    -------
    list of Tensor of shape (rows, outputs)
    """
    dtype = x[0].dtype

    def cast(tensors: Tensors) -> Tensors:
        return {k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()}

    moving, shared, statistics = cast(moving), cast(shared), cast(statistics)
    constant = cast(functional.constants(functional.constant, 0))  # adapted tasks have statistics of their own

    def one(mine: Tensors, own: Tensors, rows: Tensor) -> Tensor:
        return (of_one or functional.prediction)(mine, shared, {**constant, **own}, rows)

    out: list[Tensor] = [torch.empty(0, functional.n_outputs, dtype=dtype)] * len(x)
    groups: dict[int, list[int]] = {}
    for t, rows in enumerate(x):
        groups.setdefault(len(rows), []).append(t)
    with torch.no_grad(), differentiable_forward(), functional.mode(training=False):
        for length, members in groups.items():
            index = torch.tensor(members)
            if length == 0:
                continue
            mine, own = ({k: v[index] for k, v in part.items()} for part in (moving, statistics))
            results = _map_tasks(one, mine, own, torch.stack([x[t] for t in members]))
            for t, result in zip(members, results, strict=True):
                out[t] = result
    return out


def _map_tasks(one: Callable[..., Tensor], moving: Tensors, statistics: Tensors, x: Tensor) -> Sequence[Tensor]:
    if len(x) > 1:
        try:
            return list(vmap(one)(moving, statistics, x))
        except RuntimeError as error:
            logger.debug("predict: going through the tasks one by one (%s)", error)
    return [
        one({k: v[t] for k, v in moving.items()}, {k: v[t] for k, v in statistics.items()}, x[t]) for t in range(len(x))
    ]
