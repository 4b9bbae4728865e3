"""Work is dispatched for a whole batch at once: the number of operations and calls does not depend on the number of tasks.

These tests count and do not time, so they say the same on every machine. Where a count grows, the names of what grew are
shown.
"""

import ctypes

import numpy as np
import pytest
import torch
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.compiled.build import find_compiler
from fewshot.engine import Engine
from fewshot.episodes import EpisodeSampler, PerTaskLabels
from fewshot.functional import FunctionalModule
from fewshot.inference import adapt_task_set, predict
from fewshot.kernels import TRACE_AFTER, LoopKernels, VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters
from fewshot.tasks import Rows, TaskSet

from ._watching import calls, growth, one_thread, operations, work

FEW, MANY = 4, 32
N_IN, STEPS = 3, 2


def plain():
    return nn.Sequential(nn.Linear(N_IN, 8), nn.Tanh(), nn.Linear(8, 1))


def batch_norm():
    return nn.Sequential(nn.Linear(N_IN, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def scene(network=plain, kernels="traced", mode="vectorized", lr=0.1, adapted="all"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = network()
    adaptation = Adaptation(STEPS, lr, adapted=adapted)
    functional = FunctionalModule(module, squared_error, adapted, 1)
    engine = Engine(functional, adaptation, mode=mode)
    engine.kernels = (
        LoopKernels(functional) if kernels == "loop" else VectorizedKernels(functional, trace=kernels == "traced")
    )
    return engine, MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))


def rows(n_tasks, width, seed=0):
    g = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(n_tasks, width, n, generator=g) for n in (N_IN, 1))
    return Rows(x, y, torch.ones(n_tasks, width))


def task_set(n_tasks, size=12, seed=0):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), size)
    return TaskSet.from_arrays(rng.normal(size=(len(tasks), N_IN)), rng.normal(size=(len(tasks), 1)), tasks)


def warmed(watch, function):
    """What a call does once kernels that recur have been traced and torch has loaded what it loads on first use."""
    for _ in range(TRACE_AFTER + 2):
        function()
    return watch(function)


# ------------------------------------------------------------------------------------------------ the engine


def gradient_of(engine, meta, n_tasks, order="exact"):
    supports, query = [rows(n_tasks, 5)] * STEPS, rows(n_tasks, 6, seed=1)
    return lambda: engine.gradient(meta, supports, query, order, 0)


def losses_of(engine, meta, n_tasks):
    support, query = rows(n_tasks, 5), rows(n_tasks, 6, seed=1)
    return lambda: engine.losses(meta, support, query)


def adapting_of(engine, meta, n_tasks):
    support = rows(n_tasks, 5)

    def adapt():
        with engine.functional.mode(training=False):
            engine.adapt(meta, support, STEPS)

    return adapt


ENGINE = {"gradient": gradient_of, "losses": losses_of, "adapt": adapting_of}


@pytest.mark.parametrize("kernels", ["traced", "untraced"])
@pytest.mark.parametrize("network", [plain, batch_norm])
@pytest.mark.parametrize("what", ENGINE)
def test_the_vectorised_kernels_do_as_much_for_few_tasks_as_for_many(what, network, kernels):
    engine, meta = scene(network, kernels)
    assert not growth(lambda n: warmed(work, ENGINE[what](engine, meta, n)), FEW, MANY)


@pytest.mark.parametrize("order", ["exact", "first"])
def test_so_they_do_with_shared_parameters_and_without_second_derivatives(order):
    engine, meta = scene(adapted="head")
    assert meta.shared
    assert not growth(lambda n: warmed(operations, gradient_of(engine, meta, n, order)), FEW, MANY)


@pytest.mark.parametrize("watch", [operations, calls])
@pytest.mark.parametrize("what", ENGINE)
def test_the_loop_does_more_for_more(what, watch):
    """By this much: so the two counters see what they are to see."""
    engine, meta = scene(kernels="loop")
    few, many = (warmed(watch, ENGINE[what](engine, meta, n)).total() for n in (FEW, MANY))
    assert many > 0.7 * few * MANY / FEW


# ------------------------------------------------------------------------------------------------ adapting, predicting


@pytest.mark.parametrize("lr", [0.05, 1e30])
def test_a_task_set_is_adapted_to_at_once(lr):
    """With a rate so large that every task goes through all halvings, too."""
    engine, meta = scene(lr=lr)

    def count(n):
        ts = task_set(n)
        scale = adapt_task_set(engine, meta, ts).step_scale
        assert bool((scale == (1 if lr < 1 else 0)).all())
        return warmed(work, lambda: adapt_task_set(engine, meta, ts))

    assert not growth(count, FEW, MANY)


def test_a_task_set_is_adapted_to_at_once_by_networks_with_batch_statistics():
    engine, meta = scene(batch_norm)

    def count(n):
        ts = task_set(n)
        return warmed(work, lambda: adapt_task_set(engine, meta, ts))

    assert not growth(count, FEW, MANY)


def predicting(network, n, lengths):
    engine, meta = scene(network)
    found = adapt_task_set(engine, meta, task_set(n))
    x = [torch.ones(lengths[t % len(lengths)], N_IN) for t in range(n)]
    return lambda: predict(engine.functional, found.moving, meta.shared, found.statistics, x)


@pytest.mark.parametrize("network", [plain, batch_norm])
def test_predictions_are_made_at_once(network):
    assert not growth(lambda n: warmed(operations, predicting(network, n, [7])), FEW, MANY)


