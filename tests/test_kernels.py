"""The kernels against literal autograd, and the two kinds against one another."""

import gc
import weakref

import pytest
import torch
from torch.func import functional_call

from fewshot import kernels as kernels_module
from fewshot.adaptation import Adaptation
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels, VectorizedKernels, per_task_rows
from fewshot.losses import squared_error
from fewshot.metagradient import expand
from fewshot.tasks import Rows

from ._oracles import F64, N_IN, batch, draw_tasks, forward_of, make, parts, squared, weighted_mean

KINDS = {"loop": LoopKernels, "vmap": lambda f: VectorizedKernels(f, trace=False), "traced": VectorizedKernels}


def setting(network, adapted="all", weighted=True):
    module = make(network)
    functional, meta = parts(module, Adaptation(adapted=adapted))
    tasks = draw_tasks(N_IN, weighted=weighted and network != "batch_norm")
    (support, *_), query = batch(tasks, 1)
    g = torch.Generator().manual_seed(5)
    moving = {
        k: v + 0.1 * torch.randn(v.shape, generator=g, dtype=F64) for k, v in expand(meta.moving, len(tasks)).items()
    }
    direction = {k: torch.randn(v.shape, generator=g, dtype=F64) for k, v in moving.items()}
    return module, functional, meta, tasks, support, query, moving, direction


def call(kernels, name, *arguments):
    """The kernel's answer; the traced kind is called until it answers from its trace."""
    times = kernels_module.TRACE_AFTER + 3 if isinstance(kernels, VectorizedKernels) and kernels.trace else 1
    for _ in range(times):
        answer = getattr(kernels, name)(*arguments)
    if times > 1:
        traced = [
            key for key, value in kernels_module._TRACES[kernels.functional].items() if not isinstance(value, int)
        ]
        assert name in {key[0] for key in traced}
    return answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("network", ["plain", "layer_norm", "batch_norm", "instance_norm", "tied"])
def test_gradients_and_curvature_are_those_of_autograd(network, kind):
    module, functional, meta, tasks, support, query, moving, direction = setting(network, ["0.*", "first.*", "1.*"])
    forward = forward_of(network, module)
    kernels = KINDS[kind](functional)
    loss, gradient = call(kernels, "gradient", moving, meta.shared, support)
    query_loss, of_moving, of_shared = call(kernels, "query_gradient", moving, meta.shared, support, query)
    again, second, mixed = call(kernels, "curvature", moving, meta.shared, support, direction)
    for t, ((support_rows, *_), (qx, qy, qw)) in enumerate(tasks):
        x, y, w = support_rows
        mine = {k: v[t].detach().clone().requires_grad_() for k, v in moving.items()}
        ours = {k: v.detach().clone().requires_grad_() for k, v in meta.shared.items()}
        value = weighted_mean(squared(forward({**mine, **ours}, x, x), y), w)
        g = torch.autograd.grad(value, list(mine.values()), create_graph=True)
        along = sum((a * direction[k][t]).sum() for k, a in zip(mine, g, strict=True))
        hessian = torch.autograd.grad(along, [*mine.values(), *ours.values()])
        torch.testing.assert_close(loss[t], value.detach(), rtol=1e-12, atol=0)
        for i, k in enumerate(mine):
            torch.testing.assert_close(gradient[k][t], g[i].detach(), rtol=1e-10, atol=1e-13)
            torch.testing.assert_close(again[k][t], g[i].detach(), rtol=1e-10, atol=1e-13)
            torch.testing.assert_close(second[k][t], hessian[i], rtol=1e-9, atol=1e-12)
        for i, k in enumerate(ours):
            torch.testing.assert_close(mixed[k][t], hessian[len(mine) + i], rtol=1e-9, atol=1e-12)
        value = weighted_mean(squared(forward({**mine, **ours}, qx, x), qy), qw)
        found = torch.autograd.grad(value, [*mine.values(), *ours.values()])
        torch.testing.assert_close(query_loss[t], value.detach(), rtol=1e-12, atol=0)
        for i, k in enumerate(mine):
            torch.testing.assert_close(of_moving[k][t], found[i], rtol=1e-10, atol=1e-13)
        for i, k in enumerate(ours):
            torch.testing.assert_close(of_shared[k][t], found[len(mine) + i], rtol=1e-10, atol=1e-13)


