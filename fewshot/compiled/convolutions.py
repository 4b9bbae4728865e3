"""Convolutions and pooling.

A convolution is a product of matrices once the patches that the kernel sees are written side by side. The patches of an input
serve its convolution and the derivative in the weights alike, in both directions of differentiation; the derivative in the
input adds patches back. Channels come first in memory, so all positions of all rows of a task make one long contiguous axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch.fx import Node

from .memory import Memory
from .nests import type_name
from .products import Products
from .values import Constant, Expression, UnsupportedError, Value, View, numel

__all__ = ["Convolutions"]

aten = torch.ops.aten


class Convolutions:
    """Writes convolutions and pooling.

    Parameters
    ----------
    memory : Memory
        Where statements go.
    products : Products
        Writes the products.
    """

    OPERATIONS: frozenset[Any] = frozenset(
        {
            aten.convolution.default,
            aten.convolution_backward.default,
            aten.max_pool2d_with_indices.default,
            aten.max_pool2d_with_indices_backward.default,
            aten.avg_pool2d.default,
            aten.avg_pool2d_backward.default,
        }
    )

    def __init__(self, memory: Memory, products: Products) -> None:
        self._memory, self._products = memory, products
        self._patches: dict[Any, View] = {}

    def write(self, node: Node, target: Any, args: list[Any]) -> Any:
        """Return the value of a node."""
        if target is aten.convolution.default:
            return self._convolution(node, args)
        if target is aten.convolution_backward.default:
            return self._backward(node, args)
        if target is aten.max_pool2d_with_indices.default:
            return self._max_pool(node, args)
        if target is aten.max_pool2d_with_indices_backward.default:
            return self._max_pool_backward(node, args)
        if target is aten.avg_pool2d.default:
            return self._avg_pool(node, args)
        return self._avg_pool_backward(node, args)

    # ---- convolutions

    def _convolution(self, node: Node, args: list[Any]) -> Value:
        x, weight = self._memory.view(args[0]), self._memory.view(args[1])
        bias, stride, padding, dilation, transposed, _, groups = args[2:9]
        shape = tuple(node.meta["val"].shape)
        two = _Geometry(stride, padding, dilation, len(shape))
        x, weight, shape4 = two.images(x), two.images(weight), two.image_shape(shape)
        write = self._transposed if transposed else self._forward
        out = write(x, weight, shape4, two, groups)
        if bias is not None:
            along = self._memory.view(bias)
            wide = View(along.buffer, shape4, (0, along.strides[0], 0, 0), along.offset)
            total = Expression("({0} + {1})", (out, wide), shape4, out.dtype)
            out = self._memory.view(total)
        return two.back(out, shape)

    def _forward(self, x: View, weight: View, shape: tuple[int, ...], g: _Geometry, groups: int) -> View:
        """Of x (n, c, h, w) with weight (o, c / groups, kh, kw)."""
        rows, channels = shape[0], shape[1] // groups
        kernel = weight.shape[1:]
        if groups == 1:
            patches = self._patches_of(x, kernel, shape[2:], g)
            product = self._products.product(_matrix(weight, self._memory), patches, None, 1)
            return _as_images(product, rows, shape[2:])
        out = self._memory.dense(shape, x.dtype)
        for k in range(groups):
            part = x.like(x.meta().narrow(1, k * kernel[0], kernel[0]))
            mine = weight.like(weight.meta().narrow(0, k * channels, channels))
            product = self._products.product(
                _matrix(mine, self._memory), self._patches_of(part, kernel, shape[2:], g), None, 1
            )
            self._memory.write(
                out.like(out.meta().narrow(1, k * channels, channels)), _as_images(product, rows, shape[2:])
            )
        return out

    def _transposed(self, x: View, weight: View, shape: tuple[int, ...], g: _Geometry, groups: int) -> View:
        """Of x (n, c, h, w) with weight (c, o / groups, kh, kw): each position adds a patch to the result."""
        rows, inner = x.shape[0], x.shape[1] // groups
        channels = weight.shape[1]
        height, width = (shape[2 + a] + 2 * g.padding[a] for a in (0, 1))
        # Room for patches that end beyond the result.
        height = max(height, (x.shape[2] - 1) * g.stride[0] + (weight.shape[2] - 1) * g.dilation[0] + 1)
        width = max(width, (x.shape[3] - 1) * g.stride[1] + (weight.shape[3] - 1) * g.dilation[1] + 1)
        whole = (rows, groups * channels, height, width)
        strides = (height * width, rows * height * width, width, 1)
        total = View(self._memory.buffer(x.dtype, numel(whole)), whole, strides)
        self._memory.write(total, Constant(0, whole, x.dtype))
        for k in range(groups):
            mine = weight.like(weight.meta().narrow(0, k * inner, inner))
            matrix = _matrix(mine, self._memory)
            images = _positions(x.like(x.meta().narrow(1, k * inner, inner)), self._memory)
            patches = self._products.product(_turned(matrix), images, None, 1)
            self._add_patches(patches, total, k * channels, channels, weight.shape[2:], x.shape[2:], g)
        cut = total.meta()[:, :, g.padding[0] : g.padding[0] + shape[2], g.padding[1] : g.padding[1] + shape[3]]
        return total.like(cut)

    def _add_patches(
        self,
        patches: View,
        total: View,
        first: int,
        channels: int,
        kernel: Sequence[int],
        size: Sequence[int],
        g: _Geometry,
    ) -> None:
        """Add patches, of shape (channels * kh * kw, rows * h * w), where they were taken from."""
        rows = total.shape[0]
        (kh, kw), (h, w) = kernel, size
        step, n = patches.strides
        for i in range(kh):
            for j in range(kw):
                shape = (rows, channels, h, w)
                mine = View(
                    patches.buffer, shape, (h * w * n, kh * kw * step, w * n, n), patches.offset + (i * kw + j) * step
                )
                r, c, y, x = total.strides
                at = View(
                    total.buffer,
                    shape,
                    (r, c, y * g.stride[0], x * g.stride[1]),
                    total.offset + first * c + i * g.dilation[0] * y + j * g.dilation[1] * x,
                )
                self._memory.write(at, Expression("({0} + {1})", (at, mine), shape, total.dtype))

    def _backward(self, node: Node, args: list[Any]) -> list[Value | None]:
        """Write the derivatives in input, weight and bias, as far as they are asked for."""
        stride, padding, dilation, transposed, _, groups, mask = args[4:11]
        made = node.meta["val"]
        two = _Geometry(stride, padding, dilation, len(args[1].shape))
        out, x, weight = (two.images(self._memory.view(a)) for a in args[:3])
        found: list[Value | None] = [None, None, None]
        if mask[0]:
            shape = tuple(made[0].shape)
            write = self._forward if transposed else self._transposed
            found[0] = two.back(write(out, weight, two.image_shape(shape), two, groups), shape)
        if mask[1]:
            # A transposed convolution is the derivative of a plain one: input and result change places.
            pair = (x, out) if transposed else (out, x)
            found[1] = two.back(self._weight_gradient(*pair, weight.shape, two, groups), tuple(made[1].shape))
        if mask[2]:
            found[2] = self._products.sums(_positions(out, self._memory))
        return found

    def _weight_gradient(self, out: View, x: View, shape: tuple[int, ...], g: _Geometry, groups: int) -> View:
        kernel = (shape[1], *shape[2:])
        if groups == 1:
            patches = self._patches_of(x, kernel, out.shape[2:], g)
            product = self._products.product(_positions(out, self._memory), _turned(patches), None, 1)
            return _unflattened(product, kernel)
        whole = self._memory.dense(shape, x.dtype)
        n = shape[0] // groups
        for k in range(groups):
            part = x.like(x.meta().narrow(1, k * shape[1], shape[1]))
            mine = _positions(out.like(out.meta().narrow(1, k * n, n)), self._memory)
            patches = self._patches_of(part, kernel, out.shape[2:], g)
            product = self._products.product(mine, _turned(patches), None, 1)
            self._memory.write(whole.like(whole.meta().narrow(0, k * n, n)), _unflattened(product, kernel))
        return whole

    def _patches_of(self, x: View, kernel: Sequence[int], size: Sequence[int], g: _Geometry) -> View:
        """Return a matrix (channels * kh * kw, rows * h * w): what the kernel sees at each position."""
        key = (x, tuple(kernel), tuple(size), g.key)
        if key in self._patches:
            return self._patches[key]
        padded = self._padded(x, g)
        rows = x.shape[0]
        (channels, kh, kw), (h, w) = kernel, size
        r, c, y, z = padded.strides
        shape = (channels, kh, kw, rows, h, w)
        reach = (kh - 1) * g.dilation[0] + (h - 1) * g.stride[0] >= padded.shape[2] or (kw - 1) * g.dilation[1] + (
            w - 1
        ) * g.stride[1] >= padded.shape[3]
        if reach:
            raise UnsupportedError("a convolution whose patches end outside the input")
        view = View(
            padded.buffer,
            shape,
            (c, g.dilation[0] * y, g.dilation[1] * z, r, g.stride[0] * y, g.stride[1] * z),
            padded.offset,
        )
        n = rows * h * w
        pitch = self._products.pitch(n)
        out = View(
            self._memory.buffer(x.dtype, channels * kh * kw * pitch, run=n, pitch=pitch),
            (channels * kh * kw, n),
            (pitch, 1),
        )
        self._memory.write(View(out.buffer, shape, (kh * kw * pitch, kw * pitch, pitch, h * w, w, 1)), view)
        self._patches[key] = out
        return out

    def _padded(self, x: View, g: _Geometry) -> View:
        if g.padding == (0, 0):
            return x
        n, c, h, w = x.shape
        shape = (n, c, h + 2 * g.padding[0], w + 2 * g.padding[1])
        out = self._memory.dense(shape, x.dtype)
        self._memory.write(out, Constant(0, shape, x.dtype))
        self._memory.write(
            out.like(out.meta()[:, :, g.padding[0] : g.padding[0] + h, g.padding[1] : g.padding[1] + w]), x
        )
        return out

    # ---- pooling

    def _max_pool(self, node: Node, args: list[Any]) -> list[Value]:
        kernel, stride, padding, dilation = [*args[1:], *[None] * 4][:4]
        x = self._memory.view(args[0])
        shape = tuple(node.meta["val"][0].shape)
        x4, shape4 = _four(x), (1,) * (4 - len(shape)) + shape
        out, index = self._memory.dense(shape4, x.dtype), self._memory.dense(shape4, torch.int64)
        (kh, kw), (sh, sw) = _pair(kernel), _pair(stride or kernel)
        (ph, pw), (dh, dw) = _pair(padding or 0), _pair(dilation or 1)
        h, w = x4.shape[2:]
        source = _element(x4, "y", "z")
        kind = type_name(x.dtype)
        code = (
            f"for (int n = 0, at = 0; n < {shape4[0]}; n++) for (int c = 0; c < {shape4[1]}; c++) "
            f"for (int i = 0; i < {shape4[2]}; i++) for (int j = 0; j < {shape4[3]}; j++, at++) {{ "
            f"{kind} best = -std::numeric_limits<{kind}>::infinity(); int64_t where = -1; "
            f"for (int a = 0; a < {kh}; a++) for (int b = 0; b < {kw}; b++) {{ "
            f"const int y = i * {sh} - {ph} + a * {dh}, z = j * {sw} - {pw} + b * {dw}; "
            f"if (y < 0 || y >= {h} || z < 0 || z >= {w}) continue; const {kind} v = {source}; "
            f"if (where < 0 || v > best || v != v) {{ best = v; where = y * {w} + z; }} }} "
            f"{out.buffer.name}[at] = best; {index.buffer.name}[at] = where; }}"
        )
        self._memory.state(code, [out, index, x])
        return [View(v.buffer, shape, v.strides[4 - len(shape) :]) for v in (out, index)]

    def _max_pool_backward(self, node: Node, args: list[Any]) -> Value:
        out, index = self._memory.view(args[0]), self._memory.view(args[7])
        shape = tuple(node.meta["val"].shape)
        shape4, out4, index4 = (1,) * (4 - len(shape)) + shape, _four(out), _four(index)
        total = self._memory.dense(shape4, out.dtype)
        self._memory.write(total, Constant(0, shape4, out.dtype))
        code = (
            f"for (int n = 0; n < {shape4[0]}; n++) for (int c = 0; c < {shape4[1]}; c++) "
            f"for (int i = 0; i < {out4.shape[2]}; i++) for (int j = 0; j < {out4.shape[3]}; j++) "
            f"{total.buffer.name}[(n * {shape4[1]} + c) * {shape4[2] * shape4[3]} + {_element(index4)}] += "
            f"{_element(out4)};"
        )
        self._memory.state(code, [total, out, index])
        return View(total.buffer, shape, total.strides[4 - len(shape) :])

    def _avg_pool(self, node: Node, args: list[Any]) -> Value:
        kernel, stride = _pair(args[1]), _pair((args[2] if len(args) > 2 else None) or args[1])
        _plain_average(args[3:])
        x, shape = self._memory.view(args[0]), tuple(node.meta["val"].shape)
        x4, shape4 = _four(x), (1,) * (4 - len(shape)) + shape
        whole = (*shape4, *kernel)
        n, c, y, z = x4.strides
        windows = View(x.buffer, whole, (n, c, stride[0] * y, stride[1] * z, y, z), x4.offset)
        total = self._products.sums(windows, axes=(4, 5))
        mean = Expression(
            "({0} * {1})",
            (View(total.buffer, shape, total.strides[4 - len(shape) :]), Constant(1 / numel(kernel), shape, x.dtype)),
            shape,
            x.dtype,
        )
        return self._memory.view(mean)

    def _avg_pool_backward(self, node: Node, args: list[Any]) -> Value:
        kernel, stride = _pair(args[2]), _pair(args[3] or args[2])
        _plain_average(args[4:])
        out, shape = self._memory.view(args[0]), tuple(node.meta["val"].shape)
        out4, shape4 = _four(out), (1,) * (4 - len(shape)) + shape
        total = self._memory.dense(shape4, out.dtype)
        self._memory.write(total, Constant(0, shape4, out.dtype))
        n, c, y, z = total.strides
        for i in range(kernel[0]):
            for j in range(kernel[1]):
                at = View(total.buffer, out4.shape, (n, c, stride[0] * y, stride[1] * z), i * y + j * z)
                share = Constant(1 / numel(kernel), out4.shape, out.dtype)
                self._memory.write(at, Expression("({0} + {1} * {2})", (at, out4, share), out4.shape, out.dtype))
        return View(total.buffer, shape, total.strides[4 - len(shape) :])


class _Geometry:
    """Stride, padding and dilation along two axes; one-dimensional convolutions get an axis of length 1."""

    def __init__(self, stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int], n_axes: int) -> None:
        if n_axes not in (3, 4):
            raise UnsupportedError(f"a convolution over {n_axes - 2} axes")
        self._flat = n_axes == 3
        front = self._flat
        self.stride = (1, stride[0]) if front else (stride[0], stride[-1])
        self.padding = (0, padding[0]) if front else (padding[0], padding[-1])
        self.dilation = (1, dilation[0]) if front else (dilation[0], dilation[-1])

    @property
    def key(self) -> tuple[tuple[int, int], ...]:
        """What patches depend on."""
        return self.stride, self.padding, self.dilation

    def images(self, v: View) -> View:
        """Four axes."""
        if not self._flat:
            return v
        (a, b, c), (s, t, u) = v.shape, v.strides
        return View(v.buffer, (a, b, 1, c), (s, t, 0, u), v.offset)

    def image_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Four axes."""
        return (*shape[:2], 1, shape[2]) if self._flat else shape

    def back(self, v: View, shape: tuple[int, ...]) -> View:
        """As many axes as before."""
        if not self._flat:
            return v
        s, t, _, u = v.strides
        return View(v.buffer, shape, (s, t, u), v.offset)


