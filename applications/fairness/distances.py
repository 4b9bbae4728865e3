r"""Distances between the thresholds of two groups: those of tasks of which nothing is known, and of a task with rows of its own.

Per task the problem is: few errors and a small gap, :math:`\text{errors} + \kappa\, \text{gap}^2`, whatever the penalty
:math:`\kappa`. The best rule is known given its multipliers (:mod:`.rule`), so there is nothing to train but them, and the best
ones are :math:`\kappa` times the gap that they leave. A multiplier :math:`\lambda_{e,gh}` moves the threshold of group g by
:math:`\lambda_{e,gh} / P_t(g \mid e)` and that of h the other way, P being shares in the task. Written as the distance d that this
puts between the two thresholds, it is

.. math:: d_{e,gh} = \frac{\kappa}{w_t} \, E[\text{gap}_{e,gh}(d)], \qquad w_t = \frac{P_t(g) P_t(h)}{P_t(g) + P_t(h)}.

It is distances that carry over between tasks: one that closes a gap where both groups are large closes it where one is rare, and
costs less there. Multipliers do not; those of a task with even shares would put the thresholds of a rare group out of reach.

They are found by ascent: up with the gap, back by their own size. On the way decisions are soft, with a temperature that falls.

What is known of a task's gap is a mean and a variance v around it. Across tasks v is how they differ. A new task's rows say more.
Rows whose group is guessed have a guessed gap, which leaves as variance how much gaps differed from such guesses on held-out tasks.
Support rows whose group is known have a gap of their own, with a sampling variance s, and weigh v / (v + s). A group that is
missing among them tells nothing. Where rows are given that decisions are made for, their own gap, known or guessed, is what should
be small, and they count for more the more they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .gaps import n_groups_of, pairs_of, signed_gap
from .scored import Scored

__all__ = ["COLDEST", "LEAST_SPREAD", "Distances", "Gaps", "ascend", "soft_gaps"]

Floats = npt.NDArray[np.float64]
RATE = 0.4
STEPS = 200
HOTTEST, COLDEST, COOLING = 0.1, 0.01, 0.95
SETTLED = 3e-4  # change in a step
FARTHEST = 2.0  # no threshold is out of reach of it, nor a decision learned
LEAST_SPREAD = 1e-4  # tasks differ by .01 at least

Gaps = Callable[[Floats, float], Floats]


@dataclass(frozen=True)
class Distances:
    """What was learned over held-out tasks at one penalty.

    Parameters
    ----------
    penalty : float
        Weight of the squared gap.
    blend, trained : ndarray of shape (models,), (models - 2, events, pairs)
        Weights of the models whose probabilities are decided by, see :func:`~.scored.blend`.
    values : ndarray of shape (events, pairs)
        The distances in a task of which nothing is known.
    mean, spread : ndarray of shape (events, pairs)
        Mean over tasks of the signed gap that they leave, and the variance of tasks around it.
    slope : ndarray of shape (events, pairs, events, pairs)
        Derivative of the mean gap by the distances.
    bias, doubt, guessed : ndarray of shape (events, pairs)
        Of the gap as it is guessed from rows whose group is not known: the mean over tasks of the gap less the guess, and its
        variance; the variance of the guesses.
    rates : ndarray of shape (events, groups)
        Rate of favourable decisions of each group.
    gaps, errors : ndarray of shape (2,)
        Root of the debiased mean squared gap, of the event and pair where it is largest, and share of wrong decisions on held-out
        tasks, each by what the others say: with the same distances for all, and with each task's own from rows whose groups and
        outcomes are not known.
    """

    penalty: float
    blend: Floats
    trained: Floats
    values: Floats
    mean: Floats
    spread: Floats
    slope: Floats
    bias: Floats
    doubt: Floats
    guessed: Floats
    rates: Floats
    gaps: Floats
    errors: Floats

    def for_tasks(self, known: Scored | None, blind: Scored | None, batch: Scored | None, n_tasks: int) -> Floats:
        """Return the distances of new tasks, shape (tasks, events, pairs).

        Parameters
        ----------
        known : Scored or None
            Support rows whose group is known, and whose outcome is if the notion needs it.
        blind : Scored or None
            Rows whose group is guessed, see :func:`~.scored.guessed`.
        batch : Scored or None
            Rows that decisions are made for, whose group is known, and whose outcome is if the notion needs it.
        n_tasks : int
            Number of tasks.
        """
        shape = (n_tasks, *self.spread.shape)
        usually = np.broadcast_to(self.values, shape)
        known, blind, batch = (
            None if rows is None else rows.blended(self.blend, self.trained) for rows in (known, blind, batch)
        )
        given = [rows for rows in (known, blind, batch) if rows is not None]
        if not given:
            return usually.copy()
        # The gap of the rows that decisions are made for is what is wanted small, not that of a population they were drawn from:
        # with many of them it is all that counts, so that precisions grow with the square of the number of rows.
        left = np.broadcast_to(self.spread, shape)
        sources: list[tuple[Scored, Floats, Floats | float]] = []
        if blind is not None:
            precision, rarest = self._precision(blind)
            trust = precision * rarest * self.guessed
            follow = trust / (1 + trust)
            left = (1 - follow) * left + follow * self.doubt
            sources.append((blind, follow, self.bias))
        for rows in (known, batch):
            if rows is not None:
                precision, rarest = self._precision(rows)
                precision = precision * rarest if rows is batch else precision
                sources.append((rows, precision / (1 / left + precision), 0.0))
                left = 1 / (1 / left + precision)

        def expected(values: Floats, temperature: float) -> Floats:
            out = self.mean + np.einsum("epfq,tfq->tep", self.slope, values - self.values)
            for rows, weight, bias in sources:
                out = (1 - weight) * out + weight * np.nan_to_num(soft_gaps(rows, values, temperature) + bias)
            return np.asarray(out)

        found = ascend(expected, usually, self.penalty, given[0].weights)
        told = np.any([weight > 0 for _, weight, _ in sources], axis=(0, 2, 3))
        return np.where(told[:, None, None], found, usually)

    def _precision(self, rows: Scored) -> tuple[Floats, Floats]:
        """Return one over the sampling variances of the gaps of rows, shape (tasks, events, pairs), and rows of the rarer group."""
        n = rows.effective_rows()
        first, second = (n[..., list(ends)] for ends in zip(*pairs_of(rows.n_groups), strict=True))
        with np.errstate(divide="ignore"):
            each = np.maximum(self.rates * (1 - self.rates), 1e-3) / n
        return 1 / (each @ np.abs(incidence(rows.n_groups)).T), np.minimum(first, second)


def incidence(n_groups: int) -> Floats:
    """Return which groups a pair compares, shape (pairs, groups): 1 for the first, -1 for the second."""
    out = np.zeros((len(pairs_of(n_groups)), n_groups))
    for p, (g, h) in enumerate(pairs_of(n_groups)):
        out[p, [g, h]] = 1, -1
    return out


def soft_gaps(rows: Scored, values: Floats, temperature: float) -> Floats:
    """Signed gaps of each task under soft decisions, shape (tasks, events, pairs)."""
    rates = rows.soft_rates(values, temperature)
    return signed_gap(rates, np.where(np.isfinite(rates), 1.0, 0.0))


def ascend(gaps: Gaps, start: Floats, penalty: float, weights: Floats) -> Floats:
    r"""Find distances d with :math:`w d = \kappa\, \text{gap}(d)`.

    Parameters
    ----------
    gaps : callable
        From distances (..., events, pairs) and a temperature to signed gaps of the same shape, NaN where there is none.
    start : ndarray of shape (..., events, pairs)
        Where to start.
    penalty : float
        The penalty.
    weights : ndarray of shape (..., events, pairs)
        The weights w, see :func:`~.scored.weights_of`.
    """
    values, temperature = np.zeros_like(start) + start, HOTTEST
    if penalty == 0:
        return np.zeros_like(values)
    # Every pair that a group is in moves its threshold: the more groups, the smaller the steps that do not overshoot.
    slower = 4 / n_groups_of(start.shape[-1]) ** 2
    rate, steps = RATE * slower, round(STEPS / slower)
    pull = 1 + rate * weights / penalty
    moving = np.ones((*values.shape[:-2], 1, 1), dtype=bool)
    for _ in range(steps):
        found = np.nan_to_num(gaps(values, temperature))
        # The pull back is taken where the step ends: for small penalties it is steep.
        moved = np.clip((values + rate * found) / pull, -FARTHEST, FARTHEST)
        step = np.abs(moved - values).max((-2, -1), keepdims=True)
        values = np.where(moving, moved, values)
        if temperature <= COLDEST:
            # Each task stops by itself, so that its result is the same whatever tasks it is adapted with.
            moving = moving & (step >= SETTLED)
            if not moving.any():
                break
        temperature = max(temperature * COOLING, COLDEST)
    return values
