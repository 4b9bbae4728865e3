"""A model of the support alone: what can be had without any other task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import config_context
from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing, check_array, get_tags

from .._weighted_fit import fit_weighted
from ._base import Baseline
from ._linear import smoothed_frequencies, standardizer
from ._table import Table
from ._tuning import candidates, tune
from .support_mean import indicators, poor_without_support

__all__ = ["LocalModels", "SupportModel"]


DRAWS = 3  # with fewer, which penalty wins hangs on which rows were drawn


class LocalModels:
    """One fitted estimator, or one constant response, for each of some tasks.

    Parameters
    ----------
    models : list
        Per task a fitted estimator or an array, the response to any row.
    classes : ndarray, default=None
        All classes of a classifier; an estimator may know fewer, the others get probability 0.
    """

    def __init__(self, models: list[Any], classes: npt.NDArray[Any] | None = None) -> None:
        self.models, self.classes = models, classes

    def respond(self, X: Any, codes: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Values or class probabilities of each row by the model of its task."""
        if not len(codes):
            return np.empty(0) if self.classes is None else np.empty((0, len(self.classes)))
        out: npt.NDArray[Any] | None = None
        order = np.argsort(codes, kind="stable")
        present, starts = np.unique(codes[order], return_index=True)
        for code, rows in zip(present, np.split(order, starts[1:]), strict=True):
            part = self._one(self.models[code], _safe_indexing(X, rows))
            if out is None:
                out = np.empty((len(codes), *part.shape[1:]), dtype=np.float64)
            out[rows] = part
        assert out is not None
        return out

    def _one(self, model: Any, X: Any) -> npt.NDArray[Any]:
        if isinstance(model, np.ndarray):
            return np.repeat(model[None], X.shape[0], axis=0)
        if self.classes is None:
            return np.asarray(model.predict(X))
        proba = np.zeros((X.shape[0], len(self.classes)))
        proba[:, np.searchsorted(self.classes, model.classes_)] = model.predict_proba(X)
        return proba


class SupportModel(Baseline):
    """A scikit-learn estimator fitted to the support alone.

    A support with a single target value predicts that value; a support of one class predicts it with a smoothed
    probability (one row distributed as the training rows' classes is added). Without a support the prediction is the
    training rows' mean, or their class frequencies.

    Parameters
    ----------
    estimator : estimator
        Regressor, or classifier with ``predict_proba``.
    param_grid : dict or list of dict, default=None
        Settings of `estimator` to choose from by their loss on the rest of each training task.
    standardize : bool, default=True
        Impute missing values by the mean and scale to variance 1, by the statistics of the training rows: a support is
        too small for statistics of its own.
    shots : tuple of int, default=(1, 5, 20)
        Support sizes over which `param_grid` is judged.
    random_state : int, RandomState or None, default=None
        Seed of the supports that `param_grid` is judged on.

    Attributes
    ----------
    best_params_ : dict
        The settings chosen from `param_grid`.
    prior_ : ndarray
        Mean target, or class frequencies, of the training rows.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = SupportModel(Ridge(alpha=1e-9)).fit_meta([[0.0], [1.0]], [1.0, 3.0], tasks=[0, 1])
    >>> model.adapt([[0.0], [1.0]], [0.0, 5.0]).predict([[2.0]]).round(3).tolist()
    [10.0]
    """

    def __init__(
        self,
        estimator: Any,
        *,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        standardize: bool = True,
        shots: Sequence[int] = (1, 5, 20),
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid
        self.standardize = standardize
        self.shots = shots
        self.random_state = random_state

    def _is_classifier(self) -> bool:
        return is_classifier(self.estimator)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.standardize or get_tags(self.estimator).input_tags.allow_nan
        return poor_without_support(tags)

    def _fit(self, table: Table) -> None:
        settings = [{**point, "param_grid": None} for point in candidates("estimator", self.param_grid)]
        best = tune(self, table, settings, shots=self.shots, draws=DRAWS, random_state=self.random_state)
        names = [name for name in best if name != "param_grid"]
        self.best_params_ = {name.removeprefix("estimator__"): best[name] for name in names}
        values = indicators(table.y, self.classes_) if self._is_classifier() else table.y
        self.prior_ = np.asarray(np.average(values, axis=0, weights=table.weight))
        self._scale = fit_weighted(standardizer(), table.X, None, table.weight) if self.standardize else None

    def _scaled(self, X: Any) -> Any:
        return X if self._scale is None or X.shape[0] == 0 else self._scale.transform(X)

    def _adapt(self, support: Table) -> LocalModels:
        X = self._scaled(support.X)
        models = []
        # Checked once for all tasks; thousands of small fits would spend most of their time on it.
        if self.standardize and support.n_rows:
            check_array(X)
        with config_context(assume_finite=self.standardize, skip_parameter_validation=len(support.labels) > 1):
            for task in range(len(support.labels)):
                rows = np.flatnonzero(support.codes == task)
                weight = None if support.weight is None else support.weight[rows]
                models.append(self._fit_one(_safe_indexing(X, rows), support.y[rows], weight))
        return LocalModels(models, self.classes_ if self._is_classifier() else None)

    def _fit_one(self, X: Any, y: npt.NDArray[Any], weight: npt.NDArray[np.float64] | None) -> Any:
        if not len(y):
            return self.prior_
        if (y == y[0]).all():
            if not self._is_classifier():
                return np.asarray(y[0], dtype=np.float64)
            counts = np.average(indicators(y, self.classes_), axis=0, weights=weight) * len(y)
            return smoothed_frequencies(counts, self.prior_)
        return fit_weighted(clone(self.estimator).set_params(**self.best_params_), X, y, weight)

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
        if codes is None:
            return np.repeat(self.prior_[None], X.shape[0], axis=0)
        return self._state.respond(self._scaled(X), codes)
