"""Ridge towards the pooled model instead of towards zero: every coefficient may follow the support a little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils import check_random_state

from .._weighted_fit import fit_weighted
from ..errors import InvalidParameterError
from ..stacking.base import ALPHAS
from ..stacking.posterior import coefficients
from ..tasks import TaskSet
from ._base import Baseline
from ._linear import standardizer
from ._table import Table
from ._tuning import draw_episodes, held_out_folds, held_out_loss, positive_numbers
from .mixed_logistic import GRID
from .pooled import PooledModel

__all__ = ["BiasedRegularization"]

Floats = npt.NDArray[np.float64]
STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
TUNING_TASKS = 100


class BiasedRegularization(Baseline):
    r"""Linear or logistic regression whose coefficients have the pooled model's as their prior mean.

    With pooled coefficients :math:`\beta_0` a task's are
    :math:`\arg\min_\beta L(\beta) + \frac{\lambda}{2} \|\beta - \beta_0\|^2`, L being the support's negative log-likelihood, or
    half its squared error: the most probable ones under the prior :math:`N(\beta_0, I / \lambda)`. The intercept is one of them.
    Missing values are imputed by the training mean and features scaled to variance 1 over the training rows.

    Parameters
    ----------
    kind : {"regression", "classification"}, default="regression"
        What the targets are.
    strength : float, sequence of float or None, default=None
        :math:`\lambda`, in rows. Of several values the one with the least loss on held-out training tasks is taken; None stands for
        eight values from 0.1 to 300.
    shots : tuple of int, default=(1, 5, 20)
        Support sizes over which the choice is made.
    random_state : int, RandomState or None, default=None
        Seed of the supports of the choice.

    Attributes
    ----------
    strength_ : float
        The strength used.
    estimator_ : estimator
        The pooled model.

    References
    ----------
    Kuzborskij and Orabona (2013), Stability and hypothesis transfer learning, ICML.

    Examples
    --------
    >>> model = BiasedRegularization(strength=1.0).fit_meta([[0.0], [1.0], [0.0], [1.0]], [0.0, 0.0, 0.0, 0.0], tasks=[0, 0, 1, 1])
    >>> model.adapt([[0.5]], [4.0]).predict([[0.5]]).round(3).tolist()
    [2.0]
    """

    def __init__(
        self,
        kind: str = "regression",
        *,
        strength: float | Sequence[float] | None = None,
        shots: Sequence[int] = (1, 5, 20),
        random_state: Any = None,
    ) -> None:
        self.kind = kind
        self.strength = strength
        self.shots = shots
        self.random_state = random_state

    def _is_classifier(self) -> bool:
        return self.kind == "classification"

    def _fit(self, table: Table) -> None:
        if self.kind not in ("regression", "classification"):
            raise InvalidParameterError(f"kind: got {self.kind!r}; expected 'regression' or 'classification'.")
        strengths = positive_numbers("strength", self.strength, STRENGTHS)
        if not self._is_classifier():
            self._require_one_target(table.y)
        self._fit_pooled(table)
        self.strength_ = float(strengths[0])
        folds = held_out_folds(table.codes, len(table.labels))
        if len(strengths) > 1 and folds:
            self.strength_ = self._best(strengths, table, folds)

    def _fit_pooled(self, table: Table) -> None:
        self._scale = fit_weighted(standardizer(), table.X, None, table.weight)
        scaled = replace(table, X=self._scale.transform(table.X)).columns(np.arange(table.n_rows))
        if self._is_classifier():
            pooled = PooledModel(LogisticRegression(max_iter=1000), param_grid={"C": list(GRID)})
        else:
            pooled = PooledModel(Ridge(), param_grid={"alpha": list(ALPHAS)})
        self.estimator_ = pooled.fit_meta(**scaled).estimator_

    def _best(self, strengths: Floats, table: Table, folds: list[tuple[Any, Any]]) -> float:
        """Return the strength that loses least on tasks that the pooled model has not seen."""
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31 - 1))
        episodes = draw_episodes(table, self.shots, TUNING_TASKS, rng)
        losses = np.zeros(len(strengths))
        for train, test in folds:
            fold = BiasedRegularization(self.kind, strength=float(strengths[0]))
            fold.fit_meta(**table.columns(train))
            for i, strength in enumerate(strengths):
                fold.strength_ = float(strength)
                losses[i] += held_out_loss(fold, table, test, episodes)
        return float(strengths[np.argmin(losses)])

    def _offset(self, scaled: Floats) -> Floats:
        """Values, or log-probabilities of all classes, of the pooled model."""
        if not self._is_classifier():
            return np.asarray(self.estimator_.predict(scaled))[:, None] if len(scaled) else np.empty((0, 1))
        if not len(scaled):
            return np.empty((0, len(self.classes_)))
        return np.asarray(np.log(np.clip(self.estimator_.predict_proba(scaled), 1e-12, None)))

    def _scaled(self, X: Any) -> Floats:
        return np.asarray(self._scale.transform(X), dtype=np.float64) if X.shape[0] else np.empty(X.shape)

    def _adapt(self, support: Table) -> Floats:
        """Return each task's deviation from the pooled coefficients, shape (tasks, 1 + features, outputs)."""
        x = self._scaled(support.X)
        offset = self._offset(x)
        if not support.n_rows:
            return np.zeros((len(support.labels), 1 + x.shape[1], offset.shape[1]))
        y = np.searchsorted(self.classes_, support.y) if self._is_classifier() else support.y[:, None].astype(float)
        tasks = TaskSet.from_arrays(x, y, support.codes, sample_weight=support.weight, dtype=torch.float64)
        tasks = replace(tasks, extra={"offset": torch.from_numpy(offset[tasks.order])})
        rows = tasks.rows(np.arange(tasks.n_tasks))
        features = torch.cat([torch.ones(*rows.x.shape[:2], 1, dtype=torch.float64), rows.x], 2)
        scale = 1 / np.sqrt(self.strength_)
        return scale * coefficients(self._is_classifier(), scale * features, rows, 1.0).numpy()

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> Floats:
        x = self._scaled(X)
        out = self._offset(x)
        if codes is not None:
            features = np.column_stack([np.ones(len(x)), x])
            out = out + np.einsum("nf,nfo->no", features, self._state[codes])
        return np.asarray(softmax(out, axis=1)) if self._is_classifier() else out[:, 0]
