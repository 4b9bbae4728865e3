"""What distances do on held-out tasks: how gaps differ between these, and how large they are where only others tell of a task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from .distances import COLDEST, LEAST_SPREAD, Distances, soft_gaps
from .gaps import debiased_squared_gap, mean_over_tasks, pair_weights, rates_of, root_mean_squared_gap, signed_gap
from .scored import Scored

__all__ = ["judged", "summary"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
FOLDS = 5  # of the held-out tasks, each judged by what the others say
FURTHER = 0.3  # that distances found on other tasks may differ


def summary(
    penalty: float, weights: Floats, trained: Floats, values: Floats, slope: Floats, rows: Scored, blind: Scored
) -> Distances:
    """Say how gaps differ between tasks with the same distances, and from what is guessed; nothing is judged yet.

    Parameters
    ----------
    penalty, weights, trained, values, slope
        As for :class:`Distances`, `weights` being its blend.
    rows, blind : Scored
        Rows with groups and outcomes, and the same as they would look if these were not known; both with blended probabilities.
    """
    k, n = rows.hard_counts(rows.decisions(values))
    of_tasks = pair_weights(n)
    gaps, squares = signed_gap(k, n), debiased_squared_gap(k, n)
    mean = mean_over_tasks(gaps, of_tasks)
    guesses = np.where(np.isfinite(gaps), soft_gaps(blind, values, COLDEST).transpose(1, 0, 2), np.nan)
    off, usual_guess = gaps - guesses, mean_over_tasks(guesses, of_tasks)
    bias = mean_over_tasks(off, of_tasks)
    doubt = mean_over_tasks(off**2 - (gaps**2 - squares), of_tasks) - bias**2
    varied = mean_over_tasks(guesses**2, of_tasks) - usual_guess**2
    return Distances(
        penalty=penalty,
        blend=weights,
        trained=trained,
        values=values,
        mean=mean,
        spread=np.maximum(mean_over_tasks(squares, of_tasks) - mean**2, LEAST_SPREAD),
        slope=slope,
        bias=bias,
        doubt=np.maximum(doubt, LEAST_SPREAD),
        guessed=np.maximum(varied, LEAST_SPREAD),
        rates=np.nan_to_num(rates_of(k.sum(1), n.sum(1))),
        gaps=np.zeros(2),
        errors=np.zeros(2),
    )


def judged(point: Distances, rows: Scored, blind: Scored, origin: Ints) -> Distances:
    """Judge hard decisions: of each task by what the others say, with the same distances for all or with its own.

    Parameters
    ----------
    point : Distances
        What :func:`summary` says of all tasks.
    rows, blind : Scored
        As for :func:`summary`.
    origin : ndarray of int, shape (tasks,)
        Tasks of the same origin are judged together.

    Returns
    -------
    Distances
        With gaps and errors.
    """
    decisions = np.zeros((2, len(rows.task)), dtype=bool)
    among, position = np.unique(origin, return_inverse=True)
    folds = position % min(FOLDS, len(among))
    for fold in np.unique(folds):
        mine = folds == fold
        own, own_blind, others = rows.of_tasks(mine), blind.of_tasks(mine), point
        if not mine.all():
            rest = rows.of_tasks(~mine), blind.of_tasks(~mine)
            others = summary(point.penalty, point.blend, point.trained, point.values, point.slope, *rest)
        values = point.values + _missed(point, others, rows.weights.mean(0))
        found = (values, others.for_tasks(None, own_blind, None, own.n_tasks)) if point.penalty else (values, values)
        decisions[:, mine[rows.task]] = [own.decisions(each) for each in found]
    assert rows.favourable is not None
    errors = (decisions != rows.favourable).mean(1)
    return replace(point, gaps=np.array([_gap(*rows.hard_counts(each)) for each in decisions]), errors=errors)


def _missed(point: Distances, others: Distances, weights: Floats) -> Floats:
    """By how much distances would differ if they had been found on the other tasks alone, to first order."""
    size = point.values.size
    slope = point.slope.reshape(size, size)
    slope = slope - np.diag(np.maximum(np.diag(slope), 0.0))  # no gap grows with the distance meant to close it
    pull = np.diag(weights.ravel()) - point.penalty * slope
    step = np.linalg.solve(pull, point.penalty * (others.mean - point.mean).ravel())
    return np.clip(step, -FURTHER, FURTHER).reshape(point.values.shape)


def _gap(k: Ints, n: Ints) -> float:
    """Root of the debiased mean squared gap; with few tasks it can come out below the mean gap, which cannot be so."""
    mean = mean_over_tasks(signed_gap(k, n), pair_weights(n))
    return max(root_mean_squared_gap(k, n), float(np.abs(mean).max()))
