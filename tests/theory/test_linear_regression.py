"""Meta-training a linear regression lands on the solution of its normal equations."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows
from fewshot.theory import (
    adapted_linear,
    linear_initialization,
    linear_weights,
    maml_weights,
    squared_error_moments,
)

from ._training import F64, landed

N_TASKS, N_FEATURES = 6, 3


def tasks(seed=0, noise=0.3):
    """Support and query as arrays: features of unequal scale, another covariance and other coefficients in every task."""
    rng = np.random.default_rng(seed)
    theta = rng.normal([1.0, -1.0, 0.5], size=(N_TASKS, N_FEATURES))
    scale = rng.uniform(0.3, 1.3, size=(N_TASKS, 1, N_FEATURES))

    def rows(n):
        x = rng.normal(size=(N_TASKS, n, N_FEATURES)) * scale
        return x, np.einsum("trf,tf->tr", x, theta) + noise * rng.normal(size=(N_TASKS, n))

    return rows(8), rows(12)


def as_rows(x, y):
    return Rows(torch.tensor(x), torch.tensor(y), torch.ones(y.shape, dtype=F64))


@pytest.mark.parametrize("steps", [1, 3])
def test_meta_training_lands_on_the_closed_form(steps):
    support, query = tasks()
    moments = squared_error_moments(*support), squared_error_moments(*query)
    expected = linear_initialization(*moments, 0.2, steps=steps)
    pooled = linear_initialization(*moments, 0.0)
    curvature = np.linalg.eigvalsh(linear_weights(moments[0][0], moments[1][0], 0.2, steps=steps).sum(0))
    got = landed(
        as_rows(*support),
        as_rows(*query),
        inner_lr=0.2,
        inner_steps=steps,
        outer_lr=1.8 / curvature[-1],
        max_iter=int(12 * curvature[-1] / curvature[0]) + 50,
    )
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)
    assert abs(expected - pooled).max() > 0.05


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_it_is_the_minimum(steps):
    support, query = tasks(1)
    moments = squared_error_moments(*support)
    p = np.arange(1.0, N_TASKS + 1)

    def objective(start):
        adapted = adapted_linear(start, moments, 0.2, steps=steps)
        errors = np.einsum("trf,tf->tr", query[0], adapted) - query[1]
        return float(p @ (errors**2).mean(1))

    found = minimize(objective, np.zeros(N_FEATURES), tol=1e-12).x
    closed = linear_initialization(moments, squared_error_moments(*query), 0.2, steps=steps, probabilities=p)
    np.testing.assert_allclose(closed, found, atol=1e-5)


def test_it_is_a_matrix_weighted_mean_where_support_and_query_have_one_optimum():
    support, query = tasks(2, noise=0.0)
    a, b = squared_error_moments(*support)
    q, c = squared_error_moments(*query)
    optima = np.linalg.solve(a, b[..., None])[..., 0]
    weights = linear_weights(a, q, 0.2)
    mean = np.linalg.solve(weights.sum(0), np.einsum("tij,tj->i", weights, optima))
    np.testing.assert_allclose(linear_initialization((a, b), (q, c), 0.2), mean, atol=1e-10)


def test_one_feature_gives_the_weights_of_quadratics():
    h = np.array([0.5, 2.0, 11.0])
    weights = linear_weights(h.reshape(-1, 1, 1), h.reshape(-1, 1, 1), 0.2, probabilities=[1, 2, 1])
    np.testing.assert_allclose(weights.ravel(), maml_weights(h, 0.2, probabilities=[1, 2, 1]))


def test_adapting_is_gradient_descent():
    (x, y), _ = tasks(3)
    start = np.array([0.3, -0.2, 0.1])
    theta = np.tile(start, (N_TASKS, 1))
    for _ in range(3):
        theta = theta - 0.1 * 2 * np.einsum("tr,trf->tf", np.einsum("trf,tf->tr", x, theta) - y, x) / x.shape[1]
    np.testing.assert_allclose(adapted_linear(start, squared_error_moments(x, y), 0.1, steps=3), theta)


def test_errors():
    (x, y), _ = tasks()
    moments = squared_error_moments(x, y)
    with pytest.raises(InvalidParameterError, match="y: got shape"):
        squared_error_moments(x, y[:, 1:])
    with pytest.raises(InvalidParameterError, match="query: after adaptation no task's loss depends"):
        linear_initialization(*[squared_error_moments(x[:1, :1], y[:1, :1])] * 2, 0.1)
    with pytest.raises(InvalidParameterError, match="probabilities: got 2 values"):
        linear_initialization(moments, moments, 0.1, probabilities=[1, 1])
    with pytest.raises(InvalidParameterError, match="support: got ndarray; expected the pair"):
        linear_initialization(x, moments, 0.1)
    with pytest.raises(InvalidParameterError, match="step_size: got -1"):
        linear_initialization(moments, moments, -1)
    with pytest.raises(InvalidParameterError, match="query: got Hessians of shape"):
        linear_initialization(moments, squared_error_moments(x[1:], y[1:]), 0.1)
    with pytest.raises(InvalidParameterError, match="initialization: got 1 values"):
        adapted_linear([0.0], moments, 0.1)
    with pytest.raises(InvalidParameterError, match="steps: got -1"):
        adapted_linear(np.zeros(N_FEATURES), moments, 0.1, steps=-1)
    with pytest.raises(InvalidParameterError, match="query_hessians: got shape"):
        linear_weights(moments[0], moments[0][1:], 0.1)
