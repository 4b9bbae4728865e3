"""The outer loop: against a literal one, deterministic, resumable, and honest about losses that are not finite."""

import copy
import logging
import math

import numpy as np
import pytest
import torch
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.compiled.build import find_compiler
from fewshot.engine import Engine
from fewshot.episodes import EpisodeSampler
from fewshot.errors import DivergenceError, InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, meta_gradient
from fewshot.tasks import Rows, TaskSet
from fewshot.training import TrainingSettings, TrainingState, Validation, loop, meta_train, outer

from .._watching import interrupted

SETTINGS = {"max_iter": 8, "tasks_per_batch": 3, "outer_lr": 0.01, "step_size_lr": 1.0}


def task_set(seed=0, n_tasks=8):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), 10)
    X = rng.normal(size=(len(tasks), 2))
    y = (X * rng.normal(size=(n_tasks, 2))[tasks]).sum(1, keepdims=True)
    return TaskSet.from_arrays(X, y, tasks)


class Scene:
    """Everything for one training; two scenes are two processes that share nothing."""

    def __init__(self, module=None, steps=2, seed=0, mode="loop", data_seed=0):
        torch.manual_seed(0)
        module = module or nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1))
        self.adaptation = Adaptation(steps, 0.1)
        functional = FunctionalModule(module, squared_error, "all", 1)
        self.engine = Engine(functional, self.adaptation, mode=mode, verify=False)
        self.sampler = EpisodeSampler(task_set(data_seed), (2, 4), 4)
        moving = functional.moving
        self.state = TrainingState(
            MetaParameters(moving, {}, self.adaptation.init(moving)), np.random.default_rng(seed)
        )

    def train(self, **options):
        settings = {k: options.pop(k) for k in list(options) if k in TrainingSettings.__dataclass_fields__}
        return meta_train(
            self.engine, self.sampler, TrainingSettings(**{**SETTINGS, **settings}), self.state, **options
        )

    def validation(self):
        return Validation(self.sampler, 10, np.random.default_rng(7))

    def flat(self):
        return {k: v.clone() for k, v in self.state.parameters.flat().items()}


def same(a, b):
    assert list(a) == list(b)
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_it_is_a_literal_loop_of_sample_gradient_clip_and_step(schedule):
    scene, other = Scene(), Scene()
    scene.train(schedule=schedule, max_grad_norm=0.05, step_size_lr=3.0)
    leaves = {k: v.clone().requires_grad_() for k, v in other.state.parameters.flat().items()}
    groups = [
        {"params": [v for k, v in leaves.items() if k.startswith("moving/")], "lr": 1.0},
        {"params": [v for k, v in leaves.items() if k.startswith("sizes/")], "lr": 3.0},
    ]
    optimizer, rng, clipped = torch.optim.Adam(groups), np.random.default_rng(0), 0
    for i in range(8):
        support, query = other.sampler.sample(3, rng)
        seed = int(rng.integers(2**31))
        meta = MetaParameters.from_flat({k: v.detach() for k, v in leaves.items()})
        kernels = LoopKernels(other.engine.functional)
        found = meta_gradient(kernels, other.adaptation, meta, [support] * 2, query, seed=seed).gradient.flat()
        norm = math.sqrt(sum(float((g**2).sum()) for g in found.values()))
        clipped += norm > 0.05
        for k, v in leaves.items():
            v.grad = found[k] * min(1.0, 0.05 / norm)
        factor = 0.5 * (1 + math.cos(math.pi * i / 8)) if schedule == "cosine" else 1.0
        optimizer.param_groups[0]["lr"], optimizer.param_groups[1]["lr"] = 0.01 * factor, 0.03 * factor
        optimizer.step()
    assert clipped
    for k, v in scene.state.parameters.flat().items():
        torch.testing.assert_close(v, leaves[k].detach(), rtol=1e-4, atol=1e-6)
    assert scene.state.iteration == 8 and scene.state.finished


def test_the_cosine():
    settings = TrainingSettings(**{**SETTINGS, "max_iter": 100})
    assert settings.rate(0) == 1 and settings.rate(50) == pytest.approx(0.5) and 0 < settings.rate(99) < 0.001
    assert TrainingSettings(**SETTINGS, schedule="constant").rate(7) == 1


def test_training_learns():
    scene = Scene()
    scene.train(max_iter=150, outer_lr=0.02)
    losses = [row["loss"] for row in scene.state.history]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])


