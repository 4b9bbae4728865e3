r"""Bounding each group's loss: rows are weighed by how far their group is beyond the bound.

The problem :math:`\min L` subject to :math:`L_g \le b` for every group g has the Lagrangian
:math:`\sum_g (p_g + \lambda_g) L_g`, p being shares of the rows: a weighted fit. The multipliers ascend by what a group's loss is
beyond the bound on held-out tasks, and the classifier is fitted again with weights :math:`1 + \lambda_g / p_g`. Of the fits the one
with the least loss within the bound is kept, or else the one whose worst group is best off.

References
----------
Agarwal, Dudik, Wu (2019), Fair regression: quantitative definitions and reduction-based algorithms, ICML, section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot.estimators import MAMLClassifier

from .decider import Given, inputs_of

__all__ = ["LossDecider"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
ROUNDS = 4  # of fitting again
RATE = 4.0  # a group .1 beyond the bound gains .4 of all rows' weight in a round


@dataclass(frozen=True)
class LossDecider:
    """A classifier fitted with weights of groups; what :class:`~.decider.Decider` is for gaps.

    Parameters
    ----------
    told : bool
        Whether the classifier is told the group.
    column : int
        Position of the favourable class.
    classifier : MAMLClassifier
        Fitted.
    weights : ndarray of shape (groups,)
        Weights of the groups' rows.
    losses, free : ndarray of shape (groups,)
        Mean cross-entropy of each group on held-out tasks, and that without weights.
    error, free_error : float
        Share of wrong decisions there, and that without weights.
    """

    told: bool
    column: int
    classifier: MAMLClassifier
    weights: Floats
    losses: Floats
    free: Floats
    error: float
    free_error: float

    @classmethod
    def fit(
        cls,
        first: MAMLClassifier,
        again: Callable[[Floats], MAMLClassifier],
        group: Ints,
        target: Ints,
        bound: float,
        told: bool,
        column: int,
    ) -> LossDecider:
        """Fit until every group is within the bound, or the rounds are over.

        Parameters
        ----------
        first : MAMLClassifier
            Fitted without weights of groups.
        again : callable
            From row weights to a fitted classifier.
        group, target : ndarray of int, shape (rows,)
            Group, and position of the class, of each training row.
        bound : float
            Largest loss of a group.
        told : bool
            Whether the classifier is told the group.
        column : int
            Position of the favourable class.
        """
        n_groups = int(group.max()) + 1
        shares = np.bincount(group, minlength=n_groups) / len(group)
        multipliers, weights, model = np.zeros(n_groups), np.ones(n_groups), first
        free, free_error = _held_out_losses(first, group, target, n_groups)
        best = found = cls(told, column, first, weights, free, free, free_error, free_error)
        for _ in range(ROUNDS if free.max() > bound else 0):
            multipliers = np.maximum(multipliers + RATE * (found.losses - bound), 0.0)
            weights = 1 + multipliers / shares
            weights = weights / (weights * shares).sum()
            model = again(weights[group])
            losses, error = _held_out_losses(model, group, target, n_groups)
            found = replace(best, classifier=model, weights=weights, losses=losses, error=error)
            best = min(
                best, found, key=lambda one: (max(float(one.losses.max()) - bound, 0.0), float(shares @ one.losses))
            )
        return best

    def reached(self, choose: Any) -> list[tuple[str, float, float, float]]:
        """Return what is given beside the support, errors, the largest loss, and NaN for the penalty that there is not."""
        return [("", self.error, float(self.losses.max()), np.nan)]

    def unconstrained(self) -> tuple[float, float]:
        """Return errors and the largest loss without weights."""
        return self.free_error, float(self.free.max())

    def unjudged(self, titles: list[str]) -> tuple[str, ...]:
        """Return no pairs: none are compared."""
        return ()

    def adapt_classifier(
        self, support: Given, y: Any, labels: Any, *, sample_weight: Any = None, **columns: Any
    ) -> Any:
        """Adapt the classifier to supports, whose rows have the weights of their groups if these are known."""
        weight = self.weights[support.group] if support.group is not None else None
        if sample_weight is not None:
            weight = np.asarray(sample_weight, dtype=np.float64) * (1.0 if weight is None else weight)
        tasks = None if labels is None else labels[support.task]
        inputs = inputs_of(self.told, support.X, support.membership())
        return self.classifier.adapt(inputs, y, tasks=tasks, sample_weight=weight, **columns)

    def adapt(self, classifier: MAMLClassifier, given: Sequence[Given], usual: Floats, labels: Any) -> LossDecider:
        """Take up an adapted classifier."""
        return replace(self, classifier=classifier)

    def rule(self, choose: Any) -> None:
        """Return none: all is in the classifier."""

    def scores(self, X: Any, membership: Floats, tasks: Any) -> Floats:
        """Return the probabilities of the favourable outcome, shape (1, rows)."""
        return self.classifier.predict_proba(inputs_of(self.told, X, membership), tasks=tasks)[:, self.column][None]

    def decide(self, scores: Floats, membership: Floats, task: Ints, rule: None) -> tuple[Floats, Floats]:
        """Return these probabilities, and thresholds of one half."""
        return scores[0], np.full(len(task), 0.5)


def _held_out_losses(model: MAMLClassifier, group: Ints, target: Ints, n_groups: int) -> tuple[Floats, float]:
    """Mean cross-entropy of each group, and share of errors, on tasks that the model was not trained on, at all support sizes."""
    parts = list(model._held_out.values())
    row = np.concatenate([part.row for part in parts])
    logits = np.concatenate([part.prediction for part in parts])
    losses = -logits[np.arange(len(row)), target[row]]
    n = np.bincount(group[row], minlength=n_groups)
    sums = np.bincount(group[row], weights=losses, minlength=n_groups)
    return sums / np.maximum(n, 1), float((logits.argmax(1) != target[row]).mean())
