"""What batch statistics mean, through the estimators: training, adapting, predicting, files, interruptions."""

import numpy as np
import pytest
import torch
from torch import nn

import fewshot
from fewshot import MAMLRegressor
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.normalization import STRATEGIES
from fewshot.training import running_statistics

RUNNING = ("global", "per_step")


def module(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, n_out))


def data(seed=0, n_tasks=12, rows=14, shift=3.0):
    rng = np.random.default_rng(seed)
    X = rng.normal(shift, 2.0, size=(n_tasks * rows, 2))
    tasks = np.repeat(np.arange(n_tasks), rows)
    return X, X[:, 0] * rng.normal(size=n_tasks)[tasks], tasks


def estimator(strategy, **settings):
    return MAMLRegressor(
        **{
            "algorithm": "maml",
            "base": None,
            "module": module,
            "batch_norm": strategy,
            "inner_steps": 2,
            "shots": (2, 6),
            "max_iter": 30,
            "random_state": 0,
            **settings,
        },
    )


@pytest.fixture(scope="module")
def fitted():
    X, y, tasks = data()
    return {
        strategy: estimator(strategy, max_iter=150, outer_lr=0.01).fit_meta(X, y, tasks=tasks)
        for strategy in STRATEGIES
    }


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_training_lowers_the_loss_and_predictions_differ_by_strategy(fitted, strategy):
    X, y, _ = data(1)
    model = fitted[strategy]
    loss = model.history_["loss"].to_numpy()
    assert loss[-10:].mean() < 0.8 * loss[:5].mean()
    adapted = model.adapt(X[:6], y[:6])
    others = [fitted[s].adapt(X[:6], y[:6]).predict(X) for s in STRATEGIES if s != strategy]
    assert all(not np.allclose(adapted.predict(X), other) for other in others)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_predictions_depend_on_the_rows_beside_them_only_if_transductive(fitted, strategy):
    X, y, _ = data(1)
    adapted = fitted[strategy].adapt(X[:6], y[:6])
    alone = np.concatenate([adapted.predict(X[6:8]), adapted.predict(X[8:14])])
    assert np.allclose(alone, adapted.predict(X[6:14]), rtol=1e-9) == (strategy != "transductive")
    zero_shot = fitted[strategy].predict(X[6:8]), fitted[strategy].predict(X[6:14])[:2]
    assert np.allclose(*zero_shot, rtol=1e-9) == (strategy != "transductive")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_many_tasks_are_adapted_to_as_one_by_one(fitted, strategy):
    X, y, tasks = data(1, n_tasks=3, rows=6)
    model = fitted[strategy]
    together = model.adapt(X, y, tasks=tasks).predict(X, tasks=tasks)
    for t in range(3):
        mine = tasks == t
        np.testing.assert_allclose(together[mine], model.adapt(X[mine], y[mine]).predict(X[mine]), rtol=2e-4, atol=2e-4)


def test_running_averages_reach_those_of_the_data():
    """Of a layer that sees the inputs themselves they are known."""
    X, y, tasks = data(n_tasks=40)
    first = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    model = MAMLRegressor(
        first,
        batch_norm="global",
        inner_steps=1,
        max_iter=300,
        outer_lr=1e-3,
        validation_tasks=None,
        random_state=0,
        algorithm="maml",
        base=None,
    ).fit_meta(X, y, tasks=tasks)
    layer = model.module_[0]
    np.testing.assert_allclose(layer.running_mean, X.mean(0), atol=0.3)
    np.testing.assert_allclose(layer.running_var, X.var(0), rtol=0.2)


def test_each_step_has_statistics_of_its_own(fitted):
    kept = fitted["per_step"]._functional.constant["1.episode_mean"]
    assert kept.shape == (3, 8)
    assert not torch.allclose(kept[0], kept[1]) and not torch.allclose(kept[1], kept[2])
    torch.testing.assert_close(fitted["per_step"].module_[1].running_mean, kept[0])


