"""What one task computes, as graphs of tensor operations.

Nothing here is vectorised over tasks: the graphs are those of a *single* task, and the compiled program loops over tasks
itself. So no batching rule of torch takes part, and every intermediate result is small enough to stay in the cache.

* ``step``: the support's loss and the parameters after an inner step;
* ``pull_back``: the cotangent of the parameters before the step, and what the step adds to the derivatives in shared
  parameters and step sizes. It is recorded in one graph with ``step``, whose intermediate results it uses;
* ``query``: the query loss and its gradients;
* ``evaluate``: a loss alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._decomp import _core_aten_decompositions_post_autograd, get_decompositions
from torch.func import grad_and_value, vjp
from torch.fx import Graph, Node

from ..adaptation import Adaptation
from ..functional import FunctionalModule, differentiable_forward
from ..metagradient import of_network
from ..recording import record
from ..step_sizes import StepSizes, Tensors, effective_rows
from ..tasks import Rows
from .values import UnsupportedError

__all__ = ["Task", "Trace", "trace_evaluate", "trace_query", "trace_step"]

aten = torch.ops.aten


@dataclass(frozen=True)
class Task:
    """Tensors of one task, none with a task axis: their shapes and types are what the graphs are made for."""

    moving: Tensors
    shared: Tensors
    constant: Tensors
    support: Rows
    sizes: Tensors  # of one step


@dataclass(frozen=True)
class Trace:
    """A recorded graph.

    Parameters
    ----------
    graph : torch.fx.Graph
        Placeholders in the order of `inputs`; the results are those of `outputs`, one after another.
    inputs, outputs : dict of str to list of str
        Names of the tensors, by group.
    values : list of Tensor
        The inputs that the graph was recorded with.
    """

    graph: Graph
    inputs: dict[str, list[str]]
    outputs: dict[str, list[str]]
    values: list[Tensor]

    def results(self, groups: Sequence[str]) -> list[Node]:
        """Return the nodes of some groups of outputs."""
        found = list(self.graph.output_node().args[0])  # type: ignore[arg-type]
        names = [(group, name) for group, members in self.outputs.items() for name in members]
        return [node for node, (group, _) in zip(found, names, strict=True) if group in groups]


def columns(rows: Rows) -> Tensors:
    """Tensors of some rows by name."""
    return {"x": rows.x, "y": rows.y, "weight": rows.weight, **{f"extra.{k}": v for k, v in rows.extra.items()}}


def _rows(tensors: Tensors) -> Rows:
    extra = {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")}
    return Rows(tensors["x"], tensors["y"], tensors["weight"], extra)


def trace_step(functional: FunctionalModule, adaptation: Adaptation, task: Task, *, order: str | None) -> Trace:
    """Record ``step`` and, unless `order` is None, ``pull_back``."""
    scales, rule = adaptation.scales, adaptation.rule

    def kernel(groups: dict[str, Tensors]) -> dict[str, Tensors]:
        moving, shared, constant = groups["moving"], groups["shared"], groups["constant"]
        support = _rows(groups["support"])
        n = effective_rows(support.weight.unsqueeze(0))
        sizes = _step_sizes(groups["sizes"], scales)
        weights = of_network(moving)

        def gradient(m: Tensors, s: Tensors) -> tuple[Tensors, Tensor]:
            result: tuple[Tensors, Tensor] = grad_and_value(functional.support_loss)(m, s, constant, support)
            return result

        if order == "exact":
            result: Any = vjp(gradient, weights, shared, has_aux=True)
            g, pull_back, loss = result
        else:
            g, loss = gradient(weights, shared)
        after = _one(rule.step(_batch(moving), _batch(g), sizes, n))
        out: dict[str, Tensors] = {"moving": after, "loss": {"loss": loss}}
        if order is None:
            return out
        v, of_g, of_sizes = rule.pull_back(_batch(moving), _batch(g), sizes, n, _batch(groups["cotangent"]))
        out |= {"cotangent": _one(v), "shared": {}, "sizes": of_sizes if adaptation.learns else {}}
        if order == "exact":
            of_weights, out["shared"] = pull_back(_one(of_g))
            out["cotangent"] |= {k: out["cotangent"][k] + t for k, t in of_weights.items()}
        return out

    groups = _groups(task) | {"sizes": task.sizes}
    if order is not None:
        groups["cotangent"] = {k: torch.ones_like(t) for k, t in task.moving.items()}
    return _record(kernel, groups)


def trace_query(functional: FunctionalModule, task: Task, query: Rows) -> Trace:
    """Record ``query``."""

    def kernel(groups: dict[str, Tensors]) -> dict[str, Tensors]:
        rows = _rows(groups["support"]), _rows(groups["query"])
        moving = groups["moving"]
        (of_weights, of_shared), loss = grad_and_value(functional.query_loss, (0, 1))(
            of_network(moving), groups["shared"], groups["constant"], *rows
        )
        of_moving = {k: of_weights[k] if k in of_weights else torch.zeros_like(t) for k, t in moving.items()}
        return {"loss": {"loss": loss}, "cotangent": of_moving, "shared": of_shared}

    return _record(kernel, _groups(task) | {"query": columns(query)})


def trace_evaluate(functional: FunctionalModule, task: Task, query: Rows | None) -> Trace:
    """Record ``evaluate``: the loss of the query, or of the support where that is None."""

    def kernel(groups: dict[str, Tensors]) -> dict[str, Tensors]:
        arguments: list[Any] = [
            of_network(groups["moving"]),
            groups["shared"],
            groups["constant"],
            _rows(groups["support"]),
        ]
        if query is None:
            return {"loss": {"loss": functional.support_loss(*arguments)}}
        arguments.append(_rows(groups["query"]))
        return {"loss": {"loss": functional.query_loss(*arguments)}}

    return _record(kernel, _groups(task) | ({} if query is None else {"query": columns(query)}))


def _groups(task: Task) -> dict[str, Tensors]:
    return {
        "moving": task.moving,
        "shared": task.shared,
        "constant": task.constant,
        "support": columns(task.support),
    }


def _step_sizes(sizes: Tensors, scales: bool) -> StepSizes:
    def part(prefix: str) -> Tensors:
        return {n.removeprefix(prefix): v for n, v in sizes.items() if n.startswith(prefix)}

    return StepSizes(part("log_alpha."), part("log_c.") if scales else None)


def _batch(tensors: Tensors) -> Tensors:
    return {k: v.unsqueeze(0) for k, v in tensors.items()}


def _one(tensors: Tensors) -> Tensors:
    return {k: v.squeeze(0) for k, v in tensors.items()}


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Rewrites of operations by simpler ones, so that few kinds are left to generate code for.

    Of torch's core table only the part below autograd: the rest, which ``decompose`` does as well, takes half a second to list.
    """
    more = [
        aten._log_softmax,
        aten._log_softmax_backward_data,
        aten._softmax,
        aten._softmax_backward_data,
        aten.native_layer_norm,
        aten.native_layer_norm_backward,
        aten.native_group_norm,
        aten.native_group_norm_backward,
        aten.hardtanh,
        aten.hardtanh_backward,
        aten.leaky_relu,
        aten.leaky_relu_backward,
        aten.elu,
        aten.elu_backward,
        aten.gelu,
        aten.gelu_backward,
        aten.silu,
        aten.silu_backward,
        aten.softplus,
        aten.softplus_backward,
        aten.sigmoid_backward,
        aten.tanh_backward,
        aten.threshold_backward,
        aten.linalg_vector_norm,
        aten.embedding,
        aten.index_select,
        aten.softshrink,
        aten.hardshrink,
        aten._adaptive_avg_pool2d,
    ]
    own: dict[Any, Callable[..., Any]] = {
        aten.var.correction: _var,
        aten.var_mean.correction: _var_mean,
        aten.softshrink_backward.default: _shrink_backward,
        aten.hardshrink_backward.default: _shrink_backward,
        aten._trilinear.default: _trilinear,
    }
    core: dict[Any, Callable[..., Any]] = _core_aten_decompositions_post_autograd()
    return {**core, **get_decompositions(more), **own}


