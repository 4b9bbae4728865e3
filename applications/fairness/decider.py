"""One way to decide, with the group told or not: a classifier, the curve of its penalties, and what is known of tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fewshot.estimators import MAMLClassifier

from .curve import Curve, fit_curve
from .direct import DirectLearner
from .distances import Distances
from .evidence import Evidence, Part, gather, held_out_evidence
from .gaps import pairs_of
from .guess import GroupGuess
from .linear import cross_fitted
from .notions import Notion
from .rule import thresholds
from .scored import blend, guessed, shifts_of

__all__ = ["Decider", "Given", "Rule", "inputs_of"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Given(NamedTuple):
    """Rows of tasks that a decider is adapted to.

    Parameters
    ----------
    X : array-like of shape (rows, features)
        Inputs.
    guess : ndarray of shape (rows, groups)
        Probabilities of the groups by the features.
    task : ndarray of int, shape (rows,)
        Task of each row.
    group : ndarray of int, shape (rows,), or None
        Groups, if known.
    favourable : ndarray of bool, shape (rows,), or None
        Outcomes, if known.
    """

    X: Any
    guess: Floats
    task: Ints
    group: Ints | None
    favourable: Bools | None

    def membership(self) -> Floats:
        """Return what is known of each row's group: itself or probabilities."""
        return self.guess if self.group is None else np.eye(self.guess.shape[1])[self.group]


@dataclass(frozen=True)
class Rule:
    """How the rows of some tasks are decided.

    Parameters
    ----------
    shifts : ndarray of shape (tasks, events, groups)
        What the thresholds of the groups move by, see :func:`~.rule.thresholds`.
    blend : ndarray of shape (tasks, models)
        Weights of the models whose probabilities are decided by.
    shares : ndarray of shape (tasks, events, groups)
        Shares of the groups.
    """

    shifts: Floats
    blend: Floats
    shares: Floats


def inputs_of(told: bool, X: Any, membership: Floats) -> Any:
    """Return what a classifier takes: features, and the groups or their probabilities if it is told."""
    return np.column_stack([np.asarray(X, dtype=np.float64), membership]) if told else X


