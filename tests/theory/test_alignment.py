"""Gradient alignment before and after meta-training, measured with the package's own gradients."""

import numpy as np
import pytest
import torch

from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.kernels import VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import expand
from fewshot.tasks import Rows
from fewshot.theory import FixedEpisodes, gradient_alignment, least_alignment, quadratic_alignment, quadratic_rows

from ._training import linear_model

HESSIAN = np.array([[1.0, 0.0], [0.0, 9.0]])
N_TASKS = 12


def optima(off_axis):
    """Optima that differ along the first eigenvector, and a little across it."""
    rng = np.random.default_rng(0)
    return np.array([1.0, 1.0]) + rng.normal(size=(N_TASKS, 2)) * [1.0, off_axis]


def measured(weight, star):
    """The alignment of the package's gradients at an initialisation."""
    module = torch.nn.Linear(2, 1, bias=False).to(torch.float64)
    module.load_state_dict({"weight": torch.tensor(weight).reshape(1, 2)})
    functional = FunctionalModule(module, squared_error, "all", 1)
    rows = quadratic_rows(np.tile(HESSIAN, (N_TASKS, 1, 1)), star)
    rows = Rows(rows.x, rows.y.unsqueeze(-1), rows.weight)
    gradients = VectorizedKernels(functional, trace=False).gradient(expand(functional.moving, N_TASKS), {}, rows)[1]
    return gradient_alignment(gradients["weight"].reshape(N_TASKS, 2), star, weight)


def meta_trained(star, start):
    def module(n_in, n_out):
        layer = torch.nn.Linear(n_in, n_out, bias=False)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor(start).reshape(1, 2))
        return layer

    rows = quadratic_rows(np.tile(HESSIAN, (N_TASKS, 1, 1)), star)
    model = linear_model(0.05, 0.3, max_iter=200).set_params(module=module)
    return model.fit_meta(FixedEpisodes(rows, rows)).module_.weight.detach().numpy().ravel()


def test_meta_training_aligns_the_first_step_with_the_optima():
    star, start = optima(0.0), np.array([-2.0, 0.0])
    before, after = measured(start, star), measured(meta_trained(star, start), star)
    np.testing.assert_allclose(before, quadratic_alignment(HESSIAN, star - start), atol=1e-12)
    assert before.mean() < 0.8 and before.min() >= least_alignment(HESSIAN) - 1e-12
    np.testing.assert_allclose(after, 1.0, atol=1e-6)


def test_nearly_so_where_tasks_differ_across_the_eigenvector_too():
    star, start = optima(0.03), np.array([-2.0, 0.0])
    landed = meta_trained(star, start)
    np.testing.assert_allclose(landed, star.mean(0), atol=1e-6)  # one Hessian: the mean of the optima
    before, after = measured(start, star), measured(landed, star)
    np.testing.assert_allclose(after, quadratic_alignment(HESSIAN, star - landed), atol=1e-6)
    assert np.median(after) > 0.9 > 0.8 > np.median(before)


def test_the_bound_is_reached_and_never_passed():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(3, 3))
    h = root @ root.T + 0.1 * np.eye(3)
    d = rng.normal(size=(20000, 3))
    assert quadratic_alignment(h, d).min() >= least_alignment(h)
    values, vectors = np.linalg.eigh(h)
    worst = np.sqrt(values[-1]) * vectors[:, 0] + np.sqrt(values[0]) * vectors[:, -1]
    assert quadratic_alignment(h, [worst])[0] == pytest.approx(least_alignment(h), rel=1e-12)
    np.testing.assert_allclose(quadratic_alignment(h, vectors.T), 1.0)
    np.testing.assert_allclose(quadratic_alignment(np.tile(h, (5, 1, 1)), d[:5]), quadratic_alignment(h, d[:5]))


def test_what_has_no_direction_has_no_alignment():
    found = gradient_alignment([[0.0, 0.0], [1.0, 0.0]], [[1.0, 1.0], [0.0, 0.0]], [0.0, 0.0])
    assert np.isnan(found).all()


def test_errors():
    with pytest.raises(InvalidParameterError, match="gradients: got shape"):
        gradient_alignment([[1.0]], [[1.0, 2.0]], [0.0, 0.0])
    with pytest.raises(InvalidParameterError, match="hessians: got shape"):
        quadratic_alignment(np.eye(3), [[1.0, 2.0]])
    with pytest.raises(InvalidParameterError, match="hessian: got a least eigenvalue of -1"):
        least_alignment([[-1.0]])
    with pytest.raises(InvalidParameterError, match="hessian: got shape .* expected a symmetric matrix"):
        least_alignment([[1.0, 0.0]])