def _var(x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False) -> Tensor:
    return _var_mean(x, dim, correction=correction, keepdim=keepdim)[0]


def _trilinear(
    a: Tensor, b: Tensor, c: Tensor, of_a: list[int], of_b: list[int], of_c: list[int], over: list[int], unroll: int = 1
) -> Tensor:
    product: Any = 1
    for factor, axes in ((a, of_a), (b, of_b), (c, of_c)):
        for axis in sorted(axes):
            factor = factor.unsqueeze(axis)
        product = factor * product
    return product.sum(over) if over else product


def _shrink_backward(cotangent: Tensor, x: Tensor, border: float) -> Tensor:
    return torch.where((x >= -border) & (x <= border), torch.zeros_like(cotangent), cotangent)


def _var_mean(
    x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> tuple[Tensor, Tensor]:
    """Variance by its definition: torch's own rewrite ends in an operation that is no simpler."""
    axes = list(dim) if dim else list(range(x.ndim))
    mean = x.mean(axes, keepdim=True)
    n = math.prod(x.shape[a] for a in axes)
    free = max(n - (1 if correction is None else correction), 0)
    total = ((x - mean) ** 2).sum(axes, keepdim=keepdim)
    return total / free, mean if keepdim else mean.reshape(total.shape)


def _record(kernel: Callable[[dict[str, Tensors]], dict[str, Tensors]], groups: dict[str, Tensors]) -> Trace:
    inputs = {group: list(tensors) for group, tensors in groups.items()}
    outputs: dict[str, list[str]] = {}

    def on_flat(*flat: Tensor) -> list[Tensor]:
        rest = iter(flat)
        out = kernel({group: {name: next(rest) for name in names} for group, names in inputs.items()})
        outputs.update({group: list(tensors) for group, tensors in out.items()})
        return [t for tensors in out.values() for t in tensors.values()]

    # Inputs are told apart by identity: the same tensor passed twice would become one input, hence the copies.
    values = [t.detach().contiguous().clone() for tensors in groups.values() for t in tensors.values()]
    with torch.no_grad(), differentiable_forward(), torch.random.fork_rng(devices=[]):
        before = [t.clone() for t in values]
        module = record(on_flat, values, _decompositions())
    changed = [not _same(a, b) for a, b in zip(before, values, strict=True)]
    if any(changed):
        name = [name for names in inputs.values() for name in names][changed.index(True)]
        raise UnsupportedError(f"the forward pass changes {name!r}")
    return Trace(module.graph, inputs, outputs, values)


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())  # what is not a number may stay so
