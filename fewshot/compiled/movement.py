"""Operations that move elements: indexing, joining, repeating, padding, and sums along an axis.

Indices are data, so what they address is checked: torch raises where one is outside, a program reads "not a number" there and
writes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch.fx import Node

from .memory import Memory
from .nests import element, literal, loops
from .operators import converted
from .values import Constant, Value, View, contiguous_strides, numel

__all__ = ["Movement"]

aten = torch.ops.aten
# Copies with a part replaced, and the views that are that part.
_SCATTERED: dict[Any, Any] = {
    aten.slice_scatter.default: aten.slice.Tensor,
    aten.select_scatter.default: aten.select.int,
    aten.diagonal_scatter.default: aten.diagonal.default,
}


class Movement:
    """Writes operations that move elements.

    Parameters
    ----------
    memory : Memory
        Where statements go.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def write(self, node: Node, target: Any, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        """Return the value of a node."""
        value: Value = self.OPERATIONS[target](self, node, args, shape, dtype)
        return value

    def _gather(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        source, axis, index = self._memory.view(args[0]), args[1], self._memory.view(args[2])
        out = self._memory.result(node, shape, dtype)
        code = _indexed(
            shape,
            axis % max(len(shape), 1),
            index,
            out,
            source,
            f"{{plain}} = {{inside}} ? {{other}} : {_missing(dtype)};",
        )
        self._memory.state(code, [out, index, source])
        return out

    def _scatter(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        target: Any = node.target
        axis, index = args[1] % max(len(shape), 1), self._memory.view(args[2])
        out = self._memory.result(node, shape, dtype)
        self._memory.write(out, converted(args[0], dtype))
        if target is aten.scatter.value:
            source = self._memory.view(Constant(args[3], index.shape, dtype))
        else:
            source = self._memory.view(converted(args[3], dtype))
        sign = "+=" if target is aten.scatter_add.default else "="
        code = _indexed(index.shape, axis, index, source, out, f"if ({{inside}}) {{other}} {sign} {{plain}};")
        self._memory.state(code, [out, index, source])
        return out

    def _cat(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        axis = (args[1] if len(args) > 1 else 0) % len(shape)
        out, at = self._memory.result(node, shape, dtype), 0
        for part in args[0]:
            if not numel(part.shape):
                continue
            width = part.shape[axis]
            self._memory.write(out.like(out.meta().narrow(axis, at, width)), converted(part, dtype))
            at += width
        return out

    def _scatter_view(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        out = self._memory.result(node, shape, dtype)
        self._memory.write(out, args[0])
        chosen = _SCATTERED[node.target]
        self._memory.write(out.like(chosen(out.meta(), *args[2:], **node.kwargs)), converted(args[1], dtype))
        return out

    def _index(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        source = self._memory.view(args[0])
        views = self._index_views(args[1])
        out = self._memory.result(node, shape, dtype)
        code = _chosen(source, views, out, f"{{plain}} = {{inside}} ? {{other}} : {_missing(dtype)};")
        self._memory.state(code, [out, source, *(v for v in views if v is not None)])
        return out

    def _index_put(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        views = self._index_views(args[1])
        out = self._memory.dense(shape, dtype)
        self._memory.write(out, converted(args[0], dtype))
        chosen = tuple(torch.zeros(()).expand(shape)[_positions_of(views)].shape)
        source = self._memory.view(converted(args[2], dtype)).expand(chosen)
        sign = "+=" if (args[3] if len(args) > 3 else node.kwargs.get("accumulate", False)) else "="
        code = _chosen(out, views, source, f"if ({{inside}}) {{other}} {sign} {{plain}};")
        self._memory.state(code, [out, source, *(v for v in views if v is not None)])
        return out

    def _index_views(self, indices: Sequence[Any]) -> list[View | None]:
        return [None if i is None else self._memory.view(i) for i in indices]

    def _flip(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        source, axes = self._memory.view(args[0]), {a % len(shape) for a in args[1]}
        out = self._memory.result(node, shape, dtype)
        end = sum((shape[a] - 1) * source.strides[a] for a in axes)
        strides = tuple(-s if a in axes else s for a, s in enumerate(source.strides))
        self._memory.write(out, View(source.buffer, shape, strides, source.offset + end))
        return out

    def _repeat(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        source, times = self._memory.view(args[0]), args[1]
        inner = (1,) * (len(times) - len(source.shape)) + source.shape
        out = self._memory.result(node, shape, dtype)
        pairs = tuple(n for pair in zip(times, inner, strict=True) for n in pair)
        spread = View(source.buffer, inner, (0,) * (len(inner) - len(source.shape)) + source.strides, source.offset)
        strides = tuple(s for stride in spread.strides for s in (0, stride))
        repeated = View(source.buffer, pairs, strides, source.offset)
        self._memory.write(View(out.buffer, pairs, contiguous_strides(pairs), out.offset), repeated)
        return out

    def _cumsum(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        out = self._memory.result(node, shape, dtype)
        self._memory.write(out, converted(args[0], dtype))
        if shape:
            axis = args[1] % len(shape)
            kept = tuple(1 if a == axis else n for a, n in enumerate(shape))
            step = f"{element(out, axis, 'k')} += {element(out, axis, '(k - 1)')};"
            self._memory.state(loops(kept, f"for (int k = 1; k < {shape[axis]}; k++) {step}"), [out])
        return out

    def _pad(self, node: Node, args: list[Any], shape: tuple[int, ...], dtype: torch.dtype) -> Value:
        pad = args[1]
        out = self._memory.result(node, shape, dtype)
        self._memory.write(out, Constant(args[2] if len(args) > 2 else 0, shape, dtype))
        source = self._memory.view(args[0])
        inner, kept = out.meta(), source.meta()
        for k in range(len(pad) // 2):
            axis = len(shape) - 1 - k
            before, after = pad[2 * k : 2 * k + 2]
            inner = inner.narrow(axis, max(before, 0), shape[axis] - max(before, 0) - max(after, 0))
            kept = kept.narrow(axis, max(-before, 0), source.shape[axis] - max(-before, 0) - max(-after, 0))
        self._memory.write(out.like(inner), source.like(kept))
        return out

    OPERATIONS: ClassVar[dict[Any, Callable[..., Value]]] = {
        aten.gather.default: _gather,
        aten.scatter_add.default: _scatter,
        aten.scatter.src: _scatter,
        aten.scatter.value: _scatter,
        aten.cat.default: _cat,
        **dict.fromkeys(_SCATTERED, _scatter_view),
        aten.constant_pad_nd.default: _pad,
        aten.index.Tensor: _index,
        aten._unsafe_index.Tensor: _index,
        aten.index_put.default: _index_put,
        aten._unsafe_index_put.default: _index_put,
        aten.flip.default: _flip,
        aten.repeat.default: _repeat,
        aten.cumsum.default: _cumsum,
    }


def _missing(dtype: torch.dtype) -> str:
    """Code for what an index outside finds: torch raises there, a program must not read what is not its own."""
    return literal(math.nan if dtype.is_floating_point else 0, dtype)


def _indexed(shape: tuple[int, ...], axis: int, index: View, plain: View, other: View, body: str) -> str:
    """Loops over `shape` in which `other` is addressed through `index` along one axis."""
    size = other.shape[axis] if other.shape else 1
    code = body.format(plain=element(plain), other=element(other, axis, "k"), inside=f"(k >= 0 && k < {size})")
    return loops(shape, f"const int64_t k = {element(index)}; {code}")


def _positions_of(views: Sequence[View | None]) -> tuple[Any, ...]:
    """Return indices as torch takes them, for shapes alone."""
    return tuple(slice(None) if v is None else torch.zeros(v.shape, dtype=torch.int64) for v in views)


def _chosen(source: View, views: Sequence[View | None], plain: View, body: str) -> str:
    """Loops over the elements of `source` that indices choose; `plain` has one place for each."""
    places = [a for a, v in enumerate(views) if v is not None]
    found = torch.broadcast_shapes(*(v.shape for v in views if v is not None))
    # The chosen axes come where the indices stand, or first if these are apart.
    together = places == list(range(places[0], places[-1] + 1))
    first = places[0] if together else 0
    rest = iter([a for a in range(len(plain.shape)) if not first <= a < first + len(found)])
    terms, lines, inside = [str(source.offset)], [], []
    for a, stride in enumerate(source.strides):
        view = views[a] if a < len(views) else None
        if view is None:
            terms.append(f"i{next(rest)} * {stride}")
            continue
        wide = view.expand(tuple(found))
        at = " + ".join([str(wide.offset), *(f"i{first + j} * {s}" for j, s in enumerate(wide.strides))])
        n = source.shape[a]
        lines.append(f"int64_t k{a} = {view.buffer.name}[{at}]; k{a} += k{a} < 0 ? {n} : 0;")
        inside.append(f"k{a} >= 0 && k{a} < {n}")
        terms.append(f"k{a} * {stride}")
    other = f"{source.buffer.name}[{' + '.join(terms)}]"
    code = body.format(plain=element(plain), other=other, inside=f"({' && '.join(inside)})")
    return loops(plain.shape, " ".join([*lines, code]))
