"""What a small gap costs on held-out tasks, from no penalty to a large one: one curve, from which bounds are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .distances import COLDEST, Distances, Gaps, ascend, soft_gaps
from .gaps import mean_over_tasks, pair_weights, pairs_of
from .judged import judged, summary
from .scored import Scored

__all__ = ["Curve", "fit_curve"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
PENALTIES = (0.0, *(0.02 * 1.6**i for i in range(15)))  # the largest, 14, leaves hardly any gap
BLENDS = ((1.0, 0.0), (0.5, 0.5), (0.0, 1.0))  # of classifier and pooled logistic regression
EVEN = 1  # the second of them
LEARNED_FROM = 0.1  # penalty from which decisions are learned; below, they hardly differ from those without one
LEARNED_TO = 1.0  # distance from which on the group would count for more than the outcome
DIFFERENCE = 0.02  # for the slope of the gap


Learn = Callable[[Floats], tuple[Any, Floats]]


@dataclass(frozen=True)
class Curve:
    """Distances along penalties.

    Parameters
    ----------
    points : tuple of Distances
        In ascending order of the penalty; the first is zero.
    judged : ndarray of bool, shape (events, pairs)
        Pairs of groups that have rows enough to tell a gap; the distance of others stays zero.
    """

    points: tuple[Distances, ...]
    judged: npt.NDArray[np.bool_]

    def at(self, penalty: float) -> Distances:
        """Return the distances of a penalty; between two points everything is interpolated."""
        found = np.array([point.penalty for point in self.points])
        if penalty >= found[-1]:
            return self.points[-1]
        i = int(np.searchsorted(found, penalty, side="right")) - 1
        return _between(self.points[i], self.points[i + 1], (penalty - found[i]) / (found[i + 1] - found[i]))

    def within(self, bound: float, level: int) -> Distances | None:
        """Return the distances of the least penalty with which the gap is within a bound; None if there is none.

        Parameters
        ----------
        bound : float
            The bound.
        level : int
            0: the same distances for all tasks; 1: each task's own.
        """
        gaps = np.array([point.gaps[level] for point in self.points])
        met = np.flatnonzero(gaps <= bound)
        if not len(met):
            return None
        i = int(met[0])
        if i == 0:
            return self.points[0]
        return _between(self.points[i - 1], self.points[i], (gaps[i - 1] - bound) / (gaps[i - 1] - gaps[i]))

    def best_compromise(self, level: int) -> Distances:
        """Return the distances that make gap and errors together least: for where no penalty meets the bound."""
        return min(self.points, key=lambda point: float(point.gaps[level] + point.errors[level]))


def _between(low: Distances, high: Distances, part: float) -> Distances:
    values = {f.name: (1 - part) * getattr(low, f.name) + part * getattr(high, f.name) for f in fields(Distances)}
    return Distances(**values)


def fit_curve(rows: Scored, blind: Scored, origin: Ints, learn: Learn | None = None) -> tuple[Curve, list[Any]]:
    """Learn distances on rows of held-out tasks.

    The probabilities decided by are the classifier's, or blended with those of other models if this makes errors plus penalty
    times squared gap less, over all penalties. Where a small gap counts, a simpler model, or one of the decision itself, may rank
    better those whom the constraint moves.

    Parameters
    ----------
    rows : Scored
        Rows with groups and outcomes, of tasks that the models were not trained on.
    blind : Scored
        The same rows as they would look if groups and outcomes were not known.
    origin : ndarray of int, shape (tasks,)
        Tasks of the same origin are judged together.
    learn : callable, default=None
        From distances to a model of the decision, and what it says of the rows by models that were not trained on their tasks.

    Returns
    -------
    curve : Curve
    learned : list
        The models of decisions that it uses.
    """
    blends = [np.array(weights) for weights in (BLENDS if rows.others is not None else BLENDS[:1])]
    paths: list[tuple[list[Distances], list[Any]]] = [(_path(rows, blind, origin, weights), []) for weights in blends]
    if learn is not None:
        paths.append(_learned_path(paths[EVEN][0], rows, blind, origin, learn))
    # One choice for all penalties: a choice at each follows chance.
    points, models = min(paths, key=lambda path: _cost(path[0][1:]))
    # At no penalty the classifier is what it is.
    weights = np.zeros_like(points[-1].blend)
    weights[0] = 1.0
    free = replace(paths[0][0][0], blend=weights, trained=points[-1].trained)
    return Curve((free, *points[1:]), np.asarray(_pair_weights(rows).any(1))), models


def _cost(points: list[Distances]) -> float:
    costs = [(point.errors + point.penalty * point.gaps**2).mean() for point in points]
    return float(np.log(costs).mean())


def _path(rows: Scored, blind: Scored, origin: Ints, weights: Floats) -> list[Distances]:
    """Find points along penalties, with one blend."""
    trained = np.zeros((0, len(rows.notion.events), len(pairs_of(rows.n_groups))))
    points: list[Distances] = []
    for penalty in PENALTIES:
        start = points[-1].values if points else np.zeros(trained.shape[1:])
        points.append(_point(penalty, start, weights, trained, rows, blind, origin))
    return points


def _learned_path(
    base: list[Distances], rows: Scored, blind: Scored, origin: Ints, learn: Learn
) -> tuple[list[Distances], list[Any]]:
    """Blend the base evenly with decisions learned at each penalty; return points and models."""
    points, models = [point for point in base if point.penalty < LEARNED_FROM], []
    trained = base[0].trained
    for penalty in PENALTIES[len(points) :]:
        # The blend of the penalty before, moved on to this one, tells where to learn.
        before = points[-1]
        gaps = _mean_gaps(rows.blended(before.blend, trained))
        moved = ascend(gaps, before.values, penalty, rows.weights.mean(0))
        start = np.clip(moved, -LEARNED_TO, LEARNED_TO)
        if not (len(trained) and np.array_equal(start, trained[-1])):
            model, score = learn(start)
            models.append(model)
            rows, blind = rows.heard(score), blind.heard(np.repeat(score, rows.n_groups))
            trained = np.concatenate([trained, start[None]])
        blend = np.concatenate([base[0].blend / 2, np.zeros(len(models) - 1), [0.5]])
        points.append(_point(penalty, start, blend, trained, rows, blind, origin))
    total = len(base[0].blend) + len(models)
    padded = [np.pad(point.blend, (0, total - len(point.blend))) for point in points]
    return [replace(point, blend=b, trained=trained) for point, b in zip(points, padded, strict=True)], models


def _mean_gaps(rows: Scored) -> Gaps:
    """Return what gives the mean gap over tasks at distances and a temperature."""
    of_tasks = _pair_weights(rows)
    return lambda values, temperature: mean_over_tasks(
        soft_gaps(rows, values, temperature).transpose(1, 0, 2), of_tasks
    )


def _pair_weights(rows: Scored) -> Floats:
    return pair_weights(rows.effective_rows().transpose(1, 0, 2))


def _point(
    penalty: float, start: Floats, weights: Floats, trained: Floats, rows: Scored, blind: Scored, origin: Ints
) -> Distances:
    """Find distances at a penalty, and judge them."""
    rows, blind = rows.blended(weights, trained), blind.blended(weights, trained)
    mean_gaps = _mean_gaps(rows)
    values = ascend(mean_gaps, start, penalty, rows.weights.mean(0))
    slope = np.zeros((*values.shape, *values.shape))
    for at in np.ndindex(values.shape):
        step = np.zeros_like(values)
        step[at] = DIFFERENCE
        ends = [mean_gaps(values + sign * step, COLDEST) for sign in (1, -1)]
        slope[..., at[0], at[1]] = (ends[0] - ends[1]) / (2 * DIFFERENCE)
    return judged(summary(penalty, weights, trained, values, slope, rows, blind), rows, blind, origin)
