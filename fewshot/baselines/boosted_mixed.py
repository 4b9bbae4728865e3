"""Boosting with a random intercept: trees for what tasks share, a level for each task."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingRegressor

from .._reml import blup, estimate, moments, products_by_task
from .._weighted_fit import fit_weighted
from ..stacking.base import BOOSTING
from ._base import Baseline
from ._table import Table
from ._tuning import held_out_folds
from .pooled import PooledModel

__all__ = ["BoostedMixedEffects"]

Floats = npt.NDArray[np.float64]


class BoostedMixedEffects(Baseline):
    r"""Gradient boosting of all tasks plus a random intercept of each task, :math:`y = F(x) + b_t + e`.

    F is fitted to all rows, with settings chosen over held-out tasks; the variances of b and e by restricted maximum likelihood,
    from what models fitted to other tasks (three folds) leave unexplained, for trees explain their own tasks too well. Adapting
    predicts b from the support. This does in two steps what GPBoost (Sigrist 2022) does together.

    Parameters
    ----------
    random_state : int, RandomState or None, default=None
        Seed of boosting.

    Attributes
    ----------
    estimator_ : HistGradientBoostingRegressor
        The trees.
    random_variance_, noise_variance_ : float
        Variances of b and e.

    References
    ----------
    Sigrist (2022), Gaussian process boosting, Journal of Machine Learning Research 23.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(30), 20)
    >>> x = rng.normal(size=(600, 1))
    >>> y = np.abs(x[:, 0]) + 2 * rng.normal(size=30)[tasks] + 0.1 * rng.normal(size=600)
    >>> adapted = BoostedMixedEffects(random_state=0).fit_meta(x, y, tasks=tasks).adapt([[0.0], [1.0]], [5.0, 6.0])
    >>> bool(abs(adapted.predict([[-1.0]])[0] - 6.0) < 0.5)
    True
    """

    def __init__(self, random_state: Any = None) -> None:
        self.random_state = random_state

    def _fit(self, table: Table) -> None:
        self._require_one_target(table.y)
        trees = HistGradientBoostingRegressor(early_stopping=False, random_state=self.random_state)
        pooled = PooledModel(trees, param_grid=BOOSTING).fit_meta(**table.columns(np.arange(table.n_rows)))
        self.estimator_ = pooled.estimator_
        residual = table.y.astype(np.float64)
        for train, test in held_out_folds(table.codes, len(table.labels)) or [(np.arange(table.n_rows),) * 2]:
            part = table.columns(train)
            other = fit_weighted(clone(self.estimator_), part["X"], part["y"], part.get("sample_weight"))
            residual[test] -= other.predict(table.columns(test)["X"])
        w = np.ones(table.n_rows) if table.weight is None else table.weight
        one = np.ones((table.n_rows, 1))
        found = estimate(moments(one, 1, residual, w, table.codes, len(table.labels)))
        self.noise_variance_ = found.noise
        self.random_variance_ = float(found.ratios[0] * found.noise)
        self._level, self._ratios = float(found.beta[0]), found.ratios

    def _adapt(self, support: Table) -> Floats:
        n_tasks = len(support.labels)
        if not support.n_rows:
            return np.zeros(n_tasks)
        residual = support.y - self._level - self.estimator_.predict(support.X)
        w = np.ones(support.n_rows) if support.weight is None else support.weight
        one = np.ones((support.n_rows, 1))
        products = products_by_task(one, np.column_stack([w, w * residual]), support.codes, n_tasks)
        return blup(products[:, :, :1], products[:, :, 1], self._ratios)[:, 0]

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> Floats:
        if not X.shape[0]:
            return np.empty(0)
        shared: Floats = self.estimator_.predict(X) + self._level
        return shared if codes is None else shared + self._state[codes]
