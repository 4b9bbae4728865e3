"""Rotating boundaries: labels, balance, and what a boundary that is off by an angle gets right."""

import numpy as np
import pytest

from fewshot.datasets import BoundaryTasks, RotatingBoundaries
from fewshot.errors import InvalidParameterError


def draw(angle, n_rows=20_000):
    tasks = BoundaryTasks(np.array([angle]))
    rows = RotatingBoundaries().rows(tasks, n_rows, np.random.default_rng(0))
    return rows.x[0].numpy(), rows.y[0].numpy()


def test_labels_at_known_angles():
    x, y = draw(0.0)
    assert (y == (x[:, 1] > 0)).all()
    x, y = draw(np.pi / 2)
    assert ((y == (x[:, 0] < 0)) | (np.abs(x[:, 0]) < 1e-6)).all()


@pytest.mark.parametrize("off", [0.0, 0.5, np.pi / 2, np.pi])
def test_accuracy_of_a_boundary_that_is_off(off):
    x, y = draw(1.0)
    guess = x @ BoundaryTasks(np.array([1.0 + off])).normal[0] > 0
    assert (guess == y).mean() == pytest.approx(1 - off / np.pi, abs=0.01)


def test_the_first_feature_is_useless_on_a_horizontal_task():
    x, y = draw(0.0)
    assert abs(np.corrcoef(x[:, 0], y)[0, 1]) < 0.02


def test_angles_and_balance():
    family = RotatingBoundaries(angles=(0.5, 1.0))
    tasks = family.sample_tasks(5_000, np.random.default_rng(0))
    assert tasks.angle.min() >= 0.5 and tasks.angle.max() <= 1.0
    assert tasks.angle.mean() == pytest.approx(0.75, abs=0.01)
    np.testing.assert_allclose(np.linalg.norm(tasks.normal, axis=1), 1)
    support, _ = family.sample(5_000, np.random.default_rng(0))
    assert support.y.double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_range_is_checked():
    with pytest.raises(InvalidParameterError, match="angles: got"):
        RotatingBoundaries(angles=(1.0, 0.0))
