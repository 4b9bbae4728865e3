"""Scikit-learn transformers before a meta-estimator, with `fit_meta` and `adapt` passed through."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from sklearn.base import clone
from sklearn.pipeline import Pipeline, _name_estimators
from sklearn.utils.metaestimators import available_if

from .errors import InvalidParameterError

__all__ = ["MetaPipeline", "make_meta_pipeline"]


def _last_step_has(method: str) -> Callable[[Any], bool]:
    return lambda pipeline: hasattr(pipeline.steps[-1][1], method)


class MetaPipeline(Pipeline):
    """A pipeline whose last step is a meta-estimator.

    Transformers are fitted on the rows of all training tasks and stay as they are when the last step adapts.
    Build it with :func:`make_meta_pipeline`, or like :class:`sklearn.pipeline.Pipeline`.
    """

    def fit_meta(self, X: Any, y: Any = None, **columns: Any) -> Self:
        """Fit the transformers, then meta-train the last step.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs of all tasks.
        y : array-like of shape (rows,) or (rows, outputs)
            Targets.
        **columns : array-like of shape (rows,)
            ``tasks``, ``blocks``, ``time``, ``sample_weight`` as the last step's `fit_meta` takes them.

        Returns
        -------
        self
        """
        return self.fit(X, y, **columns)

    def fit(self, X: Any, y: Any = None, **columns: Any) -> Self:
        """Meta-train; the same as :meth:`fit_meta`."""
        if not hasattr(self.steps[-1][1], "adapt"):
            raise InvalidParameterError(
                f"steps: the last step is a {type(self.steps[-1][1]).__name__}; expected an estimator with fit_meta and "
                "adapt, for example MAMLRegressor()."
            )
        last = self.steps[-1][1]
        # Not through Pipeline.fit: only the last step takes these columns, and a scaler need not say so about each.
        if len(self.steps) > 1:
            head = clone(self[:-1])
            X = head.fit_transform(X, y)
        last.fit_meta(X, y, **{k: v for k, v in columns.items() if v is not None})
        if len(self.steps) > 1:
            self.steps[:-1] = head.steps  # only now, or a failed fit would leave new scalers before the old model
        return self

    def adapt(self, X: Any, y: Any, **columns: Any) -> Self:
        """Transform the support and adapt the last step.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Support rows.
        y : array-like of shape (rows,) or (rows, outputs)
            Their targets.
        **columns
            ``tasks``, ``sample_weight``, ``steps`` and whatever else the last step's `adapt` takes; ``X_unlabelled`` is transformed
            as `X` is.

        Returns
        -------
        MetaPipeline
            The same transformers before the adapted last step; this pipeline is unchanged.
        """
        name, last = self.steps[-1]
        if columns.get("X_unlabelled") is not None:
            columns["X_unlabelled"] = self._transformed(columns["X_unlabelled"])
        adapted = copy.copy(self)
        adapted.steps = [*self.steps[:-1], (name, last.adapt(self._transformed(X), y, **columns))]
        return adapted

    # Pipeline's own methods drop what they do not know unless metadata routing is on.

    def predict(self, X: Any, *, tasks: Any = None, return_std: bool = False, sensitive_features: Any = None) -> Any:
        """Transform and predict; `tasks`, `return_std` and `sensitive_features` as the last step takes them."""
        asked: dict[str, Any] = {"return_std": True} if return_std else {}  # a classifier has no such thing
        if sensitive_features is not None:
            asked["sensitive_features"] = sensitive_features
        return self.steps[-1][1].predict(self._transformed(X), tasks=tasks, **asked)

    @available_if(_last_step_has("predict_proba"))
    def predict_proba(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Any:
        """Transform and predict class probabilities; `tasks` and `sensitive_features` as the last step takes them."""
        asked = {} if sensitive_features is None else {"sensitive_features": sensitive_features}
        return self.steps[-1][1].predict_proba(self._transformed(X), tasks=tasks, **asked)

    @available_if(_last_step_has("decision_function"))
    def decision_function(self, X: Any, *, tasks: Any = None) -> Any:
        """Transform and compute decision scores; `tasks` as the last step takes them."""
        return self.steps[-1][1].decision_function(self._transformed(X), tasks=tasks)

    def score(
        self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None, sensitive_features: Any = None
    ) -> float:
        """Transform and score; `tasks`, `sample_weight` and `sensitive_features` as the last step takes them."""
        asked = {} if sensitive_features is None else {"sensitive_features": sensitive_features}
        return float(
            self.steps[-1][1].score(self._transformed(X), y, tasks=tasks, sample_weight=sample_weight, **asked)
        )

    def _transformed(self, X: Any) -> Any:
        return self[:-1].transform(X) if len(self.steps) > 1 else X


def make_meta_pipeline(*steps: Any, memory: Any = None, verbose: bool = False) -> MetaPipeline:
    """Build a :class:`MetaPipeline`, naming the steps after their types.

    Parameters
    ----------
    *steps : estimators
        Transformers, and a meta-estimator last.
    memory, verbose
        As in :func:`sklearn.pipeline.make_pipeline`.

    Returns
    -------
    MetaPipeline

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.preprocessing import StandardScaler
    >>> from fewshot import MAMLRegressor, make_meta_pipeline
    >>> X, tasks = np.random.default_rng(0).normal(5.0, 3.0, (60, 2)), np.repeat(np.arange(6), 10)
    >>> model = make_meta_pipeline(StandardScaler(), MAMLRegressor(max_iter=5, random_state=0))
    >>> adapted = model.fit_meta(X, X[:, 0] + tasks, tasks=tasks).adapt(X[:3], X[:3, 0])
    >>> adapted.predict(X[:2]).shape
    (2,)
    """
    return MetaPipeline(_name_estimators(steps), memory=memory, verbose=verbose)
