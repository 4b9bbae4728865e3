r"""Multipliers of the decision rule, by dual ascent on the gap that is left: over held-out tasks, and for a task of its own.

The constrained problem is: few errors, and no pair of groups with rates further apart than the bound. Given the multipliers, the
best rule is known (:mod:`.rule`); so there is nothing to train but them. They start at zero and follow the violation,

.. math:: \mu_{eg} \leftarrow \mu_{eg} + \rho \, v_{e,gh} / P(e, g), \qquad
          \mu_{eh} \leftarrow \mu_{eh} - \rho \, v_{e,gh} / P(e, h),

with v the part of a gap beyond the bound. On the way decisions are soft, with a temperature that falls; whether the bound is met is
judged by hard decisions on tasks that the model was not trained on, by the root of the debiased squared gap.

A new task has its own gap, and its rows tell something about it. As tasks vary by v around the mean gap m, and the rows' gap
:math:`\hat g` has a sampling variance s, the gap is expected at :math:`w \hat g + (1 - w) m`, with :math:`w = v / (v + s)`, give
or take :math:`v (1 - w)`. The task's multipliers are those at which this expectation is small enough. A group that is missing
among the rows has w = 0, and what was learned on other tasks stands.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .gaps import (
    count_by_group,
    debiased_squared_gap,
    mean_over_tasks,
    pair_weights,
    pairs_of,
    root_mean_squared_gap,
    signed_gap,
)
from .notions import Notion
from .rule import decide, soften, thresholds

__all__ = ["Multipliers", "Scored", "ascend", "fit_multipliers", "judge"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
RATE = 0.1
SMALLEST_SHARE = 0.1  # of a group among the rows of an event, as far as steps grow with its inverse
STEPS = 200
HOTTEST, COLDEST, COOLING = 0.1, 0.01, 0.97
FARTHEST = 3.0  # of a multiplier
DECAY = 0.002  # of multipliers in a step: where two events pull one threshold both ways, theirs do not run away
TIGHTER = (1.0, 0.85, 0.7, 0.55, 0.4, 0.25, 0.1, 0.0)  # shares of the bound that the mean gap may keep
LEAST_SPREAD = 1e-4  # tasks differ by .01 at least
DIFFERENCE = 0.02  # for the slope of the gap


@dataclass(frozen=True)
class Scored:
    """Rows with what the models say of them.

    Parameters
    ----------
    probability : ndarray of shape (rows,)
        Of the favourable outcome.
    membership : ndarray of shape (rows, groups)
        What the rule is told of each row's group: probabilities, or the group itself.
    group : ndarray of int, shape (rows,)
        The true group.
    among : ndarray of bool, shape (events, rows)
        Which rows each event holds.
    task : ndarray of int, shape (rows,)
        Task of each row.
    n_tasks : int
        Number of tasks.
    favourable : ndarray of bool, shape (rows,), or None
        The outcomes, where they are known.
    """

    probability: Floats
    membership: Floats
    group: Ints
    among: npt.NDArray[np.bool_]
    task: Ints
    n_tasks: int
    favourable: npt.NDArray[np.bool_] | None = None

    def told(self) -> Scored:
        """Return the same rows with their group told to the rule."""
        return replace(self, membership=np.eye(self.n_groups)[self.group])

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return self.membership.shape[1]

    def counts(self) -> Ints:
        """Rows in each cell, shape (events, tasks, groups)."""
        return count_by_group(np.zeros(len(self.group), dtype=bool), *self._cells())[1]

    def soft_rates(self, degree: Floats) -> Floats:
        """Mean degree of favour in each cell, shape (events, tasks, groups); NaN where it is empty."""
        cell = self.task * self.n_groups + self.group
        size = self.n_tasks * self.n_groups
        with np.errstate(invalid="ignore"):
            rates = [
                np.bincount(cell[e], weights=degree[e], minlength=size) / np.bincount(cell[e], minlength=size)
                for e in self.among
            ]
        return np.stack(rates).reshape(len(self.among), self.n_tasks, self.n_groups)

    def hard_counts(self, decision: npt.NDArray[np.bool_]) -> tuple[Ints, Ints]:
        """Favourable decisions and rows in each cell."""
        return count_by_group(decision, *self._cells())

    def _cells(self) -> tuple[Any, ...]:
        return self.among, self.group, self.n_groups, self.task, self.n_tasks


@dataclass(frozen=True)
class Multipliers:
    """What was learned over tasks.

    Parameters
    ----------
    notion : Notion
        The constraint.
    bound : float
        The largest gap allowed.
    values : ndarray of shape (events, groups)
        The multipliers.
    gap : float
        Root of the debiased squared gap over held-out tasks, and no less than the mean gap.
    error : float
        Share of wrong decisions there.
    feasible : bool
        Whether the gap is within the bound.
    mean, spread : ndarray of shape (events, pairs)
        Mean over tasks of the signed gap, and the variance of tasks around it.
    slope : ndarray of shape (events, pairs, events, groups)
        Derivative of the mean gap by the multipliers.
    rates, shares : ndarray of shape (events, groups)
        Rate of favourable decisions of each group, and its share of the rows.
    """

    notion: Notion
    bound: float
    values: Floats
    gap: float
    error: float
    feasible: bool
    mean: Floats
    spread: Floats
    slope: Floats
    rates: Floats
    shares: Floats

    def for_tasks(self, rows: Scored) -> Floats:
        """Return multipliers of new tasks, shape (tasks, events, groups), from rows whose group is known."""
        n = rows.counts().transpose(1, 0, 2).astype(np.float64)  # (tasks, events, groups)
        with np.errstate(divide="ignore"):
            each = np.maximum(self.rates * (1 - self.rates), 1e-3) / n
        pairs = np.array(pairs_of(rows.n_groups)).reshape(-1, 2)
        sampling = each[..., pairs[:, 0]] + each[..., pairs[:, 1]]
        weight = np.where(np.isfinite(sampling), self.spread / (self.spread + sampling), 0.0)
        left = self.spread * (1 - weight)
        kept = np.sqrt(np.maximum(self.bound**2 - left, 0.0))

        def expected(values: Floats, temperature: float) -> Floats:
            row_values = values[rows.task]
            threshold = thresholds(self.notion, row_values, rows.membership)
            own = rows.soft_rates(soften(rows.probability, threshold, temperature)).transpose(1, 0, 2)
            seen = own[..., pairs[:, 0]] - own[..., pairs[:, 1]]
            usual = self.mean + np.einsum("epfg,tfg->tep", self.slope, values - self.values)
            return np.where(weight > 0, weight * np.nan_to_num(seen), 0.0) + (1 - weight) * usual

        start = np.zeros((rows.n_tasks, *self.values.shape))
        found = ascend(expected, start, kept, self.shares)
        told = np.asarray((weight > 0).any((1, 2)))
        return np.where(told[:, None, None], found, self.values)


def ascend(gaps: Any, start: Floats, bound: Floats | float, shares: Floats) -> Floats:
    """Move multipliers until no gap is beyond the bound.

    Parameters
    ----------
    gaps : callable
        From multipliers (..., events, groups) and a temperature to signed gaps (..., events, pairs), NaN where there is none.
    start : ndarray of shape (..., events, groups)
        Where to start.
    bound : float or ndarray of shape (..., events, pairs)
        Allowed size of each gap.
    shares : ndarray of shape (events, groups)
        Share of each group among the rows of an event.
    """
    values, temperature = start.copy(), HOTTEST
    inverse = 1 / np.maximum(shares, SMALLEST_SHARE)
    pairs = pairs_of(start.shape[-1])
    for _ in range(STEPS):
        found = np.nan_to_num(gaps(values, temperature))
        beyond = np.sign(found) * np.maximum(np.abs(found) - bound, 0.0)
        cold = temperature <= COLDEST
        if cold and np.abs(beyond).max(initial=0.0) < 1e-3:
            break
        step = np.zeros_like(values)
        for p, (g, h) in enumerate(pairs):
            step[..., g] += beyond[..., p] * inverse[:, g]
            step[..., h] -= beyond[..., p] * inverse[:, h]
        values = np.clip((1 - DECAY) * values + RATE * step, -FARTHEST, FARTHEST)
        temperature = max(temperature * COOLING, COLDEST)
    return values


def fit_multipliers(notion: Notion, bound: float, rows: Scored) -> Multipliers:
    """Learn multipliers on rows of held-out tasks.

    Parameters
    ----------
    notion : Notion
        The constraint.
    bound : float
        The largest gap allowed.
    rows : Scored
        Rows with outcomes, of tasks that the models were not trained on.
    """
    weights = pair_weights(rows.counts())
    shares = _shares(rows)
    best: Multipliers | None = None
    values = np.zeros_like(shares)
    for share in TIGHTER:
        values = ascend(lambda at, t: _mean_gaps(notion, at, rows, t, weights), values, share * bound, shares)
        found = judge(notion, bound, values, rows)
        if best is None or found.gap < best.gap:
            best = found
        if found.feasible:
            break
    assert best is not None
    return replace(best, slope=_slope(notion, best.values, rows))


def _mean_gaps(notion: Notion, values: Floats, rows: Scored, temperature: float, weights: Floats) -> Floats:
    """Mean over tasks of the signed gaps under soft decisions, shape (events, pairs)."""
    rates = rows.soft_rates(soften(rows.probability, thresholds(notion, values, rows.membership), temperature))
    return mean_over_tasks(signed_gap(rates, np.where(np.isfinite(rates), 1.0, 0.0)), weights)


def _shares(rows: Scored) -> Floats:
    """Share of each group among the rows of an event."""
    counts = rows.counts().sum(1).astype(np.float64)
    return np.asarray(counts / np.maximum(counts.sum(1, keepdims=True), 1))


def judge(notion: Notion, bound: float, values: Floats, rows: Scored) -> Multipliers:
    """Judge the hard decisions that multipliers make; their slope is left at zero.

    Parameters
    ----------
    notion : Notion
        The constraint.
    bound : float
        The largest gap allowed.
    values : ndarray of shape (events, groups)
        The multipliers.
    rows : Scored
        Rows with outcomes.
    """
    assert rows.favourable is not None
    decision = decide(rows.probability, thresholds(notion, values, rows.membership))
    k, n = rows.hard_counts(decision)
    weights = pair_weights(n)
    mean = mean_over_tasks(signed_gap(k, n), weights)
    # With few tasks the debiased square can come out below that of the mean, which cannot be so.
    gap = max(root_mean_squared_gap(k, n), float(np.abs(mean).max()))
    spread = np.maximum(mean_over_tasks(debiased_squared_gap(k, n), weights) - mean**2, LEAST_SPREAD)
    total = np.maximum(n.sum(1), 1)
    return Multipliers(
        notion,
        bound,
        values,
        float(gap),
        float((decision != rows.favourable).mean()),
        bool(gap <= bound),
        mean,
        spread,
        np.zeros((*mean.shape, *values.shape)),
        k.sum(1) / total,
        _shares(rows),
    )


def _slope(notion: Notion, values: Floats, rows: Scored) -> Floats:
    """Differentiate the mean gap by the multipliers, by central differences of soft decisions."""
    weights = pair_weights(rows.counts())
    slope = np.zeros((values.shape[0], len(pairs_of(values.shape[1])), *values.shape))
    for at in np.ndindex(values.shape):
        step = np.zeros_like(values)
        step[at] = DIFFERENCE
        ends = [_mean_gaps(notion, values + sign * step, rows, COLDEST, weights) for sign in (1, -1)]
        slope[..., at[0], at[1]] = (ends[0] - ends[1]) / (2 * DIFFERENCE)
    return slope
