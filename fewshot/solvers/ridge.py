r"""A ridge regression for the last layer: Bayesian linear regression on learned features.

With ``phi`` the features and a one, weights ``W = W_0 + D`` whose deviation has the prior ``D ~ N(0, sigma^2 Lambda_0^{-1})`` for
each output, and noise ``sigma^2``, the n support rows give

    Lambda = Lambda_0 + Phi^T Phi,    D = Lambda^{-1} Phi^T (Y - Phi W_0),

and a new row has the mean ``phi^T (W_0 + D)`` and the variance ``sigma^2 (1 + phi^T Lambda^{-1} phi)``. ``W_0``, the diagonal
``Lambda_0`` and ``sigma`` are learned over tasks, with the features.

References
----------
Bertinetto, Henriques, Torr, Vedaldi (2019), Meta-learning with differentiable closed-form solvers, ICLR, section 3.2 (R2-D2; it has
one ``Lambda_0 = lambda I`` and ``W_0 = 0``). Harrison, Sharma, Pavone (2018), Meta-learning priors for efficient online Bayesian
regression, WAFR, section 4 (ALPaCA; ``Lambda_0`` a full matrix, which learned features make up for).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..step_sizes import Tensors
from ._solver import FASTER, Hyperparameters, counts, lower_inverse

__all__ = ["Ridge"]


class Ridge:
    """Solver of the ridge head; see the module's docstring.

    Examples
    --------
    >>> solver, x = Ridge(), torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    >>> hyper = solver.hyperparameters(1)
    >>> head = solver.fit(hyper, x, 3 * x + 1, torch.ones(20))
    >>> mean, variance = solver.predict(hyper, head, x[:1])
    >>> round(float(mean), 1)
    -1.7
    """

    def hyperparameters(self, n_features: int) -> Hyperparameters:
        """Return the starting values: precisions of the features' weights and of the intercept's, and the noise."""
        return {
            "log_precision": torch.zeros(n_features + 1),
            "log_noise": torch.full((), math.log(0.1) / FASTER),
        }

    def fit(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensors:
        """Return the weights' deviation and the inverse factor of their precision; see :class:`HeadSolver`."""
        phi, n = _with_one(features), counts(weight).double()
        weighted = phi * n[:, None]
        inverse = lower_inverse(torch.diag_embed(_precision(hyper)) + weighted.T @ phi)
        deviation = inverse.T @ (inverse @ (weighted.T @ residual.double()))
        return {"deviation": deviation.to(features.dtype), "inverse": inverse.to(features.dtype)}

    def predict(self, hyper: Hyperparameters, head: Tensors | None, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of new observations; see :class:`HeadSolver`."""
        phi, noise = _with_one(features), (FASTER * hyper["log_noise"].double()).exp()
        if head is None:
            mean = torch.zeros_like(phi[:, :1])
            spread = (phi**2 / _precision(hyper)).sum(1)
        else:
            mean = phi @ head["deviation"].double()
            spread = ((phi @ head["inverse"].double().T) ** 2).sum(1)
        return mean.to(features.dtype), (noise * (1 + spread)).to(features.dtype)

    def evidence(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        """Log density of all residuals together; see :class:`HeadSolver`."""
        phi, n, y = _with_one(features), counts(weight).double(), residual.double()
        noise, precision = (FASTER * hyper["log_noise"].double()).exp(), _precision(hyper)
        weighted = phi * n[:, None]
        inverse = lower_inverse(torch.diag_embed(precision) + weighted.T @ phi)
        fitted = inverse @ (weighted.T @ y)
        squares = ((n[:, None] * y**2).sum(0) - (fitted**2).sum(0)) / noise
        logs = precision.log().sum() + 2 * inverse.diagonal().log().sum()  # log |Lambda_0| - log |Lambda|
        present = n > 0
        rows = torch.where(present, torch.log(2 * math.pi * noise / torch.where(present, n, 1.0)), 0.0).sum()
        return (-0.5 * (squares - logs + rows)).to(features.dtype)


def _with_one(features: Tensor) -> Tensor:
    return torch.cat([features, torch.ones_like(features[:, :1])], 1).double()


def _precision(hyper: Hyperparameters) -> Tensor:
    return (FASTER * hyper["log_precision"].double()).exp()
