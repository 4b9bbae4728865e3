"""Small helpers around scikit-learn estimators: scaling, weights in pipelines, a constant for supports with one value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import has_fit_parameter

from ..errors import InvalidParameterError

__all__ = ["fit_weighted", "smoothed_frequencies", "standardizer"]


def standardizer() -> Pipeline:
    """Impute missing values by the training mean, then scale to mean 0 and variance 1 over the training rows."""
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())


def fit_weighted(estimator: Any, X: Any, y: Any, weight: Any = None) -> Any:
    """Fit in place; weights reach the last step of a pipeline."""
    # The user's routing switch is about calls that he makes, not about this one: names are spelled out here.
    with config_context(enable_metadata_routing=False):
        if weight is None:
            return estimator.fit(X, y)
        last, path = estimator, []
        while isinstance(last, Pipeline):
            step, last = last.steps[-1]
            path.append(step)
        if not has_fit_parameter(last, "sample_weight"):
            raise InvalidParameterError(
                f"estimator: {type(last).__name__} takes no sample_weight; use one that does, or give no weights."
            )
        return estimator.fit(X, y, **{"__".join([*path, "sample_weight"]): weight})


def smoothed_frequencies(
    counts: npt.NDArray[np.float64], prior: npt.NDArray[np.float64], strength: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return class frequencies after adding `strength` rows distributed as `prior`; shape (..., classes)."""
    total = counts + strength * prior
    return total / total.sum(-1, keepdims=True)
