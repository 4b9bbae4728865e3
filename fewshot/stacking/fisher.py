r"""Coefficients under the pooled model's Fisher information: how far a task may go from the pooled model, in its own units.

Refitting a linear model with the support weighted w times is, to second order, a most probable estimate under the prior
``N(pooled, (F / w)^{-1})``, F the Fisher information of the pooled rows. So the deviation of a task's coefficients has the prior
``N(0, omega F_1^{-1})`` here, with F_1 the information of one average row: the pooled model is worth 1 / omega rows. Beside it
stands a free intercept of variance tau. No training is needed; a grid of both goes into the stack, which weighs its cells. The
cell with omega = 0 is a random intercept alone.

The penalty enters the information as that of one row would, so that columns that hardly vary stay where they are.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ..tasks import TaskSet
from .base import task_codes, within_tasks
from .members import State
from .posterior import coefficients
from .responses import Response

__all__ = ["FisherPrior"]

Floats = npt.NDArray[np.float64]
OMEGAS = (0.0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
INTERCEPTS = (0.01, 0.1, 0.3, 1.0, 3.0)
RIDGE = 1e-3  # of the average information of a column


class FisherPrior:
    """Newton steps under the Fisher prior, in a grid of strengths.

    Parameters
    ----------
    response : Response
        Values or classes.
    from_base : bool, default=True
        Whether it starts from the pooled base or from a constant.
    """

    expensive = False
    on_trial = False

    def __init__(self, response: Response, from_base: bool = True) -> None:
        self.response, self.from_base = response, from_base
        self.name = "map" if from_base else "map from a constant"
        self.grid = [(omega, tau) for omega in OMEGAS for tau in INTERCEPTS]
        self.variants = [f"prior worth {1 / o:.0f} rows" if o else "intercept alone" for o, _ in self.grid]
        self.variants = [f"{v}, intercept variance {t:g}" for v, (_, t) in zip(self.variants, self.grid, strict=True)]

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Find the Fisher information of an average row, and the variance within tasks."""
        x, w = pool.x.numpy(), pool.weight.numpy()
        if self.response.classifies:
            p = np.exp(offset - np.logaddexp.reduce(offset, axis=1, keepdims=True))
            curvature = (p * (1 - p)).sum(1)
            self.noise = 1.0
        else:
            codes = task_codes(pool)
            residual = pool.y.numpy() - offset
            within = within_tasks(residual, w, codes, pool.n_tasks)
            freedom = max(w.sum() - pool.n_tasks, 1.0)
            self.noise = float(max((w[:, None] * within**2).sum(0).mean() / freedom, 1e-6))
            curvature = np.ones(len(x))
        weight = w * curvature / w.sum()
        centre = (weight @ x) / max(weight.sum(), 1e-12)
        information = (x - centre).T @ ((x - centre) * weight[:, None])
        information += RIDGE * max(np.trace(information) / x.shape[1], 1e-9) * np.eye(x.shape[1])
        self.centre = centre
        self.whitener = np.linalg.inv(np.linalg.cholesky(information)).T

    def _whitened(self, x: Floats) -> Floats:
        z: Floats = (x - self.centre) @ self.whitener
        return z

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Find each task's coefficients in every cell of the grid, by Newton's method where the response is a class."""
        rows = replace(support, extra={"offset": torch.from_numpy(offset)}).rows(np.arange(support.n_tasks))
        z = torch.from_numpy(self._whitened(rows.x.flatten(0, 1).numpy()).reshape(*rows.x.shape[:2], -1))
        one = torch.ones(*z.shape[:2], 1, dtype=z.dtype)
        slopes, intercepts = [], []
        for omega, tau in self.grid:
            # Variances are in units of the noise, since its variance is the unit of the information.
            scales = math.sqrt(self.noise * omega), math.sqrt(tau)
            found = coefficients(
                self.response.classifies, torch.cat([scales[0] * z, scales[1] * one], 2), rows, self.noise
            )
            slopes.append(scales[0] * found[:, :-1])
            intercepts.append(scales[1] * found[:, -1])
        return {
            "coefficients": torch.stack(slopes, 1).numpy(),  # (tasks, variants, features, outputs)
            "intercepts": torch.stack(intercepts, 1).numpy(),
        }

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict with every cell's coefficients."""
        z = self._whitened(x)
        out = np.empty((len(x), len(self.grid), offset.shape[1]))
        for t in np.unique(task):
            mine = task == t
            moved = np.einsum("nf,vfo->nvo", z[mine], state["coefficients"][t]) + state["intercepts"][t]
            out[mine] = offset[mine][:, None, :] + moved
        return out
