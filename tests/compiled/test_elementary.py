"""The elementary functions and the product of matrices that every program is made of, against numpy in higher precision."""

import ctypes

import numpy as np
import pytest
import torch

from ._native import built, pointer

pytestmark = pytest.mark.usefixtures("compiler")

UNARY = {
    "exp_": np.exp,
    "expm1_": np.expm1,
    "log_": np.log,
    "log1p_": np.log1p,
    "tanh_": np.tanh,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.where(x < 0, 0, x),
    "sign": lambda x: torch.sign(torch.from_numpy(x)).numpy(),
    "square": lambda x: x * x,
    "cube": lambda x: x * x * x,
}
BINARY = {
    "maximum": lambda a, b: torch.maximum(torch.from_numpy(a), torch.from_numpy(b)).numpy(),
    "minimum": lambda a, b: torch.minimum(torch.from_numpy(a), torch.from_numpy(b)).numpy(),
    "modulo": lambda a, b: torch.remainder(torch.from_numpy(a), torch.from_numpy(b)).numpy(),
    "remainder_of": lambda a, b: torch.fmod(torch.from_numpy(a), torch.from_numpy(b)).numpy(),
}
# Units in the last place; the remainder of the errors is torch's own kind: see its tests of float32 kernels.
ULPS = {"exp_": 2, "expm1_": 4, "log_": 2, "log1p_": 4, "tanh_": 4, "sigmoid": 4, "square": 1, "cube": 2}


@pytest.fixture(scope="module")
def functions(compiler):
    """The functions as loops over arrays, as programs have them."""
    source = []
    for kind in ("float", "double"):
        for name in UNARY:
            source.append(
                f'extern "C" void {name}_{kind}(const {kind}* x, {kind}* y, int n) '
                f"{{\nIVDEP\nfor (int i = 0; i < n; i++) y[i] = {name}(x[i]); }}"
            )
        for name in BINARY:
            source.append(
                f'extern "C" void {name}_{kind}(const {kind}* a, const {kind}* b, {kind}* y, int n) '
                f"{{\nIVDEP\nfor (int i = 0; i < n; i++) y[i] = {name}(a[i], b[i]); }}"
            )
    return built("\n".join(source))


TYPES = {"float": np.float32, "double": np.float64}


def call(functions, name, kind, *arguments):
    arguments = [np.ascontiguousarray(a, dtype=TYPES[kind]) for a in arguments]
    out = np.full(len(arguments[0]) + 8, 77, dtype=TYPES[kind])
    pointers = [pointer(a) for a in (*arguments, out)]
    getattr(functions, f"{name}_{kind}")(*pointers, ctypes.c_int(len(arguments[0])))
    assert (out[len(arguments[0]) :] == 77).all()
    return out[: len(arguments[0])]


def special(kind):
    info = np.finfo(TYPES[kind])
    borders = [88.0, 88.72, 88.73, 89.0, 87.3, 87.4, 103.0, 103.9, 104.0, 709.7, 709.8, 745.2, 0.35, 0.625, 0.70710678]
    sizes = [0.0, 1.0, 2.0, 0.5, info.tiny, info.smallest_subnormal, info.eps, info.max, np.inf, *borders]
    values = np.array([*sizes, *(-s for s in sizes), np.nan], dtype=TYPES[kind])
    with np.errstate(over="ignore", under="ignore"):
        return np.concatenate([values, np.nextafter(values, TYPES[kind](np.inf)), np.nextafter(values, TYPES[kind](0))])