@dataclass(frozen=True)
class Decider:
    """A classifier and the distances between its thresholds.

    Parameters
    ----------
    notion : Notion
        The constraint.
    told : bool
        Whether the classifier and the rule are told the group.
    classifier : MAMLClassifier
        Fitted; its inputs are the features and, if told, an indicator for each group.
    column : int
        Position of the favourable class.
    rates : ndarray of shape (events, groups)
        How common each event is in each group.
    others : list
        Models of the same inputs that are heard beside the classifier: a pooled logistic regression of the favourable outcome, and
        regressions of the decisions themselves at some distances.
    curve : Curve
        What was learned on held-out tasks.
    usual : ndarray of shape (tasks, groups)
        Expected shares of the groups, of one task that nothing is known of unless adapted.
    evidence : Evidence or None
        Rows of the tasks adapted to.
    levels : ndarray of int, shape (tasks,)
        1 for tasks with at least as many rows beside the support as in it.
    """

    notion: Notion
    told: bool
    classifier: MAMLClassifier
    column: int
    rates: Floats
    others: list[Any]
    curve: Curve
    usual: Floats
    evidence: Evidence | None = None
    levels: Ints | None = None

    @classmethod
    def fit(
        cls,
        notion: Notion,
        classifier: MAMLClassifier,
        column: int,
        guess: GroupGuess,
        rates: Floats,
        x: Floats,
        rows: tuple[Ints, Bools, Ints],
        told: bool,
        rng: np.random.Generator,
    ) -> Decider:
        """Learn distances on what a fitted classifier said of tasks that it was not trained on.

        Parameters
        ----------
        notion, classifier, column, rates, told
            As for the class.
        guess : GroupGuess
            Guesses groups.
        x : ndarray of shape (rows, inputs)
            Inputs of the classifier.
        rows : tuple of (group, favourable, task)
            Of all training rows.
        rng : numpy.random.Generator
            Draws the rows whose groups are known.
        """
        group, favourable, task = rows
        model, pooled = cross_fitted(x, favourable.astype(np.int64), task)
        known, blind, row, origin = held_out_evidence(
            notion, guess, rates, classifier._held_out, pooled, column, group, favourable, task, rng
        )
        if told and notion.needs_labels:
            # Who is told the group usually knows it of the task's other rows too, and only their outcomes are guessed. What such
            # guesses of a gap are worth says nothing of rows whose group is guessed as well; these are then passed over.
            certain = np.eye(guess.n_groups)[known.group]
            blind = guessed(notion, known.probability, known.others, certain, known.task, known.shares)
        learner = DirectLearner(notion, x, group, task, favourable, guess.n_groups, int(rng.integers(2**31)))

        def learn(values: Floats) -> tuple[Any, Floats]:
            found, held_out = learner.fit(values)
            return found, held_out[row]

        # Where the group is told there is nothing to guess, and what decides is the probability and a constant.
        curve, learned = (
            fit_curve(known.told(), blind.told(), origin) if told else fit_curve(known, blind, origin, learn)
        )
        usual = guess.shares(np.zeros((1, guess.n_groups)))
        return cls(notion, told, classifier, column, rates, [model, *learned], curve, usual)

    @property
    def _needs_groups(self) -> bool:
        return self.told and self.notion.needs_labels

    def reached(self, choose: Any) -> list[tuple[str, float, float, float]]:
        """Return what is given beside the support, errors, gap and penalty on held-out tasks.

        Parameters
        ----------
        choose : callable
            From the curve and a level to :class:`Distances`.
        """
        found = [choose(self.curve, level) for level in (0, 1)]
        return [
            (given, float(m.errors[level]), float(m.gaps[level]), m.penalty)
            for level, (given, m) in enumerate(zip(("", ", other rows of the task given"), found, strict=True))
        ]

    def unconstrained(self) -> tuple[float, float]:
        """Return errors and gap without a penalty."""
        free = self.curve.points[0]
        return float(free.errors[0]), float(free.gaps[0])

    def unjudged(self, titles: list[str]) -> tuple[str, ...]:
        """Return the pairs of groups, and the rows of which they are, that had too few rows to learn from."""
        pairs = pairs_of(len(titles))
        return tuple(
            f"{titles[pairs[p][0]]} - {titles[pairs[p][1]]}" + ("" if event == "all" else f" ({event})")
            for e, event in enumerate(self.notion.events)
            for p in np.flatnonzero(~self.curve.judged[e])
        )

    def adapt_classifier(self, support: Given, y: Any, labels: Any, **columns: Any) -> MAMLClassifier:
        """Adapt the classifier to supports.

        Parameters
        ----------
        support : Given
            The support rows.
        y : array-like
            Their outcomes.
        labels : ndarray or None
            Labels of the tasks, if there are several.
        **columns
            More for the classifier.
        """
        tasks = None if labels is None else labels[support.task]
        return self.classifier.adapt(inputs_of(self.told, support.X, support.membership()), y, tasks=tasks, **columns)

    def adapt(self, classifier: MAMLClassifier, given: Sequence[Given], usual: Floats, labels: Any) -> Decider:
        """Take up an adapted classifier and rows of its tasks.

        Parameters
        ----------
        classifier : MAMLClassifier
            Adapted.
        given : sequence of Given
            The support, then other rows.
        usual : ndarray of shape (tasks, groups)
            Expected shares of the groups.
        labels : ndarray or None
            Labels of the tasks, if there are several.
        """
        adapted, n_tasks = replace(self, classifier=classifier), len(usual)
        few = np.bincount(given[0].task, minlength=n_tasks)
        more = np.zeros(n_tasks, dtype=np.int64)
        parts = []
        for i, part in enumerate(given):
            if self._needs_groups and part.group is None:
                continue
            if i > 0:
                more += np.bincount(part.task, minlength=n_tasks)
            tasks = None if labels is None else labels[part.task]
            scores = adapted.scores(part.X, part.membership(), tasks)
            parts.append(Part(scores[0], scores[1:], part.guess, part.task, part.group, part.favourable))
        evidence = gather(self.notion, self.rates, usual, parts, self.told)
        levels = (more >= few).astype(np.int64)
        return replace(adapted, usual=usual, evidence=evidence, levels=levels)

    def rule(self, choose: Any) -> Rule:
        """Return how the tasks' rows are decided.

        Parameters
        ----------
        choose : callable
            From the curve and a level to :class:`Distances`.
        """
        if self.evidence is None or self.levels is None:
            usual: Distances = choose(self.curve, 0)
            shares = gather(self.notion, self.rates, self.usual, []).shares
            return Rule(shifts_of(usual.values, shares), usual.blend[None], shares)
        first, n_tasks, found = self.curve.points[0], len(self.levels), self.evidence
        values, weights = np.zeros((n_tasks, *first.values.shape)), np.zeros((n_tasks, len(first.blend)))
        for level in np.unique(self.levels):
            mine, chosen = self.levels == level, choose(self.curve, level)
            # Beside many rows, what a few with their outcomes say of the gap was found to add noise.
            sources = (None if level else found.known, found.blind, found.batch)
            values[mine], weights[mine] = chosen.for_tasks(*sources, n_tasks)[mine], chosen.blend
        return Rule(shifts_of(values, found.shares), weights, found.shares)

    def scores(self, X: Any, membership: Floats, tasks: Any) -> Floats:
        """Return what all models say of rows, shape (models, rows)."""
        inputs = inputs_of(self.told, X, membership)
        probability = self.classifier.predict_proba(inputs, tasks=tasks)[:, self.column]
        x = np.asarray(inputs, dtype=np.float64)
        pooled, *learned = self.others
        return np.stack([probability, pooled.predict_proba(x)[:, 1], *(model.predict(x) for model in learned)])

    def decide(self, scores: Floats, membership: Floats, task: Ints, rule: Rule) -> tuple[Floats, Floats]:
        """Return probabilities of the favourable outcome and thresholds of rows."""
        trained = self.curve.points[0].trained
        probability = blend(self.notion, scores, rule.blend[task], trained, rule.shares, membership, task)
        return probability, thresholds(self.notion, rule.shifts[task], membership)
