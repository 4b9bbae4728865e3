"""The mixed model among the members is the baseline of that name."""

import numpy as np
import torch

from fewshot.baselines import MixedEffects
from fewshot.stacking import VALUES, MixedSlopes
from fewshot.tasks import TaskSet


def test_it_predicts_as_the_baseline():
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(25), 12)
    X = rng.normal(size=(300, 3))
    slopes = np.array([1.0, -1.0, 0.0]) + rng.normal(size=(25, 3)) * [0.8, 0.0, 0.3]
    y = (X * slopes[tasks]).sum(1) + 2.0 * rng.normal(size=25)[tasks] + 0.5 * rng.normal(size=300)
    X = (X - X.mean(0)) / X.std(0)
    weight = rng.uniform(0.5, 2.0, size=300)
    both = np.column_stack([y, 3.0 - 2.0 * y])

    def task_set(rows):
        return TaskSet.from_arrays(X[rows], both[rows], tasks[rows], sample_weight=weight[rows], dtype=torch.float64)

    train, support, query = (
        tasks < 20,
        (tasks >= 20) & (np.arange(300) % 12 < 4),
        (tasks >= 20) & (np.arange(300) % 12 >= 4),
    )
    member = MixedSlopes(VALUES)
    member.fit(task_set(train), np.zeros((train.sum(), 2)), rng)
    state = member.adapt(task_set(support), np.zeros((support.sum(), 2)))
    found = member.predict(state, X[query], tasks[query] - 20, np.zeros((query.sum(), 2)))[:, 0]
    for column in range(2):
        theirs = MixedEffects("slopes").fit_meta(
            X[train], both[train, column], tasks=tasks[train], sample_weight=weight[train]
        )
        adapted = theirs.adapt(X[support], both[support, column], tasks=tasks[support], sample_weight=weight[support])
        expected = adapted.predict(X[query], tasks=tasks[query])
        np.testing.assert_allclose(found[:, column], expected, atol=2e-3 * np.abs(expected).max())


def test_fewer_rows_than_columns_stay_at_the_offset():
    member, rng = MixedSlopes(VALUES), np.random.default_rng(0)
    few = TaskSet.from_arrays(rng.normal(size=(4, 6)), rng.normal(size=(4, 1)), [0, 0, 1, 1], dtype=torch.float64)
    member.fit(few, np.zeros((4, 1)), rng)
    offset = np.full((4, 1), 7.0)
    out = member.predict(member.adapt(few, offset), few.x.numpy(), np.array([0, 0, 1, 1]), offset)
    np.testing.assert_array_equal(out[:, 0], offset)


def test_columns_that_are_constant_in_tasks_have_no_slope_of_their_own():
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(9), 11)
    X = np.column_stack([rng.uniform(0, 5, 99), rng.normal(size=9)[tasks], np.ones(99)])
    y = (X[:, 0] * (1 + 0.2 * rng.normal(size=9))[tasks] + rng.normal(size=9)[tasks] + 0.3 * rng.normal(size=99))[
        :, None
    ]
    member = MixedSlopes(VALUES)
    member.fit(TaskSet.from_arrays(X, y, tasks, dtype=torch.float64), np.zeros((99, 1)), rng)
    assert (member.ratios[:2, 0] > 0).all() and (member.ratios[2:, 0] == 0).all()
