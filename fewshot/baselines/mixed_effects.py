"""The linear mixed model: the statistician's few-shot adaptation."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._reml import Floats, blup, estimate, moments, products_by_task
from .._weighted_fit import fit_weighted
from ..errors import InvalidDataError, InvalidParameterError
from ._base import Baseline
from ._linear import standardizer
from ._table import Table

__all__ = ["MixedEffects"]


class MixedEffects(Baseline):
    r"""Linear regression whose intercept, and slopes if asked, vary from task to task.

    :math:`y = \tilde x^\top (\beta + b_t) + e` with :math:`\tilde x = (1, x)`, independent random effects
    :math:`b_t \sim N(0, \mathrm{diag}(\tau^2))` and noise :math:`e \sim N(0, \sigma^2)`. Variances are estimated by
    restricted maximum likelihood; adapting predicts the new task's :math:`b_t` from its support (BLUP), for all tasks in
    closed form. Missing values are imputed by the training mean and features are scaled to variance 1 over the training
    rows; coefficients refer to the scaled features.

    Parameters
    ----------
    random : {"intercept", "slopes"}, default="intercept"
        What varies: the intercept, or the intercept and the slope of every feature.

    Attributes
    ----------
    fixed_effects_ : ndarray of shape (1 + features,)
        Intercept and slopes of the average task.
    random_variances_ : ndarray of shape (1,) or (1 + features,)
        Variance of each random effect.
    noise_variance_ : float
        Variance of the noise.
    random_effects_ : ndarray of shape (tasks, 1 or 1 + features)
        Predicted random effects, of an adapted model, tasks in sorted order.

    References
    ----------
    Laird and Ware (1982), Random-effects models for longitudinal data. Biometrics 38.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(30), 10)
    >>> x = rng.normal(size=(300, 1))
    >>> y = x[:, 0] + rng.normal(size=30)[tasks] + 0.1 * rng.normal(size=300)
    >>> model = MixedEffects().fit_meta(x, y, tasks=tasks)
    >>> model.adapt([[0.0]], [2.0]).predict([[1.0]]).round(1).tolist()
    [3.0]
    """

    _expected_failed_checks = {
        "check_sample_weight_equivalence_on_dense_data": "the check has more features than rows, which is an error here"
    }

    def __init__(self, random: str = "intercept") -> None:
        self.random = random

    def _fit(self, table: Table) -> None:
        if self.random not in ("intercept", "slopes"):
            raise InvalidParameterError(f"random: got {self.random!r}; expected 'intercept' or 'slopes'.")
        self._scale = fit_weighted(standardizer(), table.X, None, table.weight)
        x, y = self._columns(table.X), self._targets(table)
        n, d = x.shape
        if n <= d:
            raise InvalidDataError(
                f"X: got n_samples={n} for n_features={d - 1} and an intercept; a mixed model needs more rows than that: add "
                "rows or drop features."
            )
        w = np.ones(n) if table.weight is None else table.weight
        # Centred targets: sums of squares keep their digits when the level is far from 0.
        self._center = float(np.average(y, weights=w))
        found = estimate(moments(x, self._n_random(d), y - self._center, w, table.codes, len(table.labels)))
        self.noise_variance_ = found.noise
        self.random_variances_ = found.ratios * found.noise
        self.fixed_effects_ = found.beta
        self.fixed_effects_[0] += self._center
        self._ratios = found.ratios

    def _columns(self, X: Any) -> Floats:
        scaled = np.asarray(self._scale.transform(X), dtype=np.float64) if X.shape[0] else np.empty(X.shape)
        return np.column_stack([np.ones(X.shape[0]), scaled])

    def _targets(self, table: Table) -> Floats:
        if table.y.ndim != 1:
            raise InvalidDataError(
                f"y: got shape {table.y.shape}; a mixed model takes one target per row: fit one model per column."
            )
        return table.y.astype(np.float64)

    def _n_random(self, d: int) -> int:
        return 1 if self.random == "intercept" else d

    def _adapt(self, support: Table) -> Floats:
        x = self._columns(support.X)
        residual = self._targets(support) - x @ self.fixed_effects_
        z = x[:, : self._n_random(x.shape[1])]
        w = np.ones(len(z)) if support.weight is None else support.weight
        right = np.column_stack([z, residual]) * w[:, None]
        products = products_by_task(z, right, support.codes, len(support.labels))
        return blup(products[:, :, :-1], products[:, :, -1], self._ratios)

    @property
    def random_effects_(self) -> Floats:
        """Predicted random effects of the tasks adapted to."""
        if getattr(self, "_state", None) is None:
            raise AttributeError("random_effects_ exists on a model returned by adapt.")
        return self._state

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> Floats:
        x = self._columns(X)
        fixed = x @ self.fixed_effects_
        if codes is None:
            return fixed
        effects = self._state[codes]
        return fixed + (x[:, : effects.shape[1]] * effects).sum(1)
