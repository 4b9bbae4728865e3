"""Losses of one row, and their weighted mean over the rows of a task.

A row loss maps outputs and targets to one number a row; :func:`task_loss` averages it with the row weights, so a padded row
(weight 0) changes nothing. Classes that an episode does not know are masked out by ``extra["classes"]``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import InvalidParameterError
from .tasks import Rows

__all__ = [
    "CLASSIFICATION_LOSSES",
    "REGRESSION_LOSSES",
    "absolute_error",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "poisson",
    "resolve_loss",
    "squared_error",
    "task_loss",
]

RowLoss = Callable[[Tensor, Tensor], Tensor]


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Squared error of each row, averaged over outputs; shapes (rows, outputs) -> (rows,).

    Examples
    --------
    >>> squared_error(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, 1.0]]))
    tensor([2.5000])
    """
    return ((output - target) ** 2).mean(-1)


def absolute_error(output: Tensor, target: Tensor) -> Tensor:
    """Absolute error of each row, averaged over outputs; shapes (rows, outputs) -> (rows,)."""
    return (output - target).abs().mean(-1)


def huber(output: Tensor, target: Tensor, delta: float = 1.0) -> Tensor:
    """Huber's loss: quadratic up to `delta` (in standardised units of the target), linear beyond; mean over outputs."""
    error = (output - target).abs()
    return torch.where(error <= delta, 0.5 * error**2, delta * (error - 0.5 * delta)).mean(-1)


def poisson(output: Tensor, target: Tensor) -> Tensor:
    """Poisson negative log-likelihood of counts, `output` the log of the rate; without the term in the target alone."""
    return (output.exp() - target * output).mean(-1)


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of class codes; shapes (rows, classes), (rows,) -> (rows,).

    Examples
    --------
    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))
    tensor([1.3863])
    """
    # The operands are gathered rather than handed to F.cross_entropy: the same numbers, and fewer kernels under vmap.
    return -F.log_softmax(output, -1).gather(-1, target.unsqueeze(-1)).squeeze(-1)


def binary_cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy of two classes from one output, the log-odds of class 1; shapes (rows, 1), (rows,) -> (rows,)."""
    log_odds = output.squeeze(-1)
    return F.softplus(log_odds) - log_odds * target.to(log_odds.dtype)


REGRESSION_LOSSES: dict[str, RowLoss] = {
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber,
    "poisson": poisson,
}
CLASSIFICATION_LOSSES: dict[str, RowLoss] = {
    "cross_entropy": cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
}


def resolve_loss(loss: Any, known: dict[str, RowLoss]) -> RowLoss:
    """Return the row loss of this name, the callable itself, or the first known one for None."""
    if loss is None:
        return next(iter(known.values()))
    if callable(loss):
        return loss
    if loss in known:
        return known[loss]
    raise InvalidParameterError(
        f"loss: got {loss!r}; expected one of {', '.join(map(repr, known))}, or a callable (output, target) -> loss per row."
    )


def task_loss(row_loss: RowLoss, output: Tensor, rows: Rows) -> Tensor:
    """Weighted mean of a row loss over the rows of one task; 0 if no row has weight.

    Parameters
    ----------
    row_loss : callable
        ``(output, target) -> loss``, one number a row.
    output : Tensor of shape (rows, outputs)
        What the network says.
    rows : Rows
        Rows of one task, without the task axis.

    Returns
    -------
    Tensor of shape ()
    """
    if "classes" in rows.extra:
        output = output.masked_fill(~rows.extra["classes"], -1e9)  # finite: softmax of it is 0, its gradient too
    weight = rows.weight
    return (row_loss(output, rows.y) * weight).sum() / weight.sum().clamp(min=torch.finfo(weight.dtype).tiny)
