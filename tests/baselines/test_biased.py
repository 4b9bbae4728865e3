"""Regularisation towards the pooled model: closed form, a general optimiser, and the choice of its strength."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.preprocessing import StandardScaler

from fewshot.baselines import BiasedRegularization
from fewshot.errors import InvalidDataError, InvalidParameterError


def table(seed=0, n_tasks=12, rows=30, spread=1.0):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rows)
    X = rng.normal(size=(n_tasks * rows, 3))
    slopes = [1.0, -2.0, 0.0] + spread * rng.normal(size=(n_tasks, 3))
    return X, (X * slopes[tasks]).sum(1) + 0.5 * rng.normal(size=len(tasks)), tasks


@pytest.mark.parametrize("rows", [2, 30])
def test_values_have_the_closed_form(rows):
    X, y, tasks = table()
    model = BiasedRegularization(strength=3.0).fit_meta(X, y, tasks=tasks)
    x, r, w = X[:rows], y[:rows], np.linspace(0.5, 2.0, rows)
    adapted = model.adapt(x, r, sample_weight=w)
    one = np.column_stack([np.ones(rows), StandardScaler().fit(X).transform(x)])
    delta = np.linalg.solve((one * w[:, None]).T @ one + 3.0 * np.eye(4), (one * w[:, None]).T @ (r - model.predict(x)))
    np.testing.assert_allclose(adapted.predict(x), model.predict(x) + one @ delta, rtol=1e-8)


@pytest.mark.parametrize(("n_classes", "rows"), [(2, 3), (2, 25), (3, 25)])
def test_classes_are_at_the_mode(n_classes, rows):
    X, y, tasks = table()
    labels = np.digitize(y, np.quantile(y, np.arange(1, n_classes) / n_classes))
    model = BiasedRegularization("classification", strength=2.0).fit_meta(X, labels, tasks=tasks)
    x, observed = X[:rows], np.eye(n_classes)[labels[:rows]]
    one = np.column_stack([np.ones(rows), StandardScaler().fit(X).transform(x)])
    offset = np.log(model.predict_proba(x))

    def objective(delta):
        d = delta.reshape(4, n_classes)
        return -(observed * log_softmax(offset + one @ d, axis=1)).sum() + (d**2).sum()

    found = minimize(objective, np.zeros(4 * n_classes), method="BFGS", options={"gtol": 1e-8}).x.reshape(4, -1)
    expected = np.exp(log_softmax(offset + one @ found, axis=1))
    np.testing.assert_allclose(model.adapt(x, labels[:rows]).predict_proba(x), expected, atol=1e-5)


def test_the_strength_follows_how_far_tasks_are_apart():
    near, far = (
        BiasedRegularization(random_state=0).fit_meta(*table(spread=s)[:2], tasks=table()[2]).strength_
        for s in (0.0, 2.0)
    )
    assert near >= 100 > 10 >= far


def test_many_tasks_at_once_as_one_by_one_and_frames():
    X, y, tasks = table()
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    model = BiasedRegularization(strength=1.0).fit_meta(frame, y, tasks=tasks)
    both = model.adapt(frame[:40], y[:40], tasks=tasks[:40])
    for task in (0, 1):
        mine = np.flatnonzero(tasks[:40] == task)
        alone = model.adapt(frame.iloc[mine], y[mine]).predict(frame[:5])
        np.testing.assert_allclose(both.predict(frame[:5], tasks=np.full(5, task)), alone, rtol=1e-10)


def test_mistakes_are_told():
    X, y, tasks = table()
    with pytest.raises(InvalidParameterError, match="^strength: got 0"):
        BiasedRegularization(strength=0.0).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^kind: got 'ranking'"):
        BiasedRegularization("ranking").fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidDataError, match="^y: got shape"):
        BiasedRegularization().fit_meta(X, np.column_stack([y, y]), tasks=tasks)
