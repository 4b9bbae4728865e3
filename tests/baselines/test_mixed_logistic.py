"""The random-intercept logistic model against numerical integration and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from fewshot.baselines import MixedLogistic
from fewshot.baselines.mixed_logistic import intercept_map

RNG = np.random.default_rng(0)


def logits_of_tasks(n_tasks=60, n=30, spread=1.5, slope=1.0):
    tasks = np.repeat(np.arange(n_tasks), n)
    X = RNG.normal(size=(len(tasks), 2))
    eta = slope * X @ [1.0, -1.0] + spread * RNG.normal(size=n_tasks)[tasks]
    return X, (RNG.uniform(size=len(tasks)) < 1 / (1 + np.exp(-eta))).astype(int), tasks


def test_intercepts_maximise_the_posterior():
    offset, y = RNG.normal(size=(7, 3)), np.array([0, 0, 1, 2, 0, 0, 1])
    observed, weight = np.eye(3)[y], RNG.uniform(0.5, 2, 7)
    codes = np.array([0, 0, 0, 0, 1, 1, 1])
    u, _ = intercept_map(offset, observed, codes, 3, 0.8, weight)
    for task in (0, 1):
        rows = codes == task

        def minus_posterior(v, rows=rows):
            fit = (weight[rows] * (log_softmax(offset[rows] + v, axis=1) * observed[rows]).sum(1)).sum()
            return -fit + (v**2).sum() / 1.6

        np.testing.assert_allclose(u[task], minimize(minus_posterior, np.zeros(3), tol=1e-10).x, atol=1e-5)
    np.testing.assert_array_equal(u[2], 0)  # no rows


@pytest.mark.parametrize("variance", [0.1, 1.0])
def test_evidence_is_near_the_integral(variance):
    eta, y = RNG.normal(size=12), RNG.integers(0, 2, 12)
    offset = np.column_stack([np.zeros(12), eta])
    evidence = intercept_map(offset, np.eye(2)[y], np.zeros(12, dtype=int), 1, variance, np.ones(12))[1][0]

    def integrand(d):  # the difference of two intercepts has twice their variance
        likelihood = np.prod(np.where(y == 1, 1, np.exp(-(eta + d))) / (1 + np.exp(-(eta + d))))
        return likelihood * np.exp(-(d**2) / (4 * variance)) / np.sqrt(4 * np.pi * variance)

    assert evidence == pytest.approx(np.log(quad(integrand, -20, 20)[0]), abs=0.05)


def test_variance_of_the_tasks_is_recovered():
    # Without slopes: pooled ones are smaller than those within tasks, and the variance is on their scale.
    X, y, tasks = logits_of_tasks(slope=0.0)
    model = MixedLogistic(C=1.0).fit_meta(X, y, tasks=tasks)
    assert 2 * model.intercept_variance_ == pytest.approx(1.5**2, rel=0.4)
    same = MixedLogistic(C=1.0).fit_meta(X, y, tasks=np.arange(len(y)) % 60)
    assert same.intercept_variance_ < 0.02


def test_adapting_beats_not_adapting_and_the_zero_shot_model_is_the_pooled_one():
    X, y, tasks = logits_of_tasks()
    model = MixedLogistic(C=1.0).fit_meta(X[:900], y[:900], tasks=tasks[:900])
    pooled = LogisticRegression().fit((X[:900] - X[:900].mean(0)) / X[:900].std(0), y[:900])
    scaled = (X - X[:900].mean(0)) / X[:900].std(0)
    np.testing.assert_allclose(model.predict_proba(X), pooled.predict_proba(scaled), atol=1e-6)
    new = np.arange(len(y)) >= 900
    support = new & (np.arange(len(y)) % 30 < 10)
    query = new & ~support
    adapted = model.adapt(X[support], y[support], tasks=tasks[support])
    assert adapted.score(X[query], y[query], tasks=tasks[query]) > model.score(X[query], y[query]) + 0.05


def test_classes_confined_to_some_tasks_are_no_obstacle():
    X, y, tasks = logits_of_tasks(12, 20)
    y = np.where(tasks == 0, 2, y)
    model = MixedLogistic(C=1.0).fit_meta(X, y, tasks=tasks)
    assert model.adapt(X[:3], [2, 2, 2]).predict_proba(X[:1])[0, 2] > model.predict_proba(X[:1])[0, 2]


def test_folds_with_one_class_are_no_obstacle():
    X, _, tasks = logits_of_tasks(3, 20)
    MixedLogistic(C=1.0).fit_meta(X, (tasks == 0).astype(int), tasks=tasks)
