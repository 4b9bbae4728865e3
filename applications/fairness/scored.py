"""Rows with what the models say of them, by task: the stuff that gaps and distances are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .gaps import count_by_group, pairs_of
from .notions import Notion
from .rule import decide, line, soften, thresholds

__all__ = ["Scored", "blend", "guessed", "moves_of", "shifts_of", "weights_of"]

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
    others : ndarray of shape (models, rows)
        What other models say of the rows, see :func:`blend`.
    """

    notion: Notion
    probability: Floats
    membership: Floats
    group: Ints
    among: Floats
    task: Ints
    shares: Floats
    favourable: Bools | None = None
    others: Floats | None = None

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

    def of_tasks(self, some: Bools) -> Scored:
        """Return the rows of some tasks, which are then numbered anew."""
        mine = some[self.task]
        return replace(
            self,
            probability=self.probability[mine],
            membership=self.membership[mine],
            group=self.group[mine],
            among=self.among[:, mine],
            task=(np.cumsum(some) - 1)[self.task[mine]],
            shares=self.shares[some],
            favourable=None if self.favourable is None else self.favourable[mine],
            others=None if self.others is None else self.others[:, mine],
        )

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
            others=None
            if self.others is None
            else np.concatenate([part.others for part in parts if part.others is not None], axis=1),
        )

    def blended(self, weights: Floats, trained: Floats) -> Scored:
        """Return the same rows with probabilities that are blended, see :func:`blend`."""
        if self.others is None:
            return self
        scores = np.concatenate([self.probability[None], self.others])
        found = blend(self.notion, scores, weights, trained, self.shares, self.membership, self.task)
        return replace(self, probability=found, others=None)

    def heard(self, score: Floats) -> Scored:
        """Return the same rows with what one more model says of them."""
        others = [] if self.others is None else [self.others]
        return replace(self, others=np.concatenate([*others, score[None]]))

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


def shifts_of(values: Floats, shares: Floats) -> Floats:
    """Turn distances (..., events, pairs) into what the thresholds of groups move by, (tasks, events, groups)."""
    return np.asarray((moves_of(shares) @ values[..., None])[..., 0])


def blend(
    notion: Notion, scores: Floats, weights: Floats, trained: Floats, shares: Floats, membership: Floats, task: Ints
) -> Floats:
    """Put together what several models say of rows.

    Parameters
    ----------
    notion : Notion
        What is compared.
    scores : ndarray of shape (models, rows)
        Probabilities by the classifier and by the pooled logistic regression; then, of models that learned decisions themselves,
        what is above zero where they favour.
    weights : ndarray of shape (models,) or (rows, models)
        Weight of each model.
    trained : ndarray of shape (models - 2, events, pairs)
        Distances at which decisions were learned. Elsewhere the rule moves on from there.
    shares : ndarray of shape (tasks, events, groups)
        Shares of the groups.
    membership : ndarray of shape (rows, groups)
        What is known of each row's group.
    task : ndarray of int, shape (rows,)
        Task of each row.

    Returns
    -------
    ndarray of shape (rows,)
        Probabilities; where decisions were learned they can lie outside of 0 and 1.
    """
    weights = weights if weights.ndim == 1 else weights.T
    out = weights[0] * scores[0] + (weights[1] * scores[1] if len(weights) > 1 else 0.0)
    for weight, score, values in zip(weights[2:], scores[2:], trained, strict=True):
        if np.any(weight):
            threshold, slope = line(notion, shifts_of(values, shares)[task], membership)
            out = out + weight * (threshold + score / slope)
    return np.asarray(out)


def weights_of(shares: Floats) -> Floats:
    """Return the multiplier that a distance of one stands for, shape (..., pairs): it is small where a group is rare."""
    ends = [list(end) for end in zip(*pairs_of(shares.shape[-1]), strict=True)]
    first, second = (shares[..., end] for end in ends)
    return np.asarray(np.maximum(first * second / (first + second), SMALLEST_WEIGHT))


def guessed(
    notion: Notion, probability: Floats, others: Floats | None, membership: Floats, task: Ints, shares: Floats
) -> Scored:
    """Return rows whose group and outcome are not known, each once for every group, as far as it may be of it.

    What the rule is told is the guess; use :meth:`Scored.told` for a rule that will be told the group.
    """
    n, n_groups = membership.shape
    group = np.tile(np.arange(n_groups), n)
    p, m = np.repeat(probability, n_groups), np.repeat(membership, n_groups, axis=0)
    among = membership.ravel() * notion.chances(p)
    heard = None if others is None else np.repeat(others, n_groups, axis=1)
    return Scored(notion, p, m, group, among, np.repeat(task, n_groups), shares, others=heard)
