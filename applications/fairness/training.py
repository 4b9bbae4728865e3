"""The classifiers of a constrained one, fitted one after the other: what an interruption leaves is gone on with."""

from __future__ import annotations

from typing import Any, Self

from joblib import hash as fingerprint
from sklearn.base import clone

from fewshot.estimators import MAMLClassifier

__all__ = ["Training"]


class Training:
    """Classifiers as far as they are fitted.

    Parameters
    ----------
    classifier : MAMLClassifier
        Unfitted, with the settings of all.
    data : object
        What they are fitted to; other data are another training.
    """

    def __init__(self, classifier: MAMLClassifier, data: Any) -> None:
        self.classifier = classifier
        self.key = fingerprint((classifier.get_params(), data))
        self._models: dict[str, MAMLClassifier] = {}
        self._done: set[str] = set()

    @classmethod
    def of(cls, classifier: MAMLClassifier, data: Any, begun: Self | None) -> Self:
        """Return the training that was begun, if it is of the same classifier and data, or a new one."""
        new = cls(classifier, data)
        return begun if begun is not None and begun.key == new.key else new

    def fitted(self, mode: str, x: Any, y: Any, columns: dict[str, Any]) -> MAMLClassifier:
        """Fit one classifier, or what is left of it.

        Parameters
        ----------
        mode : str
            Its name.
        x, y : array-like
            Inputs and outcomes.
        columns : dict
            More for `fit_meta`.
        """
        model = self._models.setdefault(mode, clone(self.classifier))
        if mode not in self._done:
            model.set_params(warm_start=True).fit_meta(x, y, **columns)
            model.set_params(warm_start=self.classifier.warm_start)
            self._done.add(mode)
        return model
