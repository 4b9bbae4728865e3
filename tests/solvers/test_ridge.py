"""The ridge head against scikit-learn, against enumerated Gaussians, and its invariances."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import Ridge as SklearnRidge

from fewshot.solvers import Ridge
from fewshot.solvers._solver import FASTER

F64 = torch.float64
N, D = 7, 3


def draw(seed=0, outputs=2):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(N, D, generator=g, dtype=F64), torch.randn(N, outputs, generator=g, dtype=F64)
    new = torch.randn(4, D, generator=g, dtype=F64)
    hyper = {
        "log_precision": torch.randn(D + 1, generator=g, dtype=F64) / FASTER,
        "log_noise": torch.tensor(math.log(0.3) / FASTER, dtype=F64),
    }
    return x, y, new, hyper


def with_one(x):
    return np.column_stack([x.numpy(), np.ones(len(x))])


def prior_covariance(hyper, rows):
    """Of the noiseless values at the rows, over all weights."""
    phi = with_one(rows)
    return 0.3 * phi @ np.diag(np.exp(-FASTER * hyper["log_precision"].numpy())) @ phi.T


def test_mean_is_that_of_ridge_regression_on_rescaled_features():
    x, y, new, hyper = draw()
    head = Ridge().fit(hyper, x, y, torch.ones(N, dtype=F64))
    mean, _ = Ridge().predict(hyper, head, new)
    scale = np.exp(-0.5 * FASTER * hyper["log_precision"].numpy())
    model = SklearnRidge(alpha=1.0, fit_intercept=False).fit(with_one(x) * scale, y.numpy())
    np.testing.assert_allclose(mean.numpy(), model.predict(with_one(new) * scale), rtol=1e-10)


def test_mean_and_variance_are_those_of_the_joint_gaussian():
    x, y, new, hyper = draw()
    head = Ridge().fit(hyper, x, y, torch.ones(N, dtype=F64))
    mean, variance = Ridge().predict(hyper, head, new)
    joint = prior_covariance(hyper, torch.cat([x, new])) + 0.3 * np.eye(N + 4)
    gain = joint[N:, :N] @ np.linalg.inv(joint[:N, :N])
    np.testing.assert_allclose(mean.numpy(), gain @ y.numpy(), rtol=1e-9)
    expected = np.diag(joint[N:, N:] - gain @ joint[:N, N:])
    np.testing.assert_allclose(variance.numpy(), expected, rtol=1e-9)
    _, before = Ridge().predict(hyper, None, new)
    np.testing.assert_allclose(before.numpy(), np.diag(joint[N:, N:]), rtol=1e-9)


def test_evidence_is_the_density_of_the_joint_gaussian():
    x, y, _, hyper = draw()
    found = Ridge().evidence(hyper, x, y, torch.ones(N, dtype=F64))
    covariance = prior_covariance(hyper, x) + 0.3 * np.eye(N)
    expected = multivariate_normal(np.zeros(N), covariance).logpdf(y.numpy().T)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_rows_without_weight_and_the_scale_of_weights_change_nothing(scale):
    x, y, new, hyper = draw()
    solver = Ridge()
    expected = solver.fit(hyper, x[:4], y[:4], torch.ones(4, dtype=F64))
    weight = torch.tensor([scale] * 4 + [0.0] * 3, dtype=F64)
    found = solver.fit(hyper, x, y, weight)
    for a, b in zip(solver.predict(hyper, found, new), solver.predict(hyper, expected, new), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        solver.evidence(hyper, x, y, weight),
        solver.evidence(hyper, x[:4], y[:4], torch.ones(4, dtype=F64)),
        rtol=1e-10,
        atol=1e-12,
    )


def test_weights_count_as_observations():
    x, y, new, hyper = draw()
    weight = torch.tensor([2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0], dtype=F64)
    n = float(weight.sum() ** 2 / (weight**2).sum())
    found = Ridge().predict(hyper, Ridge().fit(hyper, x, y, weight), new)[0]
    root = (weight * n / weight.sum()).sqrt().numpy()[:, None]
    scale = np.exp(-0.5 * FASTER * hyper["log_precision"].numpy())
    model = SklearnRidge(alpha=1.0, fit_intercept=False).fit(with_one(x) * scale * root, y.numpy() * root)
    np.testing.assert_allclose(found.numpy(), model.predict(with_one(new) * scale), rtol=1e-10)


def test_a_support_of_infinite_features_gives_nan_and_no_exception():
    x, y, new, hyper = draw()
    head = Ridge().fit(hyper, x * math.inf, y, torch.ones(N, dtype=F64))
    assert not torch.isfinite(Ridge().predict(hyper, head, new)[0]).any()
