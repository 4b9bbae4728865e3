"""What a small gap costs on held-out tasks, from no penalty to a large one: one curve, from which bounds are read."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from .distances import COLDEST, LEAST_SPREAD, Distances, ascend, soft_gaps
from .gaps import debiased_squared_gap, mean_over_tasks, pair_weights, rates_of, root_mean_squared_gap, signed_gap
from .scored import Scored

__all__ = ["Curve", "fit_curve"]

Floats = npt.NDArray[np.float64]
PENALTIES = (0.0, *(0.02 * 1.6**i for i in range(15)))  # the largest, 14, leaves hardly any gap
MIXES = (0.0, 0.5, 1.0)
DIFFERENCE = 0.02  # for the slope of the gap


@dataclass(frozen=True)
class Curve:
    """Distances along penalties.

    Parameters
    ----------
    points : tuple of Distances
        In ascending order of the penalty; the first is zero.
    """

    points: tuple[Distances, ...]

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


def fit_curve(rows: Scored, blind: Scored) -> Curve:
    """Learn distances on rows of held-out tasks.

    The probabilities decided by are the classifier's, mixed with those of a pooled logistic regression as far as this makes errors
    plus penalty times squared gap less. Where a small gap counts, a simpler model may rank better those whom the constraint moves.

    Parameters
    ----------
    rows : Scored
        Rows with groups and outcomes, of tasks that the models were not trained on.
    blind : Scored
        The same rows as they would look if groups and outcomes were not known.
    """
    mixes = (0.0,) if rows.pooled is None else MIXES
    curves = [_fit_mixed(rows.mixed(mix), blind.mixed(mix), mix) for mix in mixes]
    # At no penalty the classifier is what it is.
    points = [curves[0][0]]
    points += [min(found, key=_cost) for found in zip(*(curve[1:] for curve in curves), strict=True)]
    return Curve(tuple(points))


def _cost(point: Distances) -> float:
    return float((point.errors + point.penalty * point.gaps**2).mean())


def _fit_mixed(rows: Scored, blind: Scored, mix: float) -> list[Distances]:
    weights = pair_weights(rows.effective_rows().transpose(1, 0, 2))
    usual = rows.weights.mean(0)

    def mean_gaps(values: Floats, temperature: float) -> Floats:
        return mean_over_tasks(soft_gaps(rows, values, temperature).transpose(1, 0, 2), weights)

    points: list[Distances] = []
    values = np.zeros(weights.shape[::2])
    for penalty in PENALTIES:
        values = ascend(mean_gaps, values, penalty, usual)
        slope = np.zeros((*values.shape, *values.shape))
        for at in np.ndindex(values.shape):
            step = np.zeros_like(values)
            step[at] = DIFFERENCE
            ends = [mean_gaps(values + sign * step, COLDEST) for sign in (1, -1)]
            slope[..., at[0], at[1]] = (ends[0] - ends[1]) / (2 * DIFFERENCE)
        points.append(_judged(penalty, mix, values, slope, rows, blind))
    return points


def _judged(penalty: float, mix: float, values: Floats, slope: Floats, rows: Scored, blind: Scored) -> Distances:
    """Judge hard decisions, with the same distances for all tasks, and with each task's own."""
    k, n, error = _hard(values, rows)
    weights = pair_weights(n)
    gaps, squares = signed_gap(k, n), debiased_squared_gap(k, n)
    mean = mean_over_tasks(gaps, weights)
    guesses = np.where(np.isfinite(gaps), soft_gaps(blind, values, COLDEST).transpose(1, 0, 2), np.nan)
    off, usual_guess = gaps - guesses, mean_over_tasks(guesses, weights)
    bias = mean_over_tasks(off, weights)
    doubt = mean_over_tasks(off**2 - (gaps**2 - squares), weights) - bias**2
    varied = mean_over_tasks(guesses**2, weights) - usual_guess**2
    usual = Distances(
        penalty=penalty,
        mix=mix,
        values=values,
        mean=mean,
        spread=np.maximum(mean_over_tasks(squares, weights) - mean**2, LEAST_SPREAD),
        slope=slope,
        bias=bias,
        doubt=np.maximum(doubt, LEAST_SPREAD),
        guessed=np.maximum(varied, LEAST_SPREAD),
        rates=np.nan_to_num(rates_of(k.sum(1), n.sum(1))),
        gaps=np.full(2, _gap(k, n)),
        errors=np.full(2, error),
    )
    if penalty == 0:
        return usual
    k, n, own_error = _hard(usual.for_tasks(None, blind, None, rows.n_tasks), rows)
    usual.gaps[1], usual.errors[1] = _gap(k, n), own_error
    return usual


def _hard(values: Floats, rows: Scored) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], float]:
    """Return counts of hard decisions, and the share of wrong ones."""
    decision = rows.decisions(values)
    assert rows.favourable is not None
    return *rows.hard_counts(decision), float((decision != rows.favourable).mean())


def _gap(k: npt.NDArray[np.int64], n: npt.NDArray[np.int64]) -> float:
    """Root of the debiased mean squared gap; with few tasks it can come out below the mean gap, which cannot be so."""
    mean = mean_over_tasks(signed_gap(k, n), pair_weights(n))
    return max(root_mean_squared_gap(k, n), float(np.abs(mean).max()))
