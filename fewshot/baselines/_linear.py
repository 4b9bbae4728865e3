"""Small helpers around linear models: scaling, and a constant for supports with one value."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

__all__ = ["smoothed_frequencies", "standardizer"]


def standardizer() -> Pipeline:
    """Impute missing values by the training mean, then scale to mean 0 and variance 1 over the training rows."""
    return make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())


def smoothed_frequencies(
    counts: npt.NDArray[np.float64], prior: npt.NDArray[np.float64], strength: float = 1.0
) -> npt.NDArray[np.float64]:
    """Return class frequencies after adding `strength` rows distributed as `prior`; shape (..., classes)."""
    total = counts + strength * prior
    return total / total.sum(-1, keepdims=True)
