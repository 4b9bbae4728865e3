"""What all baselines share: the verbs fit_meta, adapt, predict, and the bookkeeping of task labels.

A baseline fills in `_fit(table)`, `_adapt(support)` and `_respond(X, codes)`; everything a user sees is here.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import ClassifierTags, RegressorTags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from ..errors import InvalidDataError, NotFittedError, UnknownTaskError
from ..tasks import is_sampler
from ._table import Table, as_rows, table_of_sampler

__all__ = ["Baseline"]


def _classifies(model: Baseline) -> bool:
    return model._is_classifier()


class Baseline(BaseEstimator):
    """Base class of the baselines; not for use by itself."""

    __metadata_request__fit = {"tasks": True, "blocks": True, "time": True, "sample_weight": True}
    __metadata_request__predict = {"tasks": True}
    __metadata_request__predict_proba = {"tasks": True}
    __metadata_request__score = {"tasks": True, "sample_weight": True}

    _expected_failed_checks: ClassVar[dict[str, str]] = {}

    def _is_classifier(self) -> bool:
        return False

    def _fit(self, table: Table) -> None:
        raise NotImplementedError

    def _adapt(self, support: Table) -> Any:
        """Return whatever `_respond` needs to know of the tasks in `support`; it may hold no rows."""
        raise NotImplementedError

    def _respond(self, X: Any, codes: npt.NDArray[np.int64] | None) -> npt.NDArray[Any]:
        """Predictions, or class probabilities, for rows of the adapted tasks (None: zero-shot)."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        if self._is_classifier():
            tags.estimator_type, tags.classifier_tags = "classifier", ClassifierTags()
        else:
            tags.estimator_type, tags.regressor_tags = "regressor", RegressorTags()
        tags.input_tags.allow_nan = True
        return tags

    def fit_meta(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Learn from the rows of the training tasks.

        Parameters
        ----------
        X : array-like of shape (rows, features), or TaskSampler
            Inputs. Of a sampler 500 tasks are drawn once; the other arguments must then be None.
        y : array-like of shape (rows,)
            Targets.
        tasks : array-like of shape (rows,), default=None
            Task label of each row; None: all rows are one task.
        blocks : array-like of shape (rows,), default=None
            Rows of one block (a visit) never stand on both sides when settings are tuned.
        time : array-like of shape (rows,), default=None
            Taken for a uniform interface; no baseline uses it.
        sample_weight : array-like of shape (rows,), default=None
            Row weights.

        Returns
        -------
        self
        """
        if is_sampler(X):
            given = [n for n, v in [("y", y), ("tasks", tasks), ("blocks", blocks), ("time", time)] if v is not None]
            if given:
                raise InvalidDataError(f"{given[0]}: X is a TaskSampler, which brings its own; leave {given[0]} out.")
            table = table_of_sampler(X)
        else:
            table = Table.read(X, y, tasks, blocks=blocks, time=time, sample_weight=sample_weight)
        if issparse(table.X) and not self.__sklearn_tags__().input_tags.sparse:
            raise InvalidDataError(f"X: sparse input is not supported by {type(self).__name__}; pass X.toarray().")
        validate_data(self, table.X, reset=True, skip_check_array=True)
        if table.n_rows == 0 or table.X.shape[1] == 0:
            raise InvalidDataError(
                f"X: got {table.n_rows} sample(s) and {table.X.shape[1]} feature(s) (shape={table.X.shape}) while a minimum of "
                "1 is required of each."
            )
        self._check_targets(table.y)
        if self._is_classifier():
            check_classification_targets(table.y)
            self.classes_ = np.unique(table.y)
        self._state: Any = None
        self._labels: pd.Index | None = None
        self._fit(table)
        return self

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Any:
        """Do the same as :meth:`fit_meta`, under the name that scikit-learn calls."""
        return self.fit_meta(X, y, tasks=tasks, blocks=blocks, time=time, sample_weight=sample_weight)

    def _check_targets(self, y: npt.NDArray[Any]) -> None:
        if y.dtype.kind == "c":
            raise InvalidDataError("y: Complex data not supported; give real numbers.")
        if y.dtype.kind == "f" and not np.isfinite(y).all():
            raise InvalidDataError("y: Input y contains NaN or infinity; drop those rows.")
        if not self._is_classifier() and y.dtype.kind not in "buif":
            raise InvalidDataError(f"y: Unknown label type: got {y.dtype} values, and regression expects numbers.")

    def _require_one_target(self, y: npt.NDArray[Any]) -> None:
        if y.ndim != 1:
            raise InvalidDataError(f"y: got shape {y.shape}; it takes one target per row: fit one model per column.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_state")

    def _require_fitted(self, method: str) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{method}: this {type(self).__name__} is not fitted; call fit_meta first.")

    def adapt(self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None) -> Any:
        """Adapt to the task of these support rows, or to many tasks at once.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Support inputs; no rows at all are allowed.
        y : array-like of shape (rows,)
            Support targets.
        tasks : array-like of shape (rows,), default=None
            Task label of each row; None: all rows are one task.
        sample_weight : array-like of shape (rows,), default=None
            Row weights.

        Returns
        -------
        adapted : object of the same class
            A new model; this one is unchanged. Adapting it again starts from this model.

        Raises
        ------
        InvalidDataError
            If columns disagree, or a class did not occur in training.
        """
        self._require_fitted("adapt")
        support = Table.read(X, y, tasks, sample_weight=sample_weight)
        validate_data(self, support.X, reset=False, skip_check_array=True)
        self._check_targets(support.y)
        if self._is_classifier():
            unseen = np.setdiff1d(support.y, self.classes_)
            if len(unseen):
                raise InvalidDataError(
                    f"y: class {unseen.tolist()[0]!r} did not occur in training, where the classes were "
                    f"{self.classes_.tolist()}; include it in fit_meta or drop those rows."
                )
        adapted = copy.copy(self)
        adapted._state = self._adapt(support)
        adapted._labels = pd.Index(support.labels) if tasks is not None else None
        return adapted

    def _rows_and_codes(self, method: str, X: Any, tasks: Any) -> tuple[Any, npt.NDArray[np.int64] | None]:
        self._require_fitted(method)
        X = as_rows(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        if self._state is None:  # zero-shot: the same for every task, whatever its name
            return X, None
        labels = self._labels
        if tasks is None:
            if labels is not None:
                raise UnknownTaskError(
                    f"tasks: this model was adapted to {len(labels)} labelled task(s); pass one label per row of X."
                )
            return X, np.zeros(X.shape[0], dtype=np.int64)
        if labels is None:
            raise UnknownTaskError("tasks: this model was adapted to one task without a label; leave tasks out.")
        wanted = np.asarray(tasks)
        if wanted.shape != (X.shape[0],):
            raise InvalidDataError(
                f"tasks: got an array of shape {wanted.shape} for {X.shape[0]} rows of X; give one label per row."
            )
        codes = labels.get_indexer(pd.Index(wanted)).astype(np.int64)
        if (codes < 0).any():
            raise UnknownTaskError(
                f"tasks: the model was not adapted to task {wanted[codes < 0].tolist()[0]!r}; adapt to it first."
            )
        return X, codes

    def predict(self, X: Any, *, tasks: Any = None) -> npt.NDArray[Any]:
        """Predict rows of the task adapted to (zero-shot if none was).

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        tasks : array-like of shape (rows,), default=None
            Which task each row belongs to, for a model adapted with task labels; without effect on an unadapted one.

        Returns
        -------
        ndarray of shape (rows,)
            Values or class labels.

        Raises
        ------
        UnknownTaskError
            If the model was not adapted to a task named here.
        """
        response = self._respond(*self._rows_and_codes("predict", X, tasks))
        return self.classes_[response.argmax(1)] if self._is_classifier() else response

    @available_if(_classifies)
    def predict_proba(self, X: Any, *, tasks: Any = None) -> npt.NDArray[np.float64]:
        """Predict class probabilities, shape (rows, classes); arguments as for :meth:`predict`."""
        return self._respond(*self._rows_and_codes("predict_proba", X, tasks))

    def score(self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None) -> float:
        """Return the accuracy, or the coefficient of determination, over all rows together."""
        metric = accuracy_score if self._is_classifier() else r2_score
        return float(metric(y, self.predict(X, tasks=tasks), sample_weight=sample_weight))
