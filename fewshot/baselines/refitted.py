"""The pooled model, refitted with the support among its rows: adaptation by weighting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.base import clone, is_classifier
from sklearn.utils import _safe_indexing, get_tags

from .._weighted_fit import fit_weighted
from ._base import Baseline
from ._table import Table
from ._tuning import candidates, positive_numbers, tune
from .support import LocalModels

__all__ = ["RefittedModel"]

WEIGHTS = (1.0, 10.0, 100.0, 1000.0)


class RefittedModel(Baseline):
    """A scikit-learn estimator refitted, for each task, to the training rows and its weighted support.

    Each adaptation costs a fit to all training rows, which the model therefore keeps.

    Parameters
    ----------
    estimator : estimator
        Regressor, or classifier with ``predict_proba``; its last step must take ``sample_weight``.
    support_weight : float, sequence of float or None, default=None
        Weight of a support row, a training row having weight 1. Of several values the one with the least loss on
        held-out training tasks is taken; None stands for 1, 10, 100, 1000.
    param_grid : dict or list of dict, default=None
        Settings of `estimator`, chosen together with the weight.
    shots : tuple of int, default=(1, 5, 20)
        Support sizes over which the choice is made.
    tuning_tasks : int, default=20
        At most so many tasks are refitted for in making it.
    random_state : int, RandomState or None, default=None
        Seed of the supports of the choice.

    Attributes
    ----------
    support_weight_ : float
        The weight used.
    best_params_ : dict
        The settings chosen from `param_grid`.
    estimator_ : estimator
        Fitted to the training rows: the zero-shot model.

    Examples
    --------
    >>> from sklearn.linear_model import Ridge
    >>> model = RefittedModel(Ridge(alpha=1e-9), support_weight=2.0)
    >>> model = model.fit_meta([[0.0], [0.0]], [0.0, 0.0], tasks=[0, 1])
    >>> model.adapt([[0.0]], [3.0]).predict([[0.0]]).round(3).tolist()
    [1.5]
    """

    def __init__(
        self,
        estimator: Any,
        support_weight: float | Sequence[float] | None = None,
        *,
        param_grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        shots: Sequence[int] = (1, 5, 20),
        tuning_tasks: int = 20,
        random_state: Any = None,
    ) -> None:
        self.estimator = estimator
        self.support_weight = support_weight
        self.param_grid = param_grid
        self.shots = shots
        self.tuning_tasks = tuning_tasks
        self.random_state = random_state

    def _is_classifier(self) -> bool:
        return is_classifier(self.estimator)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = get_tags(self.estimator).input_tags.allow_nan
        return tags

    def _fit(self, table: Table) -> None:
        weights = positive_numbers("support_weight", self.support_weight, WEIGHTS)
        settings = [
            {**point, "support_weight": float(weight), "param_grid": None}
            for point in candidates("estimator", self.param_grid)
            for weight in weights
        ]
        best = tune(
            self,
            table,
            settings,
            shots=self.shots,
            max_tasks=self.tuning_tasks,
            random_state=self.random_state,
        )
        self.support_weight_ = best["support_weight"]
        names = [name for name in best if name.startswith("estimator__")]
        self.best_params_ = {name.removeprefix("estimator__"): best[name] for name in names}
        self._training = table
        self.estimator_ = fit_weighted(self._fresh(), table.X, table.y, table.weight)

    def _fresh(self) -> Any:
        return clone(self.estimator).set_params(**self.best_params_)

    def _adapt(self, support: Table) -> LocalModels:
        training, models = self._training, []
        own = np.ones(support.n_rows) if support.weight is None else support.weight
        base = np.ones(training.n_rows) if training.weight is None else training.weight
        for task in range(len(support.labels)):
            rows = np.flatnonzero(support.codes == task)
            X = _stacked(training.X, _safe_indexing(support.X, rows))
            y = np.concatenate([training.y, support.y[rows]])
            weight = np.concatenate([base, own[rows] * self.support_weight_])
            models.append(fit_weighted(self._fresh(), X, y, weight))
        return LocalModels(models, self.classes_ if self._is_classifier() else None)

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
        if codes is None:
            pooled = LocalModels([self.estimator_], self.classes_ if self._is_classifier() else None)
            return pooled.respond(X, np.zeros(X.shape[0], dtype=np.int64))
        return self._state.respond(X, codes)


def _stacked(first: Any, second: Any) -> Any:
    if isinstance(first, pd.DataFrame):
        return pd.concat([first, second], ignore_index=True) if second.shape[0] else first
    return np.concatenate([np.asarray(first), np.asarray(second)])