def test_a_row_of_weight_zero_never_reaches_the_network_of_the_loop():
    rows = Rows(
        torch.arange(6.0).reshape(1, 3, 2),
        torch.zeros(1, 3, 1),
        torch.tensor([[1.0, 0.0, 2.0]]),
        {"e": torch.arange(3)[None]},
    )
    kept = per_task_rows(rows, 0)
    assert kept.x.tolist() == [[0, 1], [4, 5]] and kept.weight.tolist() == [1, 2] and kept.extra["e"].tolist() == [0, 2]


def test_what_the_loss_does_not_depend_on_has_gradient_zero():
    class Unused(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)

        def forward(self, x):
            return self.used(x)

    functional = FunctionalModule(Unused(), squared_error, "all", 1)
    moving = expand(functional.moving, 2)
    rows = Rows(torch.randn(2, 3, 2), torch.randn(2, 3, 1), torch.ones(2, 3))
    for make_kernels in KINDS.values():
        kernels = make_kernels(functional)
        assert not kernels.gradient(moving, {}, rows)[1]["unused.weight"].any()
        assert not kernels.query_gradient(moving, {}, rows, rows)[1]["unused.bias"].any()
        assert not kernels.curvature(moving, {}, rows, moving)[1]["unused.weight"].any()


def test_a_trace_is_taken_once_the_shapes_recur_and_answers_for_other_values():
    _, functional, _meta, _, support, _, moving, _ = setting("plain")
    kernels, plain = VectorizedKernels(functional), VectorizedKernels(functional, trace=False)
    for _ in range(kernels_module.TRACE_AFTER):
        kernels.gradient(moving, {}, support)
    traces = kernels_module._TRACES[functional]
    assert all(isinstance(v, int) for v in traces.values())
    kernels.gradient(moving, {}, support)
    assert sum(not isinstance(v, int) for v in traces.values()) == 1
    other = {k: v * 2 + 1 for k, v in moving.items()}
    rows = support._replace(x=support.x - 3, y=support.y * 2)
    loss, gradient = kernels.gradient(other, {}, rows)
    expected_loss, expected = plain.gradient(other, {}, rows)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-13, atol=0)
    for k in expected:
        torch.testing.assert_close(gradient[k], expected[k], rtol=1e-12, atol=1e-14)


def test_a_trace_tells_the_same_tensor_passed_twice_apart():
    _, functional, _meta, _, support, _, moving, _ = setting("plain")
    kernels, plain = VectorizedKernels(functional), VectorizedKernels(functional, trace=False)
    for _ in range(kernels_module.TRACE_AFTER + 2):
        kernels.curvature(moving, {}, support, moving)  # direction and parameters are one object while tracing
    direction = {k: torch.ones_like(v) for k, v in moving.items()}
    got, expected = kernels.curvature(moving, {}, support, direction), plain.curvature(moving, {}, support, direction)
    for k in expected[1]:
        torch.testing.assert_close(got[1][k], expected[1][k], rtol=1e-11, atol=1e-13)


def test_a_network_that_looks_at_its_parameters_runs_untraced():
    class Looks(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2.0 if float(self.scale) > 0 else 1.0)

    network = Looks(N_IN, 1).double()
    network.register_buffer("scale", torch.ones((), dtype=F64))
    functional = FunctionalModule(network, squared_error, "all", 1)
    (support, *_), _ = batch(draw_tasks(N_IN), 1)
    moving = expand(functional.moving, len(support.x))
    expected = LoopKernels(functional).gradient(moving, {}, support)
    kernels = VectorizedKernels(functional)
    for _ in range(kernels_module.TRACE_AFTER + 3):
        torch.testing.assert_close(kernels.gradient(moving, {}, support, 0), expected)
    assert all(isinstance(value, int) for value in kernels_module._TRACES[functional].values())


