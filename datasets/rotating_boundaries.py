"""A decision boundary that turns from task to task: why features must adapt, not only the head.

With :math:`x_1` as a frozen feature no head can tell the classes of a horizontal boundary apart (it is at
chance), while adapting the direction itself takes one gradient step. No paper's data set: the textbook case
against adapting a head only (compare Raghu et al. 2020, "Rapid learning or feature reuse?", on ANIL), made
for this package.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot.tasks import Rows

from ._families import Floats, TaskFamily, check_counts, check_range, make_rows

__all__ = ["BoundaryTasks", "RotatingBoundaries"]


@dataclass(frozen=True, eq=False)
class BoundaryTasks:
    """Parameters of rotating-boundary tasks.

    Parameters
    ----------
    angle : ndarray of shape (tasks,)
        Angle φ of the boundary's direction with the first axis, in radians.
    """

    angle: Floats

    @property
    def normal(self) -> Floats:
        """Unit vectors that point into class 1, shape (tasks, 2)."""
        return np.stack([-np.sin(self.angle), np.cos(self.angle)], axis=-1)


@dataclass(frozen=True)
class RotatingBoundaries(TaskFamily[BoundaryTasks]):
    r"""Binary classification in the plane, by a line through the origin at an angle of the task's own.

    .. math:: φ_i \sim U(0, 2π), \quad x \sim N(0, I_2), \quad y = 1[-x_1 \sin φ_i + x_2 \cos φ_i > 0]

    Class 1 lies to the left of the direction :math:`(\cos φ_i, \sin φ_i)`: for φ = 0 (a horizontal boundary)
    it is the upper half plane, for φ = π/2 the left one. Half of the rows are of class 1 on average, whatever
    φ, and a line that is off by an angle δ in [0, π] is right on a share 1 - δ/π of the rows.

    Parameters
    ----------
    shots : int, default=10
        Support rows of each task, both classes together.
    queries : int, default=10
        Query rows of each task.
    angles : (float, float), default=(0, 2 pi)
        Range of the angle, in radians.

    Raises
    ------
    InvalidParameterError
        If a count is below 1 or `angles` is not (low, high).

    References
    ----------
    Made for this package, as the counter-example to adapting the head only: A. Raghu, M. Raghu, S. Bengio and
    O. Vinyals (2020). Rapid learning or feature reuse? Towards understanding the effectiveness of MAML. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> family = RotatingBoundaries(shots=4)
    >>> support, query = family.sample(3, np.random.default_rng(0))
    >>> support.x.shape, support.y.dtype
    (torch.Size([3, 4, 2]), torch.int64)
    >>> horizontal = BoundaryTasks(angle=np.array([0.0]))
    >>> rows = family.rows(horizontal, 100, np.random.default_rng(0))
    >>> bool(((rows.x[..., 1] > 0) == (rows.y == 1)).all())
    True
    """

    shots: int = 10
    queries: int = 10
    angles: tuple[float, float] = (0.0, 2 * np.pi)

    def __post_init__(self) -> None:
        check_counts(shots=self.shots, queries=self.queries)
        check_range("angles", self.angles)

    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> BoundaryTasks:
        """Draw the angles of `n_tasks` tasks from `rng`."""
        return BoundaryTasks(rng.uniform(*self.angles, n_tasks))

    def rows(self, tasks: BoundaryTasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Draw `n_rows` points of each task and their classes; x of shape (tasks, n_rows, 2), y integer."""
        x = rng.standard_normal((len(tasks.angle), n_rows, 2))
        normal = tasks.normal
        left = x[..., 0] * normal[:, :1] + x[..., 1] * normal[:, 1:] > 0
        return make_rows(x, left.astype(np.int64))
