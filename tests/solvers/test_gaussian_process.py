"""The Gaussian-process head against scikit-learn's, and its invariances."""

import math

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from fewshot.solvers import GaussianProcess
from fewshot.solvers._solver import FASTER

F64 = torch.float64
N, D = 6, 3


def draw(seed=0, outputs=1):
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(N, D, generator=g, dtype=F64), torch.randn(N, outputs, generator=g, dtype=F64)
    new = torch.randn(5, D, generator=g, dtype=F64)
    start = GaussianProcess().hyperparameters(D)
    hyper = {k: v.double() + 0.5 * torch.randn(v.shape, generator=g, dtype=F64) / FASTER for k, v in start.items()}
    return x, y, new, hyper


def values(hyper):
    return {k.removeprefix("log_"): np.exp(FASTER * v.numpy()) for k, v in hyper.items()}


class Scaled:
    """scikit-learn's dot product has no relevances: it sees features and scaled features side by side."""

    def __init__(self, hyper):
        self.scale = np.sqrt(values(hyper)["linear"])

    def __call__(self, x):
        return x.numpy() * self.scale


def reference(hyper, x, y, noise):
    """A regressor on scaled features; the RBF part's lengths are scaled alike."""
    h, scaled = values(hyper), Scaled(hyper)
    linear = DotProduct(float(np.sqrt(h["constant"])))
    kernel = linear + ConstantKernel(float(h["rbf"])) * RBF(h["length"] * scaled.scale)
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(scaled(x), y.numpy()[:, 0]), scaled


def test_mean_variance_and_evidence_are_scikit_learns():
    x, y, new, hyper = draw()
    noise = float(values(hyper)["noise"])
    model, scaled = reference(hyper, x, y, noise)
    expected, deviation = model.predict(scaled(new), return_std=True)
    solver, ones = GaussianProcess(), torch.ones(N, dtype=F64)
    mean, variance = solver.predict(hyper, solver.fit(hyper, x, y, ones), new)
    np.testing.assert_allclose(mean.numpy()[:, 0], expected, rtol=1e-8)
    np.testing.assert_allclose(variance.numpy(), deviation**2 + noise, rtol=1e-8)
    found = solver.evidence(hyper, x, y, ones)
    np.testing.assert_allclose(found.numpy(), [model.log_marginal_likelihood_value_], rtol=1e-9)


def test_without_a_support_the_variance_is_the_priors():
    x, y, new, hyper = draw()
    noise = float(values(hyper)["noise"])
    model, scaled = reference(hyper, x, y, noise)
    mean, variance = GaussianProcess().predict(hyper, None, new)
    assert not mean.any()
    np.testing.assert_allclose(variance.numpy(), model.kernel_.diag(scaled(new)) + noise, rtol=1e-10)


def test_weights_divide_the_noise():
    x, y, new, hyper = draw()
    weight = torch.tensor([2.0, 2.0, 1.0, 1.0, 1.0, 0.5], dtype=F64)
    n = weight * float(weight.sum() / (weight**2).sum())
    model, scaled = reference(hyper, x, y, float(values(hyper)["noise"]) / n.numpy())
    solver = GaussianProcess()
    mean, _ = solver.predict(hyper, solver.fit(hyper, x, y, weight), new)
    np.testing.assert_allclose(mean.numpy()[:, 0], model.predict(scaled(new)), rtol=1e-8)
    found = solver.evidence(hyper, x, y, weight)
    np.testing.assert_allclose(found.numpy(), [model.log_marginal_likelihood_value_], rtol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 50.0])
def test_rows_without_weight_and_the_scale_of_weights_change_nothing(scale):
    x, y, new, hyper = draw(outputs=2)
    solver = GaussianProcess()
    weight = torch.tensor([scale] * 4 + [0.0] * 2, dtype=F64)
    ones = torch.ones(4, dtype=F64)
    expected = solver.predict(hyper, solver.fit(hyper, x[:4], y[:4], ones), new)
    for a, b in zip(solver.predict(hyper, solver.fit(hyper, x, y, weight), new), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(
        solver.evidence(hyper, x, y, weight), solver.evidence(hyper, x[:4], y[:4], ones), rtol=1e-10, atol=1e-12
    )


def test_derivatives_are_finite_beside_rows_without_weight():
    x, y, new, hyper = draw()
    hyper = {k: v.requires_grad_() for k, v in hyper.items()}
    weight = torch.tensor([1.0] * 4 + [0.0] * 2, dtype=F64)
    solver = GaussianProcess()
    mean, variance = solver.predict(hyper, solver.fit(hyper, x, y, weight), new)
    total = mean.sum() + variance.sum() + solver.evidence(hyper, x, y, weight).sum()
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(total, list(hyper.values())))


def test_a_support_of_infinite_features_gives_nan_and_no_exception():
    x, y, new, hyper = draw()
    solver = GaussianProcess()
    assert not torch.isfinite(solver.predict(hyper, solver.fit(hyper, x * math.inf, y, torch.ones(N)), new)[0]).any()
