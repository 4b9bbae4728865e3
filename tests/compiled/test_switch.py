"""When a training goes over to a program, which program serves a batch, and that nothing is lost where none can."""

import copy
import logging
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import MAMLRegressor
from fewshot.adaptation import Adaptation
from fewshot.compiled import Library, cache, seconds_of_step, switch, with_rows
from fewshot.compiled.cache import Pending
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError, VerificationError
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels
from fewshot.losses import cross_entropy, squared_error
from fewshot.metagradient import MetaParameters, meta_gradient
from fewshot.tasks import Rows

N_IN, STEPS = 4, 2


def branching(module, h):
    return h if h.sum() > 0 else 2 * h


class Net(nn.Module):
    def __init__(self, between=None, n_out=1):
        super().__init__()
        self.body, self.head, self.between = nn.Linear(N_IN, 5), nn.Linear(5, n_out), between

    def forward(self, x):
        h = torch.tanh(self.body(x))
        return self.head(h if self.between is None else self.between(self, h))


class Training:
    """An engine and the batches that it is given, one after another."""

    def __init__(self, mode="auto", between=None, dtype=torch.float32, n_out=1, module=None, **options):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            module = (module or Net(between, n_out)).to(dtype)
        self.adaptation, self.n_out, self.dtype = Adaptation(STEPS, 0.1), n_out, dtype
        loss = squared_error if n_out == 1 else cross_entropy
        self.functional = FunctionalModule(module, loss, "all", n_out)
        self.meta = MetaParameters(self.functional.moving, {}, self.adaptation.init(self.functional.moving))
        self.engine = Engine(self.functional, self.adaptation, mode=mode, **options)

    def batch(self, rows=(4, 5), seed=0, n_tasks=3):
        g = torch.Generator().manual_seed(seed)

        def draw(n):
            x = torch.randn(n_tasks, n, N_IN, generator=g).to(self.dtype)
            weight = torch.ones(n_tasks, n, dtype=self.dtype)
            if self.n_out == 1:
                return Rows(x, torch.randn(n_tasks, n, 1, generator=g).to(self.dtype), weight)
            known = torch.ones(n_tasks, n, self.n_out, dtype=torch.bool)
            known[0, :, -1] = False
            return Rows(x, torch.randint(0, self.n_out - 1, (n_tasks, n), generator=g), weight, {"classes": known})

        return [draw(rows[0])] * STEPS, draw(rows[1])

    def prepare(self, planned=10**9, begun=None, **options):
        self.engine.prepare(self.meta, *self.batch(**options), "exact", planned=planned, begun=begun)
        return self

    def step(self, iteration, **options):
        supports, query = self.batch(**options)
        found = self.engine.gradient(self.meta, supports, query, "exact", 0, iteration)
        expected = meta_gradient(LoopKernels(self.functional), self.adaptation, self.meta, supports, query)
        torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.vector, expected.vector, rtol=1e-4, atol=1e-5)
        return found

    @property
    def reason(self):
        return self.engine._switch.reason


@pytest.fixture
def answers(monkeypatch):
    """Programs that answered, one entry for each meta-gradient."""
    found = []
    original = Library.meta_gradient

    def noted(self, *arguments):
        found.append(self)
        return original(self, *arguments)

    monkeypatch.setattr(Library, "meta_gradient", noted)
    return found


@pytest.fixture
def soon(monkeypatch):
    """The change comes one meta-step after the program is written, and the compiler is given all the time that it takes."""
    monkeypatch.setattr(cache, "BUILD_SECONDS", 0.0)
    monkeypatch.setattr(cache, "BUILD_RATE", float("inf"))
    monkeypatch.setattr(switch, "SOONER", 0.0)
    monkeypatch.setattr(switch, "MOST_PAUSE", 60.0)


@pytest.fixture
def messages(caplog):
    """One-line messages of the engine."""
    caplog.set_level(logging.INFO, "fewshot")

    def found():
        texts = [r.getMessage() for r in caplog.records if r.name == "fewshot"]
        assert not any("\n" in t for t in texts)
        return [t for t in texts if t.startswith("engine:")]

    return found


# ------------------------------------------------------------------------------------------------ when


def test_a_short_training_is_not_worth_a_program(messages, answers):
    training = Training().prepare(planned=20)
    for k in range(8):
        training.step(k)
    (only,) = messages()
    assert not answers and "s of work do not repay the compiler; engine='compiled'" in only


def test_the_estimate_grows_with_the_work():
    (support, *_), query = Training().batch()
    less = seconds_of_step(100, support, query, 1, "first")
    assert (
        0 < less < seconds_of_step(100, support, query, 1, "exact") < seconds_of_step(100, support, query, 3, "exact")
    )
    assert less < seconds_of_step(100_000_000, support, query, 1, "first")