@pytest.mark.parametrize("mode", ["loop", "auto"])
def test_the_same_seed_gives_the_same_bits_and_another_one_others(mode):
    a, b, c = Scene(mode=mode), Scene(mode=mode), Scene(seed=1, mode=mode)
    for scene in (a, b, c):
        torch.rand(3)  # the global random state is of no account
        scene.train()
    assert same(a.flat(), b.flat()) and not same(a.flat(), c.flat())


@pytest.mark.parametrize("first", ["exact", "first"])
def test_order_is_handed_on(first):
    scene = Scene()
    seen = []
    gradient = scene.engine.gradient
    scene.engine.gradient = lambda *a, **options: seen.append(a[3]) or gradient(*a, **options)
    scene.train(order=first, max_iter=2)
    assert seen == [first] * 2


def in_the_outer_loop(frame):
    return frame.f_code.co_filename in (loop.__file__, outer.__file__)


class InterruptedSampler:
    def __init__(self, sampler, at, late):
        self.sampler, self.at, self.late, self.calls = sampler, at, late, 0

    def sample(self, n, rng):
        self.calls += 1
        if self.calls == self.at and not self.late:
            raise KeyboardInterrupt
        drawn = self.sampler.sample(n, rng)
        if self.calls == self.at:
            raise KeyboardInterrupt
        return drawn


DROPOUT = nn.Sequential(nn.Linear(2, 6), nn.Dropout(0.3), nn.Tanh(), nn.Linear(6, 1))


class TestInterruption:
    @pytest.mark.parametrize(
        ("at", "late", "module", "mode"),
        [
            (1, False, None, "loop"),
            (2, True, None, "loop"),
            (6, False, DROPOUT, "loop"),
            (6, True, DROPOUT, "loop"),
            (2, False, DROPOUT, "auto"),
            (2, True, None, "auto"),
            (6, False, None, "auto"),
        ],
    )
    def test_in_the_sampler(self, at, late, module, mode):
        whole, broken = Scene(module, mode=mode), Scene(module, mode=mode)
        whole.train(validation=whole.validation())
        sampler = broken.sampler
        judge = broken.validation()
        broken.sampler = InterruptedSampler(sampler, at, late)
        with pytest.raises(KeyboardInterrupt):
            broken.train(validation=judge)
        assert broken.state.iteration == at - 1 and not broken.state.finished
        broken.sampler = sampler
        broken.train(validation=judge)
        assert same(broken.flat(), whole.flat()) and same(broken.state.best, whole.state.best)
        assert [r["validation_loss"] for r in broken.state.history] == [
            r["validation_loss"] for r in whole.state.history
        ]

    def test_in_the_gradient(self):
        whole, broken = Scene(), Scene()
        whole.train()
        interrupted_at(broken, 4)
        broken.train()
        assert same(broken.flat(), whole.flat())

    def test_in_a_callback(self):
        whole, broken = Scene(), Scene()
        whole.train()

        def on_round(state, number):
            if number == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            broken.train(on_round=on_round)
        assert broken.state.iteration == 5
        broken.train()
        assert same(broken.flat(), whole.flat())

    def test_in_the_validation(self):
        whole, broken = Scene(), Scene()
        whole.train(validation=whole.validation())
        judge = broken.validation()
        loss, calls = judge.loss, []

        def interrupted(*arguments):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return loss(*arguments)

        judge.loss = interrupted
        with pytest.raises(KeyboardInterrupt):
            broken.train(validation=judge)
        broken.train(validation=judge)
        assert same(broken.flat(), whole.flat()) and same(broken.state.best, whole.state.best)
        got, expected = ([r["validation_loss"] for r in s.state.history] for s in (broken, whole))
        assert got == expected

    def test_in_the_optimiser(self):
        """Of the user's own: either the step counts, or it is done again from where it began."""
        whole, broken = Scene(), Scene()
        whole.train(optimizer=lambda parameters, lr: torch.optim.Adam(parameters, lr=lr, fused=True))
        calls = []

        class Interrupted(torch.optim.Adam):
            def step(self, closure=None):
                super().step(closure)
                calls.append(1)
                if len(calls) == 3:
                    raise KeyboardInterrupt

        def fused(parameters, lr):
            return Interrupted(parameters, lr=lr, fused=True)

        with pytest.raises(KeyboardInterrupt):
            broken.train(optimizer=fused)
        broken.train(optimizer=fused)
        assert same(broken.flat(), whole.flat())

    def test_wherever_the_outer_loop_can_be_interrupted(self):
        """At every place of the loop and the optimiser where one may come: going on ends where the whole training did."""
        settings = {"max_iter": 2, "max_grad_norm": 0.05}

        def scene():
            new = Scene(steps=0)  # the inner loop is of no account here
            return new, Validation(new.sampler, 2, np.random.default_rng(7))

        def outcome(state):
            return state.iteration, state.best_loss, [{**row, "seconds": 0} for row in state.history]

        whole, judge = scene()
        whole.train(**settings, validation=judge)
        wrong, n_places = [], 0
        for at in range(1, 1000):
            broken, judge = scene()
            try:
                with interrupted(at, in_the_outer_loop) as places:
                    broken.train(**settings, validation=judge)
            except KeyboardInterrupt:
                broken.train(**settings, validation=judge)
            if not places:
                break
            n_places += 1
            if not same(broken.flat(), whole.flat()):
                wrong += [f"{places[0]}: other parameters, {broken.state.iteration} meta-steps"]
            elif outcome(broken.state) != outcome(whole.state):
                wrong += [f"{places[0]}: another history"]
        assert n_places > 50 and not places
        assert not wrong, "\n".join(wrong)

    def test_a_finished_training_does_nothing_more(self):
        scene = Scene()
        scene.train()
        before = scene.flat()
        scene.train()
        assert same(scene.flat(), before) and scene.state.iteration == 8


