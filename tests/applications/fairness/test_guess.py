"""Guesses of groups: what they are worth within a task, and how they take up rows whose group is known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from fewshot.applications.fairness.guess import GroupGuess, probabilities


def table(n_tasks=20, n=80, seed=0, between=2.0):
    """Group shares that differ between tasks, as a column does that says nothing within one."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), n)
    level = between * rng.normal(size=n_tasks)
    x = rng.normal(size=(len(task), 4))
    x[:, 1] = level[task] + 0.1 * rng.normal(size=len(task))
    group = (rng.random(len(task)) < 1 / (1 + np.exp(-(x[:, 0] + level[task])))).astype(int)
    return x, group, task


@pytest.fixture(scope="module")
def guess():
    return GroupGuess.fit(*table(), 2, np.random.default_rng(0))


def test_probabilities_are_right_within_tasks_that_it_knows_some_rows_of(guess):
    x, group, task = table(seed=1)
    known = np.arange(len(task)) % 80 < 40
    own = guess.adapt(guess.logits(x[known]), group[known], task[known], 20)
    p = probabilities(guess.logits(x[~known]) + own[task[~known]])
    np.testing.assert_allclose(p.sum(1), 1)
    truth = group[~known]
    assert abs(p[:, 1].mean() - truth.mean()) < 0.03
    for low, high in ((0.1, 0.3), (0.3, 0.7), (0.7, 0.9)):
        some = (p[:, 1] > low) & (p[:, 1] < high)
        assert abs(p[some, 1].mean() - truth[some].mean()) < 0.1
    both = [t for t in range(20) if 0 < truth[task[~known] == t].mean() < 1]
    areas = [roc_auc_score(truth[task[~known] == t], p[task[~known] == t, 1]) for t in both]
    assert np.mean(areas) > 0.68


def test_shares_follow_the_rows_that_are_known():
    x, group, task = table()
    guess = GroupGuess.fit(np.delete(x, 1, axis=1), group, task, 2, np.random.default_rng(0))
    own = guess.adapt(guess.logits(np.zeros((20, 3))), np.ones(20, dtype=int), np.zeros(20, dtype=int), 2)
    assert (own[0, 1] - own[0, 0]) > 1
    shares = guess.shares(own)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert shares[0, 1] > shares[1, 1] + 0.2
    np.testing.assert_allclose(own[1], 0)


def test_three_groups_and_a_group_that_a_fold_does_not_know():
    x, group, task = table()
    group = np.where((task == 3) & (x[:, 2] > 0), 2, group)  # the third group is in one task only
    found = GroupGuess.fit(x, group, task, 3, np.random.default_rng(0))
    p = probabilities(found.logits(x))
    assert p.shape == (len(x), 3) and np.isfinite(p).all() and (p > 0).all()


def test_the_same_seed_gives_the_same_guess(guess):
    again = GroupGuess.fit(*table(), 2, np.random.default_rng(0))
    x = table(seed=2)[0]
    np.testing.assert_array_equal(guess.logits(x), again.logits(x))
