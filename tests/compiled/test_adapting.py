"""Adapting goes over to a program once its calls repay it, and gives what adapting one by one gives."""

import logging

import pytest
import torch
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.compiled import Library, adapting, cache, room_for
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError, VerificationError
from fewshot.functional import FunctionalModule
from fewshot.inference import adapt_task_set
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters
from fewshot.tasks import TaskSet

N_IN, STEPS = 3, 3


class Scene:
    """A network that adapts to tasks of 3 to 14 rows."""

    def __init__(self, mode="auto", module=None, n_tasks=12, inner_lr=0.1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = module or nn.Sequential(nn.Linear(N_IN, 8), nn.Tanh(), nn.Linear(8, 1))
        adaptation = Adaptation(STEPS, inner_lr)
        functional = FunctionalModule(module, squared_error, "all", 1)
        self.meta = MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))
        self.engine = Engine(functional, adaptation, mode=mode)
        self.engine.use(vectorized=mode != "loop")
        g = torch.Generator().manual_seed(1)
        sizes = torch.randint(3, 15, (n_tasks,), generator=g)
        tasks = torch.repeat_interleave(torch.arange(n_tasks), sizes).numpy()
        x = torch.randn(len(tasks), N_IN, generator=g).numpy()
        self.task_set = TaskSet.from_arrays(x, x[:, :1] * (tasks % 3)[:, None], tasks, dtype=torch.float32)

    def adapt(self, only=None):
        found = adapt_task_set(self.engine, self.meta, self.task_set if only is None else self.task_set.select(only))
        return {**found.moving, "scale": found.step_scale}


@pytest.fixture
def adapted(monkeypatch):
    """Programs that adapted, one entry for each call."""
    found = []
    original = Library.adapt

    def noted(self, *arguments, **options):
        found.append(self)
        return original(self, *arguments, **options)

    monkeypatch.setattr(Library, "adapt", noted)
    return found


def same(a, b, tolerance=1e-5):
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, rtol=tolerance, atol=tolerance)


def test_few_sizes_of_programs_serve_all_numbers_of_rows():
    assert [room_for(n) for n in (1, 4, 5, 6, 7, 9, 13, 17, 25, 33)] == [4, 4, 6, 6, 8, 12, 16, 24, 32, 48]
    assert all(n <= room_for(n) < 1.5 * max(n, 3) for n in range(1, 2000))


@pytest.mark.parametrize("inner_lr", [0.1, 30.0], ids=["", "halved"])
def test_all_at_once_is_one_by_one(compiler, adapted, inner_lr):
    """With steps that are too long too, so that the safeguard adapts again with halved ones."""
    program, kernels, loop = (Scene(mode, inner_lr=inner_lr) for mode in ("compiled", "vectorized", "loop"))
    together = program.adapt()
    assert adapted and ((together["scale"] < 1).any() == (inner_lr > 1))
    same(together, kernels.adapt())
    for t in range(12):
        same({k: v[t : t + 1] for k, v in together.items()}, loop.adapt([t]))


def test_calls_add_up_until_a_program_pays(compiler, adapted, monkeypatch):
    scene = Scene()
    plain = Scene("vectorized").adapt()
    one_call = 5.5 * 1.5e-3  # about what is estimated for a call, here mostly overhead
    monkeypatch.setattr(adapting, "BEGIN", 2 * one_call)
    monkeypatch.setattr(adapting, "REPAYS", 4 * one_call)
    monkeypatch.setattr(cache, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(cache, "BUILD_RATE", float("inf"))
    by_program = []
    for _ in range(8):
        adapted.clear()
        same(scene.adapt(), plain)
        by_program.append(bool(adapted))
    first = by_program.index(True)
    assert first >= 2 and all(by_program[first:])  # never back
    again, after = Scene(), []
    for _ in range(8):
        adapted.clear()
        again.adapt()
        after.append(bool(adapted))
    assert after == by_program  # by what was asked, not by a clock


def test_a_short_call_makes_none(compiler, adapted):
    Scene().adapt()
    assert not adapted


def test_a_program_that_adapts_otherwise_is_given_up(compiler, monkeypatch, caplog):
    original = Library.adapt

    def other(self, *arguments, **options):
        moving, losses, loss = original(self, *arguments, **options)
        return {k: v + 0.01 for k, v in moving.items()}, losses, loss

    monkeypatch.setattr(Library, "adapt", other)
    monkeypatch.setattr(adapting, "BEGIN", 0.0)
    monkeypatch.setattr(adapting, "REPAYS", 0.0)
    monkeypatch.setattr(cache, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(cache, "BUILD_RATE", float("inf"))
    caplog.set_level(logging.INFO, "fewshot")
    scene = Scene()
    same(scene.adapt(), Scene("vectorized").adapt())
    before = len(caplog.messages)
    assert any("adapting without a compiled program (the step of" in m for m in caplog.messages)
    scene.adapt()
    assert len(caplog.messages) == before  # said once for each program
    with pytest.raises(VerificationError, match="engine='vectorized'"):
        Scene("compiled").adapt()


def test_what_cannot_be_compiled_adapts_with_kernels(monkeypatch, caplog):
    class Branching(nn.Linear):
        def forward(self, x):
            return super().forward(x) * (2.0 if float(self.factor) > 0 else 1.0)

    def module():
        found = Branching(N_IN, 1)
        found.register_buffer("factor", torch.ones(()))
        return found

    monkeypatch.setattr(adapting, "BEGIN", 0.0)
    monkeypatch.setattr(adapting, "REPAYS", 0.0)
    monkeypatch.setattr(cache, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(cache, "BUILD_RATE", float("inf"))
    caplog.set_level(logging.INFO, "fewshot")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = module()
    same(Scene("auto", network).adapt(), Scene("vectorized", network).adapt())
    assert any("adapting without a compiled program" in m for m in caplog.messages)
    with pytest.raises(InvalidParameterError, match="'compiled' is not possible"):
        Scene("compiled", network).adapt()


def test_a_step_too_small_to_judge_by_does_not_vouch_for_a_program(compiler, monkeypatch):
    """Where all targets are met already nothing moves, and any program that moves nothing much would seem right."""
    original = Library.adapt

    def other(self, *arguments, **options):
        moving, losses, loss = original(self, *arguments, **options)
        return {k: v + 1.0 for k, v in moving.items()}, losses, loss

    scene, plain = Scene("compiled"), Scene("vectorized")
    zero = {k: torch.zeros_like(v) for k, v in scene.meta.moving.items() if k.startswith("2.")}
    for s in (scene, plain):
        s.meta.moving.update(zero)
        s.task_set.y.zero_()
    same(scene.adapt(), plain.adapt())
    monkeypatch.setattr(Library, "adapt", other)
    same(scene.adapt(), plain.adapt())  # the wrong one is not used, and no harm is done to its standing
    monkeypatch.setattr(Library, "adapt", original)
    same(scene.adapt(), plain.adapt())
