"""Products of matrices: which axis to vectorise, and which operand to copy for it.

A product of small matrices is as fast as its inner loop finds contiguous rows. Rows of the result can run along either axis;
an operand whose rows are not contiguous is copied once, padded to whole vector registers, and the copy serves all later
products with it. A product with few results is computed as dot products.
"""

from __future__ import annotations

from torch.fx import Node

from .memory import Memory
from .nests import reduction, type_name
from .values import Expression, UnsupportedError, Value, View

__all__ = ["Products"]

COPY = 1.2  # cost of copying a number, in vector operations


class Products:
    """Writes products of matrices.

    Parameters
    ----------
    memory : Memory
        Where statements go.
    lanes : int
        Numbers in a vector register.
    """

    def __init__(self, memory: Memory, lanes: int) -> None:
        self._memory, self._lanes = memory, lanes
        self._packs: dict[tuple[View, int], View] = {}

    def pitch(self, n: int) -> int:
        """Return the length that runs of n elements are padded to."""
        if n <= 1 or n % self._lanes == 0:
            return n
        step = 4
        while step < n and step < self._lanes // 2:
            step *= 2
        padded = -(-n // step) * step
        rest = padded % self._lanes
        return padded + self._lanes - rest if rest > self._lanes // 2 else padded

    def sums(self, view: View, axes: tuple[int, ...] = (1,)) -> View:
        """Write sums over the last axes of a view."""
        kept = tuple(n for a, n in enumerate(view.shape) if a not in axes)
        out = self._memory.dense(kept, view.dtype)
        full = View(out.buffer, (*kept, *(1 for _ in axes)), (*out.strides, *(1 for _ in axes)))
        self._memory.state(reduction(full, view, view.shape, axes, "sum"), [out, view])
        return out

    def _pieces(self, n: int) -> int:
        """Vector registers for n elements."""
        return n // self._lanes + (n % self._lanes).bit_count()

    def _packed(self, view: View, axis: int) -> View:
        """Copy of a matrix whose `axis` is contiguous and padded."""
        key = (view, axis)
        if key not in self._packs:
            n, m = view.shape[axis], view.shape[1 - axis]
            pitch = self.pitch(n)
            strides = (1, pitch) if axis == 0 else (pitch, 1)
            out = View(self._memory.buffer(view.dtype, m * pitch, run=n, pitch=pitch), view.shape, strides)
            self._memory.write(out, view)
            self._packs[key] = out
        return self._packs[key]

    def product(self, a: Value, b: Value, node: Node | None, preferred: int | None) -> View:
        """Multiply two matrices, vectorised along the axis that costs least.

        Parameters
        ----------
        a, b : View, Constant or Expression
            Matrices.
        node : Node or None
            Whose value it is.
        preferred : {0, 1} or None
            Which axis of the result had better be contiguous.
        """
        left, right = self._memory.view(a), self._memory.view(b)
        (m, k), n = left.shape, right.shape[1]
        shape, dtype = (m, n), left.dtype
        if not k or not dtype.is_floating_point:
            raise UnsupportedError(f"a product of {dtype} matrices with {k} terms")
        wanted = node is not None and node in self._memory.wanted

        preferred = 1 if wanted else preferred

        def cost(rows: int, width: int, operand: View, axis: int) -> tuple[float, bool]:
            """Of computing rows of `width` results, and whether the operand is copied to make them contiguous and padded."""
            turning = COPY * m * n if min(m, n) > 1 and preferred == 1 - axis else 0
            found = []
            if operand.strides[axis] == 1 or width == 1:
                length = width if wanted else operand.extent(axis) if operand.strides[axis] == 1 else 1
                found.append((rows * k * self._pieces(length) + turning, False))
            packing = 0 if (operand, axis) in self._packs else COPY * k * width
            length = width if wanted else self.pitch(width)
            found.append((rows * k * self._pieces(length) + packing + turning, True))
            return min(found)

        (by_columns, pack_right), (by_rows, pack_left) = cost(m, n, right, 1), cost(n, m, left, 0)
        by_terms = float("inf")
        if (left.strides[1] == 1 or k == 1) and (right.strides[0] == 1 or k == 1):
            by_terms = m * n * (self._pieces(k) + 6.0)
        best = min(by_columns, by_rows, by_terms)
        if best == by_terms:
            out = self._memory.result(node, shape, dtype)
            product = Expression("({0} * {1})", (_axes(left, 1, n), _axes(right, 0, m)), (m, n, k), dtype)
            view = View(out.buffer, (m, n, 1), (*out.strides, 1))
            self._memory.state(reduction(view, product, (m, n, k), [2], "sum"), [out, left, right])
            return out
        if best == by_columns:
            return self._gemm(left, self._packed(right, 1) if pack_right else right, node, turned=False)
        left = self._packed(left, 0) if pack_left else left
        return self._gemm(_transposed(right), _transposed(left), node, turned=True)

    def _gemm(self, left: View, right: View, node: Node | None, *, turned: bool) -> View:
        """Product whose rows of results are contiguous; `turned`: it is the transposed one that is wanted."""
        (m, k), n = left.shape, right.shape[1]
        wanted = node is not None and node in self._memory.wanted and (not turned or 1 in (m, n))
        width = n if wanted or right.strides[1] != 1 else right.extent(1)
        if wanted:
            out = View(self._memory.result(node, (n, m) if turned else (m, n), left.dtype).buffer, (m, n), (n, 1))
        else:
            out = View(self._memory.buffer(left.dtype, m * width, run=n, pitch=width), (m, n), (width, 1))
        kind = type_name(left.dtype)
        shape = f"{m}, {width}, {k}, {left.strides[0]}, {left.strides[1]}, {right.strides[0]}, {out.strides[0]}"
        operands = f"{_pointer(left)}, {_pointer(right)}, {_pointer(out)}"
        self._memory.state(f"gemm<{kind}, {shape}>({operands});", [left, right, out])
        return _transposed(out) if turned else out


def _transposed(view: View) -> View:
    return View(view.buffer, view.shape[::-1], view.strides[::-1], view.offset)


def _axes(view: View, term_axis: int, other: int) -> View:
    """View a factor of a product as (rows, columns, terms)."""
    if term_axis == 1:
        return View(
            view.buffer, (view.shape[0], other, view.shape[1]), (view.strides[0], 0, view.strides[1]), view.offset
        )
    return View(view.buffer, (other, view.shape[1], view.shape[0]), (0, view.strides[1], view.strides[0]), view.offset)


def _pointer(view: View) -> str:
    return f"{view.buffer.name} + {view.offset}" if view.offset else view.buffer.name
