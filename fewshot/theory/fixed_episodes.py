"""Task families whose meta-training has a known end: quadratic losses, and episodes that are the same at every meta-step.

A quadratic loss is the squared error of a linear model without intercept on a few rows, so that the package's own estimators and
engine run on it unchanged; and where every meta-step sees the same rows, meta-training has no noise and lands on a point.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ..errors import InvalidParameterError
from ..tasks import Rows
from ._checks import array

__all__ = ["FixedEpisodes", "quadratic_rows"]


class FixedEpisodes:
    """A :class:`~fewshot.tasks.TaskSampler` that draws nothing: all tasks with all their rows, every time.

    Parameters
    ----------
    support, query : Rows
        With leading axes (tasks, rows).

    Raises
    ------
    InvalidParameterError
        If they do not hold as many tasks.

    Examples
    --------
    >>> rows = quadratic_rows([1.0, 4.0], [0.0, 2.0])
    >>> FixedEpisodes(rows, rows).sample(16, np.random.default_rng(0))[0].x.shape
    torch.Size([2, 1, 1])
    """

    def __init__(self, support: Rows, query: Rows) -> None:
        if len(support.x) != len(query.x):
            raise InvalidParameterError(
                f"query: got {len(query.x)} tasks; expected {len(support.x)}, as many as in support."
            )
        self.support, self.query = support, query

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        """Return support and query; `n_tasks` and `rng` are ignored."""
        return self.support, self.query


def quadratic_rows(hessians: npt.ArrayLike, optima: npt.ArrayLike, *, dtype: torch.dtype = torch.float64) -> Rows:
    r"""Rows on which the mean squared error of a linear model is a given quadratic.

    For each task :math:`\frac1n \sum_j (x_j^\top \theta - y_j)^2 = \frac12 (\theta - \theta^*)^\top H (\theta - \theta^*)`, with as
    many rows as parameters.

    Parameters
    ----------
    hessians : array-like of shape (tasks,) or (tasks, features, features)
        Positive definite; one number each for losses of one parameter.
    optima : array-like of shape (tasks,) or (tasks, features)
        Where the losses are 0.
    dtype : torch.dtype, default=torch.float64
        Of the tensors.

    Returns
    -------
    Rows
        Inputs of shape (tasks, features, features), targets of shape (tasks, features).

    Raises
    ------
    InvalidParameterError
        If shapes do not fit or a Hessian is not positive definite.

    Examples
    --------
    >>> rows = quadratic_rows([2.0], [3.0])  # (theta - 3)^2
    >>> rows.x.item(), rows.y.item()
    (1.0, 3.0)
    """
    h, star = array("hessians", hessians, 1, 3), array("optima", optima, 1, 2)
    h, star = h.reshape(len(h), *(h.shape[1:] or (1, 1))), star.reshape(len(star), -1)
    n = star.shape[1]
    if h.shape != (len(star), n, n):
        raise InvalidParameterError(
            f"hessians: got shape {np.shape(hessians)}; expected ({len(star)}, {n}, {n}) for optima of shape "
            f"{np.shape(optima)}."
        )
    try:
        x = np.linalg.cholesky(h * (n / 2)).swapaxes(1, 2)
    except np.linalg.LinAlgError:
        raise InvalidParameterError(
            "hessians: at least one is not positive definite, so its loss has no single optimum; add a multiple of the identity."
        ) from None
    y = np.einsum("trf,tf->tr", x, star)
    return Rows(torch.as_tensor(x, dtype=dtype), torch.as_tensor(y, dtype=dtype), torch.ones(x.shape[:2], dtype=dtype))
