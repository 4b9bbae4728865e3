"""Deviations of a task from its offset: against linear algebra, scikit-learn, and a numerical optimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from fewshot.stacking.posterior import (
    coefficients_of_two_classes,
    coefficients_of_values,
    dual_of_classes,
    dual_of_values,
    half_inverse,
)

F64 = torch.float64


def problem(n_classes, n=12, n_tasks=3, seed=0):
    """Covariances, offsets, classes and weights of some tasks; the last rows of each have no weight."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_tasks, n, 4))
    covariance = 2.0 * x @ x.transpose(0, 2, 1) + 0.5
    weight = rng.uniform(0.2, 2.0, size=(n_tasks, n))
    weight[:, n - 2 :] = 0.0
    offset = rng.normal(size=(n_tasks, n, n_classes))
    y = rng.integers(n_classes, size=(n_tasks, n))
    return (torch.from_numpy(v) for v in (covariance, offset, y, weight))


def test_values_have_the_regression_of_a_gaussian_process():
    covariance, offset, _, weight = problem(2)
    residual, noise = offset, 0.3
    dual = dual_of_values(half_inverse(covariance, (weight / noise).sqrt()), residual)
    for k, r, w, got in zip(covariance, residual, weight, dual, strict=True):
        there = w > 0
        expected = torch.linalg.solve(k[there][:, there] + torch.diag(noise / w[there]), r[there])
        torch.testing.assert_close(got[there], expected)
        assert not got[~there].any()


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_at_the_mode_the_dual_weights_are_the_residuals(n_classes):
    covariance, offset, y, weight = problem(n_classes)
    dual = dual_of_classes(covariance, offset, y, weight)
    p = torch.softmax(offset + covariance @ dual, -1)
    torch.testing.assert_close(dual, weight[..., None] * (torch.nn.functional.one_hot(y, n_classes) - p))


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_mode_is_where_an_optimiser_finds_it(n_classes):
    covariance, offset, y, weight = (v[0] for v in problem(n_classes))
    n = len(y)
    # Coefficients of a factor of the covariance have the prior N(0, I).
    factor = np.linalg.cholesky(covariance.numpy() + 1e-10 * np.eye(n))

    def minus_log_posterior(flat):
        coefficients = flat.reshape(n, n_classes)
        f = offset.numpy() + factor @ coefficients
        logs = f - np.logaddexp.reduce(f, axis=1, keepdims=True)
        return -(weight.numpy() * logs[np.arange(n), y.numpy()]).sum() + 0.5 * (coefficients**2).sum()

    found = minimize(minus_log_posterior, np.zeros(n * n_classes), method="BFGS", options={"gtol": 1e-7})
    deviation = covariance @ dual_of_classes(covariance[None], offset[None], y[None], weight[None])[0]
    np.testing.assert_allclose(deviation.numpy(), factor @ found.x.reshape(n, n_classes), atol=1e-4)


def test_two_classes_without_offset_are_ridge_logistic_regression():
    rng = np.random.default_rng(0)
    x, penalty = rng.normal(size=(40, 3)), 0.7
    y = (x[:, 0] + rng.normal(size=40) > 0).astype(int)
    expected = LogisticRegression(C=1 / penalty, fit_intercept=False, tol=1e-10).fit(x, y).coef_[0]
    z = torch.from_numpy(x)
    # Each of two latents has half of the variance of their difference.
    k = z @ z.T / penalty / 2
    dual = dual_of_classes(
        k[None], torch.zeros(1, 40, 2, dtype=F64), torch.from_numpy(y)[None], torch.ones(1, 40, dtype=F64)
    )
    coefficients = z.T @ (dual[0, :, 1] - dual[0, :, 0]) / penalty / 2
    np.testing.assert_allclose(coefficients.numpy(), expected, rtol=1e-5)


def test_coefficients_give_the_deviation_of_the_dual_weights():
    rng = np.random.default_rng(0)
    features = torch.from_numpy(rng.normal(size=(4, 30, 5)))
    offset, weight = (torch.from_numpy(rng.uniform(size=shape)) for shape in ((4, 30, 2), (4, 30)))
    weight[:, 25:] = 0.0
    y = torch.from_numpy(rng.integers(2, size=(4, 30)))
    covariance = features @ features.transpose(1, 2)
    by_dual = covariance @ dual_of_classes(covariance, offset, y, weight)
    torch.testing.assert_close(features @ coefficients_of_two_classes(features, offset, y, weight), by_dual)
    by_dual = covariance @ dual_of_values(half_inverse(covariance, weight.sqrt()), offset)
    torch.testing.assert_close(features @ coefficients_of_values(features, weight, offset), by_dual)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_derivative_is_that_of_the_mode(n_classes):
    covariance, offset, y, weight = problem(n_classes)
    scale = torch.tensor([1.3, 0.4], dtype=F64, requires_grad=True)

    def mode(scale):
        return dual_of_classes(scale[0] * covariance + scale[1], offset, y, weight)

    assert torch.autograd.gradcheck(mode, (scale,), atol=1e-6)


def test_separable_rows_and_a_wide_prior_converge():
    x = torch.linspace(-3, 3, 20, dtype=F64)[:, None]
    y = (x[:, 0] > 0).long()
    covariance = 1e6 * x @ x.T
    dual = dual_of_classes(covariance[None], torch.zeros(1, 20, 2, dtype=F64), y[None], torch.ones(1, 20, dtype=F64))
    assert torch.isfinite(dual).all()
    logits = (covariance @ dual[0])[:, 1] - (covariance @ dual[0])[:, 0]
    assert ((logits > 0) == (y == 1)).all()
