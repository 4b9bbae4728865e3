"""The mean of the support: the baseline that ignores the inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import InvalidParameterError
from ._base import Baseline
from ._linear import smoothed_frequencies
from ._table import Table

__all__ = ["SupportMean", "indicators", "poor_without_support", "sums_by_task"]


def sums_by_task(values: npt.NDArray[Any], codes: npt.NDArray[np.int64], n_tasks: int) -> npt.NDArray[np.float64]:
    """Sum rows task by task, shape (tasks, ...)."""
    sums = np.zeros((n_tasks, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums


def indicators(y: npt.NDArray[Any], classes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """One column per class, 1 where the row has it."""
    return (y[:, None] == classes).astype(np.float64)


def poor_without_support(tags: Any) -> Any:
    """Mark tags of a model that knows nothing of the inputs until it is adapted."""
    for kind in (tags.regressor_tags, tags.classifier_tags):
        if kind is not None:
            kind.poor_score = True
    return tags


class SupportMean(Baseline):
    """Predict the mean target of the support, or its class frequencies, whatever the inputs.

    Class frequencies are smoothed: one row distributed as the training rows' classes is added. Without a support the
    prediction is the mean, or the class frequencies, of the training rows.

    Parameters
    ----------
    kind : {"regression", "classification"}, default="regression"
        What the targets are.

    Attributes
    ----------
    prior_ : ndarray
        Mean target, or class frequencies, of the training rows.

    Examples
    --------
    >>> model = SupportMean().fit_meta([[0.0], [1.0]], [1.0, 3.0], tasks=[0, 1])
    >>> model.predict([[5.0]]).tolist(), model.adapt([[0.0], [0.0]], [7.0, 9.0]).predict([[5.0]]).tolist()
    ([2.0], [8.0])
    """

    _expected_failed_checks = {"check_dtype_object": "the inputs are not looked at, so no value in them can be wrong"}

    def __init__(self, kind: str = "regression") -> None:
        self.kind = kind

    def _is_classifier(self) -> bool:
        return self.kind == "classification"

    def __sklearn_tags__(self) -> Any:
        return poor_without_support(super().__sklearn_tags__())

    def _fit(self, table: Table) -> None:
        if self.kind not in ("regression", "classification"):
            raise InvalidParameterError(f"kind: got {self.kind!r}; expected 'regression' or 'classification'.")
        self.prior_ = np.asarray(np.average(self._values(table), axis=0, weights=table.weight))

    def _values(self, table: Table) -> npt.NDArray[Any]:
        return indicators(table.y, self.classes_) if self._is_classifier() else table.y

    def _adapt(self, support: Table) -> npt.NDArray[np.float64]:
        weight = np.ones(support.n_rows) if support.weight is None else support.weight
        values, n_tasks = self._values(support), len(support.labels)
        sums = sums_by_task((values.T * weight).T, support.codes, n_tasks)
        if self._is_classifier():
            return smoothed_frequencies(sums, self.prior_)
        total = np.bincount(support.codes, weights=weight, minlength=n_tasks)
        total = total.reshape(-1, *[1] * (values.ndim - 1))
        return np.where(total > 0, sums / np.where(total > 0, total, 1.0), self.prior_)

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
        if codes is None:
            return np.repeat(self.prior_[None], X.shape[0], axis=0)
        return self._state[codes]
