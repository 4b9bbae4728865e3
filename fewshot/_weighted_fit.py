"""Fitting any scikit-learn estimator with row weights, also at the end of a pipeline."""

from __future__ import annotations

from typing import Any

from sklearn import config_context
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import has_fit_parameter

from .errors import InvalidParameterError

__all__ = ["fit_weighted"]


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
