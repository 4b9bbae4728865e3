"""Logistic regression with a random intercept: the mixed model for classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp, softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from .._reml import products_by_task
from .._weighted_fit import fit_weighted
from ._base import Baseline
from ._linear import standardizer
from ._table import Table
from ._tuning import held_out_folds
from .pooled import PooledModel
from .support_mean import indicators, sums_by_task

__all__ = ["MixedLogistic", "intercept_map"]

Floats = npt.NDArray[np.float64]
LOG_VARIANCE = (-7.0, 4.0)
GRID = tuple(float(c) for c in np.logspace(-4, 2, 7))


def intercept_map(
    offset: Floats, observed: Floats, codes: npt.NDArray[np.int64], n_tasks: int, variance: float, weight: Floats
) -> tuple[Floats, Floats]:
    r"""Most probable intercepts of each task under :math:`u_t \sim N(0, \tau^2 I)`, by Newton's method.

    Parameters
    ----------
    offset : ndarray of shape (rows, classes)
        Log-probabilities (up to a constant per row) without the intercept.
    observed : ndarray of shape (rows, classes)
        1 for the class of the row.
    codes : ndarray of int, shape (rows,)
        Task of each row.
    n_tasks : int
        Number of tasks.
    variance : float
        Prior variance.
    weight : ndarray of shape (rows,)
        Row weights.

    Returns
    -------
    intercepts : ndarray of shape (tasks, classes)
    evidence : ndarray of shape (tasks,)
        Laplace's approximation of each task's log marginal likelihood.
    """
    k = offset.shape[1]
    u = np.zeros((n_tasks, k))
    eye = np.eye(k)
    for _ in range(100):
        p = softmax(offset + u[codes], axis=1)
        gradient = sums_by_task(weight[:, None] * (observed - p), codes, n_tasks) - u / variance
        curvature = sums_by_task(weight[:, None] * p, codes, n_tasks)[:, :, None] * eye
        curvature -= products_by_task(p, p * weight[:, None], codes, n_tasks)
        step = np.linalg.solve(curvature + eye / variance, gradient[..., None])[..., 0]
        # Far from the optimum the likelihood is nearly linear and Newton overshoots.
        length = np.abs(step).max(1, keepdims=True, initial=0.0)
        u = u + step / np.maximum(length / 2.0, 1.0)
        if not len(length) or length.max() < 1e-9:
            break
    eta = offset + u[codes]
    fit = weight * ((eta * observed).sum(1) - logsumexp(eta, axis=1))
    _, log_det = np.linalg.slogdet(eye + variance * curvature)
    evidence = sums_by_task(fit, codes, n_tasks) - (u**2).sum(1) / (2 * variance) - log_det / 2
    return u, evidence


class MixedLogistic(Baseline):
    r"""Pooled logistic regression whose intercepts (one per class) vary from task to task.

    Adapting finds the most probable intercepts of the new task given its support, under :math:`N(0, \tau^2)`. The variance
    :math:`\tau^2` maximises Laplace's approximation of the likelihood of the training tasks, with the pooled part fitted
    to other tasks (three folds), for a model is surer of tasks it was fitted to. Unlike in a full mixed model, the slopes
    stay those of the pooled model, which are somewhat smaller than the slopes within tasks. Missing values are imputed by the
    training mean and features are scaled to variance 1 over the training rows.

    Parameters
    ----------
    C : float, sequence of float or None, default=None
        Inverse penalty of the pooled model. Of several the one with the least loss on held-out training tasks is taken;
        None stands for 1e-4, 1e-3, ..., 100.

    Attributes
    ----------
    C_ : float
        The inverse penalty used.
    intercept_variance_ : float
        Estimate of :math:`\tau^2`.
    estimator_ : LogisticRegression
        The pooled model, of scaled features.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(40), 20)
    >>> x = rng.normal(size=(800, 1))
    >>> y = (x[:, 0] + 3 * rng.normal(size=40)[tasks] > 0).astype(int)
    >>> model = MixedLogistic(C=1.0).fit_meta(x, y, tasks=tasks)
    >>> adapted = model.adapt([[-1.0], [-0.5]], [1, 1])
    >>> model.predict([[-1.0]]).tolist(), adapted.predict([[-1.0]]).tolist()
    ([0], [1])
    """

    def __init__(self, C: float | Sequence[float] | None = None) -> None:
        self.C = C

    def _is_classifier(self) -> bool:
        return True

    def _fit(self, table: Table) -> None:
        grid = np.atleast_1d(np.asarray(GRID if self.C is None else self.C, dtype=np.float64))
        self._scale = fit_weighted(standardizer(), table.X, None, table.weight)
        table = replace(table, X=self._scale.transform(table.X))
        pooled = PooledModel(LogisticRegression(max_iter=1000), param_grid={"C": grid.tolist()})
        pooled.fit_meta(**table.columns(np.arange(table.n_rows)))
        self.C_ = pooled.best_params_["C"]
        self.estimator_ = pooled.estimator_
        self.intercept_variance_ = self._estimate_variance(table)

    def _offset(self, X: Any) -> Floats:
        if not X.shape[0]:
            return np.empty((0, len(self.classes_)))
        return self._log_probabilities(self.estimator_, self._scale.transform(X))

    def _log_probabilities(self, estimator: Any, X: Any) -> Floats:
        """Of all classes; a fold's model may not know them all."""
        proba = np.zeros((X.shape[0], len(self.classes_)))
        proba[:, np.searchsorted(self.classes_, estimator.classes_)] = estimator.predict_proba(X)
        return np.log(np.clip(proba, 1e-9, None))

    def _estimate_variance(self, table: Table) -> float:
        offset = np.empty((table.n_rows, len(self.classes_)))
        folds = held_out_folds(table.codes, len(table.labels)) or [(np.arange(table.n_rows),) * 2]
        for train, test in folds:
            if len(np.unique(table.y[train])) < 2:
                counts = indicators(table.y, self.classes_).mean(0)
                offset[test] = np.log(counts)
                continue
            weight = None if table.weight is None else table.weight[train]
            estimator = fit_weighted(clone(self.estimator_), table.X[train], table.y[train], weight)
            offset[test] = self._log_probabilities(estimator, table.X[test])
        observed = indicators(table.y, self.classes_)
        weight = np.ones(table.n_rows) if table.weight is None else table.weight

        def minus_evidence(log_variance: float) -> float:
            variance = float(np.exp(log_variance))
            return -float(intercept_map(offset, observed, table.codes, len(table.labels), variance, weight)[1].sum())

        found = minimize_scalar(minus_evidence, bounds=LOG_VARIANCE, method="bounded", options={"xatol": 1e-2})
        return float(np.exp(found.x))

    def _adapt(self, support: Table) -> Floats:
        weight = np.ones(support.n_rows) if support.weight is None else support.weight
        return intercept_map(
            self._offset(support.X),
            indicators(support.y, self.classes_),
            support.codes,
            len(support.labels),
            self.intercept_variance_,
            weight,
        )[0]

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> Floats:
        offset = self._offset(X)
        return softmax(offset if codes is None else offset + self._state[codes], axis=1)