def test_predictions_take_one_run_of_the_network_for_each_length_that_occurs():
    """Lengths are not padded: a module that mixes rows, which engine="loop" allows, must not see rows that are not there."""
    few, many = ([1, 2, 3, 4][:n] for n in (2, 4))

    def count(lengths):
        return warmed(operations, predicting(plain, MANY, lengths))

    assert not growth(lambda n: warmed(operations, predicting(plain, n, many)), 2 * len(many), MANY)
    assert growth(count, few, many)


# ------------------------------------------------------------------------------------------------ episodes


def table(seed=0):
    """Forty tasks with classes, blocks and times."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(40), 24)
    n = len(tasks)
    blocks = np.tile(np.repeat(np.arange(8), 3), 40)
    y = np.tile(np.arange(24) % 3, 40)
    columns = {"tasks": tasks, "time": rng.permutation(n), "dtype": torch.float32}
    X = rng.normal(size=(n, N_IN))
    return TaskSet.from_arrays(X, y, **columns), TaskSet.from_arrays(X, y, blocks=blocks, **columns)


FREE, BLOCKED = table()
SAMPLERS = {
    "random": lambda: EpisodeSampler(FREE, (1, 8), 10),
    "blocks": lambda: EpisodeSampler(BLOCKED, (1, 8), 10),
    "first": lambda: EpisodeSampler(FREE, (1, 8), 10, support="first"),
    "first blocks": lambda: EpisodeSampler(BLOCKED, (1, 3), 10, support="first"),
    "classes": lambda: EpisodeSampler(FREE, shots_per_class=(1, 4)),
    "classes in blocks": lambda: EpisodeSampler(BLOCKED, shots_per_class=2),
    "own labels": lambda: PerTaskLabels(EpisodeSampler(FREE, shots_per_class=(1, 4)), 3),
}


@pytest.mark.parametrize("kind", SAMPLERS)
def test_episodes_are_drawn_at_once(kind):
    sampler, rng = SAMPLERS[kind](), np.random.default_rng(0)
    assert len(sampler.sample(MANY, rng)[0].x) == MANY
    assert not growth(lambda n: warmed(work, lambda: sampler.sample(n, rng)), FEW, MANY)


def test_a_single_task_is_cut_at_once():
    big = task_set(1, 400)
    sampler, rng = EpisodeSampler(big, (1, 4), 4, split_single=True), np.random.default_rng(0)
    assert len(sampler.sample(MANY, rng)[0].x) == MANY
    assert not growth(lambda n: warmed(calls, lambda: sampler.sample(n, rng)), FEW, MANY)


def test_going_round_few_tasks_draws_one_order_a_round_and_does_nothing_else_for_each():
    """Two rounds and sixteen: what grows are the calls that one ``permutation`` makes, each by one a round."""
    sampler, rng = EpisodeSampler(task_set(FEW), (1, 4), 4), np.random.default_rng(0)
    one = calls(lambda: rng.permutation(sampler.tasks_))
    grown = growth(lambda n: warmed(calls, lambda: sampler.sample(n, rng)), 2 * FEW, 16 * FEW)
    assert grown and grown.keys() <= one.keys()
    assert all(many - few == 14 * one[name] for name, (few, many) in grown.items())


# ------------------------------------------------------------------------------------------------ compiled programs


class Counting:
    """A loaded library that counts the calls of its functions."""

    def __init__(self, library):
        self.library, self.calls = library, []

    def __getattr__(self, name):
        function = getattr(self.library, name)
        assert isinstance(function, ctypes._CFuncPtr)

        def counted(*arguments):
            self.calls.append(name)
            return function(*arguments)

        return counted


@pytest.fixture(scope="module")
def compiled():
    """An engine that runs a compiled program, and what counts its calls; one thread, so that one call does all tasks."""
    if find_compiler() is None:
        pytest.skip("needs a C++ compiler")
    engine, meta = scene(mode="compiled")
    with one_thread():
        supports, query = [rows(FEW, 5)] * STEPS, rows(FEW, 6, seed=1)
        engine.prepare(meta, supports, query, "exact")
        engine.gradient(meta, supports, query, "exact", 0)
        (planned,) = engine._switch._programs
        library = planned.library
        library._library = Counting(library._library)
        yield engine, meta, library._library


def test_a_meta_gradient_is_one_call_of_a_compiled_program(compiled):
    engine, meta, counter = compiled
    for n_tasks in (1, FEW, MANY):
        function = gradient_of(engine, meta, n_tasks)
        function()  # the first one of a size may ask for its memory
        counter.calls.clear()
        function()
        assert [name for name in counter.calls if name != "workspace_bytes"] == ["meta_gradient"]


def test_calling_a_compiled_program_is_as_much_work_for_few_tasks_as_for_many(compiled):
    engine, meta, _ = compiled
    assert not growth(lambda n: warmed(work, gradient_of(engine, meta, n)), FEW, MANY)
    few = warmed(operations, gradient_of(engine, meta, FEW)).total()
    assert few < 40  # the kernels, whose place it takes, dispatch hundreds


def test_adapting_with_a_compiled_program_is_as_much_work_for_few_tasks_as_for_many(compiled):
    engine, meta, _ = compiled
    assert not growth(lambda n: warmed(work, adapting_of(engine, meta, n)), FEW, MANY)
    few = warmed(operations, adapting_of(engine, meta, FEW)).total()
    assert few < 40