def changed_at(training, answers, steps=25):
    answers.clear()
    for k in range(steps):
        training.step(k, seed=k)
        if answers:
            return k
    return None


def test_a_long_training_changes_at_a_meta_step_that_no_clock_decides(
    compiler, soon, answers, messages, monkeypatch, tmp_path
):
    """Whether the program is in the cache already is of no consequence either: the second training finds it there."""
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    first, second = Training(), Training()
    changes = [changed_at(t.prepare(), answers) for t in (first, second)]
    assert changes[0] == changes[1] and changes[0] > 1
    assert first.reason is None and len(list(tmp_path.iterdir())) == 1
    assert sum("a compiled program from here on (" in m for m in messages()) == 2
    first.step(changes[0] + 1)
    first.step(changes[0] + 2)
    assert len(messages()) == 2, "it was compared again"


def test_the_change_is_put_off_by_the_time_that_the_compiler_takes(compiler, soon, answers, monkeypatch):
    first = changed_at(Training().prepare(), answers)
    later = Training().prepare()
    monkeypatch.setattr(cache, "BUILD_SECONDS", 6.5 * switch.UNRECORDED * later.engine._switch.seconds)
    assert changed_at(later, answers) == first + 6


def test_a_compiler_that_is_not_ready_is_asked_again(compiler, soon, monkeypatch, answers, messages, tmp_path):
    monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path))
    monkeypatch.setattr(switch, "MOST_PAUSE", 1e-6)
    training = Training().prepare()
    assert changed_at(training, answers, 6) is None
    assert "the compiler is not ready yet; looking again at meta-step" in messages()[-1]
    monkeypatch.setattr(switch, "MOST_PAUSE", 60.0)
    for k in range(6, 9):
        training.step(k)
    assert answers and training.reason is None


@pytest.mark.parametrize("interrupted", [1, 2, 4, 6, 12])
def test_a_training_that_was_interrupted_changes_where_it_would_have(compiler, soon, answers, monkeypatch, interrupted):
    """While the program was written, while it was built, just before the change and after it."""
    monkeypatch.setattr(cache, "BUILD_SECONDS", 2.5 * switch.UNRECORDED * Training().prepare().engine._switch.seconds)
    whole = changed_at(Training().prepare(), answers)
    begun = {}
    first = Training().prepare(begun=begun)
    for k in range(interrupted):
        first.step(k)
    again = Training().prepare(begun=begun)
    answers.clear()
    changes = interrupted
    while not answers:
        again.step(changes)
        changes += 1
    assert changes - 1 == max(whole, interrupted)


@pytest.mark.parametrize("mode", ["loop", "vectorized"])
def test_other_engines_make_no_program(mode, answers):
    training = Training(mode).prepare()
    for k in range(8):
        training.step(k)
    assert not answers and training.engine._switch is None


# ------------------------------------------------------------------------------------------------ which


def test_smaller_batches_use_the_program_and_larger_ones_get_one_with_room(compiler, answers):
    training = Training("compiled").prepare()
    programs = []
    for rows in [(4, 5), (2, 5), (4, 1), (1, 1), (5, 5), (6, 8), (8, 8), (3, 3)]:
        training.step(0, rows=rows)
        programs.append(answers[-1])
    assert len(set(programs)) == 2
    assert programs[:4] == [programs[0]] * 4 == [programs[7]] * 4 and programs[4:7] == [programs[4]] * 3
    assert [p.rows for p in training.engine._switch._programs] == [(4, 5), (8, 8)]


def test_padded_rows_of_a_batch_with_masks(compiler, answers):
    """A padded row of a mask has to let a class through, or the loss of that row is not a number."""
    training = Training("compiled", n_out=3).prepare(rows=(6, 6))
    assert training.step(0, rows=(3, 2)).vector.isfinite().all()
    assert len(set(answers)) == 1


def test_with_rows():
    """Copies of the first row at weight 0: rows of zeros are no rows that a network has to bear."""
    rows = Rows(
        torch.rand(2, 3, 4, 5) + 1,
        torch.arange(6).reshape(2, 3),
        torch.ones(2, 3),
        {"classes": torch.tensor([True, False]).expand(2, 3, 2)},
    )
    assert with_rows(rows, 3) is rows
    wide = with_rows(rows, 5)
    assert not wide.weight[:, 3:].any()
    for old, new in (
        (rows.x, wide.x),
        (rows.y, wide.y),
        (rows.weight, wide.weight),
        (rows.extra["classes"], wide.extra["classes"]),
    ):
        assert new.dtype == old.dtype and new.shape == (2, 5, *old.shape[2:])
        assert torch.equal(new[:, :3], old)
        assert new is wide.weight or all(torch.equal(new[:, k], old[:, 0]) for k in (3, 4))
    with pytest.raises(ValueError, match="3 rows do not fit into 2"):
        with_rows(rows, 2)


