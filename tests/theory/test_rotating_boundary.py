"""On a boundary at right angles a frozen feature is at chance, and MAML needs one step."""

import math

import numpy as np
import pytest
import torch

from fewshot import MAMLClassifier
from fewshot.datasets import RotatingBoundaries
from fewshot.errors import InvalidParameterError
from fewshot.theory import frozen_feature_accuracy, one_step_accuracy

N_ROWS, N_TASKS, HORIZONTAL = 50, 200, math.pi / 2
SEEDS = [0, 1, 2]


def boundaries(n_support=N_ROWS, n_query=N_ROWS, angles=(0.0, 2 * math.pi)):
    """Tasks whose boundaries have their normal at these angles; the family counts from the boundary itself."""
    low, high = (angle - math.pi / 2 for angle in angles)
    return RotatingBoundaries(shots=n_support, queries=n_query, angles=(low, high))


def flat(rows):
    n_tasks, n = rows.y.shape
    return rows.x.reshape(n_tasks * n, -1).numpy(), rows.y.reshape(-1).numpy(), np.repeat(np.arange(n_tasks), n)


def accuracy(model, angle, n_rows=N_ROWS, seed=1):
    """Accuracy after adaptation on fresh tasks of one angle."""
    support, query = boundaries(n_rows, 100, angles=(angle, angle)).sample(N_TASKS, np.random.default_rng(seed))
    x, y, tasks = flat(support)
    adapted = model.adapt(x, y, tasks=tasks)
    x, y, tasks = flat(query)
    return (adapted.predict(x, tasks=tasks) == y).mean()


def classifier(seed, **settings):
    return MAMLClassifier(
        learn_step_sizes=False,
        early_stopping=False,
        engine="vectorized",
        verify=False,
        random_state=seed,
        **settings,
    )


def first_input(n_in, n_out):
    """The feature x_1, frozen, and a head."""
    feature = torch.nn.Linear(n_in, 1, bias=False).requires_grad_(False)
    feature.weight.copy_(torch.tensor([[1.0, 0.0]]))
    return torch.nn.Sequential(feature, torch.nn.Linear(1, n_out))


def linear(n_in, n_out):
    return torch.nn.Linear(n_in, n_out, bias=False)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_feature_is_at_chance_on_a_horizontal_boundary(seed):
    model = classifier(
        seed, module=first_input, adapted="head", inner_steps=10, inner_lr=2.0, max_iter=100, outer_lr=0.01
    )
    model.fit_meta(boundaries(angles=(0.0, 0.0)))
    assert accuracy(model, 0.0) > 0.95
    assert accuracy(model, HORIZONTAL) == pytest.approx(0.5, abs=0.03)
    expected = frozen_feature_accuracy([math.pi / 8, math.pi / 4])
    assert [accuracy(model, math.pi / 8), accuracy(model, math.pi / 4)] == pytest.approx(expected.tolist(), abs=0.03)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_meta_trained_network_adapts_in_one_step(seed):
    model = classifier(seed, hidden=(32,), activation="tanh", inner_steps=1, inner_lr=2.0, max_iter=250, outer_lr=0.01)
    model.fit_meta(boundaries())
    for angle in (0.0, HORIZONTAL):
        assert accuracy(model, angle) > 0.9


def test_a_linear_one_reaches_the_closed_form():
    model = classifier(0, module=linear, inner_steps=1, inner_lr=2.0, max_iter=200, outer_lr=0.05)
    model.fit_meta(boundaries())
    weight = model.module_.weight.detach()
    assert float((weight[1] - weight[0]).norm()) < 0.1  # beside about 1.6 of a step
    for n in (10, 50, 200):
        for angle in (0.3, HORIZONTAL):
            assert accuracy(model, angle, n) == pytest.approx(one_step_accuracy(n), abs=0.01)


def test_the_closed_forms_by_simulation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 2))
    for angle in (0.0, 0.4, 1.2, HORIZONTAL, 2.0, -0.7):
        right = ((x @ [math.cos(angle), math.sin(angle)] > 0) == (x[:, 0] > 0)).mean()
        assert frozen_feature_accuracy([angle])[0] == pytest.approx(max(right, 1 - right), abs=0.005)
    for n in (10, 30, 100):
        x = rng.normal(size=(20_000, n, 2))
        mean = (np.sign(x[..., 1:]) * x).mean(1)
        error = np.abs(np.arctan2(mean[:, 0], mean[:, 1])).mean() / math.pi
        assert one_step_accuracy(n) == pytest.approx(1 - error, abs=0.01)


def test_errors():
    with pytest.raises(InvalidParameterError, match="n_rows: got 0"):
        one_step_accuracy(0)
