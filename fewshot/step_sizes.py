"""Step sizes of one inner step: logarithms that are learned, and how they depend on the support.

With learned sizes each tensor also learns how much to trust n support rows, ``s(n) = n / (n + c)``: the gradient of the mean loss
over n rows is noisier for small n, and this is the shrinkage that a Gaussian prior of strength c gives. n is Kish's effective
number of rows, so it does not depend on the scale of the weights.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

__all__ = ["StepSizes", "by_name", "effective_rows"]

Tensors = dict[str, Tensor]
TINY = 1e-30


def effective_rows(weight: Tensor) -> Tensor:
    """Kish's effective number of rows of each task; (tasks, rows) -> (tasks,).

    Examples
    --------
    >>> import torch
    >>> effective_rows(torch.tensor([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0]]))
    tensor([2., 3.])
    """
    weight = weight / weight.amax(-1, keepdim=True).clamp(min=TINY)  # squares of very small weights would vanish
    return weight.sum(-1) ** 2 / (weight**2).sum(-1).clamp(min=TINY)


@dataclass(frozen=True)
class StepSizes:
    """Step sizes of one inner step, as the logarithms that are learned.

    Parameters
    ----------
    log_alpha : dict of str to Tensor
        For each moving tensor a scalar, or one value per parameter.
    log_c : dict of str to Tensor, or None
        For each moving tensor the log of the number of rows at which its step is halved; None: no such scaling.
    """

    log_alpha: Tensors
    log_c: Tensors | None = None

    def scale(self, name: str, n: Tensor, like: Tensor) -> Tensor:
        """Factor of the gradient of tensor `name`, broadcast against `like` of shape (tasks, *shape)."""
        alpha = self.log_alpha[name].exp()
        if self.log_c is None:
            return alpha
        return alpha * self._trust(name, n).reshape(-1, *(1,) * (like.ndim - 1))

    def times(self, factor: float) -> StepSizes:
        """Return the same sizes times a factor."""
        return StepSizes({name: value + math.log(factor) for name, value in self.log_alpha.items()}, self.log_c)

    def _trust(self, name: str, n: Tensor) -> Tensor:
        assert self.log_c is not None
        return n / (n + self.log_c[name].exp())

    def direction(self, cotangent: Tensors, n: Tensor) -> Tensors:
        """Pull a cotangent of the new parameters back to the gradients that were stepped along (with a minus sign)."""
        return {k: self.scale(k, n, v) * v for k, v in cotangent.items()}

    def derivative(self, cotangent: Tensors, gradients: Tensors, n: Tensor) -> tuple[Tensors, Tensors | None]:
        """Return derivatives in ``log_alpha`` and ``log_c``, summed over tasks.

        Parameters
        ----------
        cotangent : dict of str to Tensor
            Of the parameters after the step, with a leading task axis.
        gradients : dict of str to Tensor
            Along which the step went.
        n : Tensor of shape (tasks,)
            Support sizes.
        """
        alpha: Tensors = {}
        c: Tensors = {}
        for name, v in cotangent.items():
            # d theta' / d log_alpha = -scale * g, and d log s(n) / d log_c = -(1 - s(n)).
            inner = -(self.scale(name, n, v) * gradients[name] * v)
            per_task = inner.reshape(len(inner), -1).sum(1)
            alpha[name] = inner.sum(0) if self.log_alpha[name].ndim else per_task.sum()
            if self.log_c is not None:
                c[name] = -(per_task * (1 - self._trust(name, n))).sum()
        return alpha, (c if self.log_c is not None else None)


def by_name(alpha: Tensors, c: Tensors | None) -> Tensors:
    """Put derivatives in ``log_alpha`` and ``log_c`` into one dict, named as what is learned."""
    named = {f"log_alpha.{name}": value for name, value in alpha.items()}
    return named | {f"log_c.{name}": value for name, value in (c or {}).items()}
