"""The implicit meta-gradient against analytic solutions and dense linear algebra; Reptile's vector against plain descent."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, jacrev

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.functional import FunctionalModule
from fewshot.implicit import implicit_pull_back
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, expand, meta_gradient
from fewshot.tasks import Rows
from fewshot.training.minibatches import minibatches

from ._oracles import F64, N_IN, batch, draw_tasks, make, parts, relative_error

KERNELS = {"loop": LoopKernels, "vectorized": VectorizedKernels}
LAMBDA = 0.7


def quadratic():
    """Linear regressions without intercept, whose inner problems have solutions in closed form."""
    torch.manual_seed(0)
    functional = FunctionalModule(nn.Linear(4, 1, bias=False).double(), squared_error, "all", 1)
    return functional, draw_tasks(4, 1, sizes=((6, 5), (3, 4), (8, 3)), weighted=True)


@pytest.mark.parametrize("optimizer", ["gradient_descent", "momentum"])
@pytest.mark.parametrize("kind", KERNELS)
def test_gradient_of_quadratics_is_the_analytic_one(kind, optimizer):
    functional, tasks = quadratic()
    adaptation = Adaptation(
        400, 0.1 if optimizer == "gradient_descent" else 0.02, False, optimizer=optimizer, proximal=LAMBDA
    )
    supports, query = batch(tasks, 400)
    meta = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    found = meta_gradient(KERNELS[kind](functional), adaptation, meta, supports, query, order="implicit")
    start = functional.moving["weight"][0]
    expected, losses = torch.zeros(4, dtype=F64), []
    for (support, *_), (qx, qy, qw) in tasks:
        x, y, w = support
        w, qw = w / w.sum(), qw / qw.sum()
        h = 2 * x.T @ (w[:, None] * x)
        solution = torch.linalg.solve(h + LAMBDA * torch.eye(4, dtype=F64), 2 * x.T @ (w * y[:, 0]) + LAMBDA * start)
        error = qx @ solution - qy[:, 0]
        losses.append((qw * error**2).sum())
        expected += (
            LAMBDA * torch.linalg.solve(h + LAMBDA * torch.eye(4, dtype=F64), 2 * qx.T @ (qw * error)) / len(tasks)
        )
    torch.testing.assert_close(found.loss, torch.stack(losses), rtol=1e-9, atol=0)
    torch.testing.assert_close(found.vector, expected, rtol=1e-7, atol=0)


@pytest.mark.parametrize("kind", KERNELS)
def test_pull_back_is_the_dense_solution_for_moving_and_shared_parameters(kind):
    module = make("plain")
    functional, meta = parts(module, Adaptation(1, 0.1, adapted="head"))
    tasks = draw_tasks(N_IN, 1)
    supports, _ = batch(tasks, 1)
    g = torch.Generator().manual_seed(3)
    theta = expand(meta.moving, 3)
    cotangent = {k: torch.randn(v.shape, generator=g, dtype=F64) for k, v in theta.items()}
    u, of_shared = implicit_pull_back(
        KERNELS[kind](functional), theta, meta.shared, supports[0], cotangent, LAMBDA, cg_steps=20
    )
    names = list(meta.moving)
    for t, ((x, y, w), *_) in enumerate(s for s, _ in tasks):

        def loss(flat, shared, x=x, y=y, w=w):
            pieces = flat.split([meta.moving[n].numel() for n in names])
            moving = {n: p.view(meta.moving[n].shape) for n, p in zip(names, pieces, strict=True)}
            error = (functional_call(module, {**moving, **shared}, (x,)) - y)[:, 0]
            return (w * error**2).sum() / w.sum()

        flat = torch.cat([meta.moving[n].flatten() for n in names])
        v = torch.cat([cotangent[n][t].flatten() for n in names])
        matrix = torch.eye(len(flat), dtype=F64) + jacrev(grad(loss))(flat, meta.shared) / LAMBDA
        expected = torch.linalg.solve(matrix, v)
        got = torch.cat([u[n][t].flatten() for n in names])
        torch.testing.assert_close(got, expected, rtol=1e-8, atol=1e-10)
        mixed = jacrev(grad(loss), 1)(flat, meta.shared)
        for name, value in of_shared.items():
            through = -torch.einsum("p,p...->...", expected, mixed[name]) / LAMBDA
            torch.testing.assert_close(value[t], through, rtol=1e-7, atol=1e-10)


def test_negative_curvature_stops_the_solution_instead_of_blowing_it_up():
    """L = -theta^2: I + H / lambda is negative for a small lambda, and no minimum is there to differentiate."""
    functional = FunctionalModule(nn.Linear(1, 1, bias=False).double(), lambda o, y: -((o - y) ** 2)[:, 0], "all", 1)
    ones = torch.ones(1, 2, 1, dtype=F64)
    rows = Rows(ones, 0 * ones, ones[..., 0])
    cotangent = {"weight": torch.ones(1, 1, 1, dtype=F64)}
    u, _ = implicit_pull_back(LoopKernels(functional), expand(functional.moving, 1), {}, rows, cotangent, 1.0)
    assert float(u["weight"]) == 0.0


@pytest.mark.parametrize("kind", KERNELS)
@pytest.mark.parametrize("optimizer", ["gradient_descent", "adam"])
def test_reptile_takes_the_way_back_from_where_plain_training_ends(kind, optimizer):
    module = make("plain")
    adaptation = Adaptation(4, 0.05, False, optimizer=optimizer)
    functional, meta = parts(module, adaptation)
    meta.sizes = adaptation.init(meta.moving)
    tasks = draw_tasks(N_IN, 1, steps=4, same=False)
    supports, query = batch(tasks, 4, same=False)
    found = meta_gradient(KERNELS[kind](functional), adaptation, meta, supports, query, order="reptile")
    expected = {name: torch.zeros_like(p) for name, p in meta.moving.items()}
    for of_task, _ in tasks:
        network = make("plain")
        kwargs = {"eps": 1e-6} if optimizer == "adam" else {}
        steps = (torch.optim.Adam if optimizer == "adam" else torch.optim.SGD)(network.parameters(), lr=0.05, **kwargs)
        for x, y, w in of_task:
            steps.zero_grad()
            ((network(x) - y)[:, 0] ** 2 * w / w.sum()).sum().backward()
            steps.step()
        for name, p in network.named_parameters():
            expected[name] += (meta.moving[name] - p.detach()) / len(tasks)
    got = {k.removeprefix("moving/"): v for k, v in found.gradient.flat().items()}
    assert relative_error(got, expected) < (
        1e-4 if optimizer == "adam" else 1e-12
    )  # Adam's epsilon is placed elsewhere


@pytest.mark.parametrize(("order", "proximal"), [("implicit", 0.5), ("reptile", 0.0)])
def test_compiled_programs_give_the_same(order, proximal):
    adaptation = Adaptation(6, 0.05, False, optimizer="adam", proximal=proximal, adapted=["*.bias", "2.*"])
    if order == "reptile":
        adaptation = Adaptation(6, 0.05, False)
    functional, meta = parts(make("plain"), adaptation)
    meta.sizes = adaptation.init(meta.moving)
    supports, query = batch(draw_tasks(N_IN, 1), 6)
    engine = Engine(functional, adaptation, mode="compiled")
    engine.prepare(meta, supports, query, order)
    found = engine.gradient(meta, supports, query, order, 0)
    assert engine._switch.reason is None
    expected = meta_gradient(LoopKernels(functional), adaptation, meta, supports, query, order=order)
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-9, atol=1e-12)
    assert relative_error(found.gradient.flat(), expected.gradient.flat()) < 1e-9


def test_minibatches_take_every_row_as_often_as_every_other():
    x = torch.arange(12.0).reshape(2, 6, 1)
    weight = torch.ones(2, 6)
    weight[0, 4:] = 0
    support, query = Rows(x[:, :2], x[:, :2, 0], weight[:, :2]), Rows(x[:, 2:], x[:, 2:, 0], weight[:, 2:])
    batches = minibatches(support, query, 6, np.random.default_rng(0))
    assert all(b.x.shape == (2, 2, 1) and bool((b.weight > 0).all()) for b in batches)
    assert all(torch.equal(b.x[..., 0], b.y) for b in batches)
    counts = [torch.cat([b.y[t] for b in batches]).int().bincount() for t in range(2)]
    assert counts[0].tolist() == [3, 3, 3, 3]
    assert counts[1][6:].tolist() == [2] * 6
