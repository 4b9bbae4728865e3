r"""The covariance of a Gaussian process over the columns of a table, with automatic relevance.

    k(x, x') = c + sum_j a_j x_j x'_j + sum_j b_j exp(-(x_j - x'_j)^2 / (2 l_j^2)) + s exp(-1/2 sum_j (x_j - x'_j)^2 / m_j^2):

a constant, a line in each column, a smooth curve in each column, and a function of all columns together (Duvenaud, Nickisch,
Rasmussen 2011 have products of columns in between). Columns are standardised. All constants are learned, as logarithms.

References
----------
Duvenaud, Nickisch, Rasmussen (2011), Additive Gaussian processes, NeurIPS. MacKay (1996), Bayesian non-linear modeling for the
prediction competition (automatic relevance).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["covariance", "starting_values", "variances"]

Hyperparameters = dict[str, Tensor]


def starting_values(n_features: int) -> Hyperparameters:
    """Return logarithms of the constants to start from, for a deviation of variance about one."""
    each = torch.ones(n_features, dtype=torch.float64) / n_features
    one = torch.ones((), dtype=torch.float64)
    return {
        "constant": one.log(),
        "line": (0.1 * each).log(),
        "curve": (0.3 * each).log(),
        "curve_length": torch.zeros(n_features, dtype=torch.float64),
        "joint": (0.3 * one).log(),
        "joint_length": torch.full((n_features,), 0.5 * math.log(n_features) + 0.3, dtype=torch.float64),
        "noise": (0.1 * one).log(),
    }


def covariance(log: Hyperparameters, a: Tensor, b: Tensor) -> Tensor:
    """Covariance of the rows of `a` and `b`; shapes (..., n, features), (..., m, features) -> (..., n, m)."""
    squares = (a.unsqueeze(-2) - b.unsqueeze(-3)) ** 2
    curves = torch.exp(-0.5 * squares * (-2 * log["curve_length"]).exp()) @ log["curve"].exp()
    together = torch.exp(-0.5 * (squares @ (-2 * log["joint_length"]).exp()))
    lines = (a * log["line"].exp()) @ b.transpose(-1, -2)
    return log["constant"].exp() + lines + curves + log["joint"].exp() * together


def variances(log: Hyperparameters, a: Tensor) -> Tensor:
    """Return the covariance of each row with itself; shape (..., n, features) -> (..., n)."""
    return log["constant"].exp() + (a**2) @ log["line"].exp() + log["curve"].exp().sum() + log["joint"].exp()
