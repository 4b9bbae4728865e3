"""Sinusoids of varying amplitude and phase: the regression problem on which MAML was first shown.

Finn, Abbeel and Levine (2017), section 5.1, with the same ranges. One task says nothing about the next one's
values but all share the shape, so pooled training can only learn the mean curve while adaptation needs a
handful of points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fewshot.tasks import Rows

from ._families import Floats, TaskFamily, check_counts, check_range, make_rows

__all__ = ["SinusoidTasks", "Sinusoids"]


@dataclass(frozen=True, eq=False)
class SinusoidTasks:
    """Parameters of sinusoid tasks.

    Parameters
    ----------
    amplitude : ndarray of shape (tasks,)
        Amplitudes A, in units of the target.
    phase : ndarray of shape (tasks,)
        Phases φ, in radians.
    """

    amplitude: Floats
    phase: Floats


@dataclass(frozen=True)
class Sinusoids(TaskFamily[SinusoidTasks]):
    r"""Noise-free sinusoids, the regression tasks of the MAML paper.

    .. math:: y = A \sin(x - φ), \quad A \sim U(0.1, 5), \quad φ \sim U(0, π), \quad x \sim U(-5, 5)

    Parameters
    ----------
    shots : int, default=10
        Support rows of each task.
    queries : int, default=10
        Query rows of each task.
    amplitude : (float, float), default=(0.1, 5)
        Range of the amplitude, in units of the target.
    phase : (float, float), default=(0, pi)
        Range of the phase, in radians.
    inputs : (float, float), default=(-5, 5)
        Range of the input, in radians.

    Raises
    ------
    InvalidParameterError
        If a count is below 1 or a range is not (low, high).

    References
    ----------
    C. Finn, P. Abbeel and S. Levine (2017). Model-agnostic meta-learning for fast adaptation of deep
    networks. ICML, section 5.1. The paper does not write the formula down; the sign of the phase is that of
    its published code.

    Examples
    --------
    >>> import numpy as np
    >>> family = Sinusoids(shots=5)
    >>> support, query = family.sample(25, np.random.default_rng(0))
    >>> support.x.shape, query.y.shape
    (torch.Size([25, 5, 1]), torch.Size([25, 10]))

    The truth behind the rows, and rows of a task of one's own:

    >>> rng = np.random.default_rng(0)
    >>> family.sample_tasks(3, rng).amplitude.round(2)
    array([3.22, 1.42, 0.3 ])
    >>> mine = SinusoidTasks(amplitude=np.array([2.0]), phase=np.array([0.0]))
    >>> bool(family.rows(mine, 1000, rng).y.abs().max() <= 2)
    True
    """

    shots: int = 10
    queries: int = 10
    amplitude: tuple[float, float] = (0.1, 5.0)
    phase: tuple[float, float] = (0.0, np.pi)
    inputs: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        check_counts(shots=self.shots, queries=self.queries)
        for name in ("amplitude", "phase", "inputs"):
            check_range(name, getattr(self, name))

    def sample_tasks(self, n_tasks: int, rng: np.random.Generator) -> SinusoidTasks:
        """Draw amplitudes and phases of `n_tasks` tasks from `rng`."""
        return SinusoidTasks(rng.uniform(*self.amplitude, n_tasks), rng.uniform(*self.phase, n_tasks))

    def rows(self, tasks: SinusoidTasks, n_rows: int, rng: np.random.Generator) -> Rows:
        """Draw `n_rows` inputs of each task and their targets; x of shape (tasks, n_rows, 1)."""
        x = rng.uniform(*self.inputs, (len(tasks.amplitude), n_rows))
        y = tasks.amplitude[:, None] * np.sin(x - tasks.phase[:, None])
        return make_rows(x[..., None], y)
