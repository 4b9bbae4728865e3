"""Few-shot performance as a scikit-learn scorer, for cross_validate, GridSearchCV and their like."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, is_classifier
from sklearn.utils.metadata_routing import MetadataRequest

from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError
from ._draws import Shots, class_codes, draw_tasks, seed_of
from ._methods import as_fitted
from ._scoring import raise_if_never_defined, read_scoring, score_model

__all__ = ["FewShotScorer", "few_shot_scorer"]


class FewShotScorer(BaseEstimator):
    """Callable ``scorer(estimator, X, y, tasks=...)``; made by :func:`few_shot_scorer`.

    It is a ``BaseEstimator`` only to be printed, compared and cloned by its parameters.
    """

    def __init__(
        self,
        shots: int = 10,
        *,
        shots_per_class: int | None = None,
        scoring: Any = None,
        draws: int = 5,
        support: str = "random",
        random_state: Any = 0,
    ) -> None:
        self.shots = shots
        self.shots_per_class = shots_per_class
        self.scoring = scoring
        self.draws = draws
        self.support = support
        self.random_state = random_state

    def get_metadata_routing(self) -> MetadataRequest:
        """Ask for tasks, blocks and time; without this scikit-learn would pass none of them, and not say so."""
        request = MetadataRequest(owner=self)
        for name in ("tasks", "blocks", "time"):
            request.score.add_request(param=name, alias=True)
        return request

    def _accept_sample_weight(self) -> bool:
        # Asked for by scikit-learn's multi-metric scorer while metadata routing is off.
        return False

    def __call__(
        self, estimator: Any, X: Any, y: Any = None, *, tasks: Any = None, blocks: Any = None, time: Any = None
    ) -> float:
        """Mean over tasks of the mean over draws of the metric after adaptation; NaN where it is undefined everywhere.

        Parameters
        ----------
        estimator : estimator
            Fitted.
        X, y : array-like
            Rows of tasks that the estimator was not fitted to.
        tasks, blocks, time : array-like of shape (rows,), default=None
            Task labels (required), block labels, times.

        Returns
        -------
        float
        """
        if tasks is None:
            raise InvalidDataError(
                "tasks: the few-shot scorer got none; call sklearn.set_config(enable_metadata_routing=True) and pass them as "
                "metadata, as in cross_validate(..., params={'tasks': tasks, 'groups': tasks})."
            )
        shots = Shots.read(self.shots, self.shots_per_class)
        if len(shots.values) > 1:
            raise InvalidParameterError(
                f"{shots.name}: got {shots.values}; a scorer takes one number: use a dict of scorers for several."
            )
        table = Table.read(X, y, tasks, blocks=blocks, time=time)
        classifies = is_classifier(estimator)
        scorers = read_scoring(self.scoring, classifies)
        if len(scorers) > 1:
            raise InvalidParameterError(
                f"scoring: got {self.scoring!r}; a scorer takes one metric: use a dict of scorers for several."
            )
        classes = class_codes(table, classifies) if shots.per_class else None
        drawn = draw_tasks(table, shots, self.draws, self.support, seed_of(self.random_state), classes)
        drawn.left_out()
        everything = np.ones(len(table.labels), dtype=bool)
        model = as_fitted(estimator, table.X, table.y)
        records = list(score_model(model, table, drawn, everything, scorers))
        raise_if_never_defined(records)
        codes, values = (np.array(column) for column in zip(*((r[0], r[4]) for r in records), strict=True))
        defined = np.isfinite(values)
        counts = np.bincount(codes[defined])
        sums = np.bincount(codes[defined], weights=values[defined])
        return float(np.mean(sums[counts > 0] / counts[counts > 0])) if defined.any() else float("nan")


def few_shot_scorer(
    shots: int = 10,
    *,
    shots_per_class: int | None = None,
    scoring: Any = None,
    draws: int = 5,
    support: str = "random",
    random_state: Any = 0,
) -> FewShotScorer:
    """Make a scorer that adapts to each task of the test fold from K of its rows and scores the others.

    It needs the tasks, which scikit-learn passes on only with metadata routing switched on. Estimators of this package
    request them by themselves; splitters such as ``GroupKFold`` take them under the name ``groups``.

    Parameters
    ----------
    shots : int, default=10
        Support rows per task.
    shots_per_class : int, default=None
        Support rows per class, in place of `shots`.
    scoring : str or callable, default=None
        One metric; None as for :func:`evaluate_few_shot`.
    draws : int, default=5
        Supports drawn per task.
    support : {"random", "first"}, default="random"
        Which rows may be support.
    random_state : int, RandomState or None, default=0
        Seed of the draws; a fixed one lets candidates of a search be compared on the same draws.

    Returns
    -------
    FewShotScorer

    Examples
    --------
    >>> import numpy as np, sklearn
    >>> from sklearn.model_selection import GroupKFold, cross_validate
    >>> from fewshot.baselines import SupportMean
    >>> X, tasks = np.zeros((12, 1)), np.repeat([0, 1, 2], 4)
    >>> with sklearn.config_context(enable_metadata_routing=True):
    ...     scores = cross_validate(
    ...         SupportMean(), X, tasks * 10.0, cv=GroupKFold(3), params={"tasks": tasks, "groups": tasks},
    ...         scoring={"zero-shot": few_shot_scorer(0), "2 shots": few_shot_scorer(2)},
    ...     )
    >>> [abs(scores[f"test_{name}"].mean()).round(1).item() for name in ("zero-shot", "2 shots")]
    [10.0, 0.0]
    """
    return FewShotScorer(
        shots,
        shots_per_class=shots_per_class,
        scoring=scoring,
        draws=draws,
        support=support,
        random_state=random_state,
    )