def _turned(v: View) -> View:
    return View(v.buffer, v.shape[::-1], v.strides[::-1], v.offset)


def _matrix(weight: View, memory: Memory) -> View:
    """Weights (o, c, kh, kw) as a matrix (o, c * kh * kw)."""
    o, *rest = weight.shape
    if not weight.is_contiguous and not _merges(weight, 1):
        dense = memory.dense(weight.shape, weight.dtype)
        memory.write(dense, weight)
        weight = dense
    # The stride of an axis of one element means nothing.
    step = next((s for s, n in zip(weight.strides[:0:-1], weight.shape[:0:-1], strict=True) if n > 1), 1)
    return View(weight.buffer, (o, numel(tuple(rest))), (weight.strides[0], step), weight.offset)


def _merges(v: View, first: int) -> bool:
    """Whether the axes from `first` on are one run of memory."""
    axes = [a for a in range(first, len(v.shape)) if v.shape[a] > 1]
    return all(v.strides[a] == v.strides[b] * v.shape[b] for a, b in pairwise(axes))


def _positions(x: View, memory: Memory) -> View:
    """Images (n, c, h, w) as a matrix (c, n * h * w)."""
    n, c, h, w = x.shape
    r, s, y, z = x.strides
    if (y == w * z or h == 1) and (r == h * w * z or n == 1):
        return View(x.buffer, (c, n * h * w), (s, z), x.offset)
    size = n * h * w
    out = View(memory.buffer(x.dtype, c * size), (n, c, h, w), (h * w, size, w, 1))
    memory.write(out, x)
    return View(out.buffer, (c, size), (size, 1))


