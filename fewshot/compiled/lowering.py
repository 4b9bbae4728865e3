"""From graphs of tensor operations to statements of C++.

One :class:`Lowering` makes the functions of one program. View operations cost nothing, elementwise ones wait until their result is
read and become one loop, products of matrices are left to :mod:`~fewshot.compiled.products`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import Node

from .convolutions import Convolutions
from .memory import Memory
from .movement import Movement
from .nests import element, loops, reduction, type_name
from .operators import BINARY, COMPARISONS, OF_REALS, OF_TRUTH, UNARY, converted, simplified
from .products import Products
from .triangular import Triangular
from .values import Constant, Expression, UnsupportedError, Value, View, contiguous_strides, numel

__all__ = ["Lowering"]

aten = torch.ops.aten
LARGEST_EXPRESSION = 60  # operations in one statement; the compiler's time grows faster than their number


class Lowering:
    """Writes the functions of one program.

    Parameters
    ----------
    lanes : int
        Numbers in a vector register; shapes are padded to it where that is free.
    """

    def __init__(self, lanes: int) -> None:
        self.memory = Memory()
        self._products = Products(self.memory, lanes)
        self._convolutions = Convolutions(self.memory, self._products)
        self._movement = Movement(self.memory)
        self._triangular = Triangular(self.memory)
        self._values: dict[Node, Any] = {}
        self._uses: dict[Node, int] = {}

    def function(
        self,
        name: str,
        nodes: Sequence[Node],
        inputs: dict[Node, int],
        outputs: Sequence[Node],
        uses: dict[Node, int],
        later: set[Node],
    ) -> None:
        """Write a function.

        Parameters
        ----------
        name : str
            Its name.
        nodes : sequence of Node
            What it computes, in order; nodes that an earlier function computed are left out.
        inputs : dict of Node to int
            Placeholders and their places in the argument.
        outputs : sequence of Node
            Results, in order.
        uses : dict of Node to int
            How many nodes and results read a node, in all functions.
        later : set of Node
            Nodes that a later function reads.
        """
        self.memory.begin(name)
        self._uses = uses
        for node, index in inputs.items():
            if node not in self._values:
                value = node.meta["val"]
                shape = tuple(value.shape)
                buffer = self.memory.buffer(value.dtype, numel(shape), "input", index)
                self._values[node] = View(buffer, shape, contiguous_strides(shape))
        self.memory.wanted = {
            node: k
            for k, node in enumerate(outputs)
            if node not in later and node not in self._values and list(outputs).count(node) == 1
        }
        for node, want in list(self.memory.wanted.items()):
            # A result that is a reshaped value: the value itself is written in place.
            while node.target in _RESHAPES | _ADDED_AXES and uses.get(node.all_input_nodes[0]) == 1:
                node = node.all_input_nodes[0]
                if node in self._values or node.op != "call_function":
                    break
                self.memory.wanted[node] = want
        for node in nodes:
            if node not in self._values:
                self._values[node] = self._lower(node)
        for k, node in enumerate(outputs):
            value = self._values[node]
            if (
                isinstance(value, View)
                and value.buffer.place == "output"
                and value.buffer.function == name
                and value.buffer.index == k
            ):
                continue
            shape = tuple(node.meta["val"].shape)
            out = self.memory.buffer(node.meta["val"].dtype, numel(shape), "output", k)
            self.memory.write(View(out, shape, contiguous_strides(shape)), value)
        self.memory.wanted = {}

    # ---- operations

    def _lower(self, node: Node) -> Any:
        if node.op == "get_attr":  # a tensor that the forward pass makes, or that is no buffer
            tensor = getattr(node.graph.owning_module, str(node.target))
            return self.memory.table(tensor)
        if node.op != "call_function":
            raise UnsupportedError(f"{node.op} in the graph")
        target: Any = node.target
        if target is operator.getitem:
            return self._values[node.args[0]][node.args[1]]  # type: ignore[index]
        value = node.meta["val"]
        arguments = [self._argument(a) for a in node.args]
        if target in _VIEWS:
            return self._view_of(node, arguments)
        if target in Convolutions.OPERATIONS:
            return self._convolutions.write(node, target, arguments)
        if target in Triangular.OPERATIONS:
            return self._triangular.write(node, target, arguments)
        if target in _EXTREMES:
            return self._extreme(node, target, arguments)
        if not isinstance(value, torch.Tensor):
            raise UnsupportedError(str(target))
        shape, dtype = tuple(value.shape), value.dtype
        result = self._operation(node, target, arguments, shape, dtype)
        if isinstance(result, Expression) and (
            node in self.memory.wanted or (self._uses.get(node, 0) != 1 and not _is_cheap(result))
        ):
            return self.memory.view(result, node)
        return result

    def _argument(self, argument: Any) -> Any:
        if isinstance(argument, Node):
            return self._values[argument]
        if isinstance(argument, list | tuple):
            return [self._argument(a) for a in argument]
        return argument

    def _operation(self, node: Node, target: Any, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        if target in _SAME:
            return args[0]
        if target in _CONSTANTS:
            position = _CONSTANTS[target]
            number = position if isinstance(position, float) else args[int(position)]
            return Constant(number, shape, dtype)
        operands = [a for a in args if isinstance(a, View | Constant | Expression)]
        if (target in OF_TRUTH and any(a.dtype != torch.bool for a in operands)) or (
            target in OF_REALS and not dtype.is_floating_point
        ):
            raise UnsupportedError(f"{target} of type {dtype}")
        if target in UNARY:
            return self._expression(UNARY[target], args[:1], shape, dtype)
        if target in BINARY:
            return self._binary(node, target, args, shape, dtype)
        if target in COMPARISONS:
            common = self._common(args[:2])
            return self._expression(COMPARISONS[target], args[:2], shape, dtype, common)
        if target is aten.where.self:
            cast = [args[0], *(converted(self._number(a, shape, dtype), dtype) for a in args[1:])]
            return self._expression("select({0}, {1}, {2})", cast, shape, dtype, None)
        if target in (aten.clamp.default, aten.clamp.Tensor):
            return self._clamp(args, shape, dtype)
        if target is aten._to_copy.default:
            return converted(args[0], dtype)
        if target is aten.copy.default:
            source = converted(args[1], dtype)
            if isinstance(source, Constant) or source.shape == shape:
                return Constant(source.value, shape, dtype) if isinstance(source, Constant) else source
            return self.memory.view(source).expand(shape)
        if target in _REDUCTIONS:
            return self._reduce(node, target, args, shape, dtype)
        if target is aten.mm.default:
            return self._products.product(args[0], args[1], node, self._preferred(node))
        if target is aten.addmm.default:
            product: Value = self._products.product(args[1], args[2], None, self._preferred(node))
            beta, alpha = node.kwargs.get("beta", 1), node.kwargs.get("alpha", 1)
            if alpha != 1:
                product = self._expression("({0} * {1})", [product, alpha], shape, dtype)
            if beta != 1:
                return self._expression("({0} * {1} + {2})", [args[0], beta, product], shape, dtype)
            return self._expression("({0} + {1})", [args[0], product], shape, dtype)
        if target is aten.bmm.default:
            return self._batched_matmul(node, args, shape, dtype)
        if target in Movement.OPERATIONS:
            return self._movement.write(node, target, args, shape, dtype)
        if target is aten.as_strided.default:
            return self._as_torch_had_it(node, args[0], args[1:])[1]
        if target is aten.as_strided_scatter.default:
            whole, part = self._as_torch_had_it(node, args[0], args[2:])
            self.memory.write(part, args[1])
            return whole
        if target is aten.arange.start_step:
            return self.memory.table(target(*node.args, **{**node.kwargs, "device": "cpu"}))
        raise UnsupportedError(str(target))

    def _number(self, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        return value if isinstance(value, View | Constant | Expression) else Constant(value, shape, dtype)

    def _expression(
        self, template: str, args: Sequence[Any], shape: tuple[int, ...], dtype: torch.dtype, cast: Any = "own"
    ) -> Expression:
        """Arithmetic; operands are converted to `cast`: the type of the result, another, or left as they are (None)."""
        kind = dtype if cast == "own" else cast
        operands = []
        for a in args:
            value = self._number(a, shape, kind or dtype)
            if kind is not None:
                value = converted(value, kind)
            if isinstance(value, Expression) and (value.shape != shape):
                value = self.memory.view(value)
            if isinstance(value, View):
                value = value.expand(shape)
            operands.append(value)
        result = Expression(template, tuple(operands), shape, dtype)
        if result.size > LARGEST_EXPRESSION:
            operands = [self.memory.view(o).expand(shape) if isinstance(o, Expression) else o for o in operands]
            result = Expression(template, tuple(operands), shape, dtype)
        return result

    def _common(self, args: Sequence[Any]) -> torch.dtype:
        kinds = [a.dtype for a in args if isinstance(a, View | Constant | Expression)]
        numbers = [a for a in args if isinstance(a, float)]
        common = kinds[0]
        for k in kinds[1:]:
            common = torch.promote_types(common, k)
        return torch.get_default_dtype() if numbers and not common.is_floating_point else common

    def _binary(self, node: Node, target: Any, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        a, b = (self._number(x, shape, dtype) for x in args[:2])
        alpha = node.kwargs.get("alpha", 1)
        if alpha != 1:
            b = self._expression("({0} * {1})", [b, alpha], shape, dtype)
        found = simplified(target, a, b, shape, dtype)
        if found is not None:
            return found
        if target is aten.pow.Tensor_Scalar and args[1] in _POWERS:
            return self._expression(_POWERS[args[1]], [a], shape, dtype)
        return self._expression(BINARY[target], [a, b], shape, dtype)

    def _clamp(self, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        value = args[0]
        low, high = (args[1] if len(args) > 1 else None), (args[2] if len(args) > 2 else None)
        if low is not None:
            value = self._expression("maximum({0}, {1})", [value, low], shape, dtype)
        if high is not None:
            value = self._expression("minimum({0}, {1})", [value, high], shape, dtype)
        return value

    def _view_of(self, node: Node, args: list[Any]) -> Any:
        source = args[0]
        if isinstance(source, Constant):
            made = node.meta["val"]
            if isinstance(made, torch.Tensor):
                return Constant(source.value, tuple(made.shape), source.dtype)
        shape = tuple(node.meta["val"].shape) if isinstance(node.meta["val"], torch.Tensor) else None
        if shape == source.shape and node.target in _RESHAPES:
            return source
        view = self.memory.view(source)
        target: Any = aten.view.default if node.target in _RESHAPES else node.target
        try:
            found = target(view.meta(), *node.args[1:], **node.kwargs)
        except (RuntimeError, ValueError):
            dense = self.memory.dense(view.shape, view.dtype)
            self.memory.write(dense, view)
            view = dense
            found = target(view.meta(), *node.args[1:], **node.kwargs)
        return view.like(found) if isinstance(found, torch.Tensor) else [view.like(f) for f in found]

    def _reduce(self, node: Node, target: Any, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        kind, average = _REDUCTIONS[target]
        value = converted(args[0], dtype)
        whole = value.shape
        axes = args[1] if len(args) > 1 else []
        axes = [axes] if isinstance(axes, int) else axes or list(range(len(whole)))
        axes = [a % len(whole) for a in axes] if whole else []
        count = numel(tuple(whole[a] for a in axes))
        if not axes or count == 1:
            source = self.memory.view(value)
            return source.like(source.meta().reshape(shape)) if source.shape != shape else source
        keep = tuple(1 if a in axes else n for a, n in enumerate(whole))
        out = self.memory.result(None if average else node, shape, dtype)
        full = View(out.buffer, keep, contiguous_strides(keep))
        leaves = [value] if isinstance(value, View) else list(value.views()) if isinstance(value, Expression) else []
        self.memory.state(reduction(full, value, whole, axes, kind), [out, *leaves])
        share = 1 / count if count else math.nan
        return self._expression("({0} * {1})", [out, share], shape, dtype) if average else out

    def _extreme(self, node: Node, target: Any, args: list[Any]) -> Any:
        """Largest or least numbers along an axis, and where the first of them stand."""
        made = node.meta["val"]
        both = isinstance(made, tuple | list)
        like = made[0] if both else made
        source = self.memory.view(args[0])
        axis = args[1] if len(args) > 1 else None
        if axis is None:  # of all elements
            whole = self.memory.dense((numel(source.shape),), source.dtype)
            self.memory.write(View(whole.buffer, source.shape, contiguous_strides(source.shape)), source)
            source, axis = whole, 0
        axis %= max(len(source.shape), 1)
        if not source.shape or not source.shape[axis]:
            raise UnsupportedError(f"{target} of shape {source.shape}")
        kept = tuple(1 if a == axis else n for a, n in enumerate(source.shape))
        best, where = self.memory.dense(kept, source.dtype), self.memory.dense(kept, torch.int64)
        kind, sign = type_name(source.dtype), _EXTREMES[target]
        here = View(source.buffer, source.shape, source.strides, source.offset)
        code = (
            f"{kind} best = {element(here, axis, '0')}; int64_t where = 0; "
            f"for (int k = 1; k < {source.shape[axis]}; k++) {{ const {kind} v = {element(here, axis, 'k')}; "
            f"if (best == best && (v {sign} best || v != v)) {{ best = v; where = k; }} }} "
            f"{element(best)} = best; {element(where)} = where;"
        )
        self.memory.state(loops(kept, code), [best, where, source])
        shape = tuple(like.shape)
        values, places = (View(v.buffer, shape, contiguous_strides(shape)) for v in (best, where))
        return [values, places] if both else places

    # ---- matrix products

    def _preferred(self, node: Node | None) -> int | None:
        """Which axis of a product's result had better be contiguous: the one that is in what it will be combined with."""
        todo = [(node, 0, False)] if node is not None else []
        while todo:
            here, depth, turned = todo.pop(0)
            for user in here.users:
                other = [self._values.get(a) for a in user.all_input_nodes if a is not here]
                stored = [v for v in other if isinstance(v, View | Expression) and numel(v.shape) > 1]
                for value in stored:
                    view = value if isinstance(value, View) else next(value.views(), None)
                    axes = [s for s, n in zip(view.strides, view.shape, strict=True) if n > 1] if view else []
                    if view is not None and len(axes) == 2 and 0 not in axes and user.target in _COMBINING:
                        return (0 if axes[0] < axes[1] else 1) ^ turned
                if depth < 6 and (user.target in _VIEWS or user.target in _COMBINING):
                    turning = user.target in (aten.permute.default, aten.t.default, aten.transpose.int)
                    todo.append((user, depth + 1, turned ^ turning))
        return None

    def _as_torch_had_it(self, node: Node, value: Value, place: Sequence[Any]) -> tuple[View, View]:
        """Write out a tensor as torch had it in memory, for a view by strides; returns the whole and the view."""
        origin: Any = node.args[0]
        contiguous = origin.meta["val"].is_contiguous()
        while origin.target in _RESHAPES | _ADDED_AXES | _SAME:
            origin = origin.args[0]
        if not contiguous or origin.op == "get_attr" or origin.target in _VIEWS | {operator.getitem}:
            raise UnsupportedError("as_strided of a part of a tensor")
        dense = self.memory.dense(value.shape, value.dtype)
        self.memory.write(dense, value)
        size, stride, offset = [*place, None][:3]
        return dense, View(dense.buffer, tuple(size), tuple(stride), offset or 0)

    def _batched_matmul(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        left, right = self.memory.view(args[0]), self.memory.view(args[1])
        out = self.memory.result(node, shape, dtype)
        for t in range(shape[0]):
            self.memory.write(
                _selected(out, t), self._products.product(_selected(left, t), _selected(right, t), None, None)
            )
        return out


_RESHAPES = {aten.view.default, aten._unsafe_view.default, aten.reshape.default}
_ADDED_AXES = {aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default}
_VIEWS: set[Any] = (
    _RESHAPES
    | _ADDED_AXES
    | {
        aten.permute.default,
        aten.t.default,
        aten.transpose.int,
        aten.expand.default,
        aten.slice.Tensor,
        aten.select.int,
        aten.unbind.int,
        aten.split.Tensor,
        aten.split_with_sizes.default,
        aten.diagonal.default,
        aten.unfold.default,
    }
)
_SAME: set[Any] = {
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
    aten.lift_fresh.default,
}
# Where the number stands among the arguments, or the number itself.
_CONSTANTS: dict[Any, int | float] = {
    aten.full_like.default: 1,
    aten.full.default: 1,
    aten.scalar_tensor.default: 0,
    aten.zeros_like.default: 0.0,
    aten.ones_like.default: 1.0,
    aten.zeros.default: 0.0,
    aten.ones.default: 1.0,
    aten.empty_permuted.default: 0.0,
    aten.empty_like.default: 0.0,
    aten.empty.memory_format: 0.0,
    aten.new_empty_strided.default: 0.0,
}
_REDUCTIONS: dict[Any, tuple[str, bool]] = {
    aten.sum.dim_IntList: ("sum", False),
    aten.sum.default: ("sum", False),
    aten.mean.dim: ("sum", True),
    aten.mean.default: ("sum", True),
    aten.max.default: ("max", False),
    aten.min.default: ("min", False),
    aten.any.default: ("max", False),
    aten.any.dim: ("max", False),
    aten.any.dims: ("max", False),
    aten.amax.default: ("max", False),
    aten.amin.default: ("min", False),
}
_EXTREMES: dict[Any, str] = {
    aten.max.dim: ">",
    aten.min.dim: "<",
    aten.argmax.default: ">",
    aten.argmin.default: "<",
}
# Elementwise operations of several operands.
_COMBINING: set[Any] = {*BINARY, *COMPARISONS, aten.where.self, aten.mul.Tensor}
_POWERS: dict[Any, str] = {
    2: "square({0})",
    3: "cube({0})",
    0.5: "std::sqrt({0})",
    -1: "(1 / {0})",
    -0.5: "(1 / std::sqrt({0}))",
}


def _is_cheap(value: Expression) -> bool:
    """Whether computing it again costs no more than reading it."""
    return (
        all(isinstance(o, View | Constant) for o in value.operands)
        and "_(" not in value.template
        and "::" not in value.template
        and "/" not in value.template
    )


def _selected(view: View, t: int) -> View:
    return View(view.buffer, view.shape[1:], view.strides[1:], view.offset + t * view.strides[0])
