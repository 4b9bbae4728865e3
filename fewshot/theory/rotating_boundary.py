r"""A boundary that rotates from task to task: what a frozen feature cannot do and one step can.

Points :math:`x \sim N(0, I)` in the plane have the label of :math:`\mathrm{sign}(\cos\varphi\, x_1 + \sin\varphi\, x_2)`; the angle
is the task. A network that was trained where the boundary is vertical (:math:`\varphi = 0`) and keeps its feature :math:`x_1` can
get a new head, but no head sees more than :math:`x_1`. By symmetry the best one is a sign, and it is right with probability

.. math:: 1 - \frac{\arccos \lvert \cos\varphi \rvert}{\pi},

which is one half where the boundary is horizontal: there the feature knows nothing about the label.

A linear classifier that adapts *all* its weights needs one step. From weights of zero, to which meta-training over all angles
leads by symmetry, the step goes along :math:`\frac1n \sum_j s_j x_j` with labels :math:`s_j = \pm 1`. Its mean is
:math:`\sqrt{2/\pi}` times the boundary's normal, whatever the angle; across the normal it has the variance 1/n. The angle between
the two boundaries is therefore about normal with the variance :math:`\pi / (2n)`, and the accuracy after one step

.. math:: 1 - \frac1\pi E\lvert\text{angle}\rvert \approx 1 - \frac1{\pi \sqrt n}.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ._checks import Floats, array, count

__all__ = ["frozen_feature_accuracy", "one_step_accuracy"]


def frozen_feature_accuracy(angles: npt.ArrayLike) -> npt.NDArray[np.float64]:
    r"""Accuracy of the best head on the frozen feature :math:`x_1`.

    Parameters
    ----------
    angles : array-like of shape (tasks,)
        Of the boundaries' normals with the first axis, in radians.

    Returns
    -------
    ndarray of shape (tasks,)

    Raises
    ------
    InvalidParameterError
        If a value is not finite.

    Examples
    --------
    >>> frozen_feature_accuracy([0.0, np.pi / 4, np.pi / 2])
    array([1.  , 0.75, 0.5 ])
    """
    found: Floats = 1 - np.arccos(np.abs(np.cos(array("angles", angles, 1)))) / np.pi
    return found


def one_step_accuracy(n_rows: int) -> float:
    r"""Accuracy of a linear classifier after one step from weights of zero, :math:`1 - 1 / (\pi \sqrt n)`, whatever the angle.

    Parameters
    ----------
    n_rows : int
        Number of support rows.

    Returns
    -------
    float
        To leading order in n: for 10 rows or more within .01.

    Raises
    ------
    InvalidParameterError
        If it is no positive whole number.

    Examples
    --------
    >>> round(one_step_accuracy(50), 3)
    0.955
    """
    return 1 - 1 / (math.pi * math.sqrt(count("n_rows", n_rows, 1)))
