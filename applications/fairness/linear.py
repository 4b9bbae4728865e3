"""Logistic regression, pooled or within tasks, its penalty chosen over tasks, and what it says about tasks that it did not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array, hstack
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot.baselines.mixed_logistic import intercept_map

__all__ = ["SMALLEST", "cross_fitted", "log_probability", "logistic", "strength_of", "task_folds", "within_logistic"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FOLDS = 5
CS = (0.001, 0.01, 0.1, 1.0)
JUDGED = 3  # folds that choose the penalty
SMALLEST = 1e-4  # probability of a class
USUAL_VARIANCE = 4.0  # of tasks' intercepts, where only slopes are judged
FREE = 10.0  # scale of the indicators of tasks, whose intercepts are then hardly penalised


def task_folds(task: Ints) -> list[tuple[Ints, Ints]]:
    """Divide rows into at most five folds of whole tasks; none if there is only one task."""
    n_tasks = len(np.unique(task))
    return list(GroupKFold(min(FOLDS, n_tasks)).split(task, groups=task)) if n_tasks > 1 else []


def logistic(strength: float) -> Any:
    """Return an unfitted logistic regression of scaled features; `strength` is the inverse penalty."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def within_logistic(strength: float, x: Floats, target: Ints, task: Ints) -> Any:
    """Fit a logistic regression with an intercept for each task, so that the slopes tell what differs within tasks.

    The fitted pipeline has the slopes only: a new task's intercept is not known.
    """
    scaler = StandardScaler().fit(x)
    own, position = np.unique(task, return_inverse=True)
    indicators = csr_array((np.full(len(x), FREE), (np.arange(len(x)), position)), shape=(len(x), len(own)))
    found = LogisticRegression(C=strength, max_iter=1000)
    found.fit(hstack([csr_array(scaler.transform(x)), indicators]).tocsr(), target)
    found.n_features_in_ = x.shape[1]
    found.coef_ = found.coef_[:, : x.shape[1]]
    return make_pipeline(scaler, found)


def log_probability(model: Any, x: Floats, n_classes: int) -> Floats:
    """Log-probabilities of classes 0, 1, ..., of which a model of some tasks may not know all."""
    out = np.full((len(x), n_classes), SMALLEST)
    out[:, model.classes_] = np.clip(model.predict_proba(x), SMALLEST, None)
    return np.log(out)


def strength_of(
    x: Floats, target: Ints, n_classes: int, folds: list[tuple[Ints, Ints]], task: Ints | None = None
) -> float:
    """Choose the penalty by the loss on tasks that were left out; given `task`, of :func:`within_logistic`."""
    folds = [(a, b) for a, b in folds[:JUDGED] if len(np.unique(target[a])) > 1]
    if not folds:
        return CS[-1]

    def loss(strength: float, a: Ints, b: Ints) -> float:
        if task is None:
            logs = log_probability(logistic(strength).fit(x[a], target[a]), x[b], n_classes)
            return -float(logs[np.arange(len(b)), target[b]].mean())
        logs = log_probability(within_logistic(strength, x[a], target[a], task[a]), x[b], n_classes)
        codes, observed = np.unique(task[b], return_inverse=True)[1], np.eye(n_classes)[target[b]]
        evidence = intercept_map(logs, observed, codes, int(codes.max()) + 1, USUAL_VARIANCE, np.ones(len(b)))[1]
        return -float(evidence.sum()) / len(b)

    return min(CS, key=lambda strength: np.mean([loss(strength, a, b) for a, b in folds]))


def cross_fitted(x: Floats, target: Ints, task: Ints) -> tuple[Any, Floats]:
    """Fit to all rows, and return the model with the probability of class 1 of each row by models that did not see its task.

    Parameters
    ----------
    x : ndarray of shape (rows, features)
        Inputs.
    target : ndarray of int, shape (rows,)
        0 or 1.
    task : ndarray of int, shape (rows,)
        Task of each row.
    """
    folds = task_folds(task)
    strength = strength_of(x, target, 2, folds)
    model = logistic(strength).fit(x, target)
    out = np.exp(log_probability(model, x, 2)[:, 1])
    for train, test in folds:
        if len(np.unique(target[train])) > 1:
            out[test] = logistic(strength).fit(x[train], target[train]).predict_proba(x[test])[:, 1]
    return model, out
