"""Whatever is handed over, seen as something with fit_meta, adapt and predict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sklearn.base import clone, is_classifier
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline

from ..baselines import PooledModel
from ..errors import InvalidParameterError
from ..pipeline import MetaPipeline

__all__ = ["as_fitted", "as_method", "classify_all", "read_methods"]


def as_method(estimator: Any) -> Any:
    """Return a few-shot model as it is; plain pipelines and plain estimators are wrapped."""
    if hasattr(estimator, "fit_meta") and hasattr(estimator, "adapt"):
        return estimator
    if isinstance(estimator, Pipeline) and hasattr(estimator.steps[-1][1], "adapt"):
        return MetaPipeline(estimator.steps)  # transforms with all but the last step, adapts the last
    if not hasattr(estimator, "fit") or isinstance(estimator, type):
        raise InvalidParameterError(
            f"estimator: got {estimator!r}; expected an estimator (an object, not a class), or a dict of them by name."
        )
    return PooledModel(estimator)


def as_fitted(estimator: Any, X: Any, y: Any) -> Any:
    """Do the same for an estimator that is fitted; a plain one is not fitted again but frozen."""
    method = as_method(estimator)
    if isinstance(method, PooledModel) and method is not estimator:
        frozen = PooledModel(FrozenEstimator(estimator)).fit_meta(X, y)
        if hasattr(estimator, "classes_"):
            frozen.classes_ = estimator.classes_  # those it knows, not those that happen to be scored
        return frozen
    return method


def read_methods(estimator: Any, *, fitted: bool) -> dict[str, Any]:
    """Return estimators by name; unfitted ones are cloned, so that the caller's stay as they are."""
    methods = dict(estimator) if isinstance(estimator, Mapping) else {_name(estimator): estimator}
    if not methods:
        raise InvalidParameterError("estimator: got an empty dict; expected at least one estimator.")
    for method in methods.values():
        as_method(method)  # what cannot be judged is told before hours of fitting
    return methods if fitted else {name: clone(method) for name, method in methods.items()}


def _name(estimator: Any) -> str:
    last = estimator.steps[-1][1] if isinstance(estimator, Pipeline) else estimator
    return type(last).__name__


def classify_all(methods: Mapping[str, Any]) -> bool:
    """Tell whether the methods are classifiers; a mixture is an error."""
    kinds = {name: is_classifier(as_method(method)) for name, method in methods.items()}
    if len(set(kinds.values())) > 1:
        odd = {value: next(name for name, kind in kinds.items() if kind == value) for value in (True, False)}
        raise InvalidParameterError(
            f"estimator: {odd[True]!r} is a classifier and {odd[False]!r} a regressor; compare methods of one kind."
        )
    return next(iter(kinds.values()))
