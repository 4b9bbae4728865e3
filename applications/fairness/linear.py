"""Pooled logistic regression with its penalty chosen over tasks, and what it says about tasks that it did not see."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["SMALLEST", "cross_fitted", "log_probability", "logistic", "strength_of", "task_folds"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FOLDS = 5
CS = (0.001, 0.01, 0.1, 1.0)
JUDGED = 3  # folds that choose the penalty
SMALLEST = 1e-4  # probability of a class


def task_folds(task: Ints) -> list[tuple[Ints, Ints]]:
    """Divide rows into at most five folds of whole tasks; none if there is only one task."""
    n_tasks = len(np.unique(task))
    return list(GroupKFold(min(FOLDS, n_tasks)).split(task, groups=task)) if n_tasks > 1 else []


def logistic(strength: float) -> Any:
    """Return an unfitted logistic regression of scaled features; `strength` is the inverse penalty."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))


def log_probability(model: Any, x: Floats, n_classes: int) -> Floats:
    """Log-probabilities of classes 0, 1, ..., of which a model of some tasks may not know all."""
    out = np.full((len(x), n_classes), SMALLEST)
    out[:, model.classes_] = np.clip(model.predict_proba(x), SMALLEST, None)
    return np.log(out)


def strength_of(x: Floats, target: Ints, n_classes: int, folds: list[tuple[Ints, Ints]]) -> float:
    """Choose the penalty by the loss on tasks that were left out."""
    folds = [(a, b) for a, b in folds[:JUDGED] if len(np.unique(target[a])) > 1]
    if not folds:
        return CS[-1]
    losses = [
        np.mean([-_of(target[b], log_probability(logistic(c).fit(x[a], target[a]), x[b], n_classes)) for a, b in folds])
        for c in CS
    ]
    return CS[int(np.argmin(losses))]


def _of(target: Ints, logs: Floats) -> float:
    return float(logs[np.arange(len(target)), target].mean())


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
