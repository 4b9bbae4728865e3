"""The inner loop: which parameters move, how far, and how that depends on the support.

A step is ``theta' = theta - s(n) * alpha_k * grad L_S(theta)``. The step size ``alpha_k`` of step k is fixed (Finn, Abbeel, Levine
2017) or learned, per tensor or per parameter (Li et al. 2017, Meta-SGD; per step: Antoniou, Edwards, Storkey 2019). With
learned sizes each tensor also learns how much to trust n support rows, ``s(n) = n / (n + c)``: the gradient of the mean loss
over n rows is noisier for small n, and this is the shrinkage that a Gaussian prior of strength c gives. n is Kish's effective
number of rows, so it does not depend on the scale of the weights.

Everything here is elementwise in batched tensors with a leading task axis; gradients are made by the caller.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import InvalidParameterError

__all__ = ["Adaptation", "StepSizes", "effective_rows", "moving_names"]

Tensors = dict[str, Tensor]
TINY = 1e-30


def effective_rows(weight: Tensor) -> Tensor:
    """Kish's effective number of rows of each task; (tasks, rows) -> (tasks,).

    Examples
    --------
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

    def step(self, params: Tensors, gradients: Tensors, n: Tensor) -> Tensors:
        """Take the step; `params` and `gradients` have a leading task axis, `n` is the support size of each task."""
        return {k: torch.addcmul(p, self.scale(k, n, p), gradients[k], value=-1) for k, p in params.items()}

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


@dataclass(frozen=True)
class Adaptation:
    """How a task adapts: the settings of the inner loop.

    Parameters
    ----------
    inner_steps : int, default=5
        Number of gradient steps; 0 leaves the initialisation as it is (a pooled model).
    inner_lr : float, default=0.01
        Step size, or its starting value where it is learned.
    learn_step_sizes : {"tensor", "parameter", False}, default="tensor"
        Learn one step size per tensor and step, one per parameter and step (Meta-SGD), or none.
    half_trust : float or None, default=4.0
        Starting value of c, in rows, of ``n / (n + c)``, learned per tensor; None: steps do not depend on the support size.
        Without learned step sizes there is no such scaling.
    adapted : {"all", "head", "body"} or list of str, default="all"
        Which parameters move: all, those of the last layer (ANIL), all but those (BOIL), or name patterns.

    Examples
    --------
    >>> sizes = Adaptation(inner_steps=2, inner_lr=0.5, half_trust=None).init({"w": torch.zeros(3)})
    >>> {name: tuple(value.shape) for name, value in sizes.items()}
    {'log_alpha.w': (2,)}
    """

    inner_steps: int = 5
    inner_lr: float = 0.01
    learn_step_sizes: str | bool = "tensor"
    half_trust: float | None = 4.0
    adapted: str | Sequence[str] = "all"

    def __post_init__(self) -> None:
        if (
            not isinstance(self.inner_steps, int | np.integer)
            or isinstance(self.inner_steps, bool)
            or self.inner_steps < 0
        ):
            raise InvalidParameterError(f"inner_steps: got {self.inner_steps!r}; expected a whole number of 0 or more.")
        if not isinstance(self.inner_lr, int | float | np.number) or not 0 < self.inner_lr < math.inf:
            raise InvalidParameterError(f"inner_lr: got {self.inner_lr!r}; expected a positive number.")
        if self.learn_step_sizes not in ("tensor", "parameter", False):
            raise InvalidParameterError(
                f"learn_step_sizes: got {self.learn_step_sizes!r}; expected 'tensor', 'parameter', False, or None."
            )

    @property
    def learns(self) -> bool:
        """Whether step sizes are meta-learned."""
        return self.learn_step_sizes is not False

    @property
    def scales(self) -> bool:
        """Whether steps are scaled by n / (n + c)."""
        return self.learns and self.half_trust is not None

    def init(self, moving: Tensors) -> Tensors:
        """Return the starting values of what the step sizes are made of, by name.

        Parameters
        ----------
        moving : dict of str to Tensor
            The parameters that move.
        """
        sizes = {}
        for name, p in moving.items():
            shape = p.shape if self.learn_step_sizes == "parameter" else ()
            sizes[f"log_alpha.{name}"] = torch.full(
                (max(self.inner_steps, 1), *shape), math.log(self.inner_lr), dtype=p.dtype, device=p.device
            )
            if self.scales:
                assert self.half_trust is not None
                sizes[f"log_c.{name}"] = p.new_tensor(math.log(self.half_trust))
        return sizes

    def at(self, sizes: Tensors, k: int) -> StepSizes:
        """Step sizes of step `k`, counted from 0; steps past the last learned one use that one's."""

        def part(prefix: str) -> Tensors:
            return {n.removeprefix(prefix): v for n, v in sizes.items() if n.startswith(prefix)}

        log_alpha = {n: v[min(k, len(v) - 1)] for n, v in part("log_alpha.").items()}
        return StepSizes(log_alpha, part("log_c.") if self.scales else None)

    def collect(self, per_step: Sequence[tuple[Tensors, Tensors | None]], sizes: Tensors) -> Tensors:
        """Assemble derivatives of the single steps (in order) into derivatives of `sizes`."""
        out = {name: torch.zeros_like(value) for name, value in sizes.items()}
        for k, (alpha, c) in enumerate(per_step):
            for name, value in alpha.items():
                out[f"log_alpha.{name}"][min(k, len(out[f"log_alpha.{name}"]) - 1)] += value
            for name, value in (c or {}).items():
                out[f"log_c.{name}"] += value
        return out


def moving_names(module: nn.Module, adapted: Any) -> list[str]:
    """Names of the trainable parameters of `module` that the inner loop moves.

    Parameters
    ----------
    module : torch.nn.Module
        The network; parameters with ``requires_grad=False`` are frozen and never move.
    adapted : {"all", "head", "body"} or list of str
        As in :class:`Adaptation`.

    Raises
    ------
    InvalidParameterError
        If nothing would move.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> moving_names(net, "head"), moving_names(net, ["0.*"])
    (['2.weight', '2.bias'], ['0.weight', '0.bias'])
    """
    names = [n for n, p in module.named_parameters() if p.requires_grad]
    last = names[-1].rpartition(".")[0] if names else ""
    head = [n for n in names if n.rpartition(".")[0] == last]
    if adapted == "all":
        chosen = names
    elif adapted == "head":
        chosen = head
    elif adapted == "body":
        chosen = [n for n in names if n not in head]
    elif isinstance(adapted, list | tuple) and all(isinstance(p, str) for p in adapted):
        chosen = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in adapted)]
    else:
        raise InvalidParameterError(
            f"adapted: got {adapted!r}; expected 'all', 'head', 'body' or a list of parameter-name patterns."
        )
    if not chosen:
        raise InvalidParameterError(
            f"adapted: {adapted!r} selects none of the trainable parameters {names}; at least one must move."
        )
    return chosen
