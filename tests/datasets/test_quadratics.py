"""Quadratics: the squared error of the rows is the quadratic loss, however many rows, however weighted."""

import numpy as np
import pytest
import torch

from fewshot.datasets import Quadratics
from fewshot.errors import InvalidParameterError
from fewshot.losses import squared_error


@pytest.mark.parametrize("n_rows", [1, 3])
def test_squared_error_is_the_loss(n_rows):
    family = Quadratics([-1.0, 0.5, 4.0], [0.3, 1.0, 7.0])
    rows = family.rows(family.all_tasks, n_rows, np.random.default_rng(0))
    for theta in (-2.0, 0.0, 1.5):
        error = squared_error(theta * rows.x, rows.y[..., None])
        weight = torch.rand(3, n_rows) + 0.1
        loss = (weight * error).sum(1) / weight.sum(1)
        np.testing.assert_allclose(loss, family.all_tasks.loss(theta), rtol=1e-5)
    np.testing.assert_allclose(family.all_tasks.loss([0.0, 1.0, 2.0]), [0.15, 0.125, 14.0])  # one theta of each task


def test_gradient_and_curvature():
    family = Quadratics([2.0], [3.0])
    rows = family.rows(family.all_tasks, 1, np.random.default_rng(0))
    theta = torch.tensor(0.5, requires_grad=True)
    loss = squared_error(theta * rows.x[0], rows.y[0][:, None]).mean()
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    (curvature,) = torch.autograd.grad(gradient, theta)
    assert gradient.item() == pytest.approx(3.0 * (0.5 - 2.0))
    assert curvature.item() == pytest.approx(3.0)


def test_tasks_are_drawn_by_probability():
    family = Quadratics([0.0, 1.0, 2.0], 1.0, [1, 0, 3])
    np.testing.assert_allclose(family.probability, [0.25, 0, 0.75])
    tasks = family.sample_tasks(20_000, np.random.default_rng(0))
    assert (tasks.optimum == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert not (tasks.optimum == 1).any()


def test_curvature_stays_with_its_optimum():
    family = Quadratics([0.0, 1.0, 2.0], [1.0, 2.0, 3.0])
    tasks = family.sample_tasks(50, np.random.default_rng(0))
    np.testing.assert_array_equal(tasks.curvature, tasks.optimum + 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"optimum": []}, "optimum: got"),
        ({"optimum": [[1.0]]}, "optimum: got"),
        ({"optimum": [1.0, np.nan]}, "optimum: got"),
        ({"curvature": [1.0]}, "curvature: got 1 values for 3 optima"),
        ({"curvature": 0.0}, "curvature: got 0; expected positive"),
        ({"curvature": [1.0, -2.0, 1.0]}, "curvature: got -2; expected positive"),
        ({"probability": [1.0, 1.0]}, "probability: got 2 values for 3 optima"),
        ({"probability": [0.0, 0.0, 0.0]}, "probability: expected numbers"),
        ({"probability": [1.0, -1.0, 1.0]}, "probability: expected numbers"),
    ],
)
def test_arguments_are_checked(arguments, message):
    with pytest.raises(InvalidParameterError, match=message):
        Quadratics(**arguments)
