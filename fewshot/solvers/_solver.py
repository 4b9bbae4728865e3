"""What a solver is: pure functions of one task's features, residuals and row weights."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from ..step_sizes import TINY, Tensors, effective_rows

__all__ = ["FASTER", "HeadSolver", "Hyperparameters", "counts", "lower_inverse"]

Hyperparameters = dict[str, Tensor]
# Adam moves each parameter by about the learning rate in a step; logarithms of variances have further to go than weights. So what
# is learned is the logarithm divided by this.
FASTER = 10.0


class HeadSolver(Protocol):
    """Fits ``y - prior(x)`` on features, with an uncertainty. Everything is of one task, without a task axis."""

    def hyperparameters(self, n_features: int) -> Hyperparameters:
        """Return the starting values of what is learned over tasks."""
        ...

    def fit(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensors:
        """Return the head that support rows give: whatever :meth:`predict` needs.

        Parameters
        ----------
        hyper : dict of str to Tensor
            As from :meth:`hyperparameters`.
        features : Tensor of shape (rows, features)
            Of the support.
        residual : Tensor of shape (rows, outputs)
            Targets less the prior's mean.
        weight : Tensor of shape (rows,)
            Row weights; rows of weight 0 count for nothing.
        """
        ...

    def predict(self, hyper: Hyperparameters, head: Tensors | None, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean, shape (rows, outputs), and variance, (rows,), of new observations of the residual; None: the prior's."""
        ...

    def evidence(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        """Log density of the residuals of all rows together, shape (outputs,)."""
        ...


def counts(weight: Tensor) -> Tensor:
    """Row weights as numbers of observations: their sum is Kish's effective number of rows, whatever their scale."""
    return weight * (effective_rows(weight[None])[0] / weight.sum().clamp(min=TINY))


def lower_inverse(matrix: Tensor) -> Tensor:
    """Inverse of the lower Cholesky factor of a symmetric matrix; NaN where it is not positive definite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    factor = torch.where(info == 0, factor, torch.nan)
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, identity, upper=False)
    return inverse