def test_batches_of_other_shapes_and_types_get_programs_of_their_own(compiler, answers):
    """A program finds what it reads by address: another length or type would be other numbers, or not its memory."""

    class OverSequence(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(N_IN, 1)

        def forward(self, x):
            return self.layer(x.mean(1))

    training = Training("compiled", module=OverSequence())
    original = training.batch

    def sequences(length, y_type=torch.float32, **options):
        (support, *_), query = original(**options)

        def longer(rows):
            x = rows.x[:, :, None] * torch.linspace(0.5, 2, length)[:, None]
            return rows._replace(x=x, y=(10 * rows.y).to(y_type))

        return [longer(support)] * STEPS, longer(query)

    training.batch = sequences
    training.prepare(length=7)
    for length, y_type in ((7, torch.float32), (5, torch.float32), (9, torch.float32), (7, torch.int32)):
        training.step(0, length=length, y_type=y_type)
    assert len(set(answers)) == 4
    (support, *_), query = sequences(5)
    with pytest.raises(ValueError, match="query x"):
        answers[0].meta_gradient(training.engine._groups(training.meta), [support] * STEPS, query, STEPS)


def test_steps_may_have_different_numbers_of_rows(compiler, answers):
    """In reinforcement learning every step has episodes of its own."""
    training = Training("compiled")
    one_size = training.batch
    training.batch = lambda sizes=(4, 4): (
        [one_size(rows=(n, 5), seed=k)[0][0] for k, n in enumerate(sizes)],
        one_size()[1],
    )
    training.prepare()
    for sizes in ((4, 4), (3, 4), (4, 9), (9, 2)):
        training.step(0, sizes=sizes)
    assert len(answers) == 4 + 2 and len(set(answers)) == 2  # each was compared once


def test_padding_is_no_row_that_a_network_is_infinite_at(compiler, answers):
    class OfUnitLength(nn.Linear):
        def forward(self, x):
            return super().forward(x / x.norm(dim=1, keepdim=True))

    training = Training("compiled", module=OfUnitLength(N_IN, 1)).prepare(rows=(6, 6))
    assert training.step(0, rows=(4, 3)).vector.isfinite().all()


# ------------------------------------------------------------------------------------------------ where there is none


def no_compiler(monkeypatch, tmp_path):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.parametrize("why", ["module", "compiler", "folder"])
def test_training_goes_on_without_a_program_and_says_why_once(why, soon, messages, answers, monkeypatch, tmp_path):
    between = (lambda module, h: h.sort(1).values) if why == "module" else None
    if why == "compiler":
        no_compiler(monkeypatch, tmp_path)
    elif why == "folder":
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("FEWSHOT_CACHE", str(tmp_path / "file"))
    training = Training(between=between).prepare()
    for k in range(12):
        training.step(k)
    assert not answers
    (only,) = messages()
    expected = {"module": "aten.sort", "compiler": "no C++ compiler", "folder": "cannot be written to"}[why]
    if why == "folder" and "no C++ compiler" in only:
        pytest.skip("needs a C++ compiler, and there is none")
    assert only.startswith("engine: going on without a compiled program (") and expected in only


def test_kernels_that_were_to_be_given_up_and_stay_are_recorded_after_all(soon, monkeypatch, tmp_path):
    no_compiler(monkeypatch, tmp_path)
    training = Training().prepare()
    assert not training.engine.kernels.trace
    for k in range(12):
        training.step(k)
    assert training.reason is not None and training.engine.kernels.trace


def test_kernels_are_recorded_too_when_a_program_turns_out_wrong(compiler, soon, wrong):
    training = Training().prepare()
    for k in range(9):
        training.step(k)
    assert training.reason is not None and training.engine.kernels.trace


def test_an_interruption_while_a_program_is_written_loses_nothing(compiler, soon, answers, monkeypatch):
    """What was half written cannot go on, so it is written anew."""
    training = Training().prepare()
    original, calls = Pending.library, []

    def interrupted(self, **options):
        calls.append(self)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(self, **options)

    monkeypatch.setattr(Pending, "library", interrupted)
    for k in range(2):
        training.step(k)
    with pytest.raises(KeyboardInterrupt):
        training.step(2)
    for k in range(2, 14):
        training.step(k)
    assert answers and training.reason is None
    assert calls[2] is not calls[1]


@pytest.mark.parametrize("why", ["module", "data", "compiler", "random", "float16"])
def test_compiled_insists(why, monkeypatch, tmp_path):
    between = {
        "module": lambda module, h: h.sort(1).values,
        "data": branching,
        "random": lambda module, h: nn.functional.dropout(h, 0.5, module.training),
    }.get(why)
    if why == "compiler":
        no_compiler(monkeypatch, tmp_path)
    training = Training("compiled", between=between, dtype=torch.float16 if why == "float16" else torch.float32)
    reason = {
        "module": "aten.sort",
        "data": "cannot be recorded",
        "compiler": "no C\\+\\+ compiler",
        "random": "random numbers",
        "float16": "float16",
    }[why]
    message = rf"^engine: 'compiled' is not possible \(.*{reason}.*\); use engine='auto'.$"
    with pytest.raises(InvalidParameterError, match=message) as error:
        training.prepare()
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------ wrong programs


@pytest.fixture
def wrong(monkeypatch):
    """Programs whose derivative of the first parameter is off by a tenth."""
    original = Library.meta_gradient

    def perturbed(self, *arguments):
        loss, share, vector = original(self, *arguments)
        vector = vector.clone()
        vector[: 5 * N_IN] *= 1.1
        return loss, share, vector

    monkeypatch.setattr(Library, "meta_gradient", perturbed)


def test_a_program_that_computes_something_else_is_given_up(compiler, soon, wrong, messages):
    training = Training().prepare()
    for k in range(9):
        training.step(k)  # the kernels' results throughout: step compares
    (only,) = messages()
    assert "going on without a compiled program" in only and "body.weight" in only
    assert training.reason is not None


def centred(module, h):
    """Mix the rows, in a way that vmap has no rule for, so that the loop runs it."""
    out = torch.zeros(h.shape)
    out[:, :] = h
    return out - out.mean(0)


def test_a_network_that_mixes_rows_is_not_compiled(compiler, soon, messages):
    """The loop leaves padded rows out and a program cannot; no batch of these is padded, but one might be some day."""
    training = Training(between=centred).prepare()
    assert not training.engine.is_vectorized
    for k in range(9):
        training.step(k)
    loop, program = messages()
    assert "one by one" in loop and "going on without a compiled program" in program and "differs" in program


def test_compiled_refuses_a_program_that_computes_something_else(compiler, wrong):
    training = Training("compiled").prepare()
    with pytest.raises(
        VerificationError, match="the meta-gradient of 'body.weight' by the compiled program differs .* by 0.1"
    ) as error:
        training.step(0)
    assert "\n" not in str(error.value)


def test_a_wrong_program_goes_unnoticed_only_where_nobody_wants_to_know(compiler, wrong):
    training = Training("compiled", verify=False).prepare()
    with pytest.raises(AssertionError):
        training.step(0)


# ------------------------------------------------------------------------------------------------ estimators


def data(n_tasks=6, n=8):
    g = np.random.default_rng(0)
    x = g.normal(size=(n_tasks * n, 2))
    return x, x[:, 0] * np.repeat(g.normal(size=n_tasks), n), np.repeat(np.arange(n_tasks), n)


def fitted(engine="compiled", **options):
    options = {
        "algorithm": "maml",
        "base": None,
        "hidden": (5,),
        "max_iter": 6,
        "engine": engine,
        "inner_steps": 2,
        "random_state": 0,
        **options,
    }
    x, y, task = data()
    return MAMLRegressor(**options).fit_meta(x, y, tasks=task)


@pytest.fixture(scope="module")
def estimator(compiler):
    return fitted()


def test_same_seed_same_result(estimator):
    again = fitted()
    x, y, task = data()
    a, b = (e.adapt(x, y, tasks=task).predict(x, tasks=task) for e in (estimator, again))
    assert np.array_equal(a, b)


def test_all_engines_learn_the_same(estimator):
    x, y, task = data()
    expected = fitted("loop").adapt(x, y, tasks=task).predict(x, tasks=task)
    np.testing.assert_allclose(estimator.adapt(x, y, tasks=task).predict(x, tasks=task), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))], ids=["copy", "pickle"])
def test_a_fitted_estimator_is_copied_without_its_programs(estimator, copied):
    x, y, task = data()
    other = copied(estimator)
    assert np.array_equal(
        other.adapt(x, y, tasks=task).predict(x, tasks=task), estimator.adapt(x, y, tasks=task).predict(x, tasks=task)
    )
