"""Every error that fewshot raises on purpose.

Each class derives from :class:`FewShotError` and, where Python or scikit-learn already has a type that callers
catch, from that type too. Messages are one line: the parameter, what was got, what was expected, what to do.
"""

from __future__ import annotations

from sklearn.exceptions import NotFittedError as _SklearnNotFittedError

__all__ = [
    "DataNotFoundError",
    "DivergenceError",
    "FewShotError",
    "InvalidDataError",
    "InvalidParameterError",
    "MissingDependencyError",
    "NotFittedError",
    "SerializationError",
    "UnknownTaskError",
    "VerificationError",
]


class FewShotError(Exception):
    """Base class of the errors raised by fewshot."""


class InvalidParameterError(FewShotError, ValueError):
    """A setting has a value, or a type, that cannot be used."""


class InvalidDataError(FewShotError, ValueError):
    """Data cannot be used as they are: shape, type, missing values, too few rows, an unknown column."""


class UnknownTaskError(InvalidDataError):
    """A row is labelled with a task to which the model was not adapted."""


class NotFittedError(FewShotError, _SklearnNotFittedError):
    """A method that needs a meta-trained (or an adapted) model was called too early."""


class DivergenceError(FewShotError, ArithmeticError):
    """Meta-training met non-finite losses again and again."""


class VerificationError(FewShotError, RuntimeError):
    """The vectorised meta-gradient differs from the one of the plain loop."""


class SerializationError(FewShotError, ValueError):
    """An object cannot be saved, or a saved file is damaged, foreign or unsafe."""


class DataNotFoundError(FewShotError, FileNotFoundError):
    """A data set is neither on disk nor could it be downloaded."""


class MissingDependencyError(FewShotError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""
