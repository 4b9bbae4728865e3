"""Matching the groups' selection rates on the rows that are to be decided: needs no outcomes, but groups at the decision."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..groups import Groups
from .plain import PlainClassifier

__all__ = ["RateMatching"]

PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)


class RateMatching(PlainClassifier):
    """A classifier with, in each task, thresholds for each group at which they are selected at the same rate.

    The rates come from the unlabelled rows: each group's own rate is moved towards the rate of all, by a part between 0 (not at
    all) and 1 (equal rates). The thresholds are then fixed. A task without unlabelled rows keeps one half.

    Parameters
    ----------
    classifier : estimator
        As for :class:`PlainClassifier`.
    part : float, default=1.0
        How far rates are moved.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> x, y = np.arange(8.0)[:, None], [0, 0, 0, 0, 1, 1, 1, 1]
    >>> model = RateMatching(LogisticRegression()).fit_meta(x, y, tasks=[0] * 8, sensitive_features=["a", "b"] * 4)
    >>> group = ["a"] * 4 + ["b"] * 4
    >>> adapted = model.adapt(x[:2], y[:2], X_unlabelled=x, sensitive_unlabelled=group)
    >>> adapted.predict(x, sensitive_features=group).tolist()
    [0, 0, 1, 1, 0, 0, 1, 1]
    """

    def __init__(self, classifier: Any, part: float = 1.0) -> None:
        super().__init__(classifier)
        self.part = part

    def fit_meta(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Fit the classifier and learn the vocabulary of groups."""
        super().fit_meta(X, y, tasks=tasks)
        self.groups_ = Groups.learn(sensitive_features, len(y))
        return self

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        tasks: Any = None,
        sensitive_features: Any = None,
        X_unlabelled: Any = None,
        sensitive_unlabelled: Any = None,
        tasks_unlabelled: Any = None,
    ) -> Self:
        """Adapt the classifier, and match rates on the unlabelled rows whose group is known."""
        adapted = super().adapt(X, y, tasks=tasks)
        adapted._rows = None
        if X_unlabelled is not None and sensitive_unlabelled is not None:
            probability = adapted.predict_proba(X_unlabelled, tasks=tasks_unlabelled)[:, 1]
            codes = self.groups_.codes(sensitive_unlabelled, len(probability), "sensitive_unlabelled")
            task = np.zeros(len(codes)) if tasks_unlabelled is None else np.asarray(tasks_unlabelled)
            adapted._rows = (probability, codes, task)
        return adapted._matched()

    def operating_points(self) -> dict[float, Self]:
        """Return the same model with other parts; nothing is fitted again."""
        found = {}
        for part in PARTS:
            other = copy.copy(self)
            other.part = part
            found[part] = other._matched()
        return found

    def _matched(self) -> Self:
        self._thresholds: dict[tuple[Any, int], float] = {}
        if self._rows is None:
            return self
        probability, codes, task = self._rows
        for t in pd.unique(task):
            mine = task == t
            overall = (probability[mine] > 0.5).mean()
            for g in np.unique(codes[mine]):
                p = np.sort(probability[mine & (codes == g)])[::-1]
                rate = self.part * overall + (1 - self.part) * (p > 0.5).mean()
                k = round(rate * len(p))
                ends = np.concatenate([[1.0], p, [0.0]])
                self._thresholds[t, int(g)] = float((ends[k] + ends[k + 1]) / 2)
        return self

    def predict(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[Any]:
        """Decide by each group's threshold; by one half where the group is not given."""
        probability = self.predict_proba(X, tasks=tasks)[:, 1]
        threshold = np.full(len(probability), 0.5)
        if sensitive_features is not None:
            codes = self.groups_.codes(sensitive_features, len(probability))
            task = np.zeros(len(codes)) if tasks is None else np.asarray(tasks)
            keys = zip(task.tolist(), codes.tolist(), strict=True)
            threshold = np.array([self._thresholds.get(key, 0.5) for key in keys])
        return self.classes_[(probability > threshold).astype(int)]
