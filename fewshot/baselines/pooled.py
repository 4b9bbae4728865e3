"""One model for all tasks: what everybody fits first, and what adaptation has to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone, is_classifier
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if

from .._weighted_fit import fit_weighted
from ._base import Baseline
from ._table import Table
from ._tuning import candidates, tune

__all__ = ["PooledModel"]


def _inner_has(method: str) -> Any:
    return lambda self: hasattr(getattr(self, "estimator_", self.estimator), method)


class PooledModel(Baseline):
    """A scikit-learn estimator fitted to the rows of all training tasks; adapting changes nothing.

    Missing values, text columns and the like are the estimator's business.

    Parameters
    ----------
    estimator : estimator
        Any classifier or regressor, or a pipeline that ends in one.
    param_grid : dict or list of dict, default=None
        Settings of `estimator` to choose from by their loss on held-out training tasks (three folds of whole tasks).

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator.
    best_params_ : dict
        The settings chosen from `param_grid`.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = PooledModel(Ridge(alpha=1e-9)).fit_meta([[0.0], [1.0], [2.0]], [1.0, 2.0, 3.0], tasks=[0, 0, 1])
    >>> adapted = model.adapt([[0.0]], [100.0])
    >>> adapted.predict([[3.0]]).round(3).tolist()
    [4.0]
    """

    def __init__(
        self, estimator: Any, *, param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        self.estimator = estimator
        self.param_grid = param_grid

    def _is_classifier(self) -> bool:
        return is_classifier(self.estimator)

    def __sklearn_tags__(self) -> Any:
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags, tags.target_tags = inner.input_tags, inner.target_tags
        tags.non_deterministic = inner.non_deterministic
        if tags.classifier_tags is not None and inner.classifier_tags is not None:
            tags.classifier_tags = inner.classifier_tags
        if tags.regressor_tags is not None and inner.regressor_tags is not None:
            tags.regressor_tags = inner.regressor_tags
        return tags

    def _fit(self, table: Table) -> None:
        settings = [{**point, "param_grid": None} for point in candidates("estimator", self.param_grid)]
        best = {name: value for name, value in tune(self, table, settings).items() if name != "param_grid"}
        self.best_params_ = {name.removeprefix("estimator__"): value for name, value in best.items()}
        estimator = clone(self.estimator)
        estimator.set_params(**self.best_params_)  # not chained: a FrozenEstimator's returns None
        self.estimator_ = fit_weighted(estimator, table.X, table.y, table.weight)

    def _adapt(self, support: Table) -> str:
        return "unchanged"

    def _ask(self, method: str, X: Any, tasks: Any) -> npt.NDArray[Any]:
        X, _ = self._rows_and_codes(method, X, tasks)
        return np.asarray(getattr(self.estimator_, method)(X))

    def predict(self, X: Any, *, tasks: Any = None) -> npt.NDArray[Any]:
        """Predict with the pooled estimator; `tasks` are checked, and make no difference."""
        return self._ask("predict", X, tasks)

    @available_if(_inner_has("predict_proba"))
    def predict_proba(self, X: Any, *, tasks: Any = None) -> npt.NDArray[np.float64]:
        """Class probabilities of the pooled estimator, shape (rows, classes)."""
        return self._ask("predict_proba", X, tasks)

    @available_if(_inner_has("decision_function"))
    def decision_function(self, X: Any, *, tasks: Any = None) -> npt.NDArray[np.float64]:
        """Decision values of the pooled estimator."""
        return self._ask("decision_function", X, tasks)
