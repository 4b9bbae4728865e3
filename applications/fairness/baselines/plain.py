"""Classifiers without a constraint, with the calls of a constrained one."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, clone

from fewshot.baselines import PooledModel

__all__ = ["PlainClassifier"]


class PlainClassifier(BaseEstimator):
    """Any few-shot or scikit-learn classifier; groups and unlabelled rows are passed over.

    Parameters
    ----------
    classifier : estimator
        Few-shot (with ``fit_meta`` and ``adapt``), or of scikit-learn, which is then fitted to all training rows and not adapted.

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        Class labels.
    classifier_ : estimator
        Fitted.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> model = PlainClassifier(LogisticRegression()).fit_meta([[0.0], [1.0]], [0, 1], tasks=[0, 0])
    >>> model.adapt([[0.0]], [0], sensitive_features=["a"]).predict([[2.0]]).tolist()
    [1]
    """

    def __init__(self, classifier: Any) -> None:
        self.classifier = classifier

    def fit_meta(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Fit the classifier."""
        few_shot = hasattr(self.classifier, "fit_meta")
        model = clone(self.classifier) if few_shot else PooledModel(clone(self.classifier))
        self.classifier_ = model.fit_meta(X, y, tasks=tasks)
        self.classes_ = self.classifier_.classes_
        return self

    def fit(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Do the same as :meth:`fit_meta`."""
        return self.fit_meta(X, y, tasks=tasks, sensitive_features=sensitive_features)

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
        """Adapt the classifier to the support."""
        adapted = copy.copy(self)
        adapted.classifier_ = self.classifier_.adapt(X, y, tasks=tasks)
        return adapted

    def predict_proba(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[np.float64]:
        """Class probabilities."""
        return np.asarray(self.classifier_.predict_proba(X, tasks=tasks))

    def predict(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[Any]:
        """Decide for the most probable class."""
        return self.classes_[self.predict_proba(X, tasks=tasks).argmax(1)]
