"""The Fisher prior against what it stands for: refitting the pooled model with the support weighted."""

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from fewshot.stacking import CLASSES, VALUES, FisherPrior
from fewshot.tasks import TaskSet


def task_set(X, y, tasks):
    return TaskSet.from_arrays(X, y, tasks, dtype=torch.float64)


def without_intercept(response, omega, offset_of, X, y, tasks, rng):
    """Fit a prior with one cell, whose intercept hardly moves."""
    member = FisherPrior(response)
    member.grid = [(omega, 1e-10)]
    member.fit(task_set(X, y, tasks), offset_of(X), rng)
    return member


def test_values_are_ridge_regression_towards_the_pooled_line():
    """With the identity as information, a variance of omega in units of the noise is a penalty of 1 / omega."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 3))
    X = np.linalg.qr(X - X.mean(0))[0] * np.sqrt(4000)
    beta, tasks = np.array([1.0, -2.0, 0.5]), np.repeat(np.arange(40), 100)
    y = (X @ beta + rng.normal(size=4000))[:, None]

    def offset(x):
        return (x @ beta)[:, None]

    member = without_intercept(VALUES, 0.2, offset, X, y, tasks, rng)
    for n in (2, 30):  # fewer rows than columns, and more
        x, target = rng.normal(size=(n, 3)), rng.normal(size=(n, 1))
        state = member.adapt(task_set(x, target, np.zeros(n)), offset(x))
        expected = np.linalg.solve(x.T @ x + np.eye(3) / 0.2, x.T @ (target - offset(x)))
        new = rng.normal(size=(5, 3))
        got = member.predict(state, new, np.zeros(5, dtype=np.int64), offset(new))[:, 0]
        np.testing.assert_allclose(got, offset(new) + new @ expected, rtol=5e-3, atol=5e-3)


def test_classes_are_the_refit_with_a_weighted_support_to_second_order():
    """Rows of weight w beside 4,000 pooled ones: omega = w / 4,000."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 2))
    X -= X.mean(0)
    y = (X @ [1.0, -0.5] + rng.logistic(size=4000) > 0).astype(int)
    pooled = LogisticRegression(C=1e6, fit_intercept=False, tol=1e-10).fit(X, y)

    def offset(x):
        return pooled.predict_log_proba(x)

    weight = 20.0
    member = without_intercept(CLASSES, weight / 4000, offset, X, y, np.repeat(np.arange(40), 100), rng)
    x = rng.normal(size=(5, 2))
    labels = np.array([0, 1, 1, 0, 1])
    state = member.adapt(task_set(x, labels, np.zeros(5)), offset(x))
    refit = LogisticRegression(C=1e6, fit_intercept=False, tol=1e-10)
    refit.fit(np.vstack([X, x]), np.r_[y, labels], sample_weight=np.r_[np.ones(4000), np.full(5, weight)])
    coefficients = state["coefficients"][0, 0]
    z = member._whitened(np.eye(2)) - member._whitened(np.zeros((2, 2)))
    moved = z @ (coefficients[:, 1] - coefficients[:, 0])
    wanted = refit.coef_[0] - pooled.coef_[0]
    np.testing.assert_allclose(moved, wanted, atol=0.08 * np.abs(wanted).max())
    assert np.abs(wanted).max() > 0.02


def test_the_cells_without_slopes_are_random_intercepts():
    rng = np.random.default_rng(0)
    X, tasks = rng.normal(size=(400, 2)), np.repeat(np.arange(20), 20)
    level = rng.normal(size=20)
    y = (level[tasks] + 0.5 * rng.normal(size=400))[:, None]
    member = FisherPrior(VALUES)
    member.fit(task_set(X, y, tasks), np.zeros((400, 1)), rng)
    within = y[:, 0] - y[:, 0].reshape(20, 20).mean(1)[tasks]
    np.testing.assert_allclose(member.noise, (within**2).sum() / 380)
    x, target = rng.normal(size=(4, 2)), np.array([[1.0], [2.0], [1.5], [2.5]])
    state = member.adapt(task_set(x, target, np.zeros(4)), np.zeros((4, 1)))
    out = member.predict(state, x[:1], np.zeros(1, dtype=np.int64), np.zeros((1, 1)))[0, :, 0]
    for (omega, tau), got in zip(member.grid, out, strict=True):
        if omega == 0:
            np.testing.assert_allclose(got, target.mean() * 4 * tau / (4 * tau + member.noise))
