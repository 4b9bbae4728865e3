r"""Batch norm inside an episode: noisy statistics of the task's own rows, or steady ones of all tasks that are off for this one.

A layer sees :math:`z = m + \sigma e` in a task, where the task's mean :math:`m \sim N(\mu, \delta^2)` is its shift and
:math:`e \sim N(0, 1)` what the network needs. What the layer makes of it, :math:`\hat z = (z - \hat m) / \hat s`, is off by
:math:`E(\hat z - e)^2`.

With ``batch_norm="episode"`` mean and variance are those of n support rows, for a new row z. The mean's variance is
:math:`\sigma^2 / n`; and :math:`\hat s` is independent of it, with :math:`n \hat s^2 / \sigma^2 \sim \chi^2_{n-1}`. So

.. math:: \text{error} = \Big(1 + \frac1n\Big) \frac n{n-3} - 2 c_n + 1 \approx \frac1n + \frac1{2n}, \qquad
   c_n = \sqrt{\frac n2}\, \frac{\Gamma(\frac{n-2}2)}{\Gamma(\frac{n-1}2)},

one part for the mean and half as much for the variance. It does not depend on the shift. With ``batch_norm="global"`` mean and
variance are those of all tasks together, :math:`\mu` and :math:`\sigma^2 + \delta^2`; with :math:`r = \delta^2 / \sigma^2`

.. math:: \text{error} = 2 \Big(1 - \frac1{\sqrt{1 + r}}\Big) \approx r,

the squared bias, which does not depend on n. A layer that meta-learns its weight :math:`\gamma` shrinks what is noisy, and is left
with :math:`1 - \mathrm{corr}(\hat z, e)^2`: :math:`1 - c_n^2 \frac{n-3}{n+1}` and :math:`\frac r{1+r}`.

To leading order, with a learned weight or without, the episode's own rows are better from
:math:`n = \frac32 \sigma^2 / \delta^2` on.

References
----------
Bronskill, Gordon, Requeima, Nowozin, Turner (2020), TaskNorm: rethinking batch normalization for meta-learning, ICML, section 3.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from ..tasks import Rows
from ._checks import count, number

__all__ = ["ShiftedInputs", "crossover_support_size", "episode_norm_error", "global_norm_error"]

LEAST_ROWS = 4  # for fewer the mean of 1 / variance is infinite


class ShiftedInputs:
    """A :class:`~fewshot.tasks.TaskSampler` of inputs with a mean of their task's own; the target is the input without it.

    Parameters
    ----------
    n_support, n_query : int
        Rows of each task.
    shift_ratio : float
        Variance of the tasks' means, as a multiple of the variance within a task, which is 1.
    dtype : torch.dtype, default=torch.float32
        Of the tensors.

    Raises
    ------
    InvalidParameterError
        If a setting cannot be used.

    Examples
    --------
    >>> support, query = ShiftedInputs(10, 5, 0.5).sample(3, np.random.default_rng(0))
    >>> support.x.shape, query.y.shape
    (torch.Size([3, 10, 1]), torch.Size([3, 5]))
    """

    def __init__(self, n_support: int, n_query: int, shift_ratio: float, *, dtype: torch.dtype = torch.float32) -> None:
        self.n_support, self.n_query = count("n_support", n_support, 1), count("n_query", n_query, 1)
        self.shift_ratio = number("shift_ratio", shift_ratio, zero=True)
        self.dtype = dtype

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Draw support and query of `n_tasks` tasks."""
        within = rng.normal(size=(n_tasks, self.n_support + self.n_query))
        shifted = within + math.sqrt(self.shift_ratio) * rng.normal(size=(n_tasks, 1))
        x, e = torch.as_tensor(shifted, dtype=self.dtype), torch.as_tensor(within, dtype=self.dtype)
        parts = slice(None, self.n_support), slice(self.n_support, None)
        support, query = (Rows(x[:, p, None], e[:, p], torch.ones_like(e[:, p])) for p in parts)
        return support, query


def episode_norm_error(n_rows: int, *, learned_weight: bool = False) -> float:
    """Mean squared error of a row normalised by `n_rows` other rows of its task.

    Parameters
    ----------
    n_rows : int
        Support rows, 4 or more; for fewer the expectation is infinite.
    learned_weight : bool, default=False
        Whether the layer's weight is meta-learned, or 1.

    Returns
    -------
    float
        As a part of the variance within a task.

    Raises
    ------
    InvalidParameterError
        If it is no whole number of 4 or more.

    Examples
    --------
    >>> round(episode_norm_error(10), 3), round(episode_norm_error(10, learned_weight=True), 3)
    (0.265, 0.153)
    """
    n = count("n_rows", n_rows, LEAST_ROWS)
    c = math.sqrt(n / 2) * math.exp(math.lgamma((n - 2) / 2) - math.lgamma((n - 1) / 2))
    second = (n + 1) / (n - 3)  # of the normalised row
    return 1 - c**2 / second if learned_weight else second - 2 * c + 1


def global_norm_error(shift_ratio: float, *, learned_weight: bool = False) -> float:
    """Mean squared error of a row normalised by the statistics of all tasks.

    Parameters
    ----------
    shift_ratio : float
        Variance of the tasks' means, as a multiple of the variance within a task.
    learned_weight : bool, default=False
        Whether the layer's weight is meta-learned, or 1.

    Returns
    -------
    float
        As a part of the variance within a task.

    Raises
    ------
    InvalidParameterError
        If it is no number of 0 or more.

    Examples
    --------
    >>> round(global_norm_error(0.5), 3), round(global_norm_error(0.5, learned_weight=True), 3)
    (0.367, 0.333)
    """
    r = number("shift_ratio", shift_ratio, zero=True)
    return r / (1 + r) if learned_weight else 2 * (1 - 1 / math.sqrt(1 + r))


def crossover_support_size(shift_ratio: float, *, learned_weight: bool = False) -> int:
    """Least number of support rows from which on ``batch_norm="episode"`` has no larger error than ``"global"``.

    Parameters
    ----------
    shift_ratio : float
        Variance of the tasks' means, as a multiple of the variance within a task; above 0, since without any shift the statistics
        of all tasks are always better.
    learned_weight : bool, default=False
        Whether the layer's weight is meta-learned, or 1.

    Returns
    -------
    int
        4 or more.

    Raises
    ------
    InvalidParameterError
        If it is no number above 0.

    Examples
    --------
    >>> [crossover_support_size(r) for r in (0.01, 0.1, 1.0)]
    [157, 21, 7]
    """
    bound = global_norm_error(number("shift_ratio", shift_ratio), learned_weight=learned_weight)
    below, n = LEAST_ROWS - 1, LEAST_ROWS
    while episode_norm_error(n, learned_weight=learned_weight) > bound:
        below, n = n, 2 * n
    while n - below > 1:
        middle = (below + n) // 2
        if episode_norm_error(middle, learned_weight=learned_weight) > bound:
            below = middle
        else:
            n = middle
    return n
