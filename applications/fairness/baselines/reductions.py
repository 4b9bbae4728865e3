"""Fairlearn's classifiers, pooled over the training tasks."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from fairlearn.postprocessing import ThresholdOptimizer
from fairlearn.reductions import (
    DemographicParity,
    EqualizedOdds,
    ExponentiatedGradient,
    FalsePositiveRateParity,
    GridSearch,
    TruePositiveRateParity,
)
from sklearn.base import BaseEstimator, clone

from fewshot.errors import InvalidParameterError

from ..groups import Groups
from ..notions import notion_of

__all__ = ["FairlearnClassifier"]

MOMENTS = {
    "demographic_parity": DemographicParity,
    "equal_opportunity": TruePositiveRateParity,
    "false_positive_rate_parity": FalsePositiveRateParity,
    "equalized_odds": EqualizedOdds,
}
METHODS = ("exponentiated_gradient", "grid_search", "threshold_optimizer")
BOUNDS = (0.005, 0.02, 0.05, 0.1)
WEIGHTS = (0.2, 0.4, 0.6, 0.8, 0.95)
GRID = 21


class FairlearnClassifier(BaseEstimator):
    """One of fairlearn's methods on the rows of all training tasks; it does not adapt.

    Parameters
    ----------
    method : {"exponentiated_gradient", "grid_search", "threshold_optimizer"}
        Agarwal et al. (2018), sections 3.2 and 3.3; Hardt et al. (2016).
    estimator : estimator
        Classifier to reduce to; it must take ``sample_weight``.
    constraint : str, default="demographic_parity"
        As for :class:`FairnessConstrainedClassifier`.
    values : sequence of float, default=None
        Operating points: bounds on the difference from the overall rate for the exponentiated gradient, weights of the constraint
        in choosing from the grid for the grid search. None: four and five of them. The threshold optimiser has one.
    random_state : int or None, default=None
        Seed of the randomised decisions.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        Class labels; the greater is favourable.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> rng = np.random.default_rng(0)
    >>> X, group = rng.normal(size=(200, 2)), rng.choice(["a", "b"], 200)
    >>> y = (X[:, 0] + (group == "a") > 0.5).astype(int)
    >>> model = FairlearnClassifier("threshold_optimizer", LogisticRegression(), random_state=0)
    >>> model.fit_meta(X, y, sensitive_features=group).predict(X, sensitive_features=group).shape
    (200,)
    """

    def __init__(
        self,
        method: str,
        estimator: Any,
        *,
        constraint: str = "demographic_parity",
        values: Sequence[float] | None = None,
        random_state: Any = None,
    ) -> None:
        self.method = method
        self.estimator = estimator
        self.constraint = constraint
        self.values = values
        self.random_state = random_state

    def fit_meta(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Fit to the rows of all tasks."""
        if self.method not in METHODS:
            raise InvalidParameterError(
                f"method: got {self.method!r}; expected one of {', '.join(map(repr, METHODS))}."
            )
        notion = notion_of(self.constraint)
        x = np.asarray(X, dtype=np.float64)
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        self.groups_ = Groups.learn(sensitive_features, len(x))
        group = np.array(self.groups_.titles)[self.groups_.codes(sensitive_features, len(x))]
        if self.method == "threshold_optimizer":
            name = {
                "equal_opportunity": "true_positive_rate_parity",
                "equalized_odds": "equalized_odds",
            }.get(notion.name, notion.name)
            fitted = ThresholdOptimizer(
                estimator=clone(self.estimator), constraints=name, predict_method="predict_proba"
            )
            self._fitted = {np.nan: _quiet(fitted.fit, x, target, sensitive_features=group)}
        elif self.method == "exponentiated_gradient":
            self._fitted = {}
            for bound in BOUNDS if self.values is None else self.values:
                moment = MOMENTS[notion.name](difference_bound=bound)
                reduction = ExponentiatedGradient(clone(self.estimator), moment, eps=bound, max_iter=25)
                self._fitted[bound] = _quiet(reduction.fit, x, target, sensitive_features=group)
        else:
            reduction = GridSearch(clone(self.estimator), MOMENTS[notion.name](), grid_size=GRID)
            reduction = _quiet(reduction.fit, x, target, sensitive_features=group)
            gaps = np.array([g.max() for g in reduction.gammas_.T.to_numpy()])
            objectives = np.asarray(reduction.objectives_, dtype=np.float64)
            self._fitted = {}
            for weight in WEIGHTS if self.values is None else self.values:
                best = int(np.argmin((1 - weight) * objectives + weight * gaps))
                self._fitted[weight] = reduction.predictors_[best]
        self._setting = next(iter(self._fitted))
        return self

    def fit(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Do the same as :meth:`fit_meta`."""
        return self.fit_meta(X, y, tasks=tasks, sensitive_features=sensitive_features)

    def adapt(self, X: Any, y: Any, **columns: Any) -> Self:
        """Return the model as it is."""
        return self

    def operating_points(self) -> dict[float, Self]:
        """Return the same model with each of its settings."""
        found = {}
        for setting in self._fitted:
            other = copy.copy(self)
            other._setting = setting
            found[setting] = other
        return found

    def predict(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[Any]:
        """Decide, at random where the method does."""
        x, model = np.asarray(X, dtype=np.float64), self._fitted[self._setting]
        columns: dict[str, Any] = {}
        if self.method == "threshold_optimizer":
            codes = self.groups_.codes(sensitive_features, len(x))
            columns["sensitive_features"] = np.array(self.groups_.titles)[codes]
        if self.method != "grid_search":
            columns["random_state"] = self.random_state
        return self.classes_[np.asarray(model.predict(x, **columns)).astype(int)]


def _quiet(fit: Any, *args: Any, **columns: Any) -> Any:
    """Fit without the warnings that fairlearn causes in pandas, and about estimators that were fitted before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = fit(*args, **columns)
    return found if found is not None else fit.__self__
