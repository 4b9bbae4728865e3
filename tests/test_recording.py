"""Recorded graphs do what the function does, and are those that torch's own recorder makes."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, functionalize, grad, grad_and_value, vjp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from fewshot.recording import record

aten = torch.ops.aten


def draw(*shapes, seed=0):
    g = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=g) for shape in shapes]


def targets(graph):
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


def loss(w, b, x):
    return [(torch.tanh(x @ w + b) ** 2).mean()]


def per_task_gradients(w, b, x):
    found, value = vmap(grad_and_value(lambda *a: loss(*a)[0], (0, 1)), (None, None, 0))(w, b, x.expand(3, -1, -1))
    return [*found, value]


def curvature(w, b, x):
    _, pull_back = vjp(lambda v: grad(lambda u: loss(u, b, x)[0])(v), w)
    return [*pull_back(torch.ones_like(w))]


def in_place(w, b, x):
    y = x @ w
    y[0].add_(1.0)
    y.mul_(2.0).relu_()
    view = y[:, :2]
    view += b[:2]
    return [y]


def several_results(w, b, x):
    first, second = (x @ w).split(2, dim=1)
    values, index = torch.max(second, dim=1)
    return [first, values, index, *torch.unbind(x, 1)]


def made_inside(w, b, x):
    return [x + torch.arange(5.0), torch.tensor([1.0, 2.0]) * x[:2, :2], torch.full((2,), 3.0), w]


@pytest.mark.parametrize("function", [loss, per_task_gradients, curvature, in_place, several_results, made_inside])
def test_a_graph_does_what_its_function_does(function):
    shapes = (5, 4), (4,), (6, 5)
    graph = record(function, draw(*shapes))
    inputs = draw(*shapes, seed=1)
    before = [t.clone() for t in inputs]
    got, expected = graph(*inputs), function(*inputs)
    assert len(got) == len(expected) and all(map(torch.equal, got, expected))
    if function is not made_inside:
        others = draw(*shapes, seed=2)
        assert not torch.equal(graph(*others)[0], got[0])  # nothing of the recording has stayed in the graph
    assert all(map(torch.equal, inputs, before))


@pytest.mark.parametrize("function", [loss, per_task_gradients, curvature, several_results])
def test_operations_are_those_of_make_fx(function):
    inputs = draw((5, 4), (4,), (6, 5))
    theirs = make_fx(functionalize(function))(*inputs)
    theirs.graph.eliminate_dead_code()
    assert sorted(map(str, targets(record(function, inputs)))) == sorted(map(str, targets(theirs)))


def test_a_network_with_its_gradient():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.GroupNorm(1, 3), nn.GELU(), nn.Flatten(), nn.Linear(48, 2))
    names, values = zip(*network.named_parameters(), strict=True)
    x = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(3))

    def function(*tensors):
        def of(parameters):
            return functional_call(network, parameters, (tensors[-1],)).square().sum()

        return list(grad(of)(dict(zip(names, tensors, strict=False))).values())

    values = [v.detach() for v in values]
    graph = record(function, [*values, x])
    assert all(map(torch.equal, graph(*values, x), function(*values, x)))


def test_results_are_described_without_their_numbers():
    graph = record(several_results, draw((5, 4), (4,), (6, 5)))
    for node in graph.graph.nodes:
        if node.op in ("placeholder", "call_function"):
            parts = node.meta["val"] if isinstance(node.meta["val"], tuple | list) else [node.meta["val"]]
            assert parts and all(p.device.type == "meta" for p in parts)
    product = next(n for n in graph.graph.nodes if n.target is aten.mm.default)
    assert product.meta["val"].shape == (6, 4) and product.meta["val"].dtype == torch.float32


def test_rewrites_take_the_place_of_operations():
    calls = []

    def squared(x, exponent):
        calls.append(exponent)
        return x * x

    graph = record(loss, draw((5, 4), (4,), (6, 5)), {aten.pow.Tensor_Scalar: squared})
    assert calls == [2] and aten.pow.Tensor_Scalar not in targets(graph) and aten.mul.Tensor in targets(graph)


def test_a_rewrite_may_decline():
    graph = record(loss, draw((5, 4), (4,), (6, 5)), {aten.pow.Tensor_Scalar: lambda *_: NotImplemented})
    assert aten.pow.Tensor_Scalar in targets(graph)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: [x if x.sum() > 0 else -x],
        lambda x: [x * float(x.max())],
        lambda x: [x[x > 0]],
        lambda x: [torch.nonzero(x)],
    ],
    ids=["branch", "number", "mask", "nonzero"],
)
def test_what_depends_on_numbers_is_refused(function):
    with pytest.raises(RuntimeError):
        record(function, draw((4,)))


def test_what_was_recorded_before_an_error_is_of_no_account():
    with pytest.raises(RuntimeError):
        record(lambda x: [x * float(x.max())], draw((4,)))
    x = draw((4,))[0]
    assert torch.equal(record(lambda x: [x + 1], [x])(x)[0], x + 1)
