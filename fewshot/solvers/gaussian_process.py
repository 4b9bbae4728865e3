r"""A Gaussian process for the last layer: exact inference with a kernel on learned features.

The deviation from the prior's mean has the kernel

    k(phi, phi') = c + sum_j a_j phi_j phi'_j + s exp(-1/2 sum_j (phi_j - phi'_j)^2 / l_j^2),

with automatic relevance (one ``a_j`` and one ``l_j`` for each feature). With noise of variance ``sigma^2``, the support gives a
new row the mean ``k_*^T (K + sigma^2 I)^{-1} r`` and the variance ``k_** - k_*^T (K + sigma^2 I)^{-1} k_* + sigma^2``. All
constants are learned over tasks, with the features: by the evidence of tasks, ``log N(r; 0, K + sigma^2 I)``, or by the density
of query rows.

A row of weight w has noise ``sigma^2 / w``. Everything is written with ``B = I + W^{1/2} K W^{1/2} / sigma^2``, whose eigenvalues
are 1 or more, and in which rows of weight 0 leave no trace.

References
----------
Patacchiola, Turner, Crowley, O'Boyle, Storkey (2020), Bayesian meta-learning for the few-shot setting via deep kernels, NeurIPS,
section 3. Rasmussen, Williams (2006), Gaussian processes for machine learning, algorithm 2.1 and section 5.4.1.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..step_sizes import Tensors
from ._solver import FASTER, Hyperparameters, counts, lower_inverse

__all__ = ["GaussianProcess"]


class GaussianProcess:
    """Solver of the Gaussian-process head; see the module's docstring.

    Examples
    --------
    >>> solver, x = GaussianProcess(), torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    >>> hyper = solver.hyperparameters(1)
    >>> head = solver.fit(hyper, x, x**2, torch.ones(20))
    >>> mean, variance = solver.predict(hyper, head, torch.zeros(1, 1, dtype=torch.float64))
    >>> abs(float(mean)) < 0.1
    True
    """

    def hyperparameters(self, n_features: int) -> Hyperparameters:
        """Return the starting values: about one unit of variance from each part of the kernel, for features of size one."""
        return {
            "log_constant": torch.zeros(()),
            "log_linear": torch.full((n_features,), -math.log(n_features) / FASTER),
            "log_rbf": torch.zeros(()),
            "log_length": torch.full((n_features,), 0.5 * math.log(n_features) / FASTER),
            "log_noise": torch.full((), math.log(0.1) / FASTER),
        }

    def fit(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensors:
        """Return the support's features, its dual weights and half of the solution for variances; see :class:`HeadSolver`."""
        half = self._half(hyper, features, weight)
        return {
            "features": features,
            "dual": (half.T @ (half @ residual.double())).to(features.dtype),
            "half": half.to(features.dtype),
        }

    def predict(self, hyper: Hyperparameters, head: Tensors | None, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of new observations; see :class:`HeadSolver`."""
        h = _exp(hyper)
        own = h["constant"] + (h["linear"] * features.double() ** 2).sum(1) + h["rbf"]
        if head is None:
            return torch.zeros_like(features[:, :1]), (own + h["noise"]).to(features.dtype)
        k = _kernel(h, features, head["features"])
        mean = k @ head["dual"].double()
        variance = own - ((k @ head["half"].double().T) ** 2).sum(1)
        # Rounding may take the explained part above the whole.
        return mean.to(features.dtype), (variance.clamp(min=0) + h["noise"]).to(features.dtype)

    def evidence(self, hyper: Hyperparameters, features: Tensor, residual: Tensor, weight: Tensor) -> Tensor:
        """Log density of all residuals together; see :class:`HeadSolver`."""
        half, present = self._half(hyper, features, weight), weight > 0
        squares = ((half @ residual.double()) ** 2).sum(0)
        logs = 2 * torch.where(present, half.diagonal(), 1.0).log().sum()  # of the inverse's determinant
        return (-0.5 * (squares - logs + present.double().sum() * math.log(2 * math.pi))).to(features.dtype)

    def _half(self, hyper: Hyperparameters, features: Tensor, weight: Tensor) -> Tensor:
        """``L^{-1} W^{1/2} / sigma``, where ``L L^T = B``: its square is the inverse of ``K + sigma^2 / W``."""
        h = _exp(hyper)
        root = counts(weight).double().sqrt() * h["noise"] ** -0.5  # weights are zero, but have no derivative
        matrix = root[:, None] * _kernel(h, features, features) * root
        identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
        return lower_inverse(identity + matrix) * root


def _exp(hyper: Hyperparameters) -> Tensors:
    return {name.removeprefix("log_"): (FASTER * value.double()).exp() for name, value in hyper.items()}


def _kernel(h: Tensors, a: Tensor, b: Tensor) -> Tensor:
    a, b = a.double(), b.double()
    apart = (((a[:, None, :] - b[None, :, :]) / h["length"]) ** 2).sum(-1)
    return h["constant"] + (a * h["linear"]) @ b.T + h["rbf"] * torch.exp(-0.5 * apart)
