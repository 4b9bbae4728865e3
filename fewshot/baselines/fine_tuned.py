"""A network of all tasks pooled, fine-tuned on the support: meta-learning without the meta."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.utils import check_random_state

from ..errors import InvalidParameterError
from ..estimators import MAMLClassifier, MAMLRegressor
from ._base import Baseline
from ._linear import standardizer
from ._table import Table
from ._tuning import draw_episodes, held_out_folds, held_out_loss

__all__ = ["FineTunedNetwork"]

STEPS, RATES = (1, 5, 20), (0.001, 0.01, 0.1)


class FineTunedNetwork(Baseline):
    """The network that :class:`~fewshot.MAMLRegressor` starts from, trained on all tasks without an inner loop.

    Adapting takes gradient steps of one fixed size on the support. Their number and size are those with the least loss on
    held-out training tasks, one choice for all support sizes. Missing values are imputed by the training mean and features
    scaled to variance 1 over the training rows.

    Parameters
    ----------
    kind : {"regression", "classification"}, default="regression"
        What the targets are.
    hidden : sequence of int, default=(40, 40)
        Hidden widths.
    max_iter : int, default=None
        Training steps; None as :class:`~fewshot.MAMLRegressor`.
    steps : sequence of int, default=(1, 5, 20)
        Numbers of fine-tuning steps to choose from.
    learning_rates : sequence of float, default=(0.001, 0.01, 0.1)
        Step sizes to choose from.
    shots : tuple of int, default=(1, 5, 20)
        Support sizes over which the choice is made.
    random_state : int, RandomState or None, default=None
        Seed of training and of the choice.

    Attributes
    ----------
    steps_, learning_rate_
        The choice.
    network_ : MAMLRegressor or MAMLClassifier
        The pooled network.

    Examples
    --------
    >>> import numpy as np
    >>> X, tasks = np.random.default_rng(0).normal(size=(60, 2)), np.repeat(np.arange(6), 10)
    >>> model = FineTunedNetwork(max_iter=5, random_state=0).fit_meta(X, X[:, 0] + tasks, tasks=tasks)
    >>> model.adapt(X[:3], X[:3, 0]).predict(X[:2]).shape
    (2,)
    """

    def __init__(
        self,
        kind: str = "regression",
        *,
        hidden: Sequence[int] = (40, 40),
        max_iter: int | None = None,
        steps: Sequence[int] = STEPS,
        learning_rates: Sequence[float] = RATES,
        shots: Sequence[int] = (1, 5, 20),
        random_state: Any = None,
    ) -> None:
        self.kind = kind
        self.hidden = hidden
        self.max_iter = max_iter
        self.steps = steps
        self.learning_rates = learning_rates
        self.shots = shots
        self.random_state = random_state

    def _is_classifier(self) -> bool:
        return self.kind == "classification"

    def _fit(self, table: Table) -> None:
        if self.kind not in ("regression", "classification"):
            raise InvalidParameterError(f"kind: got {self.kind!r}; expected 'regression' or 'classification'.")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        choices = list(product(self.steps, self.learning_rates))
        losses = np.zeros(len(choices))
        if len(choices) > 1:
            episodes = draw_episodes(table, self.shots, 100, np.random.default_rng(seed))
            for train, test in held_out_folds(table.codes, len(table.labels)):
                self._train(table.columns(train), seed)
                for i, choice in enumerate(choices):
                    self.steps_, self.learning_rate_ = choice
                    losses[i] += held_out_loss(self, table, test, episodes)
        self.steps_, self.learning_rate_ = choices[int(np.argmin(losses))]
        self._train(table.columns(np.arange(table.n_rows)), seed)

    def _train(self, columns: dict[str, Any], seed: int) -> None:
        self._scaler = standardizer().fit(columns["X"])
        columns["X"] = self._scaler.transform(columns["X"])
        if self._is_classifier():
            columns["y"] = np.searchsorted(self.classes_, columns["y"])
        make = MAMLClassifier if self._is_classifier() else MAMLRegressor
        self.network_ = make(
            algorithm="maml",
            base=None,
            inner_steps=0,
            learn_step_sizes=False,
            hidden=self.hidden,
            max_iter=self.max_iter,
            shots=1,
            queries=40,
            random_state=seed,
        ).fit_meta(**columns)

    def _adapt(self, support: Table) -> Any:
        if support.n_rows == 0:
            return self.network_
        y = np.searchsorted(self.classes_, support.y) if self._is_classifier() else support.y
        return self.network_.set_params(inner_lr=self.learning_rate_).adapt(
            self._scaler.transform(support.X),
            y,
            tasks=support.codes,
            sample_weight=support.weight,
            steps=self.steps_,
        )

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
        model = self.network_ if codes is None else self._state
        X = self._scaler.transform(X)
        response: npt.NDArray[Any]
        if not self._is_classifier():
            response = model.predict(X, tasks=codes)
            return response
        response = np.zeros((len(X), len(self.classes_)))
        response[:, model.classes_] = model.predict_proba(X, tasks=codes)
        return response
