"""Which column is what: roles that the user names, kinds of inputs by their values, and every decision said aloud."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api import types

from ..errors import InvalidDataError, InvalidParameterError
from .data import StudyData

__all__ = ["study_data"]

MOST_CATEGORIES = 20
MOST_CLASSES = 50
FEWEST_TASKS = 3  # one to train on, one to choose by, one to judge
MOSTLY = 0.9  # a text column with this share of numbers is a numeric column with slips
DATE = re.compile(r"\s*(\d{4}-\d{1,2}-\d{1,2}|\d{1,2}[./-]\d{1,2}[./-]\d{2,4})")
IDENTIFIER = re.compile(r"(?:.*[_. -])?(?:id|uuid|guid)|index|row_?names?|unnamed: \d+", re.IGNORECASE)


def study_data(
    frame: pd.DataFrame,
    task: str,
    target: str,
    *,
    features: Sequence[str] | None = None,
    drop: Sequence[str] = (),
    block: str | None = None,
    time: str | None = None,
    kind: str | None = None,
    name: str = "table",
) -> StudyData:
    """Give the columns of a table their roles.

    Rows without a task, target, block or time are dropped. Of the other columns numeric ones are inputs as they are, and
    texts of few values become one column per value; dates, identifiers, free text and constants are left out. The notes of
    the result say all of it.

    Parameters
    ----------
    frame : DataFrame
        The table.
    task, target : str
        Columns of the task labels and of the target.
    features : sequence of str, default=None
        Inputs. None: every column that can be one.
    drop : sequence of str, default=()
        Columns that are not inputs.
    block, time : str, default=None
        Columns of the block labels and of the times (numbers or dates). A numeric time is an input too.
    kind : {"regression", "classification"}, default=None
        What the targets are. None: texts, truth values and pairs of values are classes.
    name : str, default="table"
        What to call the table.

    Returns
    -------
    StudyData

    Raises
    ------
    InvalidDataError
        If a column is missing, the target cannot be used, or no input or too few tasks are left.
    InvalidParameterError
        If one column has two roles, or `kind` is unknown.

    Examples
    --------
    >>> frame = pd.DataFrame({"site": list("aabbcc"), "x": range(6), "y": [0.1, 2, 3, 4, 5, 6], "when": "2020-01-01"})
    >>> data = study_data(frame, "site", "y", features=["x"])
    >>> data.kind, data.numeric, data.n_tasks
    ('regression', ['x'], 3)
    """
    if kind not in (None, "regression", "classification"):
        raise InvalidParameterError(f"kind: got {kind!r}; expected 'regression', 'classification' or None.")
    roles = {"task": task, "target": target, "block": block}
    for role, column in [
        *roles.items(),
        ("time", time),
        *(("features", c) for c in features or []),
        *(("drop", c) for c in drop),
    ]:
        _require(frame, role, column)
    _refuse_double_roles(roles, time, features)
    notes: list[str] = []
    frame = _drop_incomplete(frame, {**roles, "time": time}, notes)
    y, kind = _targets(frame[target], kind, notes)
    tasks = _labels(frame[task])
    n_tasks = len(np.unique(tasks))
    if n_tasks < FEWEST_TASKS:
        raise InvalidDataError(
            f"task: column {task!r} has {n_tasks} task(s); a study needs at least {FEWEST_TASKS}: to train, to choose and to judge."
        )
    times = None if time is None else _times(frame[time])
    wanted = [
        c for c in (frame.columns if features is None else dict.fromkeys(features)) if c not in {*roles.values(), *drop}
    ]
    X, numeric, text = _inputs(frame, wanted, tasks, features is not None, notes)
    if not numeric and not text:
        raise InvalidDataError("features: no column is left that can be an input; name some, or drop fewer.")
    return StudyData(
        X=X,
        y=y,
        tasks=tasks,
        kind=kind,
        name=name,
        target=target,
        task=task,
        numeric=numeric,
        text=text,
        blocks=None if block is None else _labels(frame[block]),
        time=times,
        notes=notes,
    )


def _require(frame: pd.DataFrame, role: str, column: str | None) -> None:
    if column is None or column in frame.columns:
        return
    names = [str(c) for c in frame.columns]
    lowered = {n.lower(): n for n in names}
    near = [lowered[n] for n in difflib.get_close_matches(column.lower(), lowered, n=1)]
    shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InvalidDataError(f"{role}: no column {column!r}; {hint}The columns are: {shown}.")


def _refuse_double_roles(roles: dict[str, str | None], time: str | None, features: Sequence[str] | None) -> None:
    taken: dict[str, str] = {}
    for role, column in roles.items():
        if column is not None and column in taken:
            raise InvalidParameterError(
                f"{role}: column {column!r} is already the {taken[column]}; each needs its own."
            )
        if column is not None:
            taken[column] = role
    for column in features or []:
        if column in taken:
            raise InvalidParameterError(f"features: column {column!r} is the {taken[column]}, which is never an input.")
    if time is not None and time in (roles["task"], roles["target"]):
        raise InvalidParameterError(f"time: column {time!r} is already the {taken[time]}; each needs its own.")


def _drop_incomplete(frame: pd.DataFrame, roles: dict[str, str | None], notes: list[str]) -> pd.DataFrame:
    for role, column in roles.items():
        if column is None:
            continue
        values = frame[column]
        missing = values.isna()
        if types.is_float_dtype(values.dtype):
            missing |= np.isinf(values.astype("float64"))
        if missing.any():
            notes.append(f"{int(missing.sum()):,} of {len(frame):,} rows have no {role} ({column}) and are left out.")
            frame = frame[~missing]
    if not len(frame):
        raise InvalidDataError("no row has all of task, target, block and time; nothing is left to study.")
    return frame.reset_index(drop=True)


def _labels(column: pd.Series) -> npt.NDArray[Any]:
    """Labels as integers where they are whole numbers, else as they are, or as text."""
    if types.is_numeric_dtype(column.dtype) and not types.is_bool_dtype(column.dtype):
        values = column.to_numpy(dtype=np.float64)
        return values.astype(np.int64) if (values == np.round(values)).all() else values
    return column.astype(str).to_numpy(dtype=object).astype(str)


def _numbers(column: pd.Series) -> npt.NDArray[np.float64]:
    return pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _is_text(column: pd.Series) -> bool:
    dtype = column.dtype
    return types.is_object_dtype(dtype) or types.is_string_dtype(dtype) or isinstance(dtype, pd.CategoricalDtype)


def _targets(column: pd.Series, kind: str | None, notes: list[str]) -> tuple[npt.NDArray[Any], str]:
    name = column.name
    if types.is_datetime64_any_dtype(column.dtype) or types.is_timedelta64_dtype(column.dtype):
        raise InvalidDataError(f"target: column {name!r} holds dates; expected numbers or classes.")
    n_values = column.nunique()
    if n_values < 2:
        raise InvalidDataError(f"target: column {name!r} has the same value in every row; there is nothing to predict.")
    numbers = _numbers(column) if _is_text(column) else None
    good = np.isfinite(numbers) if numbers is not None else None
    if kind is None:
        if good is not None and MOSTLY <= good.mean() < 1:
            raise InvalidDataError(
                f"target: column {name!r} is numeric but for {(~good).sum()} value(s) such as {column[~good].iloc[0]!r}; remove "
                "them, or ask for --classification."
            )
        classes = (_is_text(column) and not (good is not None and good.all())) or types.is_bool_dtype(column.dtype)
        kind = "classification" if classes or n_values == 2 else "regression"
        notes.append(
            f"Taken for {kind}, since {name} has {n_values:,} distinct "
            f"{'values' if kind == 'classification' or types.is_bool_dtype(column.dtype) else 'numbers'} "
            f"(--{'regression' if kind == 'classification' else 'classification'} says otherwise)."
        )
    if kind == "regression":
        if good is not None and not good.all():
            raise InvalidDataError(
                f"target: column {name!r} is not numeric ({column[~good].iloc[0]!r} in {(~good).sum():,} rows); "
                "regression needs numbers, or ask for --classification."
            )
        return (_numbers(column) if numbers is None else numbers), kind
    if n_values > MOST_CLASSES:
        raise InvalidDataError(
            f"target: column {name!r} has {n_values:,} distinct values, too many for classes (at most {MOST_CLASSES}); "
            "ask for --regression if they are numbers."
        )
    return _labels(column), kind


def _times(column: pd.Series) -> npt.NDArray[np.float64]:
    if types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float64)
    if _is_text(column):
        numbers = _numbers(column)
        if np.isfinite(numbers).all():
            return numbers
        dates = pd.to_datetime(column.astype(str), errors="coerce", format="ISO8601", utc=True)
    elif types.is_datetime64_any_dtype(column.dtype):
        dates = column
    else:
        raise InvalidDataError(f"time: column {column.name!r} holds {column.dtype}; expected numbers or dates.")
    if dates.isna().any():
        raise InvalidDataError(
            f"time: {column[dates.isna()].iloc[0]!r} in column {column.name!r} is neither a number nor a date like 2020-12-31."
        )
    return np.asarray((dates - dates.min()) / pd.Timedelta(days=1), dtype=np.float64)


def _inputs(
    frame: pd.DataFrame, names: list[str], tasks: npt.NDArray[Any], explicit: bool, notes: list[str]
) -> tuple[pd.DataFrame, list[str], list[str]]:
    columns: dict[str, Any] = {}
    numeric: list[str] = []
    text: list[str] = []
    refused: dict[str, list[str]] = {}
    for name in names:
        column, why = frame[name], ""
        if _is_text(column):
            values = _numbers(column)
            good, there = np.isfinite(values), column.notna().to_numpy()
            if there.any() and good.sum() >= MOSTLY * there.sum():
                slips = there & ~good
                if slips.any():
                    notes.append(
                        f"{name}: {slips.sum():,} texts such as {column[slips].iloc[0]!r} are taken as missing."
                    )
            else:
                why = _not_a_category(column)
                if not why:
                    columns[name] = column.astype(object).where(column.notna(), "(missing)").astype(str)
                    text.append(name)
                    continue
        elif types.is_numeric_dtype(column.dtype) and not types.is_complex_dtype(column.dtype):
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            infinite = np.isinf(values)
            if infinite.any():
                notes.append(f"{name}: {infinite.sum():,} infinite values are taken as missing.")
                values = np.where(infinite, np.nan, values)
        else:
            why = "dates" if types.is_datetime64_any_dtype(column.dtype) else f"columns of type {column.dtype}"
        why = why or _not_a_measurement(name, values, tasks, explicit)
        if why:
            refused.setdefault(why, []).append(name)
        else:
            columns[name] = values
            numeric.append(name)
    if explicit and refused:
        why, (name, *_) = next(iter(refused.items()))
        raise InvalidDataError(
            f"features: column {name!r} cannot be an input ({why}); leave it out or encode it first."
        )
    notes.extend(f"Not used as inputs ({why}): {', '.join(found)}." for why, found in refused.items())
    return pd.DataFrame(columns, index=frame.index), numeric, text


def _not_a_category(column: pd.Series) -> str:
    there = column.dropna().astype(str)
    n = there.nunique()
    if n < 2:
        return "the same value throughout"
    if there.map(lambda v: bool(DATE.match(v))).mean() >= MOSTLY:
        return "dates"
    if n > MOST_CATEGORIES:
        return f"texts of more than {MOST_CATEGORIES} values: identifiers or free text"
    return ""


def _not_a_measurement(name: str, values: npt.NDArray[np.float64], tasks: npt.NDArray[Any], explicit: bool) -> str:
    there = values[np.isfinite(values)]
    if not len(there) or ((there == there[0]).all() and len(there) == len(values)):
        return "the same value throughout"
    if explicit or len(there) < len(values) or not (there == np.round(there)).all():
        return ""
    n, span = len(np.unique(there)), there.max() - there.min() + 1
    numbers_rows = n == len(there) and span <= 1.1 * n
    pairs = len(np.unique(np.column_stack([np.unique(tasks, return_inverse=True)[1], there]), axis=0))
    numbers_tasks = pairs == n == len(np.unique(tasks)) and span <= 2 * n
    return "identifiers" if numbers_rows or numbers_tasks or IDENTIFIER.fullmatch(name) else ""
