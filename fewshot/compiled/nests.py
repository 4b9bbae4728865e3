"""Loop nests: code that fills a view from an expression, elementwise or by reduction.

Axes are ordered by the strides of what is written, so that the innermost loop runs over contiguous memory, and neighbouring
axes that are one run of memory in every operand become one loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from .values import Constant, Expression, UnsupportedError, Value, View

__all__ = ["element", "elementwise", "literal", "loops", "reduction", "type_name"]

TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.uint8: "uint8_t",
    torch.bool: "bool",
}

_NARROW = (torch.int32, torch.uint8, torch.bool)


def type_name(dtype: torch.dtype) -> str:
    """Return the C++ type of an element."""
    if dtype not in TYPES:
        raise UnsupportedError(f"elements of type {dtype}")
    return TYPES[dtype]


def literal(value: float | int | bool, dtype: torch.dtype) -> str:
    """Return a number as C++ writes it."""
    if dtype == torch.bool:
        return "true" if value else "false"
    if not dtype.is_floating_point:
        whole = int(value)
        # The least number of 64 bits cannot be written as one.
        return f"{type_name(dtype)}({whole})" if whole > -(2**63) else f"({whole + 1} - int64_t(1))"
    number = float(value)
    if number != number:
        return f"std::numeric_limits<{type_name(dtype)}>::quiet_NaN()"
    if number in (float("inf"), float("-inf")):
        sign = "-" if number < 0 else ""
        return f"({sign}std::numeric_limits<{type_name(dtype)}>::infinity())"
    return f"{type_name(dtype)}({number!r})"


def _leaves(value: Value) -> list[View]:
    if isinstance(value, View):
        return [value]
    return list(value.views()) if isinstance(value, Expression) else []


def _text(value: Value, read: Callable[[View], str]) -> str:
    if isinstance(value, View):
        return read(value)
    if isinstance(value, Constant):
        return literal(value.value, value.dtype)
    text = value.template.format(*(_text(o, read) for o in value.operands))
    # C++ computes with small integers as int.
    return f"{type_name(value.dtype)}({text})" if value.dtype in _NARROW else text


class _Nest:
    """Loops over some axes, outermost first, with the strides of each operand along them."""

    def __init__(self, axes: Sequence[int], sizes: Sequence[int], operands: Sequence[tuple[int, ...]]) -> None:
        loops = [(sizes[a], [o[a] for o in operands]) for a in axes if sizes[a] != 1]
        self.loops: list[tuple[int, list[int]]] = []
        for size, strides in loops:
            if self.loops:
                outer, before = self.loops[-1]
                if all(b == s * size for b, s in zip(before, strides, strict=True)):
                    self.loops[-1] = (outer * size, strides)
                    continue
            self.loops.append((size, strides))

    def index(self, k: int, offset: int) -> str:
        """Return the index of operand `k` inside the loops."""
        terms = [
            f"i{j}" if strides[k] == 1 else f"i{j} * {strides[k]}"
            for j, (_, strides) in enumerate(self.loops)
            if strides[k]
        ]
        if offset or not terms:
            terms.append(str(offset))
        return " + ".join(terms)

    def wrap(self, body: str, first: int, last: int, pragma: str) -> str:
        """Put loops `first` up to, not including, `last` around a statement."""
        for j in reversed(range(first, last)):
            head = f"for (int i{j} = 0; i{j} < {self.loops[j][0]}; i{j}++) "
            body = (f"\n{pragma}\n{head}" if j == len(self.loops) - 1 else head) + "{ " + body + " }"
        return body


def elementwise(out: View, value: Value) -> str:
    """Code for ``out = value``."""
    leaves = _leaves(value)
    strides = [out.strides, *(v.strides for v in leaves)]
    axes = sorted(range(len(out.shape)), key=lambda a: -out.strides[a])
    sizes = list(out.shape)
    if axes and out.strides[axes[-1]] == 1:
        inner = axes[-1]
        # Every operand is padded along the innermost axis, or the same all along it: go on to the end of the register.
        extents = [v.extent(inner) for v in (out, *leaves) if v.strides[inner]]
        if all(s[inner] in (0, 1) for s in strides) and min(extents) == max(extents):
            sizes[inner] = extents[0]
    nest = _Nest(axes, sizes, strides)
    reads = {id(v): f"{v.buffer.name}[{nest.index(k + 1, v.offset)}]" for k, v in enumerate(leaves)}
    body = f"{out.buffer.name}[{nest.index(0, out.offset)}] = {_text(value, lambda v: reads[id(v)])};"
    return nest.wrap(body, 0, len(nest.loops), "IVDEP")


def reduction(out: View, value: Value, shape: tuple[int, ...], axes: Sequence[int], kind: str) -> str:
    """Code for a reduction.

    Parameters
    ----------
    out : View
        Result; its axes are those of `shape`, the reduced ones of size 1.
    value : View, Constant or Expression
        What is reduced.
    shape : tuple of int
        Shape of `value`.
    axes : sequence of int
        Axes to reduce.
    kind : {"sum", "max", "min"}
        How two numbers become one.
    """
    leaves = _leaves(value)
    out_strides = tuple(0 if a in axes else s for a, s in enumerate(out.strides))
    strides = [out_strides, *(v.strides for v in leaves)]
    order = sorted(
        (a for a, n in enumerate(shape) if n != 1), key=lambda a: -max((v.strides[a] for v in leaves), default=0)
    )
    dtype = type_name(out.dtype)
    start = Constant(0 if kind == "sum" else _extreme(out.dtype, least=kind == "max"), out.shape, out.dtype)
    if not order or order[-1] in axes:
        # The contiguous axis is summed up: one accumulator for each result.
        kept = [a for a in order if a not in axes]
        order = kept + [a for a in order if a in axes]
        outer, inner = _Nest(kept, shape, strides), _Nest(order[len(kept) :], shape, strides)
        nest = _Nest([], shape, strides)
        nest.loops = outer.loops + inner.loops
        n = len(outer.loops)
        reads = {id(v): f"{v.buffer.name}[{nest.index(k + 1, v.offset)}]" for k, v in enumerate(leaves)}
        text = _text(value, lambda v: reads[id(v)])
        step = f"acc += {text};" if kind == "sum" else f"acc = {kind}imum(acc, {text});"
        loops = nest.wrap(step, n, len(nest.loops), "SUM(acc)" if kind == "sum" else "")
        at = f"{out.buffer.name}[{outer.index(0, out.offset)}]"
        return outer_wrap(outer, f"{dtype} acc = {literal(start.value, out.dtype)}; {loops} {at} = acc;")
    nest = _Nest(order, shape, strides)
    reads = {id(v): f"{v.buffer.name}[{nest.index(k + 1, v.offset)}]" for k, v in enumerate(leaves)}
    at = f"{out.buffer.name}[{nest.index(0, out.offset)}]"
    text = _text(value, lambda v: reads[id(v)])
    step = f"{at} += {text};" if kind == "sum" else f"{at} = {kind}imum({at}, {text});"
    return elementwise(out, start) + "\n" + nest.wrap(step, 0, len(nest.loops), "IVDEP")


def _extreme(dtype: torch.dtype, *, least: bool) -> float | int | bool:
    """Return the least number of a type, or the greatest."""
    if dtype == torch.bool:
        return not least
    if not dtype.is_floating_point:
        return torch.iinfo(dtype).min if least else torch.iinfo(dtype).max
    return float("-inf") if least else float("inf")


def outer_wrap(nest: _Nest, body: str) -> str:
    """Put all loops of a nest around a statement that has loops of its own."""
    for j in reversed(range(len(nest.loops))):
        body = f"for (int i{j} = 0; i{j} < {nest.loops[j][0]}; i{j}++) {{ {body} }}"
    return "{ " + body + " }"


def element(view: View, axis: int | None = None, chosen: str = "") -> str:
    """Return code for an element inside loops over i0, i1, ..., one of which may be replaced."""
    terms = [f"{chosen if a == axis else f'i{a}'} * {s}" for a, s in enumerate(view.strides)]
    return f"{view.buffer.name}[{' + '.join([str(view.offset), *terms])}]"


def loops(shape: tuple[int, ...], code: str) -> str:
    """Put loops over i0, i1, ... around a statement."""
    for a in reversed(range(len(shape))):
        code = f"for (int i{a} = 0; i{a} < {shape[a]}; i{a}++) {{ {code} }}"
    return f"{{ {code} }}"
