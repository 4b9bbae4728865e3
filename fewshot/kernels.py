"""The three kernels of the meta-gradient, over a batch of tasks: one task after another, or vectorised.

* ``gradient(moving, shared, support)``: the support loss of each task and its gradient in the moving parameters;
* ``query_gradient(moving, shared, support, query)``: the query loss of each task, its gradients in moving and shared ones;
* ``curvature(moving, shared, support, direction)``: the gradient again, and the products of the support loss's second
  derivatives with `direction`, which is what pulling a cotangent back through a gradient step needs.

Moving parameters have a leading task axis, shared ones do not, and their gradients are sums over tasks weighted by the caller.
``step`` counts inner steps, for networks whose constants differ from step to step. :class:`LoopKernels` is plain autograd: it
takes anything that autograd differentiates twice, never sees a padded row, and is what the other is checked against.
:class:`VectorizedKernels` maps all tasks at once with torch.func and, for shapes that recur, records each kernel once, which
removes the cost of the transforms.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.func import grad, grad_and_value, vjp, vmap

from .functional import FunctionalModule, differentiable_forward
from .recording import Recorded
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["Kernels", "LoopKernels", "VectorizedKernels", "per_task_rows"]

logger = logging.getLogger("fewshot")


class Kernels(Protocol):
    """What the meta-gradient is made of; see the module's docstring."""

    def gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, seed: int, step: int = 0
    ) -> tuple[Tensor, Tensors]:
        """Support loss of each task, shape (tasks,), and gradients with a leading task axis."""
        ...

    def query_gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, query: Rows, seed: int, step: int = 0
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Query loss of each task and its gradients; both kinds have a leading task axis."""
        ...

    def curvature(
        self, moving: Tensors, shared: Tensors, support: Rows, direction: Tensors, seed: int, step: int = 0
    ) -> tuple[Tensors, Tensors, Tensors]:
        """Gradients, and second derivatives times `direction` (moving, shared), with a leading task axis."""
        ...


def per_task_rows(rows: Rows, t: int) -> Rows:
    """Rows of task `t` that have weight, without the task axis."""
    real = rows.weight[t] != 0
    return Rows(rows.x[t][real], rows.y[t][real], rows.weight[t][real], {k: v[t][real] for k, v in rows.extra.items()})


def _stack(dicts: Sequence[Tensors]) -> Tensors:
    return {name: torch.stack([d[name] for d in dicts]) for name in dicts[0]}


class LoopKernels:
    """Kernels that go through the tasks one by one with plain autograd.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    constant : dict of str to Tensor, default=None
        Constant tensors; None takes those of `functional`.
    """

    def __init__(self, functional: FunctionalModule, constant: Tensors | None = None) -> None:
        self.functional = functional
        self.constant = functional.constant if constant is None else constant

    def _constants(self, step: int) -> Tensors:
        return self.functional.constants(self.constant, step)

    def _leaves(self, moving: Tensors, shared: Tensors, t: int, seed: int) -> tuple[Tensors, Tensors]:
        torch.manual_seed(seed + t)
        mine = {k: v[t].detach().requires_grad_() for k, v in moving.items()}
        return mine, {k: v.detach().requires_grad_() for k, v in shared.items()}

    def gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, seed: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensors]:
        """Return support losses and gradients; see :class:`Kernels`."""
        losses, gradients, constant = [], [], self._constants(step)
        with _loop_context():
            for t in range(len(support.x)):
                mine, _ = self._leaves(moving, {}, t, seed)
                loss = self.functional.support_loss(mine, shared, constant, per_task_rows(support, t))
                losses.append(loss.detach())
                gradients.append(_grad(loss, mine))
        return torch.stack(losses), _stack(gradients)

    def query_gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, query: Rows, seed: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Return query losses and gradients; see :class:`Kernels`."""
        losses, of_moving, of_shared, constant = [], [], [], self._constants(step)
        with _loop_context():
            for t in range(len(query.x)):
                mine, ours = self._leaves(moving, shared, t, seed)
                loss = self.functional.query_loss(
                    mine, ours, constant, per_task_rows(support, t), per_task_rows(query, t)
                )
                losses.append(loss.detach())
                both = _grad(loss, {**mine, **ours})
                of_moving.append({k: both[k] for k in mine})
                of_shared.append({k: both[k] for k in ours})
        return torch.stack(losses), _stack(of_moving), _stack(of_shared)

    def curvature(
        self, moving: Tensors, shared: Tensors, support: Rows, direction: Tensors, seed: int = 0, step: int = 0
    ) -> tuple[Tensors, Tensors, Tensors]:
        """Return gradients and second derivatives times `direction`; see :class:`Kernels`."""
        gradients, of_moving, of_shared, constant = [], [], [], self._constants(step)
        with _loop_context():
            for t in range(len(support.x)):
                mine, ours = self._leaves(moving, shared, t, seed)
                loss = self.functional.support_loss(mine, ours, constant, per_task_rows(support, t))
                g = _grad(loss, mine, create_graph=True)
                along = sum((g[k] * direction[k][t]).sum() for k in g)
                both = _grad(along, {**mine, **ours})
                gradients.append({k: v.detach() for k, v in g.items()})
                of_moving.append({k: both[k] for k in mine})
                of_shared.append({k: both[k] for k in ours})
        return _stack(gradients), _stack(of_moving), _stack(of_shared)


