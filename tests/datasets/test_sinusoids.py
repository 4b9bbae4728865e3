"""Sinusoids: the ranges of the MAML paper, and rows that lie on the curve."""

import numpy as np
import pytest
from scipy import stats

from fewshot.datasets import Sinusoids, SinusoidTasks
from fewshot.errors import InvalidParameterError


def test_parameters_are_uniform_on_the_ranges_of_the_paper():
    tasks = Sinusoids().sample_tasks(20_000, np.random.default_rng(0))
    for values, low, high in ((tasks.amplitude, 0.1, 5.0), (tasks.phase, 0.0, np.pi)):
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert abs(np.corrcoef(tasks.amplitude, tasks.phase)[0, 1]) < 0.03


def test_inputs_are_uniform():
    support, _ = Sinusoids().sample(2_000, np.random.default_rng(0))
    assert stats.kstest(support.x.numpy().ravel(), stats.uniform(-5, 10).cdf).pvalue > 0.01


def test_rows_lie_on_the_curve():
    rng = np.random.default_rng(0)
    family = Sinusoids()
    tasks = family.sample_tasks(8, rng)
    rows = family.rows(tasks, 50, rng)
    curve = tasks.amplitude[:, None] * np.sin(rows.x[..., 0].numpy() - tasks.phase[:, None])
    np.testing.assert_allclose(rows.y, curve, atol=1e-5)


def test_a_task_of_ones_own():
    rows = Sinusoids(inputs=(0.0, 0.0)).rows(
        SinusoidTasks(np.array([2.0]), np.array([np.pi / 2])), 3, np.random.default_rng(0)
    )
    np.testing.assert_allclose(rows.y, -2.0)


@pytest.mark.parametrize("name", ["amplitude", "phase", "inputs"])
@pytest.mark.parametrize("value", [(1.0, 0.0), (0.0, np.inf), 1.0, (0.0, np.nan), (1.0, 2.0, 3.0)])
def test_ranges_are_checked(name, value):
    with pytest.raises(InvalidParameterError, match=f"{name}: got .* expected .low, high."):
        Sinusoids(**{name: value})
