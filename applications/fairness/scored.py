"""Rows with what the models say of them, by task: the stuff that gaps and distances are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .gaps import count_by_group, pairs_of
from .notions import Notion
from .rule import decide, soften, thresholds

__all__ = ["Scored", "guessed", "moves_of", "shares_of", "weights_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
SMALLEST_WEIGHT = 0.02  # of a pair of groups: where one of them is next to nobody, no gap is worth any price


@dataclass(frozen=True)
class Scored:
    """Rows with what the models say of them.

    Parameters
    ----------
    notion : Notion
        What is compared.
    probability : ndarray of shape (rows,)
        Of the favourable outcome.
    membership : ndarray of shape (rows, groups)
        What the rule is told of each row's group: probabilities, or the group itself.
    group : ndarray of int, shape (rows,)
        Group that the row counts for.
    among : ndarray of shape (events, rows)
        How much of the row each event holds: 0 or 1 where that is known, probabilities where it is guessed.
    task : ndarray of int, shape (rows,)
        Task of each row.
    shares : ndarray of shape (tasks, events, groups)
        Share of each group among all rows of a task that are of the event.
    favourable : ndarray of bool, shape (rows,), or None
        The outcomes, where they are known.
    pooled : ndarray of shape (rows,), or None
        Probability of the favourable outcome by the pooled logistic regression.
    """

    notion: Notion
    probability: Floats
    membership: Floats
    group: Ints
    among: Floats
    task: Ints
    shares: Floats
    favourable: Bools | None = None
    pooled: Floats | None = None

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return self.membership.shape[1]

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(self.shares)

    def told(self) -> Scored:
        """Return the same rows with their group told to the rule."""
        return replace(self, membership=np.eye(self.n_groups)[self.group])

    def joined(self, others: Sequence[Scored], shares: Floats) -> Scored:
        """Return these rows and those of others, of the same tasks, with shares that all of them tell."""
        parts = [self, *others]
        return Scored(
            self.notion,
            np.concatenate([part.probability for part in parts]),
            np.concatenate([part.membership for part in parts]),
            np.concatenate([part.group for part in parts]),
            np.concatenate([part.among for part in parts], axis=1),
            np.concatenate([part.task for part in parts]),
            shares,
            pooled=np.concatenate([part.probability if part.pooled is None else part.pooled for part in parts]),
        )

    def mixed(self, part: float) -> Scored:
        """Return the same rows with a part of the pooled probability in theirs."""
        if not part or self.pooled is None:
            return self
        return replace(self, probability=(1 - part) * self.probability + part * self.pooled, pooled=None)

    def thresholds(self, values: Floats) -> Floats:
        """Threshold of each row with distances (events, pairs), or (tasks, events, pairs)."""
        shifts = (self.moves @ np.broadcast_to(values, self.weights.shape)[..., None])[..., 0]
        return thresholds(self.notion, shifts[self.task], self.membership)

    # Distances are found in hundreds of steps, in which decisions change and these do not.
    @cached_property
    def moves(self) -> Floats:
        """See :func:`moves_of`."""
        return moves_of(self.shares)

    @cached_property
    def weights(self) -> Floats:
        """See :func:`weights_of`."""
        return weights_of(self.shares)

    def decisions(self, values: Floats) -> Bools:
        """Decide each row."""
        return decide(self.probability, self.thresholds(values))

    def soft_rates(self, values: Floats, temperature: float) -> Floats:
        """Mean degree of favour in each cell, shape (tasks, events, groups); NaN where it is empty."""
        degree = soften(self.probability, self.thresholds(values), temperature)
        sums = self._sums(self.among * degree)
        held = self.held
        return np.divide(sums, held, out=np.full_like(sums, np.nan), where=held > 0)

    def effective_rows(self) -> Floats:
        """Rows in each cell, shape (tasks, events, groups); of rows that are partly there, as many as would be as uncertain."""
        held, squares = self.held, self._sums(self.among**2)
        return np.divide(held**2, squares, out=np.zeros_like(held), where=squares > 0)

    @cached_property
    def held(self) -> Floats:
        """Rows in each cell, shape (tasks, events, groups), those that are partly there by that part."""
        return self._sums(self.among)

    def hard_counts(self, decision: Bools) -> tuple[Ints, Ints]:
        """Favourable decisions and rows in each cell, shape (events, tasks, groups), of rows that are there or not."""
        return count_by_group(decision, self.among > 0, self.group, self.n_groups, self.task, self.n_tasks)

    def _sums(self, values: Floats) -> Floats:
        cell = self.task * self.n_groups + self.group
        size = self.n_tasks * self.n_groups
        sums = [np.bincount(cell, weights=row, minlength=size) for row in values]
        stacked = np.stack(sums).reshape(-1, self.n_tasks, self.n_groups).astype(np.float64)
        return np.asarray(stacked.transpose(1, 0, 2))


def moves_of(shares: Floats) -> Floats:
    """Return how a distance of one between the thresholds of two groups moves each of them, shape (..., groups, pairs).

    The rarer group's moves more, so that as many are refused for it as are favoured.
    """
    pairs = pairs_of(shares.shape[-1])
    out = np.zeros((*shares.shape, len(pairs)))
    for p, (g, h) in enumerate(pairs):
        part = shares[..., h] / (shares[..., g] + shares[..., h])
        out[..., g, p], out[..., h, p] = part, part - 1
    return out


def weights_of(shares: Floats) -> Floats:
    """Return the multiplier that a distance of one stands for, shape (..., pairs): it is small where a group is rare."""
    ends = [list(end) for end in zip(*pairs_of(shares.shape[-1]), strict=True)]
    first, second = (shares[..., end] for end in ends)
    return np.asarray(np.maximum(first * second / (first + second), SMALLEST_WEIGHT))


def guessed(
    notion: Notion, probability: Floats, pooled: Floats, membership: Floats, task: Ints, shares: Floats
) -> Scored:
    """Return rows whose group and outcome are not known, each once for every group, as far as it may be of it.

    What the rule is told is the guess; use :meth:`Scored.told` for a rule that will be told the group.
    """
    n, n_groups = membership.shape
    group = np.tile(np.arange(n_groups), n)
    p, m = np.repeat(probability, n_groups), np.repeat(membership, n_groups, axis=0)
    among = membership.ravel() * notion.chances(p)
    return Scored(notion, p, m, group, among, np.repeat(task, n_groups), shares, pooled=np.repeat(pooled, n_groups))


def shares_of(expected: Floats, known: Sequence[Scored], weight: float) -> Floats:
    """Shares of the groups in each task, from its rows and what was expected before, which counts as so many rows.

    Parameters
    ----------
    expected : ndarray of shape (tasks, events, groups)
        Expected shares.
    known : sequence of Scored
        Rows of the tasks, known or guessed.
    weight : float
        Rows that the expectation is worth.
    """
    held = sum((rows.held for rows in known), start=weight * expected)
    return np.asarray(held / held.sum(-1, keepdims=True))
