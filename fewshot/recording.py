"""Recording what a function does to tensors as a graph of ATen operations.

This is what torch's make_fx does, as far as it is needed here: without symbolic shapes and proxies it takes a quarter of the
time, which training would otherwise wait for.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import TreeSpec, tree_flatten, tree_map_only, tree_unflatten
from torch.utils.weak import WeakTensorKeyDictionary

__all__ = ["Recorded", "record"]

Rewrites = Mapping[Any, Callable[..., Any]]


def record(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], rewrites: Rewrites | None = None
) -> GraphModule:
    """Run a function once and return the operations that it consists of.

    Parameters
    ----------
    function : callable
        ``(*inputs) -> sequence of Tensor``; transforms of torch.func inside it are resolved. What it decides by looking at
        numbers cannot be recorded.
    inputs : sequence of Tensor
        Distinct tensors; the graph holds for their shapes, types and strides.
    rewrites : mapping, default=None
        Operations to replace, each by a function that consists of simpler ones.

    Returns
    -------
    torch.fx.GraphModule
        Its parameters are those of `function`, and it returns a list. Every operation has an empty tensor that is like its
        result, or a sequence of these, in ``node.meta["val"]``.

    Raises
    ------
    RuntimeError
        If the function looks at numbers.
    """
    recorder = _Recorder(rewrites or {})
    for k, tensor in enumerate(inputs):
        recorder.add(recorder.graph.placeholder(f"input_{k}"), tensor)
    with torch.no_grad(), recorder:
        results = functionalize(function)(*inputs)
    recorder.graph.output([recorder.node_of(t) for t in results])
    recorder.graph.eliminate_dead_code()
    return GraphModule(recorder.constants, recorder.graph)


# What autograd records for its own sake; recorded operations run without it.
NO_OPERATION = (torch.ops.aten.detach.default, torch.ops.aten.alias.default)
# The same where they leave the shape as it is; on small tensors calling them takes as long as computing.
RESHAPES = (torch.ops.aten.expand.default, torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


class Recorded:
    """A function of nested tensors, as the operations that it consists of for the shapes of its arguments.

    Parameters
    ----------
    function : callable
        ``(*arguments) -> nested tensors``; see :func:`record`.
    arguments : sequence
        Nested tensors as it takes them; values do not matter.

    Raises
    ------
    RuntimeError
        If the function looks at numbers.

    Examples
    --------
    >>> ones = torch.ones(3)
    >>> recorded = Recorded(lambda pair: {"sum": pair[0] + pair[1]}, [(ones, ones)])
    >>> recorded((torch.arange(3.0), ones))
    {'sum': tensor([1., 2., 3.])}
    """

    def __init__(self, function: Callable[..., Any], arguments: Sequence[Any]) -> None:
        flat, spec = tree_flatten(tuple(arguments))
        out: list[TreeSpec] = []

        def on_flat(*tensors: Tensor) -> list[Tensor]:
            leaves, out_spec = tree_flatten(function(*tree_unflatten(list(tensors), spec)))
            out.append(out_spec)
            return leaves

        # Inputs are told apart by identity: the same tensor passed twice would become one input, hence the copies.
        self._module = record(on_flat, [t.contiguous().clone() for t in flat])
        for node in list(self._module.graph.nodes):
            if node.target in NO_OPERATION or (node.target in RESHAPES and _shape(node) == _shape(node.args[0])):
                node.replace_all_uses_with(node.args[0])
        self._module.graph.eliminate_dead_code()
        self._module.recompile()
        self._forward, self._out = self._module.forward, out[-1]

    def flat(self, *leaves: Tensor) -> list[Tensor]:
        """Run on the leaves of the arguments, which must be contiguous; return the leaves of the result."""
        found: list[Tensor] = self._forward(*leaves)
        return found

    def replay(self, leaves: Sequence[Tensor]) -> Any:
        """Run on the leaves of the arguments; return the result."""
        return tree_unflatten(self.flat(*(t.contiguous() for t in leaves)), self._out)

    def __call__(self, *arguments: Any) -> Any:
        """Run on arguments that nest as those which it was recorded with."""
        return self.replay(tree_flatten(arguments)[0])

    def split(self, n_free: int) -> tuple[Callable[..., list[Tensor]], Callable[..., list[Tensor]]]:
        """Part the operations into those that need the first leaves and those that do not.

        Parameters
        ----------
        n_free : int
            How many leaves will change from call to call while the others stay.

        Returns
        -------
        before : callable
            Takes the other leaves.
        after : callable
            Takes the first leaves and what `before` returned, and returns the leaves of the result.

        Examples
        --------
        >>> a, b = torch.ones(2), torch.full((2,), 3.0)
        >>> before, after = Recorded(lambda x, y: [x * y.exp().log()], [a, b]).split(1)
        >>> after(2 * a, *before(b))
        [tensor([6., 6.])]
        """
        graph = self._module.graph
        holders = [n for n in graph.nodes if n.op == "placeholder"]
        late = set(holders[:n_free])
        for node in graph.nodes:
            if any(p in late for p in node.all_input_nodes):
                late.add(node)
        border = [
            n for n in graph.nodes if n not in late and any(user in late or user.op == "output" for user in n.users)
        ]
        early, rest = Graph(), Graph()
        known = {n: early.placeholder(n.name) for n in holders[n_free:]}
        for node in graph.nodes:
            if node not in late and node not in known and node.op != "output":
                known[node] = early.node_copy(node, lambda n: known[n])
        early.output([known[n] for n in border])
        there = {n: rest.placeholder(n.name) for n in (*holders[:n_free], *border)}
        for node in graph.nodes:
            if node in late and node not in there and node.op != "output":
                there[node] = rest.node_copy(node, lambda n: there[n])
        (results,) = graph.output_node().args
        rest.output([there[n] for n in results])  # type: ignore[union-attr]
        return GraphModule(self._module, early).forward, GraphModule(self._module, rest).forward


class _Recorder(TorchDispatchMode):
    """Sees every operation on plain tensors, below the transforms."""

    def __init__(self, rewrites: Rewrites) -> None:
        super().__init__()
        self.graph, self.constants, self.rewrites = Graph(), nn.Module(), rewrites
        self._nodes = WeakTensorKeyDictionary()
        self._n_constants = 0

    def add(self, node: Node, result: Any) -> None:
        """Remember which node a tensor, or a sequence of tensors, comes from."""
        node.meta["val"] = tree_map_only(Tensor, _like, result)
        if isinstance(result, Tensor):
            self._nodes[result] = node
        elif isinstance(result, tuple | list):
            for k, part in enumerate(result):
                if part is not None:
                    self.add(self.graph.call_function(operator.getitem, (node, k)), part)

    def node_of(self, tensor: Tensor) -> Node:
        """Return where a tensor comes from; one from elsewhere is a constant."""
        if tensor not in self._nodes:
            name = f"constant_{self._n_constants}"
            self._n_constants += 1
            self.constants.register_buffer(name, tensor)
            self.add(self.graph.get_attr(name), tensor)
        found: Node = self._nodes[tensor]
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:
            rewritten = self.rewrites[func](*args, **kwargs) if func in self.rewrites else NotImplemented
            if rewritten is NotImplemented:
                rewritten = func.decompose(*args, **kwargs)
        if rewritten is not NotImplemented:
            return rewritten
        if torch.Tag.data_dependent_output in func.tags or _shape_depends_on_numbers(func, args):
            raise RuntimeError(f"it goes by the values of a tensor, as .item(), bool() and masks do: {func}")
        known = tree_map_only(Tensor, self.node_of, (args, kwargs))
        result = func(*args, **kwargs)
        self.add(self.graph.call_function(func, *known), result)
        return result


def _shape(node: Any) -> Any:
    return node.meta["val"].shape


def _shape_depends_on_numbers(func: Any, args: Any) -> bool:
    if func is torch.ops.aten.index.Tensor:  # does so for masks, not for positions
        return any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    return torch.Tag.dynamic_output_shape in func.tags


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
