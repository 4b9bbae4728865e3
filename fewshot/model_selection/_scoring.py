"""Scikit-learn's scorers, applied to each task's query rows without predicting task by task.

A model adapted to many tasks predicts all their query rows in one call; a scorer is then shown, for each task, a view that
hands out that task's part.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import check_scoring, get_scorer
from sklearn.utils import _safe_indexing

from ..baselines._table import Table
from ..errors import InvalidDataError, InvalidParameterError
from ._draws import Draws

__all__ = ["Record", "raise_if_never_defined", "read_scoring", "score_model"]

Scorer = Callable[..., float]
Record = tuple[int, int, int, str, float, str | None]  # task code, shots, draw, metric, value, why it is undefined
RESPONSES = ("predict", "predict_proba", "predict_log_proba", "decision_function")


def read_scoring(scoring: Any, classifies: bool) -> dict[str, Scorer]:
    """Return scorers by name: None is the accuracy, or the negative mean absolute error."""
    if scoring is None:
        scoring = "accuracy" if classifies else "neg_mean_absolute_error"
    if isinstance(scoring, str):
        scoring = [scoring]
    elif callable(scoring):
        scoring = {"score": scoring}
    elif isinstance(scoring, Sequence | set):
        scoring = list(scoring)
    if isinstance(scoring, list):
        if not all(isinstance(name, str) for name in scoring):
            raise InvalidParameterError("scoring: a list holds names; give callables in a dict, by name.")
        scoring = {name: name for name in scoring}
    if not isinstance(scoring, Mapping) or not scoring:
        raise InvalidParameterError(
            f"scoring: got {scoring!r}; expected the name of a scorer, a callable, a list of names or a dict."
        )
    try:
        return {name: _checked(value) for name, value in scoring.items()}
    except ValueError as error:
        raise InvalidParameterError(f"scoring: {error}") from None


def _checked(scorer: Any) -> Scorer:
    if callable(scorer):
        check_scoring(scoring=scorer, estimator=_Nothing())  # tells metric functions from scorers
    return get_scorer(scorer)


class _Nothing:
    def fit(self) -> None:
        """Do nothing: scikit-learn's check asks for the method."""


class _PredictionFailed(Exception):
    """Carries a model's error past the scorer: only the scorer's own errors mean that a metric is undefined."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Responses:
    """What a model answers to all query rows, asked for once per kind of response."""

    def __init__(self, model: Any, X: Any, tasks: dict[str, Any]) -> None:
        self.model, self.X, self.tasks = model, X, tasks
        self.known: dict[str, npt.NDArray[Any]] = {}

    def get(self, method: str) -> npt.NDArray[Any]:
        if method not in self.known:
            try:
                self.known[method] = np.asarray(getattr(self.model, method)(self.X, **self.tasks))
            except ValueError as error:
                raise _PredictionFailed(error) from error
        return self.known[method]


class _TaskView:
    """One task's part of the responses, in the shape of a fitted estimator."""

    def __init__(self, responses: _Responses, rows: slice) -> None:
        self._responses, self._rows = responses, rows

    def __sklearn_tags__(self) -> Any:
        return self._responses.model.__sklearn_tags__()

    def __getattr__(self, name: str) -> Any:
        if name == "classes_":
            return self._responses.model.classes_
        if name not in RESPONSES or not hasattr(self._responses.model, name):
            raise AttributeError(f"{type(self._responses.model).__name__} has no {name}")

        def respond(X: Any) -> npt.NDArray[Any]:
            part = self._responses.get(name)[self._rows]
            if len(part) != X.shape[0]:
                raise InvalidDataError(
                    f"scoring: {name} was asked for {X.shape[0]} rows instead of the {len(part)} query rows; score those "
                    "as they come."
                )
            return part

        respond.__name__ = name  # scikit-learn reads the name to tell probabilities from decision values
        return respond


def score_model(
    model: Any, table: Table, draws: Draws, tasks: npt.NDArray[np.bool_], scorers: Mapping[str, Scorer]
) -> Iterator[Record]:
    """Adapt a fitted model to the tasks chosen by the mask, for each number of shots and draw, and score each task."""
    for k in draws.shots.values:
        for draw in range(len(draws.ranks)):
            support, query = draws.split(draw, k, tasks)
            if not len(query):
                continue
            ask = table.columns(query, roles=False)
            adapted, labels = model, {}
            if k:
                adapted = model.adapt(**table.columns(support, roles=False))
                labels = {"tasks": ask["tasks"]}
            responses = _Responses(adapted, ask["X"], labels)
            codes = table.codes[query]
            starts = np.flatnonzero(np.diff(codes, prepend=-1))
            for start, end in zip(starts, np.append(starts[1:], len(codes)), strict=True):
                rows = slice(int(start), int(end))
                view, X = _TaskView(responses, rows), _safe_indexing(ask["X"], rows)
                for name, scorer in scorers.items():
                    value, why = _score(scorer, view, X, ask["y"][rows])
                    yield int(codes[start]), k, draw, name, value, why


def _score(scorer: Scorer, view: _TaskView, X: Any, y: npt.NDArray[Any]) -> tuple[float, str | None]:
    with warnings.catch_warnings():
        # Of small queries scikit-learn tells, call by call, that they have one row, one class or many classes for their
        # size; an undefined value is NaN, which says as much.
        warnings.filterwarnings("ignore", category=UserWarning, module=r"sklearn\.")
        try:
            return float(scorer(view, X, y)), None
        except InvalidDataError:
            raise
        except _PredictionFailed as failed:
            raise failed.error from None
        except ValueError as error:
            return float("nan"), str(error).splitlines()[0]


def raise_if_never_defined(records: Sequence[Record]) -> None:
    """Raise if a metric failed on every task: then the metric, not a task, is at fault."""
    reasons: dict[str, str | None] = {}
    for *_, metric, _, why in records:
        reasons[metric] = None if why is None else reasons.get(metric, why)
    for metric, why in reasons.items():
        if why is not None:
            raise InvalidParameterError(f"scoring: {metric!r} could not be computed for any task: {why}")
