"""The inner loop: which parameters move, how far, in how many steps and by which rule.

The step size ``alpha_k`` of step k is fixed (Finn, Abbeel, Levine 2017) or learned, per tensor or per parameter (Li et al. 2017,
Meta-SGD; per step: Antoniou, Edwards, Storkey 2019); with learned sizes it depends on the support as :mod:`.step_sizes` says.

Everything here is elementwise in batched tensors with a leading task axis; gradients are made by the caller.
"""

from __future__ import annotations

import fnmatch
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .errors import InvalidParameterError
from .inner_optimizers import RULES, InnerOptimizer
from .networks import CONTEXT
from .step_sizes import StepSizes, Tensors

__all__ = ["Adaptation", "moving_names"]


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
    adapted : {"all", "head", "body", "context"} or list of str, default="all"
        Which parameters move: all, those of the last layer (ANIL), all but those (BOIL), context parameters (CAVIA; where these
        begin is not learned), or name patterns.
    optimizer : {"gradient_descent", "momentum", "adam"}, default="gradient_descent"
        What a step does with a gradient, see :mod:`.inner_optimizers`.
    proximal : float, default=0.0
        Strength of a term ``proximal / 2 * ||theta - theta_0||^2`` that holds adapted parameters near the initialisation.

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
    optimizer: str = "gradient_descent"
    proximal: float = 0.0

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
        if self.optimizer not in RULES:
            raise InvalidParameterError(
                f"inner_optimizer: got {self.optimizer!r}; expected one of {', '.join(map(repr, RULES))}."
            )
        if not isinstance(self.proximal, int | float | np.number) or not 0 <= self.proximal < math.inf:
            raise InvalidParameterError(f"proximal: got {self.proximal!r}; expected a number of 0 or more.")

    @functools.cached_property
    def rule(self) -> InnerOptimizer:
        """What a step does with a gradient."""
        return RULES[self.optimizer](float(self.proximal))

    @property
    def learns(self) -> bool:
        """Whether step sizes are meta-learned."""
        return self.learn_step_sizes is not False

    @property
    def learns_start(self) -> bool:
        """Whether what the inner loop starts from is meta-learned."""
        return self.adapted != CONTEXT

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

    def collect(self, per_step: Sequence[Tensors], sizes: Tensors) -> Tensors:
        """Assemble derivatives of the single steps (in order) into derivatives of `sizes`."""
        out = {name: torch.zeros_like(value) for name, value in sizes.items()}
        for k, of_sizes in enumerate(per_step):
            for name, value in of_sizes.items():
                if name.startswith("log_alpha."):
                    out[name][min(k, len(out[name]) - 1)] += value
                else:
                    out[name] += value
        return out


def moving_names(module: nn.Module, adapted: Any) -> list[str]:
    """Names of the trainable parameters of `module` that the inner loop moves.

    Parameters
    ----------
    module : torch.nn.Module
        The network; parameters with ``requires_grad=False`` are frozen and never move.
    adapted : {"all", "head", "body", "context"} or list of str
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
    elif adapted == CONTEXT:
        chosen = [n for n in names if n.rpartition(".")[2] == CONTEXT]
    elif isinstance(adapted, list | tuple) and all(isinstance(p, str) for p in adapted):
        chosen = [n for n in names if any(fnmatch.fnmatchcase(n, p) for p in adapted)]
    else:
        raise InvalidParameterError(
            f"adapted: got {adapted!r}; expected 'all', 'head', 'body', 'context' or a list of parameter-name patterns."
        )
    if not chosen:
        raise InvalidParameterError(
            f"adapted: {adapted!r} selects none of the trainable parameters {names}; at least one must move."
        )
    return chosen
