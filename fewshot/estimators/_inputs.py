"""Checking what a user hands in: one clear error per cause, before anything is computed."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import _check_sample_weight, _num_samples, validate_data

from ..errors import InvalidDataError

__all__ = ["check_columns", "check_features", "check_sample_weight", "check_target_length", "one_line"]

T = TypeVar("T")


def check_features(estimator: Any, X: Any, *, reset: bool, name: str = "X") -> npt.NDArray[np.float64]:
    """Return `X` as a float64 array; names and numbers of features are checked against the fitted ones.

    Raises
    ------
    InvalidDataError
        If a column is not numeric, or holds missing or infinite values.
    """
    if isinstance(X, pd.DataFrame):
        wrong = [str(c) for c, t in X.dtypes.items() if not pd.api.types.is_numeric_dtype(t)]
        if wrong:
            raise InvalidDataError(
                f"{name}: column(s) {_some(wrong)} are not numeric; encode them, for example with "
                "make_meta_pipeline(skrub.TableVectorizer(), ...) or sklearn's OneHotEncoder."
            )
        for column, dtype in X.dtypes.items():
            if pd.api.types.is_extension_array_dtype(dtype) and X[column].isna().any():
                X = X.astype({column: "float64"})
    array = one_line(name, validate_data, estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=False)
    finite = np.isfinite(array)
    if not finite.all():
        names = getattr(estimator, "feature_names_in_", None)
        columns = [str(names[i]) if names is not None else f"number {i + 1}" for i in np.flatnonzero(~finite.all(0))]
        n_nan, n_infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        what = " and ".join(f"{n} {kind}" for n, kind in ((n_nan, "NaN"), (n_infinite, "infinity")) if n)
        raise InvalidDataError(
            f"{name}: contains {what} (column {_some(columns)}); expected finite numbers: impute first, for example with "
            "make_meta_pipeline(SimpleImputer(), ...)."
        )
    return array


def one_line(name: str, check: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a check of scikit-learn's; what it raises becomes one line that begins with the parameter's name.

    Its sentences are kept, for its own estimator checks look for them, but not the arrays that it prints. What it says
    about feature names, over several lines, it expects from every estimator word for word.
    """
    try:
        return check(*args, **kwargs)
    except ValueError as error:
        text = str(error)
        if "feature names should match" in text and name == "X":
            raise
        text = " ".join(re.sub(r"\n?array=.*?\.\n", " ", text, flags=re.DOTALL).split())
        raise InvalidDataError(text if text.startswith(f"{name}:") else f"{name}: {text}") from None


def check_target_length(X: Any, y: Any) -> None:
    """Raise unless there is one target per row."""
    if y is None:
        raise InvalidDataError("y: requires y to be passed, but the target y is None; pass one target per row of X.")
    n_x, n_y = _num_samples(X), _num_samples(y)
    if n_x != n_y:
        raise InvalidDataError(f"y: got {n_y} values for {n_x} rows of X (inconsistent lengths); give one per row.")


def check_columns(n_rows: int, **columns: Any) -> dict[str, npt.NDArray[Any] | None]:
    """Return optional per-row columns as arrays; each must have one value per row."""
    out: dict[str, npt.NDArray[Any] | None] = {}
    for name, column in columns.items():
        if isinstance(column, str):
            raise InvalidDataError(
                f"{name}: got the string {column!r}; expected one value per row, for example frame[{column!r}]."
            )
        out[name] = None if column is None else np.asarray(column)
        if column is not None and len(out[name]) != n_rows:  # type: ignore[arg-type]
            raise InvalidDataError(
                f"{name}: got {np.shape(column)[0]} values for {n_rows} rows of X; give one per row."
            )
    return out


def check_sample_weight(sample_weight: Any, X: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return row weights as an array of ones or of checked non-negative numbers."""
    if sample_weight is not None:
        one_line("sample_weight", check_consistent_length, X, sample_weight)
    weight = one_line(
        "sample_weight", _check_sample_weight, sample_weight, X, dtype=np.float64, ensure_non_negative=True
    )
    if not (weight > 0).any():
        raise InvalidDataError("sample_weight: all weights are zero; at least one row must count.")
    return weight


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