class Poisoned:
    """Makes chosen episodes' targets infinite."""

    def __init__(self, sampler, bad):
        self.sampler, self.bad, self.calls = sampler, bad, 0

    def sample(self, n, rng):
        support, query = self.sampler.sample(n, rng)
        self.calls += 1
        if self.bad(self.calls):
            query = query._replace(y=torch.full_like(query.y, math.inf))
        return support, query


class TestNonFinite:
    def test_bad_steps_are_counted_skipped_and_warned_about(self, caplog):
        scene = Scene()
        scene.sampler = Poisoned(scene.sampler, lambda i: i in (2, 5))
        with caplog.at_level(logging.WARNING, "fewshot"):
            scene.train()
        assert scene.state.skipped == 2 == scene.state.history[-1]["skipped"] and scene.state.iteration == 8
        assert all(bool(v.isfinite().all()) for v in scene.flat().values())
        assert "skipped 2 of 8 meta-steps" in caplog.text
        bad = [r for r in scene.state.history if not math.isfinite(r["loss"])]
        assert [r["iteration"] for r in bad] == [2, 5]

    def test_a_skipped_step_leaves_parameters_and_optimiser_alone(self):
        scene, other = Scene(), Scene()
        states = []
        scene.sampler = Poisoned(scene.sampler, lambda i: i == 3)
        scene.train(on_round=lambda s, n: states.append(scene.flat()) and None)
        assert same(states[1], states[2]) and not same(states[2], states[3])
        other.train(on_round=lambda s, n: n == 1)
        assert same(other.flat(), states[1])

    def test_many_in_a_row_end_training(self):
        scene = Scene()
        scene.sampler = Poisoned(scene.sampler, lambda i: i > 3)
        with pytest.raises(
            DivergenceError, match=r"^inner_lr, outer_lr: .* 25 meta-steps in a row \(at step 27\)"
        ) as error:
            scene.train(max_iter=100)
        assert "\n" not in str(error.value)

    def test_many_but_not_in_a_row_do_not(self):
        scene = Scene()
        scene.sampler = Poisoned(scene.sampler, lambda i: i % 50 in range(1, 25))
        scene.train(max_iter=100)
        assert scene.state.skipped == 48

    def test_most_of_all_steps_do_too(self):
        scene = Scene()
        scene.sampler = Poisoned(scene.sampler, lambda i: i % 25 != 0)
        with pytest.raises(DivergenceError, match="77 of 80 meta-steps"):
            scene.train(max_iter=80)


