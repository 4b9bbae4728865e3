"""What a node of a graph becomes in generated code: strided memory, or an expression that is not yet stored.

A *buffer* is a piece of memory with a place in a program; a *view* reads or writes it with strides; an *expression* is
arithmetic on views of one shape, written out where its result is needed, so that chains of elementwise operations become
one loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Buffer", "Constant", "Expression", "UnsupportedError", "Value", "View", "contiguous_strides", "numel"]

Place = Literal["input", "output", "saved", "scratch", "constant"]


class UnsupportedError(Exception):
    """A graph holds something that no code is generated for."""


def numel(shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape."""
    n = 1
    for size in shape:
        n *= size
    return n


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return strides of a dense array, the last axis contiguous."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@dataclass(eq=False)
class Buffer:
    """Memory with a place in the program.

    Parameters
    ----------
    name : str
        Its variable in the generated code.
    dtype : torch.dtype
        Of its elements.
    size : int
        Number of elements, padding included.
    place : {"input", "output", "saved", "scratch", "constant"}
        Argument of the function; result of it; kept from ``step`` for ``pull_back``; temporary; or a table in the program.
    index : int
        Position among the inputs or outputs.
    function : str
        The function that fills it.
    run, pitch : int
        Runs of `run` contiguous elements begin every `pitch` elements; what lies between may be read and written, so that
        loops over a run can go on to the end of a vector register. Equal where there is no padding.
    """

    name: str
    dtype: torch.dtype
    size: int
    place: Place
    index: int = 0
    function: str = ""
    run: int = 0
    pitch: int = 0


@dataclass(frozen=True)
class View:
    """Elements of a buffer."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """Type of the elements."""
        return self.buffer.dtype

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements are dense and in order."""
        dense = contiguous_strides(self.shape)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, dense, strict=True))

    def expand(self, shape: tuple[int, ...]) -> View:
        """Repeat elements along new axes and axes of size 1, as broadcasting does."""
        missing = len(shape) - len(self.shape)
        own = (1,) * missing + self.shape
        strides = (0,) * missing + self.strides
        return View(
            self.buffer,
            shape,
            tuple(0 if n == 1 != m else s for n, m, s in zip(own, shape, strides, strict=True)),
            self.offset,
        )

    def extent(self, axis: int) -> int:
        """How far an axis may be followed: its size, or more where the buffer is padded along it."""
        b = self.buffer
        if b.run and self.strides[axis] == 1 and self.shape[axis] == b.run and self.offset % b.pitch == 0:
            return b.pitch
        return self.shape[axis]

    def meta(self) -> Tensor:
        """Return a tensor without data that is laid out like this view; view operations on it give views."""
        base = torch.empty(self.buffer.size, dtype=self.dtype, device="meta")
        return base.as_strided(self.shape, self.strides, self.offset)

    def like(self, tensor: Tensor) -> View:
        """Return the view that a view operation on :meth:`meta` found."""
        return View(self.buffer, tuple(tensor.shape), tuple(tensor.stride()), int(tensor.storage_offset()))


@dataclass(frozen=True)
class Constant:
    """One number for all elements, as its type holds it."""

    value: float | int | bool
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", torch.tensor(self.value, dtype=self.dtype).item())


@dataclass(frozen=True, eq=False)
class Expression:
    """Arithmetic on operands of one shape.

    Parameters
    ----------
    template : str
        Code with ``{0}``, ``{1}``, ... for the operands.
    operands : tuple of View, Constant or Expression
        Views and expressions have the shape of the expression.
    shape : tuple of int
        Its shape.
    dtype : torch.dtype
        Type of its result.
    """

    template: str
    operands: tuple[Value, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype

    def views(self) -> Iterator[View]:
        """Yield the views that the expression reads, in order."""
        for operand in self.operands:
            if isinstance(operand, View):
                yield operand
            elif isinstance(operand, Expression):
                yield from operand.views()

    @property
    def size(self) -> int:
        """Number of operations in it."""
        return 1 + sum(o.size for o in self.operands if isinstance(o, Expression))


Value = View | Constant | Expression
