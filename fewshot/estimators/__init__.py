"""The scikit-learn style estimators: validate, encode, call the core."""

from .classifier import MAMLClassifier
from .regressor import MAMLRegressor

__all__ = ["MAMLClassifier", "MAMLRegressor"]