class TestValidationAndStopping:
    def script(self, losses):
        """A judge that says what it is told, and notes what it was shown."""

        class Judge:
            shown = []

            def loss(self, engine, parameters):
                self.shown.append({k: v.clone() for k, v in parameters.flat().items()})
                return losses[len(self.shown) - 1]

        judge = Judge()
        judge.shown = []
        return judge

    def test_the_best_state_is_kept(self):
        scene, judge = Scene(), self.script([5, 4, 3, 1, 2, 3, 4, 5, 6])
        scene.train(validation=judge)
        assert same(scene.state.result().flat(), judge.shown[3]) and scene.state.best_loss == 1
        assert not same(scene.state.result().flat(), scene.flat())
        assert [r["validation_loss"] for r in scene.state.history] == [4, 3, 1, 2, 3, 4, 5, 6]

    def test_training_must_beat_its_own_start(self):
        scene = Scene()
        start = scene.flat()
        scene.train(validation=self.script([1] + [2] * 8))
        assert same(scene.state.result().flat(), start)

    @pytest.mark.parametrize("patience", [1, 3, None])
    def test_patience(self, patience):
        scene = Scene()
        scene.train(validation=self.script([5, 4, 3, 3, 3, 3, 3, 3, 3]), patience=patience)
        assert scene.state.iteration == (8 if patience is None else 2 + patience)

    def test_a_loss_that_is_not_finite_is_never_best(self):
        scene = Scene()
        scene.train(validation=self.script([5, math.inf, 3] + [math.inf] * 6))
        assert scene.state.best_loss == 3

    def test_without_validation_the_last_state_is_the_result(self):
        scene = Scene()
        scene.train()
        assert same(scene.state.result().flat(), scene.flat()) and scene.state.best is None
        assert all(math.isnan(r["validation_loss"]) for r in scene.state.history)

    def test_validation_does_not_change_training(self):
        a, b = Scene(DROPOUT), Scene(DROPOUT)
        a.train()
        b.train(validation=b.validation())
        assert same(a.flat(), b.flat())

    def test_a_callback_may_stop(self):
        scene = Scene()
        scene.train(on_round=lambda state, number: number == 2)
        assert scene.state.iteration == 3 and scene.state.finished

    def test_rounds(self):
        scene, numbers = Scene(steps=0), []
        scene.train(max_iter=120, on_round=lambda state, number: numbers.append((number, state.iteration)))
        assert numbers == [(i, 2 * (i + 1)) for i in range(60)]
        history = scene.state.history
        assert set(history[0]) == {"iteration", "loss", "validation_loss", "skipped", "seconds"}

    def test_a_last_round_that_is_shorter(self):
        scene = Scene(steps=0)
        scene.train(max_iter=101)
        assert [r["iteration"] for r in scene.state.history][-2:] == [100, 101]


class TestOptimizers:
    @pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
    def test_by_name(self, name):
        scene = Scene()
        before = scene.flat()
        scene.train(optimizer=name)
        assert not same(scene.flat(), before)

    def test_a_callable_gets_the_groups_and_the_rate(self):
        seen = {}

        def make(groups, lr):
            seen.update(lr=lr, sizes=[len(g["params"]) for g in groups])
            return torch.optim.RMSprop(groups, lr=lr)

        Scene().train(optimizer=make)
        assert seen == {"lr": 0.01, "sizes": [4, 8]}

    def test_torchs_sgd_as_a_callable_is_sgd_by_name(self):
        a, b = Scene(), Scene()
        a.train(optimizer="sgd")
        b.train(optimizer=torch.optim.SGD)
        for k, v in a.flat().items():
            torch.testing.assert_close(v, b.flat()[k])

    @pytest.mark.parametrize(
        ("setting", "name"),
        [
            ({"max_iter": 0}, "max_iter"),
            ({"max_iter": 2.5}, "max_iter"),
            ({"max_iter": True}, "max_iter"),
            ({"tasks_per_batch": 0}, "tasks_per_batch"),
            ({"outer_lr": 0}, "outer_lr"),
            ({"outer_lr": math.nan}, "outer_lr"),
            ({"max_grad_norm": -1}, "max_grad_norm"),
            ({"schedule": "linear"}, "schedule"),
            ({"order": "second"}, "order"),
            ({"optimizer": "lion"}, "optimizer"),
            ({"optimizer": None}, "optimizer"),
            ({"optimizer": ["adam"]}, "optimizer"),
        ],
    )
    def test_wrong_settings(self, setting, name):
        with pytest.raises(InvalidParameterError, match=f"^{name}: got ") as error:
            TrainingSettings(**{**SETTINGS, **setting})
        assert "\n" not in str(error.value)


def test_a_training_of_pooled_and_of_one_step_models():
    for steps in (0, 1):
        scene = Scene(steps=steps)
        before = scene.flat()
        scene.train()
        after = scene.flat()
        assert not torch.equal(after["moving/0.weight"], before["moving/0.weight"])
        sizes = [k for k in after if k.startswith("sizes/")]
        assert all(torch.equal(after[k], before[k]) for k in sizes) == (steps == 0)


def test_the_callers_tensors_are_not_changed():
    scene = Scene()
    flat = scene.state.parameters.flat()
    copies = copy.deepcopy(flat)
    scene.train()
    assert same(flat, copies)


