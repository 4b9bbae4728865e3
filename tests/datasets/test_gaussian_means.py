"""Gaussian means: the moments, and the posterior that the docstring gives."""

import numpy as np
import pytest

from fewshot.datasets import GaussianMeans
from fewshot.errors import InvalidParameterError


def test_moments():
    family = GaussianMeans(shots=4, mu=3.0, tau=2.0, sigma=0.5)
    rng = np.random.default_rng(0)
    tasks = family.sample_tasks(20_000, rng)
    rows = family.rows(tasks, 4, rng)
    assert tasks.mean.mean() == pytest.approx(3.0, abs=0.06)
    assert tasks.mean.std() == pytest.approx(2.0, rel=0.02)
    residual = rows.y.numpy() - tasks.mean[:, None]
    assert residual.mean() == pytest.approx(0.0, abs=0.01)
    assert residual.std() == pytest.approx(0.5, rel=0.01)
    assert (rows.x == 1).all()


def test_posterior_of_the_docstring():
    """No affine function of the support mean predicts the true mean better than the stated one."""
    mu, tau, sigma, n = 1.0, 0.7, 1.3, 5
    family = GaussianMeans(mu=mu, tau=tau, sigma=sigma)
    rng = np.random.default_rng(0)
    tasks = family.sample_tasks(200_000, rng)
    mean = family.rows(tasks, n, rng).y.numpy().mean(1)
    slope, intercept = np.polyfit(mean, tasks.mean, 1)
    precision = 1 / tau**2 + n / sigma**2
    assert slope == pytest.approx(n / sigma**2 / precision, abs=0.01)
    assert intercept == pytest.approx(mu / tau**2 / precision, abs=0.01)
    assert (tasks.mean - slope * mean - intercept).var() == pytest.approx(1 / precision, rel=0.02)


@pytest.mark.parametrize("name", ["tau", "sigma"])
@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf, "1"])
def test_scales_are_checked(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name}: got .*; expected a finite number"):
        GaussianMeans(**{name: value})
