"""The gap between training tasks and a task left out, by meta-training without each task in turn."""

import numpy as np
import pytest
import torch

from fewshot.errors import InvalidParameterError
from fewshot.metagradient import take_tasks
from fewshot.theory import (
    FixedEpisodes,
    adapted_losses,
    expected_overfitting_gap,
    leave_one_task_out_gap,
    maml_initialization,
    quadratic_rows,
)

from ._training import linear_model

H, ALPHA, MU, S = 2.0, 0.15, 1.5, 0.7


def optima(n_tasks, n_parameters, seed=0):
    return MU + S * np.random.default_rng(seed).normal(size=(n_tasks, n_parameters))


def measured_gap(star, steps=1):
    """Meta-train without each task, adapt to all, compare losses: by the estimator's public side."""
    n_tasks, n = star.shape
    rows = quadratic_rows(np.tile(H * np.eye(n), (n_tasks, 1, 1)), star)
    rate = 0.9 / (H * (1 - ALPHA * H) ** (2 * steps))
    x, y = rows.x.reshape(-1, n).numpy(), rows.y.ravel().numpy()
    task, gaps = np.repeat(np.arange(n_tasks), n), []
    for left_out in range(n_tasks):
        train = task != left_out
        others = take_tasks(rows, torch.arange(n_tasks) != left_out)
        model = linear_model(ALPHA, rate, max_iter=30, inner_steps=steps).fit_meta(FixedEpisodes(others, others))
        adapted = model.adapt(x, y, tasks=task)
        losses = (adapted.predict(x, tasks=task) - y) ** 2
        gaps.append(losses[~train].mean() - losses[train].mean())
    return np.mean(gaps)


@pytest.mark.parametrize("steps", [1, 3])
def test_meta_training_without_each_task_lands_on_the_closed_form(steps):
    star = optima(4, 3)
    assert measured_gap(star, steps) == pytest.approx(leave_one_task_out_gap(star, H, ALPHA, steps=steps), rel=1e-6)


def test_the_gap_grows_as_the_number_of_tasks_falls():
    """With many parameters one draw of tasks is near its expectation."""
    n = 100
    found = {n_tasks: measured_gap(optima(n_tasks, n)) for n_tasks in (3, 6, 12)}
    for n_tasks, gap in found.items():
        assert gap == pytest.approx(expected_overfitting_gap(n_tasks - 1, n * S**2, H, ALPHA), rel=0.25)
    assert found[3] > 1.5 * found[6] > 2.25 * found[12]


@pytest.mark.parametrize("n_tasks", [2, 5, 20])
def test_the_expectation_is_the_mean_over_draws(n_tasks):
    gaps = [leave_one_task_out_gap(optima(n_tasks, 10, seed), H, ALPHA) for seed in range(1000)]
    assert np.mean(gaps) == pytest.approx(expected_overfitting_gap(n_tasks - 1, 10 * S**2, H, ALPHA), rel=0.03)


def test_one_parameter_is_the_case_of_equal_quadratics():
    star = optima(5, 1)[:, 0]
    gaps = []
    for i in range(5):
        others = np.delete(star, i)
        losses = adapted_losses(maml_initialization(others, np.full(4, H), ALPHA), star, np.full(5, H), ALPHA)
        gaps.append(losses[i] - np.delete(losses, i).mean())
    assert leave_one_task_out_gap(star, H, ALPHA) == pytest.approx(np.mean(gaps), rel=1e-12)


def test_a_step_that_solves_every_task_leaves_no_gap():
    assert leave_one_task_out_gap(optima(4, 2), H, 1 / H) == pytest.approx(0, abs=1e-15)
    assert expected_overfitting_gap(4, 1.0, H, 1 / H) == 0


def test_errors():
    with pytest.raises(InvalidParameterError, match="optima: got 1 task; expected 2 or more"):
        leave_one_task_out_gap([1.0], H, ALPHA)
    with pytest.raises(InvalidParameterError, match="n_tasks: got 0"):
        expected_overfitting_gap(0, 1.0, H, ALPHA)
    with pytest.raises(InvalidParameterError, match="curvature: got -1"):
        expected_overfitting_gap(3, 1.0, -1, ALPHA)