def _as_images(product: View, rows: int, size: Sequence[int]) -> View:
    """View a matrix (c, n * h * w) as images (n, c, h, w)."""
    (s, z), (h, w) = product.strides, size
    return View(product.buffer, (rows, product.shape[0], h, w), (h * w * z, s, w * z, z), product.offset)


def _unflattened(product: View, kernel: Sequence[int]) -> View:
    """View a matrix (o, c * kh * kw) as weights."""
    (s, z), (c, kh, kw) = product.strides, kernel
    return View(product.buffer, (product.shape[0], c, kh, kw), (s, kh * kw * z, kw * z, z), product.offset)


def _element(v: View, row: str = "i", column: str = "j") -> str:
    """Code for an element of images inside loops over n and c."""
    terms = [f"{name} * {s}" for name, s in zip(("n", "c", row, column), v.strides, strict=True)]
    return f"{v.buffer.name}[{' + '.join([str(v.offset), *terms])}]"


def _four(v: View) -> View:
    missing = 4 - len(v.shape)
    return View(v.buffer, (1,) * missing + v.shape, (0,) * missing + v.strides, v.offset)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    return int(value[0]), int(value[-1])


def _plain_average(options: Sequence[Any]) -> None:
    """Refuse averages over windows that are not all of one size."""
    padding, ceil_mode, _, divisor = [*options, *[None] * 4][:4]
    if (padding is not None and any(_pair(padding or 0))) or ceil_mode or divisor:
        raise UnsupportedError("avg_pool2d with padding, ceil_mode or divisor_override")