def test_adapting_uses_the_statistics_after_the_last_step(fitted):
    X, y, _ = data(1)
    for steps in (0, 1, 2, 5):
        found = fitted["per_step"].adapt(X[:6], y[:6], steps=steps)._adapted.tasks.statistics["1.episode_mean"]
        torch.testing.assert_close(found[0], fitted["per_step"]._functional.constant["1.episode_mean"][min(steps, 2)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_files_hold_the_statistics(fitted, strategy, tmp_path):
    X, y, _ = data(1)
    adapted = fitted[strategy].adapt(X[:6], y[:6])
    fewshot.save(adapted, tmp_path / "model")
    loaded = fewshot.load(tmp_path / "model", module=module)
    np.testing.assert_array_equal(loaded.predict(X), adapted.predict(X))
    again = loaded.adapt(X[:5], y[:5])
    np.testing.assert_array_equal(again.predict(X), fitted[strategy].adapt(X[:5], y[:5]).predict(X))


@pytest.mark.parametrize("strategy", RUNNING)
def test_an_interrupted_training_goes_on_with_its_averages(strategy, monkeypatch):
    X, y, tasks = data()
    expected = estimator(strategy).fit_meta(X, y, tasks=tasks)
    original, calls = running_statistics._pooled, []

    def interrupted(*arguments, **options):
        calls.append(0)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    model = estimator(strategy, warm_start=True)
    monkeypatch.setattr(running_statistics, "_pooled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X, y, tasks=tasks)
    assert 0 < model.n_iter_ < 30
    model.fit_meta(X, y, tasks=tasks)
    for name, value in expected._functional.constant.items():
        assert torch.equal(model._functional.constant[name], value), name
    np.testing.assert_array_equal(model.predict(X), expected.predict(X))


@pytest.mark.parametrize("strategy", RUNNING)
def test_early_stopping_gives_back_the_statistics_of_the_state_that_it_keeps(strategy):
    X, y, tasks = data(n_tasks=20)
    model = estimator(strategy, validation_tasks=0.3, outer_lr=0.1, schedule="constant").fit_meta(X, y, tasks=tasks)
    best = int(model.history_["validation_loss"].idxmin())
    until = int(model.history_["iteration"][best])
    assert until < model.n_iter_, "training was to get worse at its end"
    shorter = estimator(strategy, validation_tasks=0.3, outer_lr=0.1, schedule="constant", max_iter=until).fit_meta(
        X, y, tasks=tasks
    )
    for name in model._functional.running:
        torch.testing.assert_close(model._functional.constant[name], shorter._functional.constant[name])


def test_one_row_has_no_statistics(fitted):
    X, y, _ = data(1)
    for strategy in ("episode", "transductive"):
        with pytest.raises(InvalidDataError, match="^X: a support of one row has no batch statistics for layer '1'"):
            fitted[strategy].adapt(X[:1], y[:1])
    for strategy in RUNNING:
        assert np.isfinite(fitted[strategy].adapt(X[:1], y[:1]).predict(X[:1])).all()
    adapted = fitted["transductive"].adapt(X[:6], y[:6])
    with pytest.raises(InvalidDataError, match="^X: got one row to predict; with batch_norm='transductive' layer '1'"):
        adapted.predict(X[:1])


def test_unknown_strategy():
    X, y, tasks = data()
    with pytest.raises(InvalidParameterError, match="^batch_norm: got 'running'; expected one of 'episode', 'global'"):
        estimator("running").fit_meta(X, y, tasks=tasks)


@pytest.mark.parametrize("strategy", RUNNING)
def test_dropout_beside_running_averages_draws_from_random_state_alone(strategy):
    def with_dropout(n_in, n_out):
        return nn.Sequential(
            nn.Linear(n_in, 8),
            nn.BatchNorm1d(8),
            nn.Dropout(0.4),
            nn.Linear(8, 8),
            nn.BatchNorm1d(8),
            nn.Linear(8, n_out),
        )

    X, y, tasks = data()
    kept = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            before = torch.random.get_rng_state()
            model = estimator(strategy, module=with_dropout, max_iter=12).fit_meta(X, y, tasks=tasks)
            assert torch.equal(torch.random.get_rng_state(), before)
        kept.append(model._functional.constant)
    for name, value in kept[0].items():
        assert torch.equal(kept[1][name], value), name
