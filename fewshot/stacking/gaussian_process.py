"""A Gaussian process on the columns of the table, whose covariance is learned over tasks by what it predicts in episodes.

Deep kernel transfer without the network (Patacchiola et al. 2020): on tables a covariance with automatic relevance finds the column
that matters, such as time, by itself. It is trained on the density of query rows given supports of all sizes, which is what
adapting is for, rather than on the evidence of whole tasks, whose many rows would decide alone.

References
----------
Patacchiola, Turner, Crowley, O'Boyle, Storkey (2020), Bayesian meta-learning for the few-shot setting via deep kernels, NeurIPS.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..episodes import EpisodeSampler
from ..tasks import Rows, TaskSet
from .covariance import covariance, starting_values, variances
from .members import State
from .posterior import dual_of_classes, dual_of_values, half_inverse
from .responses import Response

__all__ = ["GaussianProcessMember"]

Floats = npt.NDArray[np.float64]
TASKS_PER_BATCH = 16
LEARNING_RATE = 0.05
AT_ONCE = 2_000_000  # entries of the array of squared differences


class GaussianProcessMember:
    """A Gaussian process on what the offset leaves.

    Parameters
    ----------
    response : Response
        Values or classes.
    from_base : bool
        Whether it starts from the pooled base or from a constant.
    sampler : dict
        Settings of the episodes: shots, queries, support.
    max_iter : int, default=400
        Meta-steps.
    """

    expensive = True
    on_trial = False

    def __init__(self, response: Response, from_base: bool, sampler: dict[str, Any], max_iter: int = 400) -> None:
        self.response, self.from_base, self.sampler, self.max_iter = response, from_base, sampler, max_iter
        self.name = "dkt" if from_base else "dkt from a constant"
        self.variants = ["Gaussian process"]

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Learn the covariance and the noise over episodes."""
        pool = replace(pool, extra={"offset": torch.from_numpy(offset)})
        self.scale = 1.0
        if not self.response.classifies:
            residual = pool.y.numpy() - offset
            self.scale = float(np.sqrt(np.average((residual**2).mean(1), weights=pool.weight.numpy())) or 1.0)
        log = {k: v.requires_grad_() for k, v in starting_values(pool.x.shape[1]).items()}
        optimizer = torch.optim.Adam(log.values(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.max_iter)
        episodes = EpisodeSampler(pool, **self.sampler)
        for _ in range(self.max_iter):
            support, query = episodes.sample(TASKS_PER_BATCH, rng)
            loss = self._loss(log, support, query)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        self.log = {k: v.detach() for k, v in log.items()}

    def _loss(self, log: dict[str, Tensor], support: Rows, query: Rows) -> Tensor:
        k = covariance(log, support.x, support.x)
        asked = covariance(log, support.x, query.x)
        if self.response.classifies:
            dual = dual_of_classes(k, support.extra["offset"], support.y, support.weight)
            logits = query.extra["offset"] + asked.transpose(1, 2) @ dual
            losses = -torch.log_softmax(logits, -1).gather(-1, query.y[..., None])[..., 0]
        else:
            half = half_inverse(k, support.weight.sqrt() * (-0.5 * log["noise"]).exp())
            dual = dual_of_values(half, (support.y - support.extra["offset"]) / self.scale)
            explained = ((half @ asked) ** 2).sum(1)
            variance = (variances(log, query.x) - explained).clamp(min=0) + log["noise"].exp()
            error = (query.y - query.extra["offset"]) / self.scale - asked.transpose(1, 2) @ dual
            losses = 0.5 * ((error**2).mean(-1) / variance + variance.log() + math.log(2 * math.pi))
        return (losses * query.weight).sum() / query.weight.sum()

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Find the dual weights of each task's support."""
        tasks = replace(support, extra={"offset": torch.from_numpy(offset)})
        rows = tasks.rows(np.arange(support.n_tasks))
        dual = torch.empty(rows.extra["offset"].shape, dtype=torch.float64)
        at_once = max(1, AT_ONCE // max(rows.x.shape[1] ** 2 * rows.x.shape[2], 1))
        with torch.no_grad():
            for start in range(0, support.n_tasks, at_once):
                part = slice(start, start + at_once)
                k = covariance(self.log, rows.x[part], rows.x[part])
                if self.response.classifies:
                    dual[part] = dual_of_classes(k, rows.extra["offset"][part], rows.y[part], rows.weight[part])
                else:
                    half = half_inverse(k, rows.weight[part].sqrt() * (-0.5 * self.log["noise"]).exp())
                    residual = (rows.y[part] - rows.extra["offset"][part]) / self.scale
                    dual[part] = self.scale * dual_of_values(half, residual)
        return {"x": rows.x.numpy(), "dual": dual.numpy()}

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict rows from the dual weights of their task."""
        out = offset[:, None, :].copy()
        rows = torch.from_numpy(np.ascontiguousarray(x))
        with torch.no_grad():
            for t in np.unique(task):
                mine = np.flatnonzero(task == t)
                seen, dual = torch.from_numpy(state["x"][t]), torch.from_numpy(state["dual"][t])
                at_once = max(1, AT_ONCE // max(seen.shape[0] * seen.shape[1], 1))
                for start in range(0, len(mine), at_once):
                    part = mine[start : start + at_once]
                    out[part, 0] += (covariance(self.log, rows[part], seen) @ dual).numpy()
        return out
