"""Linear regressions: moments of weights, inputs and noise, also for a singular covariance."""

import numpy as np
import pytest

from fewshot.datasets import LinearRegressions
from fewshot.errors import InvalidParameterError

COV = np.array([[2.0, 0.6], [0.6, 0.5]])


def test_moments():
    family = LinearRegressions(2, mean=[1.0, -2.0], cov=COV, input_cov=0.25, noise=0.3)
    rng = np.random.default_rng(0)
    tasks = family.sample_tasks(40_000, rng)
    np.testing.assert_allclose(tasks.weights.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(np.cov(tasks.weights.T), COV, atol=0.05)
    rows = family.rows(tasks, 2, rng)
    x = rows.x.numpy().reshape(-1, 2)
    np.testing.assert_allclose(np.cov(x.T), 0.25 * np.eye(2), atol=0.01)
    residual = rows.y.numpy() - np.einsum("trf,tf->tr", rows.x.numpy(), tasks.weights)
    assert residual.mean() == pytest.approx(0, abs=0.01)
    assert residual.std() == pytest.approx(0.3, rel=0.01)


def test_singular_covariance():
    family = LinearRegressions(3, cov=np.outer([1.0, 2.0, 0.0], [1.0, 2.0, 0.0]))
    weights = family.sample_tasks(100, np.random.default_rng(0)).weights
    assert np.linalg.matrix_rank(weights, tol=1e-6) == 1
    np.testing.assert_allclose(weights[:, 1], 2 * weights[:, 0], atol=1e-7)


def test_numbers_stand_for_multiples_of_the_identity():
    family = LinearRegressions(2, mean=3.0, cov=4.0)
    np.testing.assert_array_equal(family.mean, [3.0, 3.0])
    np.testing.assert_array_equal(family.cov, 4 * np.eye(2))
    np.testing.assert_array_equal(family.input_cov, np.eye(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_features": 0}, "n_features: got 0"),
        ({"mean": [1.0, 2.0]}, "mean: got .* or 5 of them"),
        ({"mean": np.nan}, "mean: got"),
        ({"cov": np.eye(2)}, r"cov: got shape \(2, 2\); expected"),
        ({"cov": np.triu(np.ones((5, 5)))}, "cov: .* symmetric"),
        ({"cov": -1.0}, "cov: has the eigenvalue -1"),
        ({"input_cov": -1.0}, "input_cov: has the eigenvalue -1"),
        ({"noise": -0.1}, "noise: got -0.1"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        LinearRegressions(**arguments)
