"""Cholesky factors, and systems of equations with a triangular matrix: what heads in closed form are made of."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch.fx import Node

from .memory import Memory
from .nests import type_name
from .values import UnsupportedError, View

__all__ = ["Triangular"]

aten = torch.ops.aten


class Triangular:
    """Writes factors and solutions.

    Parameters
    ----------
    memory : Memory
        Where statements go.
    """

    OPERATIONS: ClassVar[frozenset[Any]] = frozenset(
        {aten.linalg_cholesky_ex.default, aten.linalg_solve_triangular.default}
    )

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def write(self, node: Node, target: Any, args: list[Any]) -> Any:
        """Return the value of a node."""
        if any(len(a.shape) != 2 for a in args[:2] if hasattr(a, "shape")):
            raise UnsupportedError(f"{target} of several matrices at once")
        if target is aten.linalg_cholesky_ex.default:
            return self._cholesky(node, args[0])
        return self._solve(node, args[0], args[1])

    def _cholesky(self, node: Node, matrix: Any) -> list[View]:
        options = _options(node)
        if options.get("check_errors"):
            raise UnsupportedError("a Cholesky factor that raises an error")
        source = self._memory.view(matrix)
        # The upper factor has contiguous rows; of the matrix torch reads the lower triangle.
        factor = self._memory.dense(source.shape, source.dtype)
        self._memory.write(factor, _transposed(source))
        failed = self._memory.dense((), torch.int32)
        kind, n = type_name(source.dtype), source.shape[0]
        self._memory.state(f"{failed.buffer.name}[0] = cholesky<{kind}, {n}>({factor.buffer.name});", [factor, failed])
        return [factor if options.get("upper") else _transposed(factor), failed]

    def _solve(self, node: Node, matrix: Any, right: Any) -> View:
        options = _options(node)
        a, b, upper = self._memory.view(matrix), self._memory.view(right), bool(options["upper"])
        from_left = options.get("left", True)
        if not from_left:  # X A = B is A^T X^T = B^T
            a, b, upper = _transposed(a), _transposed(b), not upper
        x = self._memory.dense(b.shape, b.dtype)
        self._memory.write(x, b)
        (n, columns), unit = b.shape, bool(options.get("unitriangular"))
        shape = f"{n}, {columns}, {a.strides[0]}, {a.strides[1]}, {str(upper).lower()}, {str(unit).lower()}"
        call = f"solve_triangular<{type_name(b.dtype)}, {shape}>({a.buffer.name} + {a.offset}, {x.buffer.name});"
        self._memory.state(call, [a, x])
        return x if from_left else _transposed(x)


def _options(node: Node) -> dict[str, Any]:
    """Return what a node was called with beside its matrices, by name."""
    target: Any = node.target
    names = [a.name for a in target._schema.arguments]
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


def _transposed(view: View) -> View:
    return View(view.buffer, view.shape[::-1], view.strides[::-1], view.offset)