@contextmanager
def _loop_context() -> Iterator[None]:
    with torch.enable_grad(), differentiable_forward(), torch.random.fork_rng(devices=[]):
        yield


def _grad(value: Any, at: Tensors, create_graph: bool = False) -> Tensors:
    """Gradient of a scalar by name; zero where it does not depend on a tensor."""
    if not isinstance(value, Tensor) or not value.requires_grad:
        return {k: torch.zeros_like(v) for k, v in at.items()}
    found = torch.autograd.grad(value, list(at.values()), create_graph=create_graph, allow_unused=True)
    return {k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(at.items(), found, strict=True)}


# Traced kernels by network, so that they are neither copied nor pickled with an estimator and die with the network.
_TRACES: weakref.WeakKeyDictionary[FunctionalModule, dict[Any, Any]] = weakref.WeakKeyDictionary()
TRACE_AFTER = 3  # calls with the same shapes before a kernel is traced: a trace costs about as much as 50 calls
NEVER = -(2**62)  # a count of calls that does not reach TRACE_AFTER
MAX_TRACES = 24  # of one network; rarer shapes run through vmap as they are


class VectorizedKernels:
    """Kernels that treat all tasks at once; see the module's docstring.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    constant : dict of str to Tensor, default=None
        Constant tensors; None takes those of `functional`.
    trace : bool, default=True
        Trace kernels whose shapes recur.
    random : bool, default=False
        The network draws random numbers (dropout): seed every call, draw per task, do not trace.
    """

    def __init__(
        self, functional: FunctionalModule, constant: Tensors | None = None, *, trace: bool = True, random: bool = False
    ) -> None:
        self.functional = functional
        self.constant = functional.constant if constant is None else constant
        self.trace, self.random = trace and not random, random

    def gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, seed: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensors]:
        """Return support losses and gradients; see :class:`Kernels`."""
        loss = self.functional.support_loss

        def kernel(moving: Tensors, shared: Tensors, constant: Tensors, support: Rows) -> Any:
            return vmap(grad_and_value(loss), (0, None, None, 0), randomness="different")(
                moving, shared, constant, support
            )

        gradients, losses = self._run(
            "gradient", kernel, (moving, shared, self.functional.constants(self.constant, step), support), seed
        )
        return losses, gradients

    def query_gradient(
        self, moving: Tensors, shared: Tensors, support: Rows, query: Rows, seed: int = 0, step: int = 0
    ) -> tuple[Tensor, Tensors, Tensors]:
        """Return query losses and gradients; see :class:`Kernels`."""
        loss = self.functional.query_loss

        def kernel(moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, query: Rows) -> Any:
            return vmap(grad_and_value(loss, (0, 1)), (0, None, None, 0, 0), randomness="different")(
                moving, shared, constant, support, query
            )

        arguments = (moving, shared, self.functional.constants(self.constant, step), support, query)
        (of_moving, of_shared), losses = self._run("query_gradient", kernel, arguments, seed)
        return losses, of_moving, of_shared

    def curvature(
        self, moving: Tensors, shared: Tensors, support: Rows, direction: Tensors, seed: int = 0, step: int = 0
    ) -> tuple[Tensors, Tensors, Tensors]:
        """Return gradients and second derivatives times `direction`; see :class:`Kernels`."""
        gradient = grad(self.functional.support_loss)

        def one(moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, direction: Tensors) -> Any:
            # Without has_aux it returns two values, which its annotation leaves open.
            result: Any = vjp(lambda m, s: gradient(m, s, constant, support), moving, shared)
            g, pull_back = result
            return g, *pull_back(direction)

        def kernel(moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, direction: Tensors) -> Any:
            return vmap(one, (0, None, None, 0, 0), randomness="different")(
                moving, shared, constant, support, direction
            )

        arguments = (moving, shared, self.functional.constants(self.constant, step), support, direction)
        g, of_moving, of_shared = self._run("curvature", kernel, arguments, seed)
        return g, of_moving, of_shared

    def _run(self, name: str, kernel: Callable[..., Any], arguments: tuple[Any, ...], seed: int) -> Any:
        if not self.trace:
            with torch.no_grad(), differentiable_forward(), torch.random.fork_rng(devices=[], enabled=self.random):
                if self.random:
                    torch.manual_seed(seed)
                return kernel(*arguments)
        traces = _TRACES.setdefault(self.functional, {})
        flat = torch.utils._pytree.tree_leaves(arguments)
        # Names of extra columns belong to the key: the tensors alone do not tell two sets of them apart.
        extras = tuple(tuple(a.extra) for a in arguments if isinstance(a, Rows))
        key = (name, extras, self.functional.skeleton.training, tuple((a.shape, a.dtype, a.device) for a in flat))
        seen = traces.get(key, 0)
        with torch.no_grad():
            if not isinstance(seen, int):
                return seen.replay(flat)
            with differentiable_forward():
                if seen >= TRACE_AFTER and sum(not isinstance(v, int) for v in traces.values()) < MAX_TRACES:
                    traces[key] = _traced(kernel, arguments)
                else:
                    traces[key] = seen + 1
                return kernel(*arguments)


def _traced(kernel: Callable[..., Any], arguments: Sequence[Any]) -> Recorded | int:
    """Record the operations of a kernel for these shapes; NEVER if that is not possible."""
    try:
        return Recorded(kernel, arguments)
    except RuntimeError as error:
        logger.debug("kernels: running untraced (%s)", error)
        return NEVER
