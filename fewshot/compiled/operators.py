"""Elementwise operations as C++ expressions, and the simplifications that spare them."""

from __future__ import annotations

from typing import Any

import torch

from .nests import type_name
from .values import Constant, Expression, Value

__all__ = ["BINARY", "COMPARISONS", "OF_REALS", "OF_TRUTH", "UNARY", "converted", "simplified"]

aten = torch.ops.aten

UNARY = {
    aten.neg.default: "(-{0})",
    aten.exp.default: "exp_({0})",
    aten.expm1.default: "expm1_({0})",
    aten.log.default: "log_({0})",
    aten.log1p.default: "log1p_({0})",
    aten.sqrt.default: "std::sqrt({0})",
    aten.rsqrt.default: "(1 / std::sqrt({0}))",
    aten.reciprocal.default: "(1 / {0})",
    aten.abs.default: "std::abs({0})",
    aten.sign.default: "sign({0})",
    aten.tanh.default: "tanh_({0})",
    aten.sigmoid.default: "sigmoid({0})",
    aten.relu.default: "relu({0})",
    aten.erf.default: "std::erf({0})",
    aten.erfc.default: "std::erfc({0})",
    aten.lgamma.default: "std::lgamma({0})",
    aten.log2.default: "std::log2({0})",
    aten.log10.default: "std::log10({0})",
    aten.exp2.default: "std::exp2({0})",
    aten.sin.default: "std::sin({0})",
    aten.cos.default: "std::cos({0})",
    aten.tan.default: "std::tan({0})",
    aten.asin.default: "std::asin({0})",
    aten.acos.default: "std::acos({0})",
    aten.atan.default: "std::atan({0})",
    aten.sinh.default: "std::sinh({0})",
    aten.cosh.default: "std::cosh({0})",
    aten.asinh.default: "std::asinh({0})",
    aten.acosh.default: "std::acosh({0})",
    aten.atanh.default: "std::atanh({0})",
    aten.floor.default: "std::floor({0})",
    aten.ceil.default: "std::ceil({0})",
    aten.trunc.default: "std::trunc({0})",
    aten.round.default: "std::nearbyint({0})",
    aten.logical_not.default: "(!{0})",
    aten.bitwise_not.default: "(!{0})",
}

BINARY = {
    aten.add.Tensor: "({0} + {1})",
    aten.add.Scalar: "({0} + {1})",
    aten.sub.Tensor: "({0} - {1})",
    aten.sub.Scalar: "({0} - {1})",
    aten.mul.Tensor: "({0} * {1})",
    aten.mul.Scalar: "({0} * {1})",
    aten.div.Tensor: "({0} / {1})",
    aten.div.Scalar: "({0} / {1})",
    aten.maximum.default: "maximum({0}, {1})",
    aten.minimum.default: "minimum({0}, {1})",
    aten.atan2.default: "std::atan2({0}, {1})",
    aten.remainder.Tensor: "modulo({0}, {1})",
    aten.remainder.Scalar: "modulo({0}, {1})",
    aten.fmod.Tensor: "remainder_of({0}, {1})",
    aten.fmod.Scalar: "remainder_of({0}, {1})",
    aten.pow.Scalar: "std::pow({0}, {1})",
    aten.pow.Tensor_Scalar: "std::pow({0}, {1})",
    aten.pow.Tensor_Tensor: "std::pow({0}, {1})",
}

COMPARISONS = {
    **{
        getattr(aten, name).Tensor: f"({{0}} {sign} {{1}})"
        for name, sign in zip(("eq", "ne", "lt", "le", "gt", "ge"), ("==", "!=", "<", "<=", ">", ">="), strict=True)
    },
    **{
        getattr(aten, name).Scalar: f"({{0}} {sign} {{1}})"
        for name, sign in zip(("eq", "ne", "lt", "le", "gt", "ge"), ("==", "!=", "<", "<=", ">", ">="), strict=True)
    },
    aten.isnan.default: "std::isnan({0})",
    aten.isinf.default: "std::isinf({0})",
    aten.logical_and.default: "({0} && {1})",
    aten.logical_or.default: "({0} || {1})",
    aten.bitwise_and.Tensor: "({0} && {1})",
    aten.bitwise_or.Tensor: "({0} || {1})",
}

# Operations on bits, which are written as those on truth values.
OF_TRUTH = frozenset({aten.bitwise_not.default, aten.bitwise_and.Tensor, aten.bitwise_or.Tensor})

# Functions of C++ that have no integer results.
OF_REALS = frozenset(
    target
    for target, template in (*UNARY.items(), *BINARY.items())
    if "std::" in template and target is not aten.abs.default
)


def simplified(target: Any, a: Value, b: Value, shape: tuple[int, ...], dtype: torch.dtype) -> Value | None:
    """Return the operand that is already the result, such as x of x + 0; None where there is work to do."""

    def is_number(value: Value, number: float) -> bool:
        return isinstance(value, Constant) and value.value == number

    def fits(value: Value) -> bool:
        return value.shape == shape and value.dtype == dtype

    name = target.name().removeprefix("aten::").partition(".")[0]
    if name in ("add", "sub") and is_number(b, 0) and fits(a):
        return a
    if name == "add" and is_number(a, 0) and fits(b):
        return b
    if name in ("mul", "div") and is_number(b, 1) and fits(a):
        return a
    if name == "mul" and is_number(a, 1) and fits(b):
        return b
    if name == "pow" and is_number(b, 1) and fits(a):
        return a
    if name == "pow" and is_number(b, 0):
        return Constant(1, shape, dtype)
    if isinstance(a, Constant) and isinstance(b, Constant) and name in ("add", "sub", "mul"):
        x, y = a.value, b.value
        return Constant(x + y if name == "add" else x - y if name == "sub" else x * y, shape, dtype)
    return None


def converted(value: Value, dtype: torch.dtype) -> Value:
    """Convert to another type of elements."""
    if value.dtype == dtype:
        return value
    if isinstance(value, Constant):
        return Constant(value.value, value.shape, dtype)
    kind = "bool" if dtype == torch.bool else type_name(dtype)
    template = "({0} != 0)" if kind == "bool" else f"{kind}({{0}})"
    return Expression(template, (value,), value.shape, dtype)
