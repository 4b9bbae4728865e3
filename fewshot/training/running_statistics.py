"""Running batch statistics over meta-training, for networks whose batch norms use them as constants.

Every few meta-steps the batch is adapted to once more, and the mean and variance of what each layer sees, over the support before
each step and over the query after the last one, move the averages as torch's own do. Moments are taken behind layers that are
already normalised by their averages; only the first ones, which there are no averages before, are those of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..engine import Engine
from ..metagradient import MetaParameters, expand, inner_loop, of_network, task_shares
from ..step_sizes import Tensors
from ..tasks import Rows

__all__ = ["first_statistics", "moved_statistics"]

EVERY = 5  # meta-steps
MOMENTUM = 0.1  # of an average, as in torch's layers


def first_statistics(engine: Engine, parameters: MetaParameters, supports: Sequence[Rows]) -> Tensors:
    """Statistics of a first batch at the initialisation, for every inner step.

    Returns
    -------
    dict of str to Tensor
        Values for ``engine.functional.constant``; empty for a network that keeps none.
    """
    functional = engine.functional
    if not functional.running:
        return {}
    support = supports[0]
    theta = expand(parameters.moving, len(support.x))
    found = _pooled(engine, theta, parameters.shared, support, 0, 0, normalised=False)
    return {name: found[name].expand_as(functional.constant[name]).clone() for name in functional.running}


def moved_statistics(
    engine: Engine, parameters: MetaParameters, supports: Sequence[Rows], query: Rows, iteration: int
) -> Tensors:
    """Averages after a meta-step, where they are due; else an empty dict.

    Parameters
    ----------
    engine : Engine
        Runs the network.
    parameters : MetaParameters
        Before the meta-step.
    supports : sequence of Rows
        Support rows of each step.
    query : Rows
        Query rows.
    iteration : int
        Meta-steps done.
    """
    functional, steps = engine.functional, engine.adaptation.inner_steps
    if not functional.running or iteration % EVERY:
        return {}
    start = expand(engine.adaptation.rule.begin(parameters.moving), len(query.x))
    path, _ = inner_loop(engine.kernels, engine.adaptation, parameters, supports[:steps], iteration, start)
    rows = [*supports[:steps], query]
    found = [
        _pooled(engine, of_network(theta), parameters.shared, some, k, iteration, normalised=True)
        for k, (theta, some) in enumerate(zip(path, rows, strict=True))
    ]
    moved = {}
    for name in functional.running:
        seen = torch.stack([one[name] for one in found])
        old = functional.constant[name]
        moved[name] = old + MOMENTUM * ((seen if name in functional.per_step else seen.mean(0)) - old)
    return moved


def _pooled(
    engine: Engine, theta: Tensors, shared: Tensors, rows: Rows, step: int, seed: int, *, normalised: bool
) -> dict[str, Tensor]:
    """Mean and variance over all tasks together, each with the same weight; dropout draws with `seed`."""
    functional = engine.functional
    constant = functional.constants(functional.constant, step)

    def one(mine: Tensors, own: Rows) -> Tensors:
        return functional.moments(mine, shared, constant, own, normalised=normalised)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed + step)
        each = engine.of_tasks(one, theta, rows)
    share = task_shares(rows)
    pooled = {}
    for name, value in each.items():
        if name.endswith("episode_mean"):
            layer = name.removesuffix("episode_mean")
            mean = torch.tensordot(share, value, 1)
            pooled[name] = mean
            # The variance of all rows: within tasks, and between their means.
            pooled[layer + "episode_var"] = torch.tensordot(share, each[layer + "episode_var"] + (value - mean) ** 2, 1)
    return pooled
