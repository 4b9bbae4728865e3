"""The meta-gradient against unrolled autograd, finite differences, gradcheck and a closed form."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot import kernels as kernels_module
from fewshot.adaptation import Adaptation
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, expand, inner_loop, meta_gradient, take_tasks
from fewshot.tasks import Rows

from ._oracles import (
    F64,
    N_IN,
    ROW_LOSSES,
    batch,
    draw_tasks,
    forward_of,
    make,
    pad,
    parts,
    relative_error,
    squared,
    unrolled,
)

KINDS = ["loop", "vmap", "traced"]


def kernels_of(kind, functional):
    return LoopKernels(functional) if kind == "loop" else VectorizedKernels(functional, trace=kind == "traced")


def compute(kind, functional, adaptation, meta, supports, query, **options):
    kernels = kernels_of(kind, functional)
    times = 1
    if kind == "traced":
        times = kernels_module.TRACE_AFTER + 3
    for _ in range(times):
        found = meta_gradient(kernels, adaptation, meta, supports, query, **options)
    if kind == "traced":
        traced = {k[0] for k, v in kernels_module._TRACES[functional].items() if not isinstance(v, int)}
        assert "query_gradient" in traced
    return found


def check(
    network,
    adaptation,
    kind,
    *,
    loss="squared",
    same=True,
    weighted=False,
    order="exact",
    dtype=F64,
    tolerance=1e-10,
    **objective,
):
    row_loss, literal = ROW_LOSSES[loss]
    n_out = 3 if loss == "nll" else 1
    module = make(network, n_out, dtype=dtype)
    functional, meta = parts(module, adaptation, row_loss, n_out)
    steps = adaptation.inner_steps
    tasks = draw_tasks(N_IN, n_out, steps=steps, dtype=dtype, classes=loss == "nll", weighted=weighted, same=same)
    supports, query = batch(tasks, steps, same)
    oracle_tasks = [(s[:steps], q) for s, q in tasks]
    expected_loss, expected = unrolled(
        forward_of(network, module),
        literal,
        meta,
        oracle_tasks,
        first_order=order == "first",
        rule=adaptation.optimizer,
        proximal=adaptation.proximal,
        **objective,
    )
    if not adaptation.learns:
        expected = {k: v for k, v in expected.items() if not k.startswith("sizes/")}
    found = compute(kind, functional, adaptation, meta, supports, query, order=order, **objective)
    got = found.gradient.flat()
    torch.testing.assert_close(found.loss, expected_loss, rtol=max(tolerance, 1e-12), atol=0)
    assert relative_error(got, expected) < tolerance
    assert max(float(v.abs().max()) for v in expected.values()) > 1e-3  # not a comparison of zeros


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("steps", [1, 3, 10])
def test_exact_over_many_steps(steps, kind):
    check("plain", Adaptation(steps, 0.1), kind, weighted=True)


@pytest.mark.parametrize("kind", ["loop", "vmap"])
@pytest.mark.parametrize("network", ["layer_norm", "batch_norm", "instance_norm", "group_norm", "tied", "scalar"])
def test_exact_through_every_kind_of_layer(network, kind):
    check(network, Adaptation(3, 0.1), kind)


@pytest.mark.parametrize("network", ["layer_norm", "batch_norm", "instance_norm"])
def test_exact_through_norm_layers_when_traced(network):
    check(network, Adaptation(2, 0.1), "traced")


@pytest.mark.parametrize("kind", ["loop", "vmap"])
@pytest.mark.parametrize("adapted", ["head", "body", ["*.bias"], ["0.weight", "3.*"]])
def test_exact_when_some_parameters_are_shared(adapted, kind):
    check("layer_norm", Adaptation(3, 0.1, adapted=adapted), kind)


@pytest.mark.parametrize("learn", ["tensor", "parameter", False])
@pytest.mark.parametrize("half_trust", [None, 4.0])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_exact_in_the_step_sizes(steps, half_trust, learn):
    check("plain", Adaptation(steps, 0.1, learn, half_trust), "vmap", weighted=True)


@pytest.mark.parametrize("learn", ["tensor", "parameter"])
def test_exact_in_the_step_sizes_of_a_parameter_without_axes(learn):
    check("scalar", Adaptation(2, 0.1, learn), "vmap")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["exact", "first"])
def test_every_step_may_have_rows_of_its_own(order, kind):
    check("plain", Adaptation(3, 0.1), kind, same=False, order=order)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["exact", "first"])
@pytest.mark.parametrize("proximal", [0.0, 0.7])
@pytest.mark.parametrize("rule", ["gradient_descent", "momentum", "adam"])
def test_exact_through_every_inner_optimizer(rule, proximal, order, kind):
    adaptation = Adaptation(3, 0.03, optimizer=rule, proximal=proximal)
    check("plain", adaptation, kind, weighted=True, order=order, same=False)


@pytest.mark.parametrize("rule", ["momentum", "adam"])
@pytest.mark.parametrize("learn", ["parameter", False])
def test_exact_through_inner_optimizers_when_some_parameters_are_shared(learn, rule):
    check("scalar", Adaptation(2, 0.05, learn, adapted=["head.*", "temperature"], optimizer=rule), "vmap")


def test_adam_has_finite_derivatives_where_a_gradient_is_zero():
    """Behind units that are never active."""
    module = make("plain").apply(lambda m: None)
    module[1] = torch.nn.ReLU()
    with torch.no_grad():
        module[0].bias[2] = -100.0
    adaptation = Adaptation(3, 0.03, optimizer="adam")
    functional, meta = parts(module, adaptation)
    supports, query = batch(draw_tasks(N_IN), 3)
    found = compute("vmap", functional, adaptation, meta, supports, query)
    assert torch.isfinite(found.vector).all()


WEIGHTS = (0.2, 0.0, 0.5, 0.3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["exact", "first"])
def test_multi_step_loss(order, kind):
    check("plain", Adaptation(4, 0.1), kind, weighted=True, order=order, step_weights=WEIGHTS)


@pytest.mark.parametrize("rule", ["gradient_descent", "adam"])
def test_multi_step_loss_with_shared_parameters_and_batch_statistics(rule):
    check("batch_norm", Adaptation(4, 0.03, adapted="head", optimizer=rule), "vmap", step_weights=WEIGHTS)


def test_weights_of_the_tasks():
    check("plain", Adaptation(2, 0.1), "vmap", share=torch.tensor([0.5, 0.0, 0.3], dtype=F64))
    check("plain", Adaptation(2, 0.1), "vmap", share=torch.tensor([0.1, 2.0, 0.3], dtype=F64), step_weights=(1.0, 3.0))


def test_batch_statistics_of_the_query_are_those_of_the_last_steps_rows():
    check("batch_norm", Adaptation(3, 0.1), "vmap", same=False)


@pytest.mark.parametrize("kind", ["loop", "vmap"])
@pytest.mark.parametrize("adaptation", [Adaptation(3, 0.1), Adaptation(2, 0.1, "parameter", adapted="head")], ids=str)
def test_first_order_is_the_unrolled_one_with_detached_gradients(adaptation, kind):
    check("plain", adaptation, kind, order="first", weighted=True)


@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_exact_for_cross_entropy(kind):
    check("plain", Adaptation(3, 0.3), kind, loss="nll", weighted=True)


@pytest.mark.parametrize("kind", KINDS)
def test_single_precision(kind):
    check("plain", Adaptation(3, 0.1), kind, dtype=torch.float32, tolerance=1e-5)


# ------------------------------------------------------------------------------------------------ other oracles


def setting(network="plain", adaptation=None, seed=0, sizes=((5, 4), (2, 6), (7, 3)), weighted=True):
    adaptation = adaptation or Adaptation(2, 0.1)
    functional, meta = parts(make(network, seed=seed), adaptation)
    tasks = draw_tasks(N_IN, sizes=sizes, weighted=weighted)
    supports, query = batch(tasks, adaptation.inner_steps)
    return functional, adaptation, meta, tasks, supports, query


def mean_loss(kernels, adaptation, flat, supports, query):
    meta = MetaParameters.from_flat(flat)
    path, _ = inner_loop(kernels, adaptation, meta, supports, 0)
    return kernels.query_gradient(path[-1], meta.shared, supports[-1], query, 0)[0].mean()


@pytest.mark.parametrize("network", ["plain", "layer_norm", "batch_norm"])
def test_finite_differences(network):
    functional, adaptation, meta, _, supports, query = setting(
        network, Adaptation(2, 0.1, adapted=["0.*", "3.bias", "2.*"])
    )
    kernels = VectorizedKernels(functional, trace=False)
    gradient = meta_gradient(kernels, adaptation, meta, supports, query).gradient.flat()
    flat = meta.flat()
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        along = {k: torch.randn(v.shape, generator=generator, dtype=F64) for k, v in flat.items()}
        h = 1e-5
        up, down = ({k: v + s * along[k] for k, v in flat.items()} for s in (h, -h))
        slope = (
            mean_loss(kernels, adaptation, up, supports, query) - mean_loss(kernels, adaptation, down, supports, query)
        ) / (2 * h)
        expected = sum(float((gradient[k] * along[k]).sum()) for k in flat)
        assert math.isclose(float(slope), expected, rel_tol=1e-6)


@pytest.mark.parametrize("network", ["plain", "batch_norm"])
def test_gradcheck(network):
    functional, adaptation, meta, _, supports, query = setting(network, Adaptation(2, 0.1, "parameter"))
    names, kernels = list(meta.flat()), VectorizedKernels(functional, trace=False)

    class Loss(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *tensors):
            flat = dict(zip(names, (t.detach() for t in tensors), strict=True))
            found = meta_gradient(kernels, adaptation, MetaParameters.from_flat(flat), supports, query)
            gradient = found.gradient.flat()
            ctx.save_for_backward(*(gradient[k] for k in names))
            return found.loss.mean()

        @staticmethod
        def backward(ctx, cotangent):
            return tuple(cotangent * g for g in ctx.saved_tensors)

    leaves = [v.clone().requires_grad_() for v in meta.flat().values()]
    assert torch.autograd.gradcheck(Loss.apply, leaves, fast_mode=True, eps=1e-6, atol=1e-6)


def quadratic():
    """A network whose output is theta itself, so that the loss of rows y is mean |theta - y|^2 / 2 with Hessian I / 2."""

    class Theta(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.theta = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=F64))

        def forward(self, x):
            return x * self.theta  # x scales the coordinates: Hessian diag(2 mean(x^2) / 2)

    return FunctionalModule(Theta(), squared_error, "all", 2)


@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_closed_form_on_a_quadratic(kind):
    """The meta-gradient is (I - alpha H)^K grad L_Q, and first order leaves out exactly the Hessian's part."""
    functional, alpha, steps = quadratic(), 0.3, 2
    adaptation = Adaptation(steps, alpha, False)
    meta = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 4, 2, generator=g, dtype=F64), torch.randn(3, 4, 2, generator=g, dtype=F64)
    qx, qy = torch.randn(3, 5, 2, generator=g, dtype=F64), torch.randn(3, 5, 2, generator=g, dtype=F64)
    support, query = Rows(x, y, torch.ones(3, 4, dtype=F64)), Rows(qx, qy, torch.ones(3, 5, dtype=F64))
    hessian, moment = (x**2).mean(1), (x * y).mean(1)  # of the squared error averaged over two outputs
    theta = functional.moving["theta"].expand(3, 2)
    for _ in range(steps):
        theta = theta - alpha * (hessian * theta - moment)
    of_query = (qx**2).mean(1) * theta - (qx * qy).mean(1)
    kernels = kernels_of(kind, functional)
    exact = meta_gradient(kernels, adaptation, meta, [support] * steps, query).gradient.moving["theta"]
    first = meta_gradient(kernels, adaptation, meta, [support] * steps, query, order="first").gradient.moving["theta"]
    factor = (1 - alpha * hessian) ** steps
    torch.testing.assert_close(exact, (factor * of_query).mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(first, of_query.mean(0), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(first - exact, ((1 - factor) * of_query).mean(0), rtol=1e-12, atol=1e-14)


def test_without_steps_it_is_the_pooled_gradient():
    functional, adaptation, meta, tasks, supports, query = setting("plain", Adaptation(0, 0.1))
    found = meta_gradient(LoopKernels(functional), adaptation, meta, supports, query)
    leaves = {k: v.clone().requires_grad_() for k, v in meta.moving.items()}
    forward = forward_of("plain", make("plain"))
    pooled = torch.stack([(squared(forward(leaves, x, x), y) * w).sum() / w.sum() for _, (x, y, w) in tasks])
    for k, g in zip(leaves, torch.autograd.grad(pooled.mean(), list(leaves.values())), strict=True):
        torch.testing.assert_close(found.gradient.moving[k], g)
    assert not any(v.any() for v in found.gradient.sizes.values())


# ------------------------------------------------------------------------------------------------ invariants


def same(a, b, tolerance=1e-11):
    return relative_error(a.gradient.flat(), b.gradient.flat()) < tolerance


@pytest.mark.parametrize("network", ["plain", "batch_norm"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_order_of_tasks_and_rows_and_padding_change_nothing(network, data):
    functional, adaptation, meta, tasks, supports, query = setting(network)
    kernels = VectorizedKernels(functional, trace=False)
    base = meta_gradient(kernels, adaptation, meta, supports, query)

    def shuffled(triple):
        p = torch.tensor(data.draw(st.permutations(range(len(triple[0])))))
        return tuple(t[p] for t in triple)

    order = data.draw(st.permutations(range(len(tasks))))
    new_support = pad([shuffled(tasks[i][0][0]) for i in order], 7 + data.draw(st.integers(0, 4)), fill=-31.0)
    new_query = pad([shuffled(tasks[i][1]) for i in order], 6 + data.draw(st.integers(0, 4)), fill=1e3)
    found = meta_gradient(kernels, adaptation, meta, [new_support] * adaptation.inner_steps, new_query)
    assert same(found, base)
    torch.testing.assert_close(found.loss, base.loss[torch.tensor(order)], rtol=1e-11, atol=0)


@pytest.mark.parametrize("kind", ["loop", "vmap"])
@pytest.mark.parametrize("order", ["exact", "first"])
@pytest.mark.parametrize("network", ["plain", "layer_norm", "batch_norm"])
def test_padded_tasks_change_nothing(network, order, kind):
    functional, adaptation, meta, tasks, supports, query = setting(network, Adaptation(2, 0.1, adapted=["0.*", "3.*"]))
    kernels = kernels_of(kind, functional)
    base = meta_gradient(kernels, adaptation, meta, supports, query, order=order)

    def with_empty(rows):
        return Rows(
            *(torch.cat([t, torch.full_like(t[:2], v)]) for t, v in zip(rows[:3], (3.0, 4.0, 0.0), strict=True))
        )

    found = meta_gradient(kernels, adaptation, meta, [with_empty(s) for s in supports], with_empty(query), order=order)
    assert same(found, base)
    torch.testing.assert_close(found.loss[: len(tasks)], base.loss)
    assert not found.loss[len(tasks) :].any()


def test_a_task_without_query_rows_does_not_enter_the_mean():
    functional, adaptation, meta, _tasks, supports, query = setting()
    weight = query.weight.clone()
    weight[1] = 0
    kept = torch.tensor([0, 2])
    kernels = VectorizedKernels(functional, trace=False)
    found = meta_gradient(kernels, adaptation, meta, supports, query._replace(weight=weight))
    expected = meta_gradient(
        kernels, adaptation, meta, [take_tasks(s, kept) for s in supports], take_tasks(query, kept)
    )
    assert same(found, expected)


def test_no_query_rows_at_all_give_zero_and_no_nan():
    functional, adaptation, meta, _, supports, query = setting()
    empty = query._replace(weight=torch.zeros_like(query.weight))
    found = meta_gradient(VectorizedKernels(functional, trace=False), adaptation, meta, supports, empty)
    assert not found.loss.any() and not any(v.any() for v in found.gradient.flat().values())


@pytest.mark.parametrize("chunk", [1, 2, 3, 7])
@pytest.mark.parametrize("kind", ["loop", "vmap"])
def test_chunks_change_nothing(kind, chunk):
    functional, adaptation, meta, _, supports, query = setting(
        "layer_norm", Adaptation(2, 0.1, adapted="head"), sizes=((5, 4), (2, 6), (7, 3), (1, 1), (4, 2))
    )
    kernels = kernels_of(kind, functional)
    base = meta_gradient(kernels, adaptation, meta, supports, query)
    found = meta_gradient(kernels, adaptation, meta, supports, query, chunk=chunk)
    assert same(found, base)
    torch.testing.assert_close(found.loss, base.loss)


def test_chunks_bound_the_number_of_tasks_at_once():
    functional, adaptation, meta, _, supports, query = setting()

    class Counting(LoopKernels):
        most = 0

        def curvature(self, moving, shared, support, direction, seed=0, step=0):
            self.most = max(self.most, len(support.x))
            return super().curvature(moving, shared, support, direction, seed, step)

    kernels = Counting(functional)
    meta_gradient(kernels, adaptation, meta, supports, query, chunk=2)
    assert kernels.most == 2


def test_random_draws_of_a_step_are_those_of_its_pull_back_and_chunks_keep_them():
    """With dropout the meta-gradient is that of one fixed network: finite differences with the same seed agree."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 20), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(20, 1))
    functional = FunctionalModule(module.double(), squared_error, "all", 1)
    functional.skeleton.train(True)
    adaptation = Adaptation(2, 0.1)
    meta = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    supports, query = batch(draw_tasks(3), 2)
    for kernels in (LoopKernels(functional), VectorizedKernels(functional, random=True)):
        found = meta_gradient(kernels, adaptation, meta, supports, query, seed=4)
        flat, gradient = meta.flat(), found.gradient.flat()
        along = {
            k: torch.randn(v.shape, generator=torch.Generator().manual_seed(0), dtype=F64) for k, v in flat.items()
        }
        h, losses = 1e-6, []
        for s in (h, -h):
            shifted = MetaParameters.from_flat({k: v + s * along[k] for k, v in flat.items()})
            losses.append(meta_gradient(kernels, adaptation, shifted, supports, query, seed=4).loss.mean())
        slope = float(losses[0] - losses[1]) / (2 * h)
        assert math.isclose(slope, sum(float((gradient[k] * along[k]).sum()) for k in flat), rel_tol=1e-5)
    loop = LoopKernels(functional)
    whole = meta_gradient(loop, adaptation, meta, supports, query, seed=4)
    assert same(meta_gradient(loop, adaptation, meta, supports, query, seed=4, chunk=1), whole)
    assert not same(meta_gradient(loop, adaptation, meta, supports, query, seed=5), whole)


def test_the_inner_loop_reports_its_path_and_losses():
    functional, adaptation, meta, _tasks, supports, _query = setting()
    path, losses = inner_loop(LoopKernels(functional), adaptation, meta, supports)
    assert len(path) == 3 and len(losses) == 2
    torch.testing.assert_close(path[0]["0.weight"], expand(meta.moving, 3)["0.weight"])
    for k in range(2):
        expected = LoopKernels(functional).gradient(path[k], {}, supports[k])[0]
        torch.testing.assert_close(losses[k], expected)


def test_meta_parameters_survive_flattening_and_copies_are_copies():
    meta = MetaParameters({"a/b": torch.ones(2)}, {"c": torch.zeros(1)}, {"log_alpha.a/b": torch.ones(1)})
    back = MetaParameters.from_flat(meta.flat())
    assert list(back.moving) == ["a/b"] and list(back.shared) == ["c"] and list(back.sizes) == ["log_alpha.a/b"]
    assert meta.to(F64).moving["a/b"].dtype == F64
