"""Each algorithm through the estimators: learning, adapting, files, interruptions; and what they refuse."""

import functools

import numpy as np
import pytest
import torch
from torch import nn

import fewshot
from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.algorithms import ALGORITHMS, STACKS
from fewshot.datasets import Sinusoids
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError
from fewshot.networks import conv4

LINES = 40  # rows of a task

NETWORKS = [name for name in ALGORITHMS if name not in STACKS]


def lines(seed=0, n_tasks=12):
    """Lines of different slopes: what any of the algorithms can learn within seconds."""
    rng = np.random.default_rng(seed)
    slope = rng.normal(1.0, 1.0, size=n_tasks)
    tasks = np.repeat(np.arange(n_tasks), LINES)
    X = rng.normal(size=(n_tasks * LINES, 1))
    return X, slope[tasks] * X[:, 0] + 0.5, tasks


@functools.cache
def fitted(algorithm):
    X, y, tasks = lines()
    model = MAMLRegressor(
        algorithm=algorithm,
        hidden=(16,),
        max_iter=200,
        outer_lr=0.01,
        shots=(3, 10),
        activation="tanh",
        random_state=0,
        base=None,
    )
    return model.fit_meta(X, y, tasks=tasks)


def error(model, steps=None):
    X, y, tasks = lines(1)
    support = np.tile(np.arange(LINES) < 10, 12)
    adapted = model.adapt(X[support], y[support], tasks=tasks[support], steps=steps)
    return float(np.mean((adapted.predict(X[~support], tasks=tasks[~support]) - y[~support]) ** 2) / np.var(y))


@pytest.mark.parametrize("algorithm", NETWORKS)
def test_adapting_to_new_tasks_beats_not_adapting(algorithm):
    model = fitted(algorithm)
    X, y, _ = lines(1)
    without = float(np.mean((model.predict(X) - y) ** 2) / np.var(y))
    # BOIL's head stays as it is, so sixteen features have to turn a slope round.
    assert error(model) < (0.85 if algorithm == "boil" else 0.3) * without


@pytest.mark.parametrize("algorithm", NETWORKS)
def test_the_same_seed_gives_the_same_model(algorithm):
    X, y, tasks = lines()
    first, second = (
        MAMLRegressor(algorithm=algorithm, hidden=(8,), max_iter=5, random_state=3, base=None).fit_meta(
            X, y, tasks=tasks
        )
        for _ in range(2)
    )
    np.testing.assert_array_equal(first.adapt(X[:5], y[:5]).predict(X), second.adapt(X[:5], y[:5]).predict(X))


@pytest.mark.parametrize("algorithm", NETWORKS)
def test_files_hold_what_adapts(algorithm, tmp_path):
    X, y, _ = lines(1)
    model = fitted(algorithm)
    fewshot.save(model, tmp_path / "model.fewshot")
    loaded = fewshot.load(tmp_path / "model.fewshot")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    adapted = model.adapt(X[:7], y[:7])
    np.testing.assert_array_equal(loaded.adapt(X[:7], y[:7]).predict(X), adapted.predict(X))
    fewshot.save(adapted, tmp_path / "adapted.fewshot")
    np.testing.assert_array_equal(fewshot.load(tmp_path / "adapted.fewshot").predict(X), adapted.predict(X))


@pytest.mark.parametrize("algorithm", NETWORKS)
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(algorithm, monkeypatch):
    X, y, tasks = lines()
    settings = dict(algorithm=algorithm, base=None, hidden=(8,), max_iter=12, random_state=0, engine="vectorized")
    whole = MAMLRegressor(**settings).fit_meta(X, y, tasks=tasks)
    parts = MAMLRegressor(**settings, warm_start=True)
    gradient, calls = Engine.gradient, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return gradient(*args, **kwargs)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Engine, "gradient", interrupted)
        parts.fit_meta(X, y, tasks=tasks)
    assert parts.n_iter_ == 4
    parts.fit_meta(X, y, tasks=tasks)
    for name, value in whole._parameters.flat().items():
        assert torch.equal(parts._parameters.flat()[name], value), name


@pytest.mark.parametrize("algorithm", NETWORKS)
def test_loop_and_vectorised_kernels_train_alike(algorithm):
    X, y, tasks = lines()
    settings = dict(algorithm=algorithm, base=None, hidden=(6,), max_iter=3, dtype="float64", random_state=0)
    loop, vectorized = (MAMLRegressor(**settings, engine=e).fit_meta(X, y, tasks=tasks) for e in ("loop", "vectorized"))
    for name, value in loop._parameters.flat().items():
        torch.testing.assert_close(vectorized._parameters.flat()[name], value, rtol=1e-6, atol=1e-8)