def test_the_number_of_traces_is_bounded(monkeypatch):
    monkeypatch.setattr(kernels_module, "MAX_TRACES", 2)
    monkeypatch.setattr(kernels_module, "TRACE_AFTER", 0)
    functional = FunctionalModule(torch.nn.Linear(2, 1), squared_error, "all", 1)
    moving = expand(functional.moving, 2)
    for width in (1, 2, 3, 4):
        rows = Rows(torch.randn(2, width, 2), torch.randn(2, width, 1), torch.ones(2, width))
        for _ in range(3):
            loss, _ = VectorizedKernels(functional).gradient(moving, {}, rows)
        torch.testing.assert_close(loss, LoopKernels(functional).gradient(moving, {}, rows)[0])
    assert sum(not isinstance(v, int) for v in kernels_module._TRACES[functional].values()) == 2


def test_traces_die_with_their_network():
    _, functional, _meta, _, support, _, moving, _ = setting("plain")
    kernels = VectorizedKernels(functional)
    for _ in range(kernels_module.TRACE_AFTER + 2):
        kernels.gradient(moving, {}, support)
    gone = weakref.ref(functional)
    del functional, kernels
    gc.collect()
    assert gone() is None


def test_a_trace_of_training_mode_does_not_answer_for_evaluation_mode():
    class Modal(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x):
            return self.layer(x) * (2.0 if self.training else 1.0)

    functional = FunctionalModule(Modal(), squared_error, "all", 1)
    moving = expand(functional.moving, 2)
    rows = Rows(torch.randn(2, 3, 2), torch.zeros(2, 3, 1), torch.ones(2, 3))
    kernels = VectorizedKernels(functional)
    functional.skeleton.train(True)
    for _ in range(kernels_module.TRACE_AFTER + 2):
        training = kernels.gradient(moving, {}, rows)[0]
    functional.skeleton.train(False)
    torch.testing.assert_close(training, 4 * kernels.gradient(moving, {}, rows)[0])


@pytest.mark.parametrize("kind", ["loop", "random"])
def test_dropout_is_drawn_per_task_by_the_seed_alone(kind):
    module = torch.nn.Sequential(torch.nn.Linear(3, 50), torch.nn.Dropout(0.5), torch.nn.Linear(50, 1))
    functional = FunctionalModule(module, squared_error, "all", 1)
    functional.skeleton.train(True)
    kernels = LoopKernels(functional) if kind == "loop" else VectorizedKernels(functional, random=True)
    x, y = torch.randn(1, 4, 3).expand(3, 4, 3), torch.zeros(3, 4, 1)
    rows = Rows(x, y, torch.ones(3, 4))
    moving = expand(functional.moving, 3)
    before = torch.get_rng_state()
    first = kernels.gradient(moving, {}, rows, seed=1)[0]
    torch.rand(5)
    again = kernels.gradient(moving, {}, rows, seed=1)[0]
    torch.set_rng_state(before)
    other = kernels.gradient(moving, {}, rows, seed=2)[0]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len(first.unique()) == 3  # the same rows, but masks of their own
    # The gradient that the curvature kernel recomputes has the masks of the step that it belongs to.
    g = kernels.gradient(moving, {}, rows, seed=1)[1]
    for k, v in kernels.curvature(moving, {}, rows, moving, seed=1)[0].items():
        torch.testing.assert_close(v, g[k])


def test_a_function_of_the_network_itself():
    """functional_call on the replaced skeleton and on the user's module agree (weights travel as arguments)."""
    module = make("tied")
    functional = FunctionalModule(module, squared_error, "all", 1)
    x = torch.randn(4, N_IN, dtype=F64)
    doubled = {k: v * 2 for k, v in functional.moving.items()}
    out = functional.output(doubled, {}, functional.constant, x)
    torch.testing.assert_close(out, functional_call(module, doubled, (x,)))
