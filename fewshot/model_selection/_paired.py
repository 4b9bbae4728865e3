"""Paired differences over tasks: intervals, Student's tests against zero and a margin, and Holm's correction of several."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

__all__ = ["concluded", "differences_of", "holm"]

LEVEL = 0.95
POWER = 0.8
FEWEST_TASKS = 5  # with fewer a test of t is no evidence, however small its p-value


def differences_of(differences: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return the mean difference, its interval, what could be detected, and the number of tasks."""
    n = len(differences)
    if n < 2:
        mean = float(differences.mean()) if n else np.nan
        return {"difference": mean, **dict.fromkeys(("low", "high", "detectable"), np.nan), "n_tasks": n}
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n))
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return {
        "difference": mean,
        "low": mean - half,
        "high": mean + half,
        "detectable": half + float(t.ppf(POWER, n - 1)) * error,
        "n_tasks": n,
    }


def concluded(table: pd.DataFrame) -> pd.DataFrame:
    """Add p-values, corrected over the rows, and a conclusion to differences with their margins.

    Parameters
    ----------
    table : DataFrame
        With the columns of :func:`differences_of`, and `margin`.

    Returns
    -------
    DataFrame
        With `p_better`, `p_worse`, `p_no_worse` and `conclusion` besides.
    """
    mean, freedom = table["difference"].to_numpy(float), table["n_tasks"].to_numpy(float) - 1
    enough = freedom + 1 >= FEWEST_TASKS
    freedom = np.maximum(freedom, 1)
    half = (table["high"] - table["low"]).to_numpy(float) / 2
    error = np.maximum(half / t.ppf((1 + LEVEL) / 2, freedom), 1e-300)
    raw = {
        "p_better": t.sf(mean / error, freedom),
        "p_worse": t.cdf(mean / error, freedom),
        "p_no_worse": t.sf((mean + table["margin"].to_numpy(float)) / error, freedom),
    }
    found = table.assign(**{name: np.where(np.isfinite(p), p, 1.0) for name, p in raw.items()})
    for column in raw:
        found.loc[enough, column] = holm(found.loc[enough, column])
    alpha = (1 - LEVEL) / 2  # of each side, as the interval
    found["conclusion"] = np.select(
        [
            ~enough,
            (found["p_better"] < alpha).to_numpy(),
            (found["p_worse"] < alpha).to_numpy(),
            (found["p_no_worse"] < 1 - LEVEL).to_numpy(),
        ],
        ["too few tasks", "better", "worse", "no worse"],
        "undecided",
    )
    return found


def holm(p: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Correct p-values of several tests, so that all rejections at a level hold at once (Holm 1979).

    Parameters
    ----------
    p : array-like of shape (tests,)
        One for each test.

    Returns
    -------
    ndarray of shape (tests,)

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    raised = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    out = np.empty_like(values)
    out[order] = np.minimum(raised, 1.0)
    return out
