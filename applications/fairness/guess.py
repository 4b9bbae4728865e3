r"""Guessing the group of a row from its features, and the share of each group in a task.

A pooled classifier of the groups answers another question than the one that matters here. Much of what it learns may be which
tasks have many members of a group, but decisions are compared within a task. So the scores of a row come from models that leave
out how tasks differ as far as they can, and how common a group is in the task is a part of its own:

.. math:: P(g \mid x, t) \propto \exp\Big(\sum_s b_s z_{sg}(x) + a_g + u_{tg}\Big), \qquad u_{tg} \sim N(0, \tau^2).

The scores z are a logistic regression with an intercept for each task, boosting, and boosting of what the shares within tasks
leave unexplained. Weights b, levels a and the variance maximise the marginal likelihood of the training tasks, by Laplace's
approximation, with scores of models that did not see the task. A new task's u is the most probable one given those of its rows
whose group is known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from fewshot.baselines.mixed_logistic import LOG_VARIANCE, intercept_map

from .linear import SMALLEST, log_probability, strength_of, task_folds, within_logistic

__all__ = ["GroupGuess"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
TREES: dict[str, Any] = {"learning_rate": 0.05, "max_iter": 100, "max_leaf_nodes": 8, "early_stopping": False}
JUDGED_ROWS = 200  # of a task, at most, in fitting the weights
REFERENCE = 500  # training rows that stand for a task of which no row is known


@dataclass
class GroupGuess:
    """A fitted guess; unlike the classifier's its parts are fixed, since all that adapts is how common groups are.

    Parameters
    ----------
    n_groups : int
        Number of groups.
    models : list
        Fitted models of the scores.
    weights : ndarray of shape (scores,)
        Weights b.
    level : ndarray of shape (groups,)
        Levels a.
    variance : float
        Variance of tasks around the levels.
    reference : ndarray of shape (rows, groups)
        Logits of some training rows.
    held_out : ndarray of shape (rows, groups)
        Logits of all training rows, without a task's part, by models that did not see their task; not kept in files.
    """

    n_groups: int
    models: list[Any]
    weights: Floats
    level: Floats
    variance: float
    reference: Floats
    held_out: Floats | None = field(default=None, repr=False)

    @classmethod
    def fit(cls, x: Floats, group: Ints, task: Ints, n_groups: int, rng: np.random.Generator) -> GroupGuess:
        """Fit scores and how to weigh them.

        Parameters
        ----------
        x : ndarray of shape (rows, features)
            Inputs.
        group, task : ndarray of int, shape (rows,)
            Group and task of each row.
        n_groups : int
            Number of groups.
        rng : numpy.random.Generator
            Source of the seeds.
        """
        seed = int(rng.integers(2**31))
        n_tasks = int(task.max()) + 1
        scores = np.zeros((len(x), 3, n_groups))
        folds = task_folds(task)
        strength = strength_of(x, group, n_groups, folds, task)
        for train, test in folds:
            models = _fit_models(x[train], group[train], task[train], n_groups, strength, seed)
            scores[test] = _scores(models, x[test], n_groups)
        models = _fit_models(x, group, task, n_groups, strength, seed)
        if not folds:
            scores = _scores(models, x, n_groups)
        kept = _at_most(task, JUDGED_ROWS, rng)
        weights, level, variance = _weigh(scores[kept], group[kept], task[kept], n_tasks, n_groups)
        held_out = np.einsum("rsg,s->rg", scores, weights) + level
        some = rng.permutation(len(x))[:REFERENCE]
        return cls(n_groups, models, weights, level, variance, held_out[some], held_out)

    def logits(self, x: Floats) -> Floats:
        """Logits of the groups, shape (rows, groups), without a task's own part."""
        if not len(x):
            return np.empty((0, self.n_groups))
        return np.asarray(np.einsum("rsg,s->rg", _scores(self.models, x, self.n_groups), self.weights) + self.level)

    def adapt(self, logits: Floats, group: Ints, task: Ints, n_tasks: int) -> Floats:
        """Return the most probable part of each task, shape (tasks, groups), given rows whose group is known."""
        observed = np.eye(self.n_groups)[group]
        return intercept_map(logits, observed, task, n_tasks, self.variance, np.ones(len(group)))[0]

    def shares(self, own: Floats) -> Floats:
        """Shares of the groups in tasks with these parts, if their rows were like the training rows; (tasks, groups)."""
        return np.stack([probabilities(self.reference + u).mean(0) for u in own])


def probabilities(logits: Floats) -> Floats:
    """Probabilities of the groups; none is ruled out."""
    p = np.clip(softmax(logits, axis=1), SMALLEST, None)
    return np.asarray(p / p.sum(1, keepdims=True))


def _fit_models(x: Floats, group: Ints, task: Ints, n_groups: int, strength: float, seed: int) -> list[Any]:
    if len(np.unique(group)) < 2:
        return []
    found = [
        within_logistic(strength, x, group, task),
        HistGradientBoostingClassifier(random_state=seed, **TREES).fit(x, group),
    ]
    observed = np.eye(n_groups)[group]
    sums = np.stack([np.bincount(task, weights=column) for column in observed.T], axis=1)
    share = (sums / np.maximum(np.bincount(task), 1)[:, None])[task]
    # Of two groups the second is the first's complement.
    for g in range(n_groups if n_groups > 2 else 1):
        trees = HistGradientBoostingRegressor(random_state=seed, **TREES)
        found.append(trees.fit(x, (observed - share)[:, g]))
    return found


def _scores(models: list[Any], x: Floats, n_groups: int) -> Floats:
    """Scores of rows, shape (rows, scores, groups), with mean zero over the groups."""
    out = np.zeros((len(x), 3, n_groups))
    if models:
        out[:, 0], out[:, 1] = (log_probability(model, x, n_groups) for model in models[:2])
        within = np.stack([model.predict(x) for model in models[2:]], axis=1)
        out[:, 2] = within if n_groups > 2 else np.column_stack([within, -within])
    return np.asarray(out - out.mean(2, keepdims=True))


def _at_most(task: Ints, most: int, rng: np.random.Generator) -> Ints:
    """Draw rows, at most so many of each task."""
    order = rng.permutation(len(task))
    order = order[np.argsort(task[order], kind="stable")]
    starts = np.searchsorted(task[order], task[order])
    return np.sort(order[np.arange(len(task)) - starts < most])


def _weigh(scores: Floats, group: Ints, task: Ints, n_tasks: int, n_groups: int) -> tuple[Floats, Floats, float]:
    """Weights, levels and variance of greatest evidence."""
    observed, one = np.eye(n_groups)[group], np.ones(len(group))
    free = n_groups - 1

    def unpack(at: Floats) -> tuple[Floats, Floats, float]:
        level = np.append(at[3 : 3 + free], 0.0)
        return at[:3], level - level.mean(), float(np.exp(at[-1]))

    def minus_evidence(at: Floats) -> float:
        weights, level, variance = unpack(at)
        offset = np.einsum("rsg,s->rg", scores, weights) + level
        return -float(intercept_map(offset, observed, task, n_tasks, variance, one)[1].sum()) / len(group)

    start = np.concatenate([np.full(3, 1 / 3), np.zeros(free), [0.0]])
    bounds = [(0.0, 5.0), (0.0, 5.0), (0.0, 20.0)] + [(-10.0, 10.0)] * free + [LOG_VARIANCE]
    found = minimize(minus_evidence, start, method="L-BFGS-B", bounds=bounds, options={"maxiter": 50})
    return unpack(found.x)
