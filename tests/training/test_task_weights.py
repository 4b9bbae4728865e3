"""Weights of tasks that seek out the worst ones: against the minimax solution, and what each function keeps."""

import numpy as np
import pytest
import torch
from torch import nn

import fewshot
from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.datasets import Sinusoids
from fewshot.episodes import EpisodeSampler, PerTaskLabels
from fewshot.errors import InvalidParameterError
from fewshot.tasks import Rows, TaskSet
from fewshot.training.task_weights import SPREAD_EVENLY, equal, raised, shares


def rows(weight):
    weight = torch.as_tensor(weight, dtype=torch.float32)
    return Rows(torch.zeros(*weight.shape, 1), torch.zeros_like(weight), weight)


def test_shares_are_right_on_average_and_leave_out_tasks_without_query():
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    total = np.zeros(4)
    for pair in pairs:
        np.add.at(total, list(pair), shares(weights, np.array(pair), rows(np.ones((2, 3)))).numpy() / len(pairs))
    np.testing.assert_allclose(total, weights, rtol=1e-6)
    assert shares(weights, np.array([0, 3]), rows([[1, 1], [0, 0]])).tolist() == pytest.approx([0.2, 0.0])


def test_weights_rise_with_losses_sum_to_one_and_keep_a_floor():
    weights = np.full(4, 0.25)
    for _ in range(1000):
        weights = raised(weights, np.arange(4), torch.tensor([1.0, 2.0, 1.0, 5.0]), rows(np.ones((4, 1))))
        assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 3 and weights[3] > 0.9
    assert weights.min() == pytest.approx(SPREAD_EVENLY / 4, rel=1e-6)
    for _ in range(1000):  # and the one that is worst now comes up again
        weights = raised(weights, np.arange(4), torch.tensor([9.0, 2.0, 1.0, 0.0]), rows(np.ones((4, 1))))
    assert weights.argmax() == 0


def test_the_unit_of_the_loss_does_not_matter_and_no_number_is_no_loss():
    weights = np.array([0.5, 0.3, 0.2])
    drawn, query = np.array([0, 2, 1]), rows(np.ones((3, 1)))
    losses = torch.tensor([1.0, 2.0, 4.0])
    np.testing.assert_allclose(raised(weights, drawn, losses, query), raised(weights, drawn, 1e6 * losses, query))
    broken = torch.tensor([torch.nan, torch.inf, torch.nan])
    np.testing.assert_array_equal(raised(weights, drawn, broken, query), weights)


class Constant(nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return self.bias.expand(len(x), 1)


def test_without_inner_steps_a_constant_goes_to_the_middle_of_the_extremes_not_to_the_mean():
    """Nine tasks with target 0 and one with 1: the mean loss is least at .1, the worst one at .5."""
    tasks = np.repeat(np.arange(10), 6)
    X, y = np.zeros((60, 1)), (tasks == 9).astype(float)
    settings = dict(inner_steps=0, max_iter=3000, outer_lr=0.02, tasks_per_batch=5, random_state=0)
    mean = MAMLRegressor(Constant(), algorithm="maml", base=None, **settings).fit_meta(X, y, tasks=tasks)
    worst = MAMLRegressor(Constant(), algorithm="tr-maml", base=None, **settings).fit_meta(X, y, tasks=tasks)
    assert mean.predict([[0.0]]) == pytest.approx(0.1, abs=0.03)
    assert worst.predict([[0.0]]) == pytest.approx(0.5, abs=0.06)
    assert worst.task_weights_.set_index("task")["weight"].idxmax() == 9


def unbalanced(seed=0, n_tasks=20, n=20):
    """Slopes near 1 in all tasks but two, where they are -3."""
    rng = np.random.default_rng(seed)
    slope = np.r_[1 + 0.1 * rng.normal(size=n_tasks - 2), -3, -3]
    tasks = np.repeat([f"t{i:02d}" for i in range(n_tasks)], n)
    X = rng.normal(size=(n_tasks * n, 1))
    return X, np.repeat(slope, n) * X[:, 0], tasks


def test_the_worst_task_is_served_better_and_files_keep_the_weights(tmp_path):
    X, y, tasks = unbalanced()
    settings = dict(
        inner_steps=1,
        inner_lr=0.05,
        learn_step_sizes=False,
        hidden=(),
        shots=5,
        max_iter=1000,
        outer_lr=0.01,
        random_state=0,
    )
    X_new, y_new, _ = unbalanced(1)
    support = np.tile(np.arange(20) < 5, 20)

    def worst_error(model):
        adapted = model.adapt(X_new[support], y_new[support], tasks=tasks[support])
        squares = (adapted.predict(X_new[~support], tasks=tasks[~support]) - y_new[~support]) ** 2
        return squares.reshape(20, -1).mean(1).max()

    plain, robust = (
        MAMLRegressor(algorithm=a, base=None, **settings).fit_meta(X, y, tasks=tasks) for a in ("maml", "tr-maml")
    )
    assert worst_error(robust) < 0.5 * worst_error(plain)
    weights = robust.task_weights_.set_index("task")["weight"]
    assert weights.idxmax() == "t19"  # of the two, that with the more spread inputs
    assert weights["t19"] > 5 * weights.median()
    assert not hasattr(plain, "task_weights_")
    fewshot.save(robust, tmp_path / "model")
    loaded = fewshot.load(tmp_path / "model")
    assert loaded.task_weights_.equals(robust.task_weights_)


def test_early_stopping_is_judged_by_the_worst_validation_task():
    X, y, tasks = unbalanced()
    model = MAMLRegressor(algorithm="tr-maml", validation_tasks=["t00", "t19"], max_iter=50, random_state=0, base=None)
    plain = MAMLRegressor(validation_tasks=["t00", "t19"], max_iter=50, random_state=0, algorithm="maml", base=None)
    first = [m.fit_meta(X, y, tasks=tasks).history_["validation_loss"].iloc[0] for m in (model, plain)]
    assert first[0] > 1.3 * first[1]


def test_samplers_tell_which_tasks_they_draw():
    rng = np.random.default_rng(0)
    ts = TaskSet.from_arrays(rng.normal(size=(30, 1)), rng.integers(0, 2, 30), np.repeat([3, 5, 9], [14, 2, 14]))
    sampler = EpisodeSampler(ts, shots=4)
    support, _ = sampler.sample(5, rng)
    assert sampler.n_tasks == 2 and len(equal(sampler)) == 2
    for x, drawn in zip(support.x, sampler.drawn_, strict=True):
        owned = ts.x[ts.offsets[sampler.tasks_[drawn]] : ts.offsets[sampler.tasks_[drawn] + 1]]
        assert torch.isin(x, owned).all()
    wrapped = PerTaskLabels(sampler, 2)
    wrapped.sample(3, rng)
    assert len(wrapped.drawn_) == 3 and wrapped.n_tasks == 2


def test_labels_of_each_task():
    X, y, tasks = unbalanced()
    model = MAMLClassifier(algorithm="tr-maml", label_space="per_task", max_iter=3, random_state=0, base=None)
    assert len(model.fit_meta(X, np.where(y > 0, "a", "b"), tasks=tasks).task_weights_) == 20


def test_a_sampler_has_no_tasks_to_weigh():
    with pytest.raises(
        InvalidParameterError, match="^algorithm: 'tr-maml' weighs the tasks of a table, and X is a sampler"
    ):
        MAMLRegressor(algorithm="tr-maml", base=None).fit_meta(Sinusoids())
