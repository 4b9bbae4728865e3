"""From scores of tasks to a table of methods."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.stats import t

from ..errors import InvalidDataError, InvalidParameterError

__all__ = ["summarize"]


def summarize(frame: pd.DataFrame, level: float = 0.95) -> pd.DataFrame:
    """Average the scores of :func:`evaluate_few_shot` over tasks, with an interval.

    Draws are averaged within each task first, so tasks count the same and the interval is about *another task*, not another
    draw. It is Student's t interval over tasks. It takes tasks for independent: those of one fold share a model, so it is
    somewhat too narrow where training itself is unstable.

    Parameters
    ----------
    frame : DataFrame
        With columns method, task, shots, metric, value; undefined (NaN) scores are passed over.
    level : float, default=0.95
        Coverage of the interval.

    Returns
    -------
    DataFrame
        Columns method, shots, metric, mean, low, high, n_tasks, methods in the order of `frame`. With one task `low` and
        `high` are NaN.

    Raises
    ------
    InvalidDataError
        If a column is missing.
    InvalidParameterError
        If `level` is not between 0 and 1.

    Examples
    --------
    >>> frame = pd.DataFrame(
    ...     {"method": "m", "task": [1, 1, 2], "shots": 5, "draw": [0, 1, 0], "metric": "r2", "value": [0.0, 1.0, 1.5]}
    ... )
    >>> summarize(frame).round(2).values.tolist()
    [['m', 5, 'r2', 1.0, -5.35, 7.35, 2]]
    """
    keys = ["method", "shots", "metric"]
    missing = [c for c in [*keys, "task", "value"] if c not in frame.columns]
    if missing:
        raise InvalidDataError(f"frame: no column {missing[0]!r}; expected what evaluate_few_shot returns.")
    if not isinstance(level, float) or not 0 < level < 1:
        raise InvalidParameterError(f"level: got {level!r}; expected a number between 0 and 1, such as 0.95.")
    per_task = frame.groupby([*keys, "task"], sort=False, observed=True)["value"].mean()
    grouped = per_task.groupby(level=keys, sort=False, observed=True)
    summary = grouped.agg(["mean", "std", "count"]).reset_index()
    n = summary.pop("count")
    half = t.ppf((1 + level) / 2, (n - 1).clip(lower=1)) * summary.pop("std") / np.sqrt(n.clip(lower=1))
    summary["low"], summary["high"] = summary["mean"] - half, summary["mean"] + half
    summary["n_tasks"] = n
    return summary