def test_a_sampler_of_ones_own():
    class Endless:
        def sample(self, n_tasks, rng):
            slope = torch.as_tensor(rng.normal(size=(n_tasks, 1, 2)), dtype=torch.float32)

            def rows(n):
                x = torch.as_tensor(rng.normal(size=(n_tasks, n, 2)), dtype=torch.float32)
                return Rows(x, (x * slope).sum(-1, keepdim=True), torch.ones(n_tasks, n))

            return rows(3), rows(5)

    scene = Scene()
    scene.sampler = Endless()
    scene.train()
    assert scene.state.iteration == 8


# ------------------------------------------------------------------------------------------------ settings that change on the way


def test_weights_of_the_steps_move_to_the_last_one():
    settings = TrainingSettings(100, 4, 0.01, multi_step_loss=True)
    assert settings.step_weights(0, 4) == pytest.approx([0.25] * 4)
    half = settings.step_weights(7, 4)  # of the first 15
    assert half[:3] == pytest.approx([0.25 * (1 - 7 / 15)] * 3)
    for iteration in (15, 40, 99):
        assert settings.step_weights(iteration, 4) == pytest.approx([0.0075] * 3 + [0.9775])
    assert all(sum(settings.step_weights(i, 4)) == pytest.approx(1) for i in range(100))
    assert settings.step_weights(0, 1) is None and TrainingSettings(100, 4, 0.01).step_weights(0, 4) is None


def test_order_is_first_for_a_third_of_an_annealed_training():
    settings = TrainingSettings(9, 4, 0.01, order="annealed")
    assert [settings.order_at(i) for i in range(9)] == ["first"] * 3 + ["exact"] * 6
    assert TrainingSettings(9, 4, 0.01, order="first").order_at(8) == "first"


@pytest.mark.parametrize("mode", ["loop", "vectorized"])
def test_annealed_order_and_multi_step_loss_are_those_of_a_literal_loop(mode, monkeypatch):
    scene = Scene(mode=mode)
    calls, original = [], Engine.gradient

    def gradient(self, parameters, supports, query, order, *rest, **options):
        found = original(self, parameters, supports, query, order, *rest, **options)
        expected = meta_gradient(
            LoopKernels(self.functional), self.adaptation, parameters, supports, query, order=order, **options
        )
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-4, atol=1e-6)
        calls.append((order, options["step_weights"]))
        return found

    monkeypatch.setattr(Engine, "gradient", gradient)
    scene.train(order="annealed", multi_step_loss=True)
    settings = TrainingSettings(**SETTINGS, order="annealed", multi_step_loss=True)
    assert calls == [(settings.order_at(i), settings.step_weights(i, 2)) for i in range(8)]


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (g++ or clang++), and there is none")
def test_each_order_of_an_annealed_training_has_a_program_of_its_own():
    by_program, by_kernels = Scene(mode="compiled"), Scene(mode="vectorized")
    for scene in (by_program, by_kernels):
        scene.train(order="annealed", multi_step_loss=True)
    assert {key[0] for key in by_program.state.programs} == {"first", "exact"}
    for name, value in by_kernels.state.parameters.flat().items():
        torch.testing.assert_close(by_program.state.parameters.flat()[name], value, rtol=1e-3, atol=1e-5)


def test_an_annealed_training_can_be_interrupted_in_either_part():
    expected = Scene()
    expected.train(order="annealed", multi_step_loss=True)
    for meta_step in (2, 5):
        scene = Scene()
        interrupted_at(scene, meta_step, order="annealed", multi_step_loss=True)
        scene.train(order="annealed", multi_step_loss=True)
        for name, value in expected.state.parameters.flat().items():
            assert torch.equal(scene.state.parameters.flat()[name], value), name


def interrupted_at(scene, meta_step, **settings):
    """Stop by an interruption in the meta-gradient of a meta-step."""
    original, calls = scene.engine.gradient, []

    def gradient(*arguments, **options):
        calls.append(0)
        if len(calls) == meta_step:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    scene.engine.gradient = gradient
    with pytest.raises(KeyboardInterrupt):
        scene.train(**settings)
    scene.engine.gradient = original
    assert scene.state.iteration == meta_step - 1


@pytest.mark.parametrize(("name", "value"), [("multi_step_loss", "yes"), ("order", "second")])
def test_wrong_settings_of_the_objective(name, value):
    with pytest.raises(InvalidParameterError, match=f"^{name}: got '{value}'; expected "):
        TrainingSettings(**SETTINGS, **{name: value})
