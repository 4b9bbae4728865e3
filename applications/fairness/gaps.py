r"""Differences between the rates of groups, and what chance alone makes of them.

Everything here starts from counts: of n rows of a group, k got the favourable decision. Counts have shape (..., groups), results
(..., pairs), a pair (g, h) with g < h having the difference of rate g less rate h. A cell without rows has no rate: NaN, never 0.

- The absolute gap is biased upwards: with groups permuted at random it does not vanish. :func:`permutation_floor` is its
  expectation there. Taking it off an observed gap gives no estimate of the true one.
- The squared gap is biased by the variances of both rates, which can be estimated: :func:`debiased_squared_gap` is without bias,
  whatever the rates, so that it can be averaged over tasks. For one task it can be negative.

References
----------
Newcombe (1998), Interval estimation for the difference between independent proportions, Statistics in Medicine 17.
"""

from __future__ import annotations

from itertools import combinations
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import hypergeom, norm

__all__ = [
    "count_by_group",
    "debiased_squared_gap",
    "gap_interval",
    "mean_over_tasks",
    "n_groups_of",
    "pair_weights",
    "pairs_of",
    "permutation_floor",
    "rates_of",
    "root_mean_squared_gap",
    "rows_to_tell",
    "signed_gap",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
HALF_WEIGHT = 10.0
LEAST_PART = 0.1  # of the weight of the pair with most rows


def pairs_of(n_groups: int) -> list[tuple[int, int]]:
    """Return all pairs of groups."""
    return list(combinations(range(n_groups), 2))


def n_groups_of(n_pairs: int) -> int:
    """Return how many groups have so many pairs."""
    return (1 + isqrt(1 + 8 * n_pairs)) // 2


def count_by_group(
    decision: npt.NDArray[np.bool_],
    among: npt.NDArray[np.bool_],
    group: Ints,
    n_groups: int,
    task: Ints | None = None,
    n_tasks: int = 1,
) -> tuple[Ints, Ints]:
    """Count rows and favourable decisions in every cell of event, task and group.

    Parameters
    ----------
    decision : ndarray of bool, shape (rows,)
        Whether the decision is favourable.
    among : ndarray of bool, shape (events, rows)
        Which rows each event holds.
    group : ndarray of int, shape (rows,)
        Group of each row.
    n_groups : int
        Number of groups.
    task : ndarray of int, shape (rows,), default=None
        Task of each row; None: all rows are one task.
    n_tasks : int
        Number of tasks.

    Returns
    -------
    favourable, rows : ndarray of int, shape (events, tasks, groups)
    """
    cell = group if task is None else task * n_groups + group
    size = n_tasks * n_groups
    shape = (len(among), n_tasks, n_groups)
    rows = np.stack([np.bincount(cell[event], minlength=size) for event in among]).reshape(shape)
    favourable = np.stack([np.bincount(cell[event & decision], minlength=size) for event in among]).reshape(shape)
    return favourable, rows


def rates_of(favourable: npt.ArrayLike, rows: npt.ArrayLike) -> Floats:
    """Rates of favourable decisions; NaN for an empty cell."""
    k, n = np.asarray(favourable, dtype=np.float64), np.asarray(rows, dtype=np.float64)
    return np.divide(k, n, out=np.full(np.broadcast_shapes(k.shape, n.shape), np.nan), where=n > 0)


def signed_gap(favourable: npt.ArrayLike, rows: npt.ArrayLike) -> Floats:
    """Differences between the rates of all pairs of groups.

    Examples
    --------
    >>> signed_gap([1, 3, 0], [4, 4, 0])
    array([-0.5,  nan,  nan])
    """
    first, second = _ends(rates_of(favourable, rows))
    gap: Floats = first - second
    return gap


def debiased_squared_gap(favourable: npt.ArrayLike, rows: npt.ArrayLike) -> Floats:
    """Squared differences of rates, less the sampling variances of both; NaN where a cell has fewer than two rows.

    Without bias if the decisions in a cell are independent draws of one rate.
    """
    rate, n = rates_of(favourable, rows), np.asarray(rows, dtype=np.float64)
    spare = np.where(n > 1, n - 1, np.nan)
    first, second = _ends(rate * (1 - rate) / spare)
    squared: Floats = signed_gap(favourable, rows) ** 2 - first - second
    return squared


def pair_weights(rows: npt.ArrayLike) -> Floats:
    """Return what each cell's gap is worth in a mean over tasks: little where one of the groups has few rows.

    A gap between groups of n and m rows has a variance that falls with n m / (n + m) = r, to which tasks add their own; with
    r / (r + 10) a task of twice five rows weighs a fifth of a large one. A pair with less than a tenth of the weight of the
    pair with most is worth nothing: of a group of three people in all tasks together no gap can be told, and it would pass for the
    largest.

    Parameters
    ----------
    rows : array-like of shape (..., tasks, groups)
        Rows of each cell.

    Returns
    -------
    ndarray of shape (..., tasks, pairs)
    """
    n_first, n_second = (part.astype(np.float64) for part in _ends(np.asarray(rows)))
    total = n_first + n_second
    r = np.divide(n_first * n_second, total, out=np.zeros_like(total), where=total > 0)
    weights = r / (r + HALF_WEIGHT)
    of_pairs = weights.sum(-2, keepdims=True)
    return np.asarray(np.where(of_pairs >= LEAST_PART * of_pairs.max(-1, keepdims=True), weights, 0.0))


def mean_over_tasks(values: npt.ArrayLike, weights: npt.ArrayLike) -> Floats:
    """Average (events, tasks, pairs) over tasks, leaving out NaN; 0 where nothing is left."""
    values = np.asarray(values, dtype=np.float64)
    w = np.where(np.isfinite(values), weights, 0.0)
    total = (w * np.nan_to_num(values)).sum(-2)
    return np.asarray(np.divide(total, w.sum(-2), out=np.zeros_like(total), where=w.sum(-2) > 0))


def root_mean_squared_gap(favourable: npt.ArrayLike, rows: npt.ArrayLike, debiased: bool = True) -> float:
    """Root of the mean squared gap over tasks, of the event and the pair of groups where it is largest.

    Parameters
    ----------
    favourable, rows : array-like of int, shape (events, tasks, groups)
        Counts; the mean over tasks has the weights of :func:`pair_weights`.
    debiased : bool, default=True
        Whether the sampling variance is taken off before averaging; what is then below zero counts as zero.

    Returns
    -------
    float
        NaN if no pair of groups has a gap anywhere.
    """
    squared = debiased_squared_gap(favourable, rows) if debiased else signed_gap(favourable, rows) ** 2
    if not np.isfinite(squared).any():
        return float("nan")
    return float(np.sqrt(max(mean_over_tasks(squared, pair_weights(rows)).max(), 0.0)))


def permutation_floor(favourable: npt.ArrayLike, rows: npt.ArrayLike) -> Floats:
    """Return the expected absolute gap of each pair if its rows were divided between the two groups at random, exactly.

    Given how many rows and favourable decisions the pair has, the favourable ones of a group are hypergeometric.

    Examples
    --------
    >>> permutation_floor([1, 1], [2, 2]).round(3)
    array([0.333])
    """
    k, n = np.asarray(favourable, dtype=np.int64), np.asarray(rows, dtype=np.int64)
    (k_first, k_second), (n_first, n_second) = _ends(k), _ends(n)
    total, good = n_first + n_second, k_first + k_second
    out = np.full(k_first.shape, np.nan)
    for cell in np.ndindex(k_first.shape):
        first, second = int(n_first[cell]), int(n_second[cell])
        if first and second:
            low = max(0, int(good[cell]) - second)
            values = np.arange(low, min(first, int(good[cell])) + 1)
            mass = hypergeom.pmf(values, int(total[cell]), int(good[cell]), first)
            out[cell] = np.sum(mass * np.abs(values / first - (good[cell] - values) / second))
    return out


def gap_interval(favourable: npt.ArrayLike, rows: npt.ArrayLike, level: float = 0.95) -> tuple[Floats, Floats]:
    """Interval for each signed gap: Newcombe's, from the score intervals of both rates.

    Returns
    -------
    low, high : ndarray of shape (..., pairs)
        NaN where a cell is empty.
    """
    n = np.asarray(rows, dtype=np.float64)
    p = rates_of(favourable, rows)
    z = norm.ppf((1 + level) / 2)
    n = np.where(n > 0, n, np.nan)
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    (p1, p2), (l1, l2), (u1, u2) = _ends(p), _ends(centre - half), _ends(centre + half)
    low = p1 - p2 - np.sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2)
    high = p1 - p2 + np.sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2)
    return low, high


def rows_to_tell(gap: float, rate: float = 0.5, level: float = 0.95, power: float = 0.8) -> int:
    """Rows of each group that would tell a gap from none, four times in five.

    Examples
    --------
    >>> rows_to_tell(0.05, rate=0.35)
    1429
    """
    z = norm.ppf((1 + level) / 2) + norm.ppf(power)
    return int(np.ceil(2 * rate * (1 - rate) * (z / gap) ** 2))


def _ends(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Values of the first and of the second group of every pair."""
    pairs = np.array(pairs_of(values.shape[-1]), dtype=np.int64).reshape(-1, 2)
    return values[..., pairs[:, 0]], values[..., pairs[:, 1]]
