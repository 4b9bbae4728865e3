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
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InvalidParameterError
from ..tasks import Rows
from ._checks import Floats, array, count

__all__ = ["RotatingBoundary", "frozen_feature_accuracy", "one_step_accuracy"]


class RotatingBoundary:
    """A :class:`~fewshot.tasks.TaskSampler`: points in the plane, labelled by a line through 0.

    Parameters
    ----------
    n_support, n_query : int, default=50
        Rows of each task.
    angles : tuple of float, default=(0, 2 pi)
        Between which the angle of the boundary's normal is uniform, in radians; one angle twice makes all tasks the same.

    Raises
    ------
    InvalidParameterError
        If a setting cannot be used.

    Examples
    --------
    >>> support, query = RotatingBoundary(10, 5).sample(3, np.random.default_rng(0))
    >>> support.x.shape, query.y.shape
    (torch.Size([3, 10, 2]), torch.Size([3, 5]))
    """

    def __init__(self, n_support: int = 50, n_query: int = 50, *, angles: Sequence[float] = (0.0, 2 * math.pi)) -> None:
        self.n_support, self.n_query = count("n_support", n_support, 1), count("n_query", n_query, 1)
        low, high = found if len(found := array("angles", angles, 1)) == 2 else (1.0, 0.0)
        if low > high:
            raise InvalidParameterError(
                f"angles: got {angles!r}; expected the least and the largest angle, in radians."
            )
        self.angles = float(low), float(high)

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw support and query of `n_tasks` tasks."""
        angle = rng.uniform(*self.angles, size=n_tasks)
        normal = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return self._rows(normal, self.n_support, rng), self._rows(normal, self.n_query, rng)

    @staticmethod
    def _rows(normal: Floats, n: int, rng: np.random.Generator) -> Rows:
        x = rng.normal(size=(len(normal), n, 2))
        y = np.einsum("trf,tf->tr", x, normal) > 0
        return Rows(
            torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64), torch.ones(len(normal), n)
        )


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