def dense(kind):
    g = np.random.default_rng(0)
    spread = g.normal(size=20_000) * 10 ** g.uniform(-8, 2.3, 20_000)
    return np.concatenate([special(kind), spread, np.linspace(-110, 110, 20_001), np.linspace(-2, 2, 20_001)])


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", UNARY)
def test_functions_of_one_number(functions, name, kind):
    x = dense(kind).astype(TYPES[kind])
    with np.errstate(all="ignore"):
        exact = UNARY[name](x.astype(np.float64 if kind == "float" else np.longdouble if name in ULPS else np.float64))
        expected = exact.astype(TYPES[kind])
        got = call(functions, name, kind, x)
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    info = np.finfo(TYPES[kind])
    with np.errstate(all="ignore"):
        unit = np.maximum(np.spacing(np.abs(expected)), info.smallest_subnormal).astype(np.float64)
        error = np.abs(got.astype(np.float64) - exact.astype(np.float64)) / unit
    if name == "sigmoid":
        # exp(-x) overflows where the result is below the least normal number: zero, as in torch.
        same |= (got == 0) & (np.abs(expected) < info.tiny)
    good = same | (error <= ULPS.get(name, 0))
    worst = np.argmin(good)
    assert good.all(), (x[worst], got[worst], expected[worst])
    assert same.mean() > 0.5, "hardly any result is the rounded one"


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("name", BINARY)
def test_functions_of_two_numbers(functions, name, kind):
    values = special(kind) if "m" in name[:3] else np.array([])
    if name in ("modulo", "remainder_of"):
        values = np.array([0.5, -0.5, 3.0, -3.0, 7.25, -7.25, 0.7, -0.7, 1e6, np.inf, np.nan])
    a, b = (m.ravel().astype(TYPES[kind]) for m in np.meshgrid(values, values))
    if name in ("modulo", "remainder_of"):  # torch's own results for an infinite divisor depend on its version
        a, b = a[np.isfinite(b)], b[np.isfinite(b)]
    with np.errstate(all="ignore"):
        expected, got = BINARY[name](a, b), call(functions, name, kind, a, b)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("name", ["exp_", "log_", "log1p_", "expm1_", "tanh_", "sigmoid"])
def test_every_length_of_a_loop(functions, name):
    """Whole vector registers and what is left of a loop give the same numbers."""
    x = np.random.default_rng(1).uniform(0.01, 3, 70).astype(np.float32)
    one_by_one = np.concatenate([call(functions, name, "float", x[i : i + 1]) for i in range(len(x))])
    for n in range(1, 71):
        np.testing.assert_allclose(call(functions, name, "float", x[:n]), one_by_one[:n], rtol=5e-7)


# ------------------------------------------------------------------------------------------------ products

SHAPES = [(m, n, k) for m in (1, 13) for n in (1, 2, 7, 17) for k in (1, 5)] + [(7, n, 4) for n in (8, 31, 71)]
ROOM = 3  # elements between rows


@pytest.fixture(scope="module")
def products(compiler):
    calls = []
    for index, (m, n, k) in enumerate(SHAPES):
        for kind in ("float", "double"):
            for turned in (False, True):
                a_row, a_col = (1, m + ROOM) if turned else (k + ROOM, 1)
                calls.append(
                    f'extern "C" void product_{index}_{kind}_{int(turned)}'
                    f"(const {kind}* a, const {kind}* b, {kind}* c) "
                    f"{{ gemm<{kind}, {m}, {n}, {k}, {a_row}, {a_col}, {n + ROOM}, {n + ROOM}>(a, b, c); }}"
                )
    return built("\n".join(calls))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_products_of_every_shape_write_the_result_and_nothing_else(products, kind, turned):
    g = np.random.default_rng(0)
    for index, (m, n, k) in enumerate(SHAPES):
        a, b = g.normal(size=(m, k)), g.normal(size=(k, n))
        a_memory = np.full((k, m + ROOM) if turned else (m, k + ROOM), np.nan, dtype=TYPES[kind])
        b_memory = np.full((k, n + ROOM), np.nan, dtype=TYPES[kind])
        c_memory = np.full((m + 1, n + ROOM), 77, dtype=TYPES[kind])
        if turned:
            a_memory[:, :m] = a.T
        else:
            a_memory[:, :k] = a
        b_memory[:, :n] = b
        getattr(products, f"product_{index}_{kind}_{int(turned)}")(*map(pointer, (a_memory, b_memory, c_memory)))
        tolerance = 1e-5 if kind == "float" else 1e-13
        np.testing.assert_allclose(c_memory[:m, :n], a @ b, rtol=tolerance, atol=tolerance, err_msg=str((m, n, k)))
        assert (c_memory[:m, n:] == 77).all() and (c_memory[m] == 77).all(), (m, n, k)
