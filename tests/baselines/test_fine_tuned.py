"""The pooled network with fine-tuning."""

import numpy as np
import pytest
import torch

from fewshot.baselines import FineTunedNetwork
from fewshot.errors import InvalidParameterError


@pytest.fixture
def shifted():
    """Twelve tasks that differ in their level alone."""
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(12), 15)
    X = rng.normal(size=(180, 2))
    return X, X[:, 0] + 3 * rng.normal(size=12)[tasks], tasks


def test_fine_tuning_is_plain_gradient_descent_on_the_support(shifted):
    X, y, tasks = shifted
    model = FineTunedNetwork(max_iter=30, steps=[3], learning_rates=[0.05], random_state=0).fit_meta(X, y, tasks=tasks)
    network = model.network_
    module = network.module_
    x = torch.tensor(model._scaler.transform(X[:5]), dtype=torch.float32)
    target = torch.tensor((y[:5] - network._target_mean) / network._target_scale, dtype=torch.float32)
    for _ in range(3):
        loss = ((module(x)[:, 0] - target) ** 2).mean()
        for p, g in zip(module.parameters(), torch.autograd.grad(loss, list(module.parameters())), strict=True):
            p.data -= 0.05 * g
    expected = module(torch.tensor(model._scaler.transform(X[:20]), dtype=torch.float32))[:, 0].detach().numpy()
    got = model.adapt(X[:5], y[:5]).predict(X[:20])
    assert np.allclose(got, expected * network._target_scale + network._target_mean, atol=1e-4)


def test_steps_and_rate_are_chosen_where_levels_differ(shifted):
    X, y, tasks = shifted
    model = FineTunedNetwork(max_iter=150, random_state=0).fit_meta(X, y, tasks=tasks)
    assert (model.steps_, model.learning_rate_) != (1, 0.001)
    few = np.concatenate([np.arange(start, start + 5) for start in range(0, 180, 15)])
    rest = np.setdiff1d(np.arange(180), few)
    adapted = model.adapt(X[few], y[few], tasks=tasks[few])
    error = np.abs(adapted.predict(X[rest], tasks=tasks[rest]) - y[rest]).mean()
    assert error < 0.7 * np.abs(model.predict(X[rest]) - y[rest]).mean()


def test_classification_and_missing_values(shifted):
    X, y, tasks = shifted
    X = X.copy()
    X[::9, 1] = np.nan
    labels = np.where(y > 0, "high", "low")
    model = FineTunedNetwork("classification", max_iter=20, steps=[1], learning_rates=[0.1], random_state=0)
    adapted = model.fit_meta(X, labels, tasks=tasks).adapt(X, labels, tasks=tasks)
    p = adapted.predict_proba(X, tasks=tasks)
    assert np.allclose(p.sum(1), 1) and set(adapted.predict(X, tasks=tasks)) <= {"high", "low"}


def test_unknown_kind(shifted):
    X, y, tasks = shifted
    with pytest.raises(InvalidParameterError, match="^kind: got 'ranking'"):
        FineTunedNetwork("ranking").fit_meta(X, y, tasks=tasks)
