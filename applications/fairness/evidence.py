"""What is known of tasks: rows with or without groups and outcomes, put in the form that distances are computed from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .guess import GroupGuess, probabilities
from .notions import Notion
from .scored import Scored, guessed

__all__ = ["Evidence", "Part", "gather", "held_out_evidence", "rates_of_events"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
MOST_ROWS = 15000  # for distances
EXPECTED_ROWS = 10.0  # that the expected shares of groups are worth against rows of the task


@dataclass(frozen=True)
class Part:
    """Some rows of tasks.

    Parameters
    ----------
    probability : ndarray of shape (rows,)
        Of the favourable outcome.
    others : ndarray of shape (models, rows)
        What other models say, see :func:`~.scored.blend`.
    guess : ndarray of shape (rows, groups)
        Probabilities of the groups by the features.
    task : ndarray of int, shape (rows,)
        Task of each row.
    group : ndarray of int, shape (rows,), or None
        Groups, if known.
    favourable : ndarray of bool, shape (rows,), or None
        Outcomes, if known.
    """

    probability: Floats
    others: Floats
    guess: Floats
    task: Ints
    group: Ints | None = None
    favourable: Bools | None = None


@dataclass(frozen=True)
class Evidence:
    """What rows tell of their tasks.

    Parameters
    ----------
    shares : ndarray of shape (tasks, events, groups)
        Share of each group among the rows of an event.
    known, blind, batch : Scored or None
        Rows with outcomes that count for a group for certain; rows that count for each as far as they may be of it; rows without
        outcomes that count for a group for certain.
    """

    shares: Floats
    known: Scored | None
    blind: Scored | None
    batch: Scored | None

    def told(self) -> Evidence:
        """Return the same rows for a rule that is told the groups."""
        parts = (self.known, self.blind, self.batch)
        return Evidence(self.shares, *(None if rows is None else rows.told() for rows in parts))


def rates_of_events(notion: Notion, group: Ints, favourable: Bools, n_groups: int) -> Floats:
    """How common each event is in each group, shape (events, groups)."""
    n = np.maximum(np.bincount(group, minlength=n_groups), 1)
    held = [np.bincount(group[event], minlength=n_groups) for event in notion.among(favourable)]
    return np.maximum(np.stack(held), 0.5) / n


def gather(notion: Notion, rates: Floats, usual: Floats, parts: Sequence[Part], told: bool = False) -> Evidence:
    """Put together what rows tell of their tasks.

    Parameters
    ----------
    notion : Notion
        What is compared.
    rates : ndarray of shape (events, groups)
        See :func:`rates_of_events`.
    usual : ndarray of shape (tasks, groups)
        Shares of the groups if the tasks' features were like those of the training rows, see :meth:`GroupGuess.shares`.
    parts : sequence of Part
        The rows. Those of supports are known to `usual`; the others are counted, by what the rule is told of them, so that as many
        are favoured as before.
    told : bool, default=False
        Whether the rule is told the groups that are known.
    """
    expected = usual[:, None, :] * rates
    expected /= expected.sum(-1, keepdims=True)
    n_groups = usual.shape[1]
    known: list[Scored] = []
    blind: list[Scored] = []
    batch: list[Scored] = []
    held = EXPECTED_ROWS * expected
    for part in parts:
        member = part.guess if part.group is None else np.eye(n_groups)[part.group]
        outcome = part.favourable if notion.needs_labels else np.zeros(len(part.task), dtype=bool)
        if part.group is not None and outcome is not None:
            among = notion.among(outcome).astype(np.float64)
            rows = batch if part.favourable is None else known
            rows.append(
                Scored(notion, part.probability, part.guess, part.group, among, part.task, expected, others=part.others)
            )
        else:
            # A group that is known beside an outcome that is not: the row counts for its group, and for events by chances.
            blind.append(guessed(notion, part.probability, part.others, member, part.task, expected))
        if part.favourable is None:
            seen = member if told else part.guess
            held = held + guessed(notion, part.probability, None, seen, part.task, expected).held
    shares = held / held.sum(-1, keepdims=True)
    found = Evidence(shares, *(_joined(rows, shares) for rows in (known, blind, batch)))
    return found.told() if told else found


def _joined(rows: list[Scored], shares: Floats) -> Scored | None:
    return rows[0].joined(rows[1:], shares) if rows else None


def held_out_evidence(
    notion: Notion,
    guess: GroupGuess,
    rates: Floats,
    held_out: Mapping[int, Any],
    pooled: Floats,
    column: int,
    group: Ints,
    favourable: Bools,
    task: Ints,
    rng: np.random.Generator,
) -> tuple[Scored, Scored, Ints, Ints]:
    """Return rows of tasks that neither classifier nor guess was trained on: as they are, and as they look to who knows no groups.

    Each task stands there once for every support size that it was adapted from. Groups of as many of its other rows are known to
    the guess. Then the position of the rows among all training rows, and which
    training task each task that is returned stands for.

    Parameters
    ----------
    notion, guess, rates
        As for :func:`gather`.
    held_out : mapping of int to HeldOut
        What a stack says about training rows, by size of the support.
    pooled : ndarray of shape (rows,)
        What the pooled logistic regression says of all training rows, fitted without their tasks.
    column : int
        Position of the favourable class.
    group, favourable, task : ndarray of shape (rows,)
        Of all training rows.
    rng : numpy.random.Generator
        Draws the rows whose groups are known.
    """
    assert guess.held_out is not None
    sizes = sorted(held_out)
    while len(sizes) > 1 and sum(len(held_out[k].row) for k in sizes) > MOST_ROWS:
        sizes = sizes[1::2]
    asked, support, origin, n = [], [], [], 0
    for k in sizes:
        found = held_out[k]
        others = rng.permutation(np.setdiff1d(np.arange(len(task)), found.row))
        for t in np.unique(found.task):
            mine = found.task == t
            p = np.exp(found.prediction[mine])
            asked.append((found.row[mine], np.full(mine.sum(), n), p[:, column] / p.sum(1)))
            rows = others[task[others] == t][:k]
            support.append((rows, np.full(len(rows), n)))
            origin.append(t)
            n += 1
    row, episode, probability = (np.concatenate(column) for column in zip(*asked, strict=True))
    known, at = (np.concatenate(column) for column in zip(*support, strict=True))
    own = guess.adapt(guess.held_out[known], group[known], at, n)
    chances = [probabilities(guess.held_out[r] + own[e]) for r, e in ((known, at), (row, episode))]
    parts = [
        # What the classifier says of its own support is of no use here, only the groups are.
        Part(np.full(len(known), 0.5), pooled[None, known], chances[0], at, group[known], favourable[known]),
        Part(probability, pooled[None, row], chances[1], episode),
    ]
    found = gather(notion, rates, guess.shares(own), parts)
    assert found.blind is not None
    among = notion.among(favourable[row]).astype(np.float64)
    rows = Scored(
        notion, probability, chances[1], group[row], among, episode, found.shares, favourable[row], pooled[None, row]
    )
    return rows, found.blind, row, np.array(origin)
