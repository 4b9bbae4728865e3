r"""The decision rule: a threshold of each row's own, from the groups that it may belong to.

Among rules with given rates per group, accuracy is largest for a threshold on the probability of the favourable outcome that
depends on the row's group (Hardt, Price, Srebro 2016), or, where the group is not known at the decision, on its probabilities
given x (Menon, Williamson 2018). With multipliers :math:`\mu_{eg}` of event e and group g, a row with probability :math:`\eta`
and group probabilities :math:`\pi_g` is favoured if

.. math:: \eta - \tfrac12 > \sum_{e, g} \mu_{eg} \, c_e(\eta) \, \pi_g,

:math:`c_e` being 1 for all rows, :math:`\eta` for the rows whose outcome is favourable and :math:`1 - \eta` for the others.
This is a threshold on :math:`\eta`, since the right side is linear in it.

References
----------
Hardt, Price, Srebro (2016), Equality of opportunity in supervised learning, NeurIPS. Menon, Williamson (2018), The cost of fairness
in binary classification, FAT*.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from .notions import Notion

__all__ = ["decide", "line", "soften", "thresholds"]

Floats = npt.NDArray[np.float64]
LOWEST, HIGHEST = 0.005, 0.995  # of a threshold: nobody is refused, or favoured, whatever the model says
STEEPEST = 0.05


def line(notion: Notion, shifts: Floats, membership: Floats) -> tuple[Floats, Floats]:
    """Return the threshold of each row, and how fast a row's gain grows with its probability.

    Parameters
    ----------
    notion : Notion
        Which events the shifts are of.
    shifts : ndarray of shape (..., events, groups)
        The multipliers; one matrix for all rows, or one for each.
    membership : ndarray of shape (rows, groups)
        Probability of each group, 0 or 1 where the group is known.

    Returns
    -------
    threshold, slope : ndarray of shape (rows,)
    """
    shift = (shifts * membership[:, None, :]).sum(-1)  # (rows, events)
    of, none = dict(zip(notion.events, shift.T, strict=True)), np.zeros(len(shift))
    everyone, positive, negative = (of.get(event, none) for event in ("all", "positive", "negative"))
    slope: Floats = np.maximum(1 - positive + negative, STEEPEST)
    return np.clip((0.5 + everyone + negative) / slope, LOWEST, HIGHEST), slope


def thresholds(notion: Notion, shifts: Floats, membership: Floats) -> Floats:
    """Return the threshold of each row, shape (rows,); arguments as for :func:`line`."""
    return line(notion, shifts, membership)[0]


def decide(probability: Floats, threshold: Floats) -> npt.NDArray[np.bool_]:
    """Favour the rows whose probability is above their threshold."""
    return probability > threshold


def soften(probability: Floats, threshold: Floats, temperature: float) -> Floats:
    """Decide by degrees: the differentiable stand-in for :func:`decide`, which it tends to as the temperature falls."""
    soft: Floats = expit((probability - threshold) / temperature)
    return soft
