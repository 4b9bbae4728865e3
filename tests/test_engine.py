"""Choosing kernels: fallbacks with a reason, the self-check, chunks, and what must be left as it was."""

import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError, VerificationError
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, inner_loop, meta_gradient
from fewshot.tasks import Rows

from ._oracles import F64, N_IN, batch, draw_tasks, make, relative_error


class Net(nn.Module):
    def __init__(self, between=None):
        super().__init__()
        self.body, self.norm, self.head = nn.Linear(N_IN, 5), nn.LayerNorm(5), nn.Linear(5, 1)
        self.between = between

    def forward(self, x):
        return self.head(self.between(self, torch.tanh(self.body(x))))


class WrongUnderVmap(torch.autograd.Function):
    """The identity, except that its vmap rule is mistaken, as a fused kernel's may be."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent

    @staticmethod
    def vmap(info, in_dims, x):
        return x * 1.01, in_dims[0]


def fused(self, h):
    return F.layer_norm(h, (5,), self.norm.weight, self.norm.bias)


def mistaken(self, h):
    return WrongUnderVmap.apply(self.norm(h))


def data_dependent(self, h):
    return h if h.sum() > 0 else 2 * h


def item(self, h):
    return h * h.detach().mean().item()


def mixing(self, h):
    return h - h.mean(0)


def fine(self, h):
    return self.norm(h)


def engine_of(between=fine, steps=2, dtype=torch.float32, sizes=((5, 4), (2, 6), (7, 3)), **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = Net(between).to(dtype)
        with torch.no_grad():
            module.norm.weight.add_(torch.randn(5, dtype=dtype))
    adaptation = Adaptation(steps, 0.1)
    functional = FunctionalModule(module, squared_error, "all", 1)
    engine = Engine(functional, adaptation, **options)
    meta = MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))
    supports, query = batch(draw_tasks(N_IN, sizes=sizes, dtype=dtype), steps)
    return engine, meta, supports, query


def test_torchs_layer_norm_is_exact_in_the_kernels_and_wrong_when_differentiated_through_vmap():
    """The trap and its border: these kernels map derivatives over tasks, and never differentiate what was mapped."""
    engine, meta, supports, query = engine_of(fused, dtype=F64)
    gradients = [
        meta_gradient(k, engine.adaptation, meta, supports, query).gradient.flat()
        for k in (LoopKernels(engine.functional), VectorizedKernels(engine.functional, trace=False))
    ]
    assert relative_error(gradients[1], gradients[0]) < 1e-10

    def adapted_loss(start, x):
        def loss(p):
            h = F.layer_norm(x @ p["w"], (5,), p["g"], p["b"])
            return (torch.tanh(h) ** 2 * torch.arange(5)).mean()

        gradient = torch.func.grad(loss)(start)
        return loss({k: v - gradient[k] for k, v in start.items()})

    p, x = meta.moving, supports[0].x
    start = {"w": p["body.weight"].T, "g": p["norm.weight"], "b": p["norm.bias"]}
    through = torch.func.grad(lambda s: torch.func.vmap(adapted_loss, (None, 0))(s, x).sum())(start)["w"]
    mapped = torch.func.vmap(torch.func.grad(adapted_loss), (None, 0))(start, x)["w"].sum(0)
    one_by_one = sum(torch.func.grad(adapted_loss)(start, t)["w"] for t in x)
    torch.testing.assert_close(mapped, one_by_one)
    # If this fails, torch has been mended, and the warnings about it in docs and docstrings can go.
    assert float((through - one_by_one).norm() / one_by_one.norm()) > 1e-3


@pytest.mark.parametrize("verify", ["auto", True])
@pytest.mark.parametrize("mode", ["auto", "vectorized"])
def test_a_wrong_derivative_is_refused_and_the_layer_named(mode, verify):
    engine, meta, supports, query = engine_of(mistaken, mode=mode, verify=verify)
    message = (
        r"^engine: the vectorised meta-gradient of '.*(body|norm|head).* layer '(body|norm|head)', or .* engine='loop'"
    )
    with pytest.raises(VerificationError, match=message) as error:
        engine.prepare(meta, supports, query, "exact")
    assert "\n" not in str(error.value)
    assert not engine.is_vectorized


def test_verification_can_be_switched_off():
    engine, meta, supports, query = engine_of(mistaken, verify=False)
    engine.prepare(meta, supports, query, "exact")
    assert engine.is_vectorized


def test_the_loop_takes_what_vmap_gets_wrong():
    engine, meta, supports, query = engine_of(mistaken, mode="loop")
    engine.prepare(meta, supports, query, "exact")
    assert not engine.is_vectorized


def test_a_module_that_mixes_padded_rows_is_refused():
    engine, meta, supports, query = engine_of(mixing)
    with pytest.raises(VerificationError, match="mixes the rows"):
        engine.prepare(meta, supports, query, "exact")


def test_a_module_that_mixes_rows_is_refused_even_if_only_the_query_of_one_task_is_padded():
    engine, meta, supports, query = engine_of(mixing, sizes=((4, 6), (4, 6), (4, 3), (4, 6)))
    with pytest.raises(VerificationError, match="mixes the rows"):
        engine.prepare(meta, supports, query, "exact")


@pytest.mark.parametrize("between", [data_dependent, item])
def test_what_cannot_be_vectorised_runs_in_the_loop_with_one_reason(between, caplog):
    engine, meta, supports, query = engine_of(between)
    with caplog.at_level(logging.INFO, "fewshot"):
        engine.prepare(meta, supports, query, "exact")
        engine.gradient(meta, supports, query, "exact", 0)
        engine.gradient(meta, supports, query, "exact", 1)
    (record,) = [r for r in caplog.records if r.levelno >= logging.INFO]
    assert record.name == "fewshot" and record.getMessage().startswith("engine: going through the tasks one by one")
    assert "\n" not in record.getMessage()
    assert not engine.is_vectorized


def test_vectorized_insists():
    engine, meta, supports, query = engine_of(data_dependent, mode="vectorized")
    with pytest.raises(InvalidParameterError, match=r"^engine: 'vectorized' cannot run this module \(") as error:
        engine.prepare(meta, supports, query, "exact")
    assert "\n" not in str(error.value)


def test_what_fails_in_the_loop_too_is_an_error():
    def broken(self, h):
        raise KeyError("in the user's forward")

    engine, meta, supports, query = engine_of(broken)
    with pytest.raises(KeyError, match="in the user's forward"):
        engine.prepare(meta, supports, query, "exact")
        engine.gradient(meta, supports, query, "exact", 0)


def test_a_sound_module_is_vectorised_silently(caplog):
    engine, meta, supports, query = engine_of()
    with caplog.at_level(logging.INFO, "fewshot"):
        engine.prepare(meta, supports, query, "exact")
    assert engine.is_vectorized and not caplog.records


def test_a_module_that_insists_on_single_precision_is_still_checked():
    def mistaken_more(self, h):
        return mistaken(self, h) * WrongUnderVmap.apply(h) * WrongUnderVmap.apply(h)

    def strict(between):
        def wrapped(self, h):
            if h.dtype != torch.float32:
                raise RuntimeError("expected single precision")
            return between(self, h)

        return wrapped

    engine, meta, supports, query = engine_of(strict(fine))
    engine.prepare(meta, supports, query, "exact")
    assert engine.is_vectorized
    engine, meta, supports, query = engine_of(strict(mistaken_more))
    with pytest.raises(VerificationError):
        engine.prepare(meta, supports, query, "exact")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"mode": "fast"}, "engine"),
        ({"verify": "yes"}, "verify"),
        ({"max_memory": 0}, "max_memory"),
        ({"max_memory": -1.0}, "max_memory"),
    ],
)
def test_wrong_settings(options, name):
    with pytest.raises(InvalidParameterError, match=f"^{name}: got "):
        engine_of(**options)


# ------------------------------------------------------------------------------------------------ memory


class Widest:
    """Notes how many tasks the kernels saw at once."""

    def __init__(self, kernels):
        self.kernels, self.most = kernels, 0

    def __getattr__(self, name):
        function = getattr(self.kernels, name)

        def wrapped(moving, *arguments):
            self.most = max(self.most, len(next(iter(moving.values()))))
            return function(moving, *arguments)

        return wrapped


SIZES = tuple((3, 4) for _ in range(12))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_memory_bounds_the_parameter_sets_in_flight(dtype):
    values = 5 * N_IN + 5 + 10 + 6
    sets = 2 + 6
    size = torch.empty(0, dtype=dtype).element_size()
    limit = 4.5 * values * sets * size / 2**20  # room for four tasks
    engine, meta, supports, query = engine_of(sizes=SIZES, dtype=dtype, max_memory=limit)
    expected = engine.gradient(meta, supports, query, "exact", 0)
    engine.kernels = Widest(LoopKernels(engine.functional))
    found = engine.gradient(meta, supports, query, "exact", 0)
    assert engine.kernels.most == 4
    assert relative_error(found.gradient.flat(), expected.gradient.flat()) < 1e-5


@pytest.mark.parametrize("limit", [None, 1e4])
def test_without_a_need_there_are_no_chunks(limit):
    engine, meta, supports, query = engine_of(sizes=SIZES, max_memory=limit)
    engine.kernels = Widest(LoopKernels(engine.functional))
    engine.gradient(meta, supports, query, "exact", 0)
    assert engine.kernels.most == 12


def test_validation_keeps_to_max_memory_too():
    engine, meta, supports, query = engine_of(sizes=SIZES, max_memory=1e-6)
    engine.kernels = Widest(LoopKernels(engine.functional))
    engine.losses(meta, supports[0], query)
    assert engine.kernels.most == 1


# ------------------------------------------------------------------------------------------------ losses, state


def test_losses_are_those_of_the_meta_gradient():
    engine, meta, supports, query = engine_of()
    found = meta_gradient(LoopKernels(engine.functional), engine.adaptation, meta, supports, query)
    torch.testing.assert_close(engine.losses(meta, supports[0], query), found.loss)


def test_losses_are_without_dropout_and_leave_training_mode_on():
    module = nn.Sequential(nn.Linear(N_IN, 30), nn.Dropout(0.5), nn.Linear(30, 1))
    functional = FunctionalModule(module, squared_error, "all", 1)
    engine = Engine(functional, Adaptation(1, 0.1))
    meta = MetaParameters(functional.moving, {}, engine.adaptation.init(functional.moving))
    (support,), query = batch(draw_tasks(N_IN, dtype=torch.float32), 1)
    functional.skeleton.train(True)
    first, second = (engine.losses(meta, support, query) for _ in range(2))
    assert torch.equal(first, second) and functional.skeleton.training
    functional.skeleton.train(False)
    path, _ = inner_loop(LoopKernels(functional), engine.adaptation, meta, [support])
    torch.testing.assert_close(LoopKernels(functional).query_gradient(path[-1], {}, support, query, 0)[0], first)


def test_dropout_is_vectorised_and_reproducible():
    module = nn.Sequential(nn.Linear(N_IN, 30), nn.Dropout(0.5), nn.Linear(30, 1))
    functional = FunctionalModule(module, squared_error, "all", 1)
    engine = Engine(functional, Adaptation(1, 0.1))
    meta = MetaParameters(functional.moving, {}, engine.adaptation.init(functional.moving))
    supports, query = batch(draw_tasks(N_IN, dtype=torch.float32), 1)
    engine.prepare(meta, supports, query, "exact")
    assert engine.is_vectorized
    a, b, c = (engine.gradient(meta, supports, query, "exact", seed).loss for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


@pytest.mark.parametrize("between", [fine, data_dependent])
def test_torch_is_left_as_it_was(between):
    engine, meta, supports, query = engine_of(between)
    torch.set_default_dtype(torch.float32)

    def state():
        return (
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.is_grad_enabled(),
            torch.backends.mha.get_fastpath_enabled(),
            torch.backends.cuda.flash_sdp_enabled(),
            torch.backends.cuda.mem_efficient_sdp_enabled(),
            torch.backends.cuda.math_sdp_enabled(),
        )

    before = state()
    engine.prepare(meta, supports, query, "exact")
    for _ in range(6):  # through tracing
        engine.gradient(meta, supports, query, "exact", 0)
    engine.losses(meta, supports[0], query)
    assert state() == before


def test_what_an_earlier_training_found_can_be_taken_over():
    engine, *_ = engine_of()
    engine.use(vectorized=True)
    assert engine.is_vectorized
    engine.use(vectorized=False)
    assert not engine.is_vectorized


def test_a_single_task_and_a_task_without_support_can_be_prepared():
    for sizes in (((4, 3),), ((1, 1), (3, 2))):
        engine, meta, supports, query = engine_of(sizes=sizes)
        supports = [Rows(s.x, s.y, s.weight * (torch.arange(len(s.x)) > 0)[:, None]) for s in supports]
        engine.prepare(meta, supports, query, "exact")
        assert engine.is_vectorized


def test_the_oracle_modules_are_all_accepted():
    for network in ("layer_norm", "batch_norm", "instance_norm", "group_norm", "tied"):
        functional = FunctionalModule(make(network), squared_error, "all", 1)
        engine = Engine(functional, Adaptation(2, 0.1))
        meta = MetaParameters(functional.moving, {}, engine.adaptation.init(functional.moving))
        engine.prepare(meta, *batch(draw_tasks(N_IN), 2), "exact")
        assert engine.is_vectorized, network
