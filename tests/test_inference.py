"""Adapting many tasks at once, the safeguard against steps that diverge, and prediction."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import engine as engine_module
from fewshot import inference
from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.functional import FunctionalModule
from fewshot.inference import adapt_task_set, predict
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters
from fewshot.tasks import TaskSet

from ._oracles import F64, N_IN, make


def setting(network="plain", adaptation=None, n_tasks=50, seed=0, vectorized=True, dtype=F64, module=None, scale=1.0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1 if network != "batch_norm" else 2, 15, n_tasks)
    tasks = rng.permutation(np.repeat(np.arange(n_tasks), sizes))
    X = rng.normal(size=(len(tasks), N_IN)) * scale
    y = rng.normal(size=(len(tasks), 1))
    ts = TaskSet.from_arrays(X, y, tasks, dtype=dtype)
    adaptation = adaptation or Adaptation(3, 0.05)
    functional = FunctionalModule(module or make(network, dtype=dtype), squared_error, adaptation.adapted, 1)
    engine = Engine(functional, adaptation)
    engine.use(vectorized=vectorized)
    meta = MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))
    return engine, meta, ts


def literal(engine, meta, ts, t, steps):
    """Plain gradient steps on one task."""
    rows = slice(int(ts.offsets[t]), int(ts.offsets[t + 1]))
    x, y = ts.x[rows], ts.y[rows]
    theta = {k: v.clone() for k, v in meta.moving.items()}
    for k in range(steps):
        leaves = {n: v.detach().requires_grad_() for n, v in theta.items()}
        loss = ((engine.functional.output(leaves, meta.shared, engine.functional.constant, x) - y) ** 2).mean()
        g = dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))
        sizes = engine.adaptation.at(meta.sizes, k)
        n = len(x)
        for name in theta:
            alpha = sizes.log_alpha[name].exp()
            if sizes.log_c is not None:
                alpha = alpha * n / (n + sizes.log_c[name].exp())
            theta[name] = theta[name] - alpha * g[name]
    return theta


@pytest.mark.parametrize("vectorized", [True, False])
@pytest.mark.parametrize("steps", [None, 1, 7])
def test_fifty_ragged_tasks_are_those_of_literal_steps(steps, vectorized):
    engine, meta, ts = setting(vectorized=vectorized, n_tasks=50 if vectorized else 12)
    found = adapt_task_set(engine, meta, ts, steps)
    assert (found.step_scale == 1).all()
    for t in range(ts.n_tasks):
        expected = literal(engine, meta, ts, t, 3 if steps is None else steps)
        for k in expected:
            torch.testing.assert_close(found.moving[k][t], expected[k], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("network", ["plain", "layer_norm", "batch_norm", "instance_norm"])
def test_at_once_is_one_by_one(network):
    engine, meta, ts = setting(network, dtype=torch.float32)
    found = adapt_task_set(engine, meta, ts)
    for t in range(ts.n_tasks):
        alone = adapt_task_set(engine, meta, ts.select([t]))
        for k in found.moving:
            torch.testing.assert_close(found.moving[k][t], alone.moving[k][0], rtol=1e-5, atol=1e-5)
        for k in found.statistics:
            torch.testing.assert_close(found.statistics[k][t], alone.statistics[k][0], rtol=1e-4, atol=1e-5)
    assert bool(found.statistics) == (network == "batch_norm")


def test_chunks_change_nothing(monkeypatch):
    engine, meta, ts = setting()
    widths = []
    gradient = engine.kernels.gradient

    def noted(moving, *arguments):
        widths.append(len(next(iter(moving.values()))))
        return gradient(moving, *arguments)

    monkeypatch.setattr(engine.kernels, "gradient", noted)
    whole = adapt_task_set(engine, meta, ts)
    assert max(widths) > 7
    widths.clear()
    values = sum(v.numel() for v in meta.moving.values())
    monkeypatch.setattr(engine_module, "CHUNK_VALUES", 7 * values)
    parts = adapt_task_set(engine, meta, ts)
    assert 1 < max(widths) <= 7
    for k in whole.moving:
        torch.testing.assert_close(parts.moving[k], whole.moving[k], rtol=1e-10, atol=1e-12)
    assert torch.equal(parts.step_scale, whole.step_scale)


def test_no_steps_leave_the_initialisation():
    engine, meta, ts = setting("batch_norm")
    found = adapt_task_set(engine, meta, ts, 0)
    for k, v in meta.moving.items():
        assert torch.equal(found.moving[k], v.expand(ts.n_tasks, *v.shape))
    assert (found.step_scale == 1).all()
    assert found.statistics["1.episode_mean"].shape == (ts.n_tasks, 5)  # a task's statistics need no step


def support_loss(engine, meta, ts, moving):
    rows = ts.rows(np.arange(ts.n_tasks))
    return engine.kernels.gradient(moving, meta.shared, rows, 0)[0]


@pytest.mark.parametrize("lr", [0.5, 3.0, 1e3, 1e30])
@pytest.mark.parametrize("vectorized", [True, False])
def test_steps_that_diverge_are_shrunk_until_no_task_is_worse(lr, vectorized):
    engine, meta, ts = setting(adaptation=Adaptation(4, lr, False), n_tasks=20, vectorized=vectorized)
    start = {k: v.expand(ts.n_tasks, *v.shape) for k, v in meta.moving.items()}
    before = support_loss(engine, meta, ts, start)
    found = adapt_task_set(engine, meta, ts)
    after = support_loss(engine, meta, ts, found.moving)
    assert bool((after <= before).all()) and all(bool(v.isfinite().all()) for v in found.moving.values())
    assert bool((found.step_scale < 1).any())
    powers = {0.0, *(0.5**i for i in range(inference.HALVINGS + 1))}
    assert set(found.step_scale.tolist()) <= powers
    for t in torch.nonzero(found.step_scale == 0).flatten().tolist():  # stayed exactly where it was
        assert all(torch.equal(found.moving[k][t], meta.moving[k]) for k in meta.moving)


def test_a_shrunk_task_took_the_steps_of_that_size_and_the_others_are_as_they_were():
    """One linear task has features so large that its step diverges; the others never notice."""
    module = nn.Linear(N_IN, 1).double()
    engine, meta, ts = setting(adaptation=Adaptation(3, 0.02, False), n_tasks=8, module=module)
    base = adapt_task_set(engine, meta, ts)
    assert (base.step_scale == 1).all()
    x = ts.x.clone()
    wild = slice(int(ts.offsets[3]), int(ts.offsets[4]))
    x[wild] *= 8
    other = dataclasses.replace(ts, x=x)
    found = adapt_task_set(engine, meta, other)
    scale = float(found.step_scale[3])
    assert 0 < scale < 1
    keep = [t for t in range(8) if t != 3]
    for k in base.moving:
        torch.testing.assert_close(found.moving[k][keep], base.moving[k][keep], rtol=1e-12, atol=0)
    sizes = {k: v + np.log(scale) for k, v in meta.sizes.items()}
    expected = literal(engine, MetaParameters(meta.moving, meta.shared, sizes), other, 3, 3)
    for k in expected:
        torch.testing.assert_close(found.moving[k][3], expected[k], rtol=1e-9, atol=1e-11)
    # It is the largest that helps: twice as far is worse than not going at all.
    doubled = {k: v + np.log(2 * scale) for k, v in meta.sizes.items()}
    worse = literal(engine, MetaParameters(meta.moving, meta.shared, doubled), other, 3, 3)
    rows = other.x[wild], other.y[wild]
    losses = [
        float(((engine.functional.output(p, {}, {}, rows[0]) - rows[1]) ** 2).mean()) for p in (meta.moving, worse)
    ]
    assert losses[1] > losses[0]


def test_adaptation_is_without_dropout():
    module = nn.Sequential(nn.Linear(N_IN, 30), nn.Dropout(0.5), nn.Linear(30, 1)).double()
    engine, meta, ts = setting(module=module, n_tasks=6)
    engine.functional.skeleton.train(True)
    a, b = (adapt_task_set(engine, meta, ts) for _ in range(2))
    assert all(torch.equal(a.moving[k], b.moving[k]) for k in a.moving)


# ------------------------------------------------------------------------------------------------ prediction


@pytest.mark.parametrize("network", ["plain", "batch_norm"])
def test_predictions_are_those_of_each_tasks_own_network(network):
    engine, meta, ts = setting(network, n_tasks=9)
    found = adapt_task_set(engine, meta, ts)
    rng = torch.Generator().manual_seed(0)
    x = [torch.randn(n, N_IN, generator=rng, dtype=F64) for n in (3, 1, 0, 3, 5, 1, 3, 2, 0)]
    out = predict(engine.functional, found.moving, meta.shared, found.statistics, x)
    for t, rows in enumerate(x):
        assert out[t].shape == (len(rows), 1)
        mine = {k: v[t] for k, v in found.moving.items()}
        own = {k: v[t] for k, v in found.statistics.items()}
        expected = engine.functional.output(mine, meta.shared, {**engine.functional.constant, **own}, rows)
        torch.testing.assert_close(out[t], expected, rtol=1e-10, atol=1e-12)


def test_the_precision_is_that_of_the_rows():
    engine, meta, ts = setting(n_tasks=3, dtype=torch.float32)
    found = adapt_task_set(engine, meta, ts)
    out = predict(engine.functional, found.moving, meta.shared, {}, [torch.randn(2, N_IN, dtype=F64)] * 3)
    assert {o.dtype for o in out} == {F64}
    assert {v.dtype for v in found.moving.values()} == {torch.float32}


def test_a_network_that_cannot_be_vectorised_predicts_all_the_same():
    class Dependent(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(N_IN, 1)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else -self.layer(x)

    engine, meta, ts = setting(module=Dependent().double(), n_tasks=4, vectorized=False)
    found = adapt_task_set(engine, meta, ts)
    x = [torch.ones(2, N_IN, dtype=F64), -torch.ones(2, N_IN, dtype=F64)] * 2
    out = predict(engine.functional, found.moving, {}, {}, x)
    for t in range(4):
        mine = {k: v[t] for k, v in found.moving.items()}
        torch.testing.assert_close(out[t], engine.functional.output(mine, {}, {}, x[t]))
