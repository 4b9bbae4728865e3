"""Do two ways to the same derivatives agree? What the engine compares before it trusts the faster one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .adaptation import Adaptation
from .functional import FunctionalModule
from .kernels import LoopKernels, VectorizedKernels
from .metagradient import MetaGradient, MetaParameters, Order, meta_gradient
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["by_both_kernels", "differences", "norm", "two_tasks", "with_a_padded_row", "with_an_unused_row"]


def by_both_kernels(
    functional: FunctionalModule,
    adaptation: Adaptation,
    parameters: MetaParameters,
    supports: Sequence[Rows],
    query: Rows,
    order: Order,
    dtype: torch.dtype | None,
) -> list[MetaGradient]:
    """Meta-gradients by the loop over tasks and by the vectorised kernels, in a type of numbers (None: as they are)."""

    def cast(t: Tensor) -> Tensor:
        return t.to(dtype) if dtype is not None and t.is_floating_point() else t

    def cast_rows(r: Rows) -> Rows:
        return Rows(cast(r.x), cast(r.y), cast(r.weight), {k: cast(v) for k, v in r.extra.items()})

    constant = {k: cast(v) for k, v in functional.constant.items()}
    parameters = MetaParameters.from_flat({k: cast(v.detach()) for k, v in parameters.flat().items()})
    supports, query = [cast_rows(s) for s in supports], cast_rows(query)
    kernels = LoopKernels(functional, constant), VectorizedKernels(functional, constant, trace=False)
    return [meta_gradient(k, adaptation, parameters, supports, query, order=order) for k in kernels]


def norm(tensors: Tensors) -> float:
    """Length of all tensors together."""
    return math.sqrt(sum(float(v.double().norm()) ** 2 for v in tensors.values()))


def differences(expected: Tensors, got: Tensors) -> tuple[dict[str, float], float]:
    """Relative difference of each tensor, infinite if not a number, and the norm of all expected ones together."""
    size = norm(expected)
    errors = {
        name: float((got[name] - v).double().norm()) / max(float(v.double().norm()), 1e-3 * size, 1e-12)
        for name, v in expected.items()
    }
    return {name: math.inf if math.isnan(error) else error for name, error in errors.items()}, size


def with_an_unused_row(rows: Rows) -> Rows:
    """Take the weight of the first task's last row, as padding has none: a program for a network that mixes rows errs."""
    weight = rows.weight.clone()
    if weight.shape[1] > 2:
        weight[0, -1] = 0
    return Rows(rows.x, rows.y, weight, rows.extra)


def with_a_padded_row(rows: Rows) -> Rows:
    """Append a copy of the first row with weight 0: a network that mixes rows gives itself away."""

    def longer(t: Tensor) -> Tensor:
        return torch.cat([t, t[:, :1]], 1)

    weight = torch.cat([rows.weight, torch.zeros_like(rows.weight[:, :1])], 1)
    return Rows(longer(rows.x), longer(rows.y), weight, {k: longer(v) for k, v in rows.extra.items()})


def two_tasks(support: Rows) -> Tensor:
    """Positions of the tasks with most and with fewest support rows, so that padding takes part in the comparison."""
    n = (support.weight > 0).sum(1).cpu().numpy()
    order = np.argsort(n, kind="stable")
    return torch.from_numpy(np.unique(order[[0, -1]]))
