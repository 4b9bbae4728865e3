"""The vocabulary of groups: learned once, the same ever after."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewshot.errors import InvalidDataError

__all__ = ["UNKNOWN", "Groups"]

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Groups:
    """Groups of people by one sensitive feature, or by several crossed.

    A missing value is a group of its own, "unknown".

    Parameters
    ----------
    names : tuple of str
        Names of the sensitive features.
    labels : tuple of tuple
        The groups, each with one value for every feature.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[Any, ...], ...]

    @classmethod
    def learn(cls, sensitive_features: Any, n_rows: int) -> Groups:
        """Take the groups that occur in these rows.

        Parameters
        ----------
        sensitive_features : array-like of shape (rows,) or (rows, features)
            A frame, a series, an array or a list.
        n_rows : int
            How many rows there should be.
        """
        frame = _frame(sensitive_features, n_rows)
        present = sorted(
            {tuple(map(_plain, row)) for row in frame.itertuples(index=False)}, key=lambda row: tuple(map(str, row))
        )
        found = cls(tuple(map(str, frame.columns)), tuple(present))
        titles = found.titles
        twice = sorted({title for title in titles if titles.count(title) > 1})
        if twice:
            raise InvalidDataError(
                f"sensitive_features: {twice[0]!r} stands for two groups, of values of different types; make them of one type."
            )
        return found

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def _named(self) -> bool:
        return self.names != _default_names(len(self.names))

    @property
    def titles(self) -> list[str]:
        """Groups in words."""
        return [_title(label) for label in self.labels]

    def codes(self, sensitive_features: Any, n_rows: int, name: str = "sensitive_features") -> npt.NDArray[np.int64]:
        """Return the position of each row's group.

        Parameters
        ----------
        sensitive_features : array-like of shape (rows,) or (rows, features)
            The same features as were learned.
        n_rows : int
            How many rows there should be.
        name : str
            What the caller calls them, for errors.

        Raises
        ------
        InvalidDataError
            If there is another number of rows or features, or a group that did not occur in training.
        """
        frame = _frame(sensitive_features, n_rows, name)
        if frame.shape[1] != len(self.names):
            raise InvalidDataError(
                f"{name}: got {frame.shape[1]} feature(s), expected {len(self.names)}: {', '.join(self.names)}."
            )
        own = tuple(map(str, frame.columns))
        if own != self.names and sorted(own) == sorted(self.names):
            frame = frame[[frame.columns[own.index(column)] for column in self.names]]
        elif isinstance(sensitive_features, pd.DataFrame) and len(own) > 1 and own != self.names and self._named:
            raise InvalidDataError(f"{name}: got the features {', '.join(own)}, expected {', '.join(self.names)}.")
        position = {label: i for i, label in enumerate(self.labels)}
        rows = [tuple(row) for row in frame.itertuples(index=False)]
        unseen = {row for row in rows if row not in position}
        if unseen:
            missing = any(UNKNOWN in row for row in unseen)
            what = "a row without a value" if missing else f"group {min(map(_title, unseen))!r}"
            named = "mark it as missing" if any(UNKNOWN in row for row in self.labels) else "leave its rows out"
            do = "fill it in" if missing else named
            raise InvalidDataError(
                f"{name}: {what} did not occur in training, where the groups were {', '.join(self.titles)}; {do}, or fit with "
                "such rows."
            )
        return np.array([position[row] for row in rows], dtype=np.int64)


def _frame(sensitive_features: Any, n_rows: int, name: str = "sensitive_features") -> pd.DataFrame:
    """Return one column for each feature, missing values named."""
    if isinstance(sensitive_features, pd.DataFrame):
        frame = sensitive_features
    elif isinstance(sensitive_features, pd.Series):
        frame = sensitive_features.to_frame("sensitive" if sensitive_features.name is None else sensitive_features.name)
    else:
        # As objects: NumPy would make text of what is beside text, even of a missing value.
        array = np.asarray(sensitive_features, dtype=object)
        if array.ndim not in (1, 2):
            raise InvalidDataError(
                f"{name}: got an array of shape {array.shape}; expected one value, or several, for each row."
            )
        columns = array[:, None] if array.ndim == 1 else array
        frame = pd.DataFrame(columns, columns=list(_default_names(columns.shape[1])))
    if len(frame) != n_rows:
        raise InvalidDataError(f"{name}: got {len(frame)} rows for {n_rows} rows of features; give one for each row.")
    if not frame.shape[1]:
        raise InvalidDataError(f"{name}: got no column; expected at least one.")
    frame = frame.astype(object)
    return frame.where(frame.notna(), UNKNOWN)


def _default_names(n: int) -> tuple[str, ...]:
    return ("sensitive",) if n == 1 else tuple(f"sensitive {i + 1}" for i in range(n))


def _plain(value: Any) -> Any:
    """Return a value without NumPy's type."""
    return value.item() if isinstance(value, np.generic) else value


def _title(label: tuple[Any, ...]) -> str:
    return " / ".join(map(str, label))
