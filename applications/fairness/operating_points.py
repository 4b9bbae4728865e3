"""One fitted model at other bounds and penalties: nothing is trained again."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewshot.errors import InvalidParameterError, NotFittedError

from .gaps import count_by_group, debiased_squared_gap, permutation_floor, signed_gap
from .notions import NOTIONS, Notion

__all__ = ["OperatingPoints"]

# Close enough that a gap asked for on some tasks is not missed by much.
POINTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.7, 2.0, 2.5, 3.0, 4.0, 6.0, 10.0)


class OperatingPoints:
    """What a constrained classifier can do with its bound and its penalty once it is fitted."""

    bound: float | None
    penalty: float | None
    groups_: Any
    pos_label_: Any
    classes_: npt.NDArray[Any]
    _notion: Notion
    _scored: Callable[..., Any]
    _moved: Callable[..., Any]

    def with_bound(self, bound: float) -> Self:
        """Return the same model with another bound on the gap.

        Parameters
        ----------
        bound : float
            Largest gap.

        Returns
        -------
        FairnessConstrainedClassifier
            Fitted, and adapted if this one is.
        """
        return self._with("with_bound", bound=bound, penalty=None)

    def with_penalty(self, penalty: float) -> Self:
        """Return the same model with a penalty in place of a bound, or with another one.

        Parameters
        ----------
        penalty : float
            Weight of the squared gap.

        Returns
        -------
        FairnessConstrainedClassifier
            Fitted, and adapted if this one is.
        """
        return self._with("with_penalty", bound=None, penalty=penalty)

    def operating_points(self) -> dict[float, Self]:
        """Return the same model at each of a range of penalties, from none to one that leaves hardly a gap where that can be.

        Returns
        -------
        dict of float to FairnessConstrainedClassifier
            One of them if the constraint is "bounded_group_loss", which is fitted for one bound.
        """
        if hasattr(self, "groups_") and self._notion.bounds_losses:
            return {float("nan"): self}
        return {penalty: self.with_penalty(penalty) for penalty in POINTS}

    def predict_frontier(
        self, X: Any, *, sensitive_features: Any = None, tasks: Any = None
    ) -> dict[float, npt.NDArray[Any]]:
        """Decide at each of the operating points, many times faster than one after the other.

        Parameters
        ----------
        X, sensitive_features, tasks
            As for :meth:`~FairnessConstrainedClassifier.predict`.

        Returns
        -------
        dict of float to ndarray of shape (rows,)
            Class labels, by penalty.
        """
        points = self.operating_points()
        rows = self._scored(X, sensitive_features, tasks)
        return {penalty: self.classes_[point._moved(rows).argmax(1)] for penalty, point in points.items()}

    def frontier(
        self, X: Any, y: Any, *, sensitive_features: Any, tasks: Any = None, told: bool | None = None
    ) -> pd.DataFrame:
        """Return what accuracy and gaps the model has on rows with known outcomes, along its operating points.

        To choose a point, take rows of tasks that it will not be judged on.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Rows that it was not fitted or adapted to.
        y : array-like of shape (rows,)
            Their outcomes.
        sensitive_features : array-like of shape (rows,) or (rows, features)
            Their groups.
        tasks : array-like of shape (rows,), default=None
            Their tasks, if the model was adapted to labelled ones.
        told : bool, default=None
            Whether the groups are given to `predict`; None: if `use_sensitive_at_predict`.

        Returns
        -------
        DataFrame
            One row for each penalty: `accuracy`; `gap`, the largest absolute gap between two groups, of all events, averaged over
            tasks; `debiased`, the root of the mean squared gap less its sampling variance, 0 if that is negative; `floor`, the mean
            absolute gap of groups drawn by lot.
        """
        self._require_fitted("frontier")  # type: ignore[attr-defined]
        told = self.use_sensitive_at_predict if told is None else told  # type: ignore[attr-defined]
        favourable = np.asarray(y) == self.pos_label_
        codes = self.groups_.codes(sensitive_features, len(favourable))
        task = np.zeros(len(codes), dtype=np.int64) if tasks is None else pd.factorize(np.asarray(tasks))[0]
        columns = {"tasks": tasks} | ({"sensitive_features": sensitive_features} if told else {})
        among = (self._notion if self._notion.events else NOTIONS["demographic_parity"]).among(favourable)
        rows = []
        for penalty, decided in self.predict_frontier(X, **columns).items():
            decision = decided == self.pos_label_
            counts = count_by_group(
                decision, among, codes, len(self.groups_), task.astype(np.int64), int(task.max()) + 1
            )
            values = [np.abs(signed_gap(*counts)), debiased_squared_gap(*counts), permutation_floor(*counts)]
            # The mean over the tasks where a pair has a gap, of the pair where it is largest; NaN if none has one anywhere.
            means = [pd.DataFrame(v.transpose(1, 0, 2).reshape(v.shape[1], -1)).mean() for v in values]
            gap, squared, floor = (float(mean.max()) for mean in means)
            rows.append((penalty, (decision == favourable).mean(), gap, np.sqrt(np.maximum(squared, 0.0)), floor))
        return pd.DataFrame(rows, columns=["penalty", "accuracy", "gap", "debiased", "floor"]).set_index("penalty")

    def _with(self, what: str, **settings: float | None) -> Self:
        self._require_fitted(what)  # type: ignore[attr-defined]
        if not hasattr(self, "groups_"):
            raise NotFittedError(f"{what}: the model was fitted without sensitive_features; nothing is constrained.")
        if self._notion.bounds_losses:
            raise InvalidParameterError(
                f"{what}: bounded_group_loss is fitted for one bound; set it and call fit_meta again."
            )
        other = copy.copy(self)
        for name, value in settings.items():
            setattr(other, name, value)
        other._checked()  # type: ignore[attr-defined]
        other._operate_at(**settings)  # type: ignore[attr-defined]
        return other
