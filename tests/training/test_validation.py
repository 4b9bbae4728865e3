"""Held-out tasks: which, and how they judge."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from fewshot import MAMLRegressor
from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.episodes import EpisodeSampler
from fewshot.errors import InvalidParameterError
from fewshot.estimators import _base
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, meta_gradient
from fewshot.tasks import Rows, TaskSet
from fewshot.training import Validation, meta_train, split_tasks


def task_set(n=20, labels=None):
    labels = np.arange(n) if labels is None else labels
    tasks = np.repeat(labels, 4)
    return TaskSet.from_arrays(np.arange(len(tasks))[:, None], np.zeros((len(tasks), 1)), tasks)


RNG = np.random.default_rng


class TestSplit:
    @pytest.mark.parametrize(
        ("fraction", "n", "expected"), [(0.1, 20, 2), (0.25, 20, 5), (0.01, 20, 1), (0.5, 5, 2), (0.9, 10, 9)]
    )
    def test_a_fraction(self, fraction, n, expected):
        training, held = split_tasks(task_set(n), fraction, RNG(0))
        assert len(held) == expected and sorted([*training, *held]) == list(range(n))
        again = split_tasks(task_set(n), fraction, RNG(0))
        assert again[0].tolist() == training.tolist() and again[1].tolist() == held.tolist()

    @pytest.mark.parametrize(("number", "n"), [(1, 5), (3, 20), (np.int64(2), 3)])
    def test_a_number_of_tasks(self, number, n):
        training, held = split_tasks(task_set(n), number, RNG(0))
        assert len(held) == number and sorted([*training, *held]) == list(range(n))

    def test_it_is_random(self):
        assert len({tuple(split_tasks(task_set(), 0.2, RNG(s))[1]) for s in range(10)}) > 5

    @pytest.mark.parametrize(("fraction", "n"), [(None, 20), (0, 20), (0.0, 20), (0.5, 4)])
    def test_none(self, fraction, n):
        training, held = split_tasks(task_set(n), fraction, RNG(0))
        assert len(training) == n and len(held) == 0

    def test_labels(self):
        ts = task_set(labels=["a", "b", "c"])
        for given in (["c", "a"], np.array(["a", "c"]), ("c", "a", "a")):
            training, held = split_tasks(ts, given, RNG(0))
            assert training.tolist() == [1] and held.tolist() == [0, 2]

    @pytest.mark.parametrize("value", [1.0, -0.1, -1, True, np.True_, "a", math.nan])
    def test_wrong_values(self, value):
        with pytest.raises(InvalidParameterError, match="^validation_tasks: got ") as error:
            split_tasks(task_set(labels=["a", "b", "c", "d", "e", "f"]), value, RNG(0))
        assert "\n" not in str(error.value)

    def test_an_unknown_label_and_nothing_left(self):
        ts = task_set(labels=["a", "b"])
        with pytest.raises(InvalidParameterError, match=r"^validation_tasks: 'z' is not among the 2 task labels"):
            split_tasks(ts, ["a", "z"], RNG(0))
        with pytest.raises(InvalidParameterError, match=r"^validation_tasks: all 2 task\(s\) are held out"):
            split_tasks(ts, ["a", "b"], RNG(0))
        with pytest.raises(InvalidParameterError, match=r"^validation_tasks: all 5 task\(s\) are held out"):
            split_tasks(task_set(5), 0.95, RNG(0))
        with pytest.raises(InvalidParameterError, match=r"^validation_tasks: all 5 task\(s\) are held out"):
            split_tasks(task_set(5), 7, RNG(0))


class Fixed:
    def __init__(self, support, query):
        self.episodes = support, query

    def sample(self, n_tasks, rng):
        return self.episodes


def parts(query_weight=None, target=1.0):
    torch.manual_seed(0)
    functional = FunctionalModule(nn.Linear(2, 1), squared_error, "all", 1)
    engine = Engine(functional, Adaptation(2, 0.1))
    meta = MetaParameters(functional.moving, {}, engine.adaptation.init(functional.moving))
    support = Rows(torch.randn(3, 4, 2), torch.randn(3, 4, 1), torch.ones(3, 4))
    weight = torch.ones(3, 5) if query_weight is None else query_weight
    query = Rows(torch.randn(3, 5, 2), torch.full((3, 5, 1), target), weight)
    return engine, meta, support, query


def test_the_loss_is_the_mean_query_loss_after_adaptation():
    engine, meta, support, query = parts()
    expected = meta_gradient(LoopKernels(engine.functional), engine.adaptation, meta, [support] * 2, query).loss.mean()
    assert Validation(Fixed(support, query), 3, RNG(0)).loss(engine, meta) == pytest.approx(float(expected))


def test_tasks_without_query_rows_do_not_judge():
    weight = torch.ones(3, 5)
    weight[1] = 0
    engine, meta, support, query = parts(weight)
    found = meta_gradient(LoopKernels(engine.functional), engine.adaptation, meta, [support] * 2, query).loss
    assert Validation(Fixed(support, query), 3, RNG(0)).loss(engine, meta) == pytest.approx(float(found[[0, 2]].mean()))
    engine, meta, support, query = parts(torch.zeros(3, 5))
    assert Validation(Fixed(support, query), 3, RNG(0)).loss(engine, meta) == math.inf


def test_a_loss_that_is_no_number_is_infinite():
    for bad in (math.nan, math.inf):
        engine, meta, support, query = parts(target=bad)
        assert Validation(Fixed(support, query), 3, RNG(0)).loss(engine, meta) == math.inf


def test_the_episodes_are_drawn_once_and_depend_on_the_generator():
    sampler = EpisodeSampler(task_set(), 2, 2)
    a, b, c = Validation(sampler, 6, RNG(0)), Validation(sampler, 6, RNG(0)), Validation(sampler, 6, RNG(1))
    assert torch.equal(a.support.x, b.support.x) and not torch.equal(a.support.x, c.support.x)
    assert len(a.query.x) == 6


@pytest.mark.parametrize("validation_tasks", [["b", "d"], 2, 0.4])
def test_an_estimator_never_trains_on_what_it_is_judged_by(monkeypatch, validation_tasks):
    rng = RNG(0)
    tasks = np.repeat(list("abcdef"), 6)
    X, seen = np.arange(36.0)[:, None], {}

    def recorded(engine, sampler, settings, state, *, validation, **others):
        seen["trained"] = {float(x) for _ in range(50) for rows in sampler.sample(6, rng) for x in rows.x.flatten()}
        seen["judged"] = {float(x) for rows in (validation.support, validation.query) for x in rows.x.flatten()}
        return meta_train(engine, sampler, settings, state, validation=validation, **others)

    monkeypatch.setattr(_base, "meta_train", recorded)
    MAMLRegressor(validation_tasks=validation_tasks, max_iter=2, random_state=0, algorithm="maml", base=None).fit_meta(
        X, X[:, 0], tasks=tasks
    )
    assert len(seen["judged"]) == 12 and len(seen["trained"]) == 24
    assert not seen["judged"] & seen["trained"]
    if validation_tasks == ["b", "d"]:
        assert seen["judged"] == set(X[np.isin(tasks, validation_tasks), 0])