# ------------------------------------------------------------------------------------------------ context parameters


def test_context_begins_at_zero_for_every_task_and_is_all_that_moves():
    model = fitted("cavia")
    assert set(model._parameters.moving) == {"context"}
    assert not model._parameters.moving["context"].any()
    X, y, _ = lines(1)
    adapted = model.adapt(X[:5], y[:5])
    assert adapted._adapted.tasks.moving["context"].abs().max() > 0


def test_context_enters_a_factory_as_further_inputs_and_conv4_by_scaling_channels():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 16)), rng.integers(0, 2, 60)
    tasks = np.repeat(np.arange(6), 10)
    settings = dict(algorithm="cavia", base=None, max_iter=2, shots=4, random_state=0, inner_steps=1, n_context=3)
    by_inputs = MAMLClassifier(lambda a, b: nn.Linear(a, b), **settings).fit_meta(X, y, tasks=tasks)
    assert by_inputs.module_.network.weight.shape == (2, 16 + 3)
    by_channels = MAMLClassifier(functools.partial(conv4, channels=4), **settings).fit_meta(X, y, tasks=tasks)
    assert [n for n in by_channels._parameters.moving] == ["9.context"]
    before, after = by_channels.predict_proba(X), by_channels.adapt(X[:8], y[:8]).predict_proba(X)
    assert not np.allclose(before, after)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.context = nn.Parameter(torch.full((2,), 0.5))
        self.head = nn.Linear(1, 1)

    def forward(self, x):
        return self.head(x) * self.context[0] + self.context[1]


def test_a_module_may_bring_its_own_context():
    X, y, tasks = lines()
    model = MAMLRegressor(Own(), algorithm="cavia", max_iter=20, random_state=0, base=None).fit_meta(X, y, tasks=tasks)
    assert model._parameters.moving["context"].tolist() == [0.5, 0.5]  # where adaptation begins is not learned


def test_what_cannot_have_context_is_refused():
    X, y, tasks = lines()
    with pytest.raises(InvalidParameterError, match="^module: has no context parameters to adapt; name a parameter"):
        MAMLRegressor(nn.Linear(1, 1), algorithm="cavia", base=None).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^n_context: got 3, but adapted='all' moves no context"):
        MAMLRegressor(n_context=3, algorithm="maml", base=None).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^n_context: got 0; expected a whole number"):
        MAMLRegressor(algorithm="cavia", n_context=0, base=None).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^input_shape: context parameters are further inputs"):
        MAMLRegressor(lambda a, b: nn.Linear(a, b), input_shape=(1,), algorithm="cavia", base=None).fit_meta(
            X, y, tasks=tasks
        )


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"algorithm": "mamll"}, "^algorithm: got 'mamll' \\(did you mean 'maml'\\?\\)"),
        ({"algorithm": "imaml", "order": "first"}, "^order: got 'first', which algorithm='imaml' cannot take"),
        ({"algorithm": "imaml", "proximal": 0}, "^proximal: got 0; order='implicit' solves a proximal inner problem"),
        ({"algorithm": "reptile", "inner_steps": 0}, "^inner_steps: got 0; order='reptile' needs at least one step"),
        ({"order": "implicit"}, "^learn_step_sizes: got 'tensor'; order='implicit' says nothing about step sizes"),
        ({"proximal": -1}, "^proximal: got -1; expected a number of 0 or more"),
    ],
)
def test_settings_that_do_not_go_together(settings, match):
    X, y, tasks = lines()
    with pytest.raises(InvalidParameterError, match=match):
        MAMLRegressor(**{"algorithm": "maml", "base": None, **settings}).fit_meta(X, y, tasks=tasks)


def test_an_algorithm_is_its_settings():
    sampler = Sinusoids(shots=5, queries=5)
    settings = dict(hidden=(8,), max_iter=8, random_state=0)
    for algorithm, said in (
        ("fomaml", {"order": "first"}),
        ("anil", {"adapted": "head"}),
        ("boil", {"adapted": "body"}),
        ("meta-sgd", {"learn_step_sizes": "parameter"}),
        ("maml++", {"order": "annealed", "multi_step_loss": True}),
        (
            "imaml",
            dict(
                order="implicit",
                learn_step_sizes=False,
                inner_optimizer="adam",
                inner_steps=30,
                inner_lr=0.02,
                proximal=0.3,
            ),
        ),
    ):
        by_name = MAMLRegressor(algorithm=algorithm, base=None, **settings).fit_meta(sampler)
        by_hand = MAMLRegressor(**said, **settings).fit_meta(sampler)
        for name, value in by_name._parameters.flat().items():
            assert torch.equal(by_hand._parameters.flat()[name], value), (algorithm, name)
