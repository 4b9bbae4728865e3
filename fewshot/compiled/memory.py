"""Memory and statements of a program: which buffers there are, where they lie, and the code that fills them.

Values that one function leaves to another are kept in a block of memory that both see; temporaries share memory as soon as
they are no longer read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from .nests import elementwise, literal, type_name
from .values import Buffer, Expression, UnsupportedError, Value, View, contiguous_strides, numel

__all__ = ["Memory"]

ALIGN = 64  # bytes; a cache line, and the widest vector register
LARGEST_TABLE = 10_000  # elements; larger ones belong into buffers of the module


@dataclass
class Statement:
    """Code, and the buffers that it touches."""

    code: str
    buffers: list[Buffer]


@dataclass
class Function:
    """A function of the program."""

    name: str
    statements: list[Statement] = field(default_factory=list)
    scratch: int = 0


class Memory:
    """Buffers and statements of the functions of one program.

    Attributes
    ----------
    functions : list of Function
        The last one is being written.
    saved : int
        Bytes that ``step`` leaves to ``pull_back``.
    wanted : dict of Node to int
        Results of the function that is being written, and their places among its outputs.
    """

    def __init__(self) -> None:
        self.functions: list[Function] = []
        self.saved = 0
        self.wanted: dict[Node, int] = {}
        self._count = 0
        self._tables: list[str] = []
        self._stored: dict[int, tuple[Value, View]] = {}  # by identity; the value is kept so that it stays unique

    def begin(self, name: str) -> None:
        """Begin a function."""
        self.functions.append(Function(name))

    def buffer(
        self, dtype: torch.dtype, size: int, place: Any = "scratch", index: int = 0, run: int = 0, pitch: int = 0
    ) -> Buffer:
        """Make a buffer; see :class:`~fewshot.compiled.values.Buffer`."""
        type_name(dtype)
        self._count += 1
        name = self.functions[-1].name
        return Buffer(f"b{self._count}", dtype, max(size, 1), place, index, name, run, pitch or run or 1)

    def state(self, code: str, views: Iterable[View]) -> None:
        """Add a statement that touches some views."""
        function = self.functions[-1]
        buffers = []
        for view in views:
            b = view.buffer
            if b.place == "scratch" and b.function != function.name:
                b.place, b.index = "saved", self.saved
                self.saved += _aligned(b)
            buffers.append(b)
        function.statements.append(Statement(code, buffers))

    def write(self, out: View, value: Value) -> None:
        """Fill a view."""
        reads: list[View] = []
        if isinstance(value, View):
            value = value.expand(out.shape)
            reads = [value]
        elif isinstance(value, Expression):
            reads = list(value.views())
        self.state(elementwise(out, value), [out, *reads])

    def dense(self, shape: tuple[int, ...], dtype: torch.dtype) -> View:
        """Make a contiguous temporary."""
        return View(self.buffer(dtype, numel(shape)), shape, contiguous_strides(shape))

    def table(self, tensor: Tensor) -> View:
        """Make a table of known numbers."""
        if tensor.numel() > LARGEST_TABLE:
            raise UnsupportedError(f"a constant tensor of {tensor.numel()} elements that is no buffer of the module")
        shape = tuple(tensor.shape)
        buffer = self.buffer(tensor.dtype, tensor.numel(), "constant")
        numbers = ", ".join(literal(v, tensor.dtype) for v in tensor.detach().reshape(-1).tolist()) or "0"
        self._tables.append(f"static const {type_name(tensor.dtype)} {buffer.name}[] = {{{numbers}}};")
        return View(buffer, shape, contiguous_strides(shape))

    def result(self, node: Node | None, shape: tuple[int, ...], dtype: torch.dtype, like: Sequence[View] = ()) -> View:
        """Make memory for a result: the function's own where it is one, else a temporary laid out like an operand."""
        if node is not None and node in self.wanted:
            buffer = self.buffer(dtype, numel(shape), "output", self.wanted[node])
            return View(buffer, shape, contiguous_strides(shape))
        for view in like:
            b = view.buffer
            axes = sorted((s, n) for s, n in zip(view.strides, view.shape, strict=True) if n > 1)
            one_to_one = all(b[0] >= a[0] * a[1] for a, b in pairwise(((1, 1), *axes)))  # no two elements in one place
            if (
                view.shape == shape
                and b.place not in ("input", "constant")
                and one_to_one
                and view.offset == 0
                and _fills(view)
            ):
                return View(self.buffer(dtype, b.size, run=b.run, pitch=b.pitch), shape, view.strides)
        return self.dense(shape, dtype)

    def view(self, value: Value, node: Node | None = None) -> View:
        """Store a value, unless it is stored already."""
        if isinstance(value, View):
            return value
        if id(value) not in self._stored:
            like = list(value.views()) if isinstance(value, Expression) else []
            like.sort(key=lambda v: not v.buffer.pitch > v.buffer.run)  # padded ones first: no leftover elements
            out = self.result(node, value.shape, value.dtype, like)
            self.write(out, value)
            self._stored[id(value)] = value, out
        return self._stored[id(value)][1]

    def code(self) -> str:
        """Return the functions as C++."""
        for function in self.functions:
            function.scratch = _place(function)
        return "\n\n".join([*self._tables, *(_text(f) for f in self.functions)])


def _place(function: Function) -> int:
    """Give temporaries their places: the first gap among those in use at the same time; returns the bytes it takes."""
    first: dict[Buffer, int] = {}
    last: dict[Buffer, int] = {}
    for k, statement in enumerate(function.statements):
        for b in statement.buffers:
            if b.place == "scratch":
                first.setdefault(b, k)
                last[b] = k
    placed: list[tuple[int, int, Buffer]] = []
    end = 0
    for b in sorted(first, key=lambda b: first[b]):
        size = _aligned(b)
        at = 0
        for start, stop in sorted((start, stop) for start, stop, other in placed if last[other] >= first[b]):
            if start - at >= size:
                break
            at = max(at, stop)
        placed.append((at, at + size, b))
        b.index = at
        end = max(end, at + size)
    return end


def _text(function: Function) -> str:
    declared: dict[Buffer, str] = {}
    for statement in function.statements:
        for b in statement.buffers:
            kind = type_name(b.dtype)
            if b.place == "input":
                declared[b] = f"const {kind}* const {b.name} = (const {kind}*)in[{b.index}];"
            elif b.place == "output":
                declared[b] = f"{kind}* const {b.name} = ({kind}*)out[{b.index}];"
            elif b.place != "constant":
                declared[b] = f"{kind}* const {b.name} = ({kind}*)({b.place} + {b.index});"
    body = "\n".join([*declared.values(), *(s.code for s in function.statements)])
    head = f"static void {function.name}(const void* const* in, void* const* out, char* saved, char* scratch)"
    return f"{head} {{\n{body}\n}}"


def _aligned(buffer: Buffer) -> int:
    return -(-buffer.size * buffer.dtype.itemsize // ALIGN) * ALIGN


def _fills(view: View) -> bool:
    """Whether a view covers its buffer, but for padding."""
    b = view.buffer
    return numel(view.shape) * (b.pitch if b.run else 1) == b.size * (b.run if b.run else 1)
