"""A linear mixed model with random slopes, as a member of a stack: what many users have, and on short histories hard to beat."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .._reml import blup, estimate, moments, products_by_task
from ..tasks import TaskSet
from .base import task_codes, within_tasks
from .members import State
from .responses import Response

__all__ = ["MixedSlopes"]

Floats = npt.NDArray[np.float64]
LEAST_SHARE = 0.01  # of a column's variance that must lie within tasks for a slope of their own


class MixedSlopes:
    """Fixed effects, and independent random effects of an intercept and of columns that vary in tasks, by restricted likelihood.

    Its fixed effects are estimated within tasks as well as between them, which the pooled base's are not. A column that is
    (nearly) constant in every task has no random slope: it could not be told from the intercept, and takes its variance by chance.

    Parameters
    ----------
    response : Response
        Values.
    """

    expensive = False
    on_trial = False
    from_base = False

    def __init__(self, response: Response) -> None:
        self.response, self.name, self.variants = response, "mixed slopes", ["mixed slopes"]

    def fit(self, pool: TaskSet, offset: Floats, rng: np.random.Generator) -> None:
        """Estimate fixed effects and variances; without enough rows for them it stays at the offset."""
        x, w = _with_one(pool.x.numpy()), pool.weight.numpy()
        d = x.shape[1]
        self.fixed = np.zeros((d, offset.shape[1]))
        self.ratios = np.zeros((d, offset.shape[1]))
        if (w > 0).sum() <= d:
            return
        codes = task_codes(pool)
        residual = pool.y.numpy() - offset
        varies = _share_within_tasks(x, w, codes, pool.n_tasks) >= LEAST_SHARE
        varies[0] = True
        order, n_random = np.argsort(~varies, kind="stable"), int(varies.sum())
        for column in range(offset.shape[1]):
            y = residual[:, column]
            if float((w * y * y).sum()) <= 1e-12:
                continue
            found = estimate(moments(x[:, order], n_random, y, w, codes, pool.n_tasks))
            self.fixed[order, column], self.ratios[order[:n_random], column] = found.beta, found.ratios

    def adapt(self, support: TaskSet, offset: Floats) -> State:
        """Predict each task's random effects."""
        x, codes, w = _with_one(support.x.numpy()), task_codes(support), support.weight.numpy()
        residual = support.y.numpy() - offset - x @ self.fixed
        products = products_by_task(x, np.column_stack([x, residual]) * w[:, None], codes, support.n_tasks)
        d = x.shape[1]
        effects = [blup(products[:, :, :d], products[:, :, d + i], ratios) for i, ratios in enumerate(self.ratios.T)]
        return {"effects": np.stack(effects, axis=2)}

    def predict(self, state: State, x: Floats, task: npt.NDArray[np.int64], offset: Floats) -> Floats:
        """Predict with fixed and random effects."""
        x = _with_one(x)
        out: Floats = (offset + x @ self.fixed)[:, None, :]
        for t in np.unique(task):
            mine = task == t
            out[mine, 0] += x[mine] @ state["effects"][t]
        return out


def _share_within_tasks(x: Floats, weight: Floats, codes: npt.NDArray[np.int64], n_tasks: int) -> Floats:
    """Share of each column's variance that lies within tasks."""
    within = (weight[:, None] * within_tasks(x, weight, codes, n_tasks) ** 2).sum(0)
    overall = (weight[:, None] * (x - np.average(x, axis=0, weights=weight)) ** 2).sum(0)
    return np.asarray(np.divide(within, overall, out=np.zeros_like(within), where=overall > 0))


def _with_one(x: Floats) -> Floats:
    return np.column_stack([np.ones(len(x)), x])
