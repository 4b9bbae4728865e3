"""One step of the estimators is the MAP estimate under a normal prior at the initialisation."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters
from fewshot.tasks import Rows
from fewshot.theory import FixedEpisodes, gaussian_posterior, half_trust_of_prior, prior_of_step, step_of_prior

from ._training import linear_model

NOISE, N_ROWS = 0.8, 6


def summed(output, target):
    """Negative log-likelihood of a row, times the number of rows: the package takes the mean."""
    return N_ROWS * (output - target).pow(2).squeeze(-1) / (2 * NOISE)


@pytest.mark.parametrize("prior", [0.01, 0.3, 20.0])
def test_the_estimators_step_is_the_map_estimate(prior):
    """Meta-train, adapt in one step, compare with Bayes' rule; only the estimator's public side is used."""
    rng = np.random.default_rng(0)
    y = torch.tensor(rng.normal(1.5, 1.0, size=(8, 1)) + np.sqrt(NOISE) * rng.normal(size=(8, N_ROWS)))
    rows = Rows(torch.ones(8, N_ROWS, 1, dtype=torch.float64), y, torch.ones(8, N_ROWS, dtype=torch.float64))
    alpha = step_of_prior(prior, N_ROWS, NOISE)
    rate = 0.5 / (N_ROWS / NOISE * (1 - alpha * N_ROWS / NOISE) ** 2)
    model = linear_model(alpha, rate, max_iter=100, loss=summed).fit_meta(FixedEpisodes(rows, rows))
    start = float(model.module_.weight.detach())
    assert start == pytest.approx(float(y.mean()), abs=1e-8)  # an equal number of rows: tasks have equal weights
    few = rng.normal(3.0, 1.0, size=N_ROWS)
    adapted = model.adapt(np.ones((N_ROWS, 1)), few)
    mean, variance = gaussian_posterior(few, start, prior, NOISE)
    assert adapted.predict([[1.0]])[0] == pytest.approx(mean, rel=1e-10)
    assert variance == pytest.approx(alpha, rel=1e-12)


def test_the_posterior_is_that_of_the_density():
    """On a grid: likelihood times prior, normalised."""
    y, start, prior = np.array([0.5, 2.0, 1.0]), -1.0, 0.4
    grid = np.linspace(-10, 10, 200001)
    log = -((y[:, None] - grid) ** 2).sum(0) / (2 * NOISE) - (grid - start) ** 2 / (2 * prior)
    density = np.exp(log - log.max())
    density /= density.sum()
    mean, variance = gaussian_posterior(y, start, prior, NOISE)
    assert density @ grid == pytest.approx(mean, abs=1e-9)
    assert density @ (grid - mean) ** 2 == pytest.approx(variance, abs=1e-9)
    assert grid[density.argmax()] == pytest.approx(mean, abs=1e-4)


def test_steps_scaled_by_the_number_of_rows_apply_one_prior_to_tasks_of_all_sizes():
    prior, sizes = 0.3, [1, 2, 5, 40]
    rng = np.random.default_rng(0)
    module = torch.nn.Linear(1, 1, bias=False).to(torch.float64)
    functional = FunctionalModule(module, squared_error, "all", 1)
    adaptation = Adaptation(1, 0.5, "tensor", half_trust_of_prior(prior, NOISE))
    meta = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    y = torch.tensor(rng.normal(2.0, 1.0, size=(len(sizes), max(sizes), 1)))
    weight = torch.tensor(np.arange(max(sizes)) < np.array(sizes)[:, None], dtype=torch.float64)
    rows = Rows(torch.ones_like(y), y, weight)
    with functional.mode(training=False):
        adapted = Engine(functional, adaptation).adapt(meta, rows, 1)[0]["weight"].ravel()
    start = float(module.weight.detach())
    expected = [
        gaussian_posterior(task[:n, 0].numpy(), start, prior, NOISE)[0] for task, n in zip(y, sizes, strict=True)
    ]
    np.testing.assert_allclose(adapted.numpy(), expected, rtol=1e-10)


@settings(max_examples=100, deadline=None)
@given(
    prior=st.floats(1e-3, 1e3),
    noise=st.floats(1e-3, 1e3),
    n=st.integers(1, 1000),
)
def test_step_and_prior_are_inverse(prior, noise, n):
    alpha = step_of_prior(prior, n, noise)
    assert 0 < alpha < noise / n
    if alpha * n < 0.999999 * noise:  # nearer to the bound the difference of two precisions has no digits left
        assert prior_of_step(alpha, n, noise) == pytest.approx(prior, rel=1e-6)


def test_a_step_that_stands_for_no_prior():
    with pytest.raises(
        InvalidParameterError, match=r"step_size: got 0.3; expected less than noise_variance / n_rows = 0.1"
    ):
        prior_of_step(0.3, 10, 1.0)
    with pytest.raises(InvalidParameterError, match=r"use a smaller step_size"):
        prior_of_step(0.1, 10, 1.0)
    with pytest.raises(InvalidParameterError, match="n_rows: got 0"):
        step_of_prior(1.0, 0, 1.0)
    with pytest.raises(InvalidParameterError, match="prior_variance: got 0"):
        half_trust_of_prior(0, 1.0)
    with pytest.raises(InvalidParameterError, match="noise_variance: got True"):
        gaussian_posterior([1.0], 0.0, 1.0, True)
