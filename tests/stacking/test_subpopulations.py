"""Subpopulations of tasks: what they are made of, and that they stay only where held-out tasks gain."""

import numpy as np
import torch

from fewshot import MAMLRegressor, load, save
from fewshot.estimators import _stacked
from fewshot.stacking import VALUES, StackFit, fit
from fewshot.stacking.subpopulations import CUTS, OnSubpopulations, cut_tasks
from fewshot.tasks import TaskSet


def pool(sizes=(100, 70, 10), seed=0):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(len(sizes)), sizes)
    x = rng.normal(size=(len(tasks), 2))
    y = x[:, :1] + rng.normal(size=len(sizes))[tasks][:, None]
    blocks = np.concatenate([np.arange(n) // 2 for n in sizes])
    return TaskSet.from_arrays(x, y, tasks, blocks=blocks, dtype=torch.float64)


def test_parts_are_of_one_task_and_every_row_is_in_one_part_of_each_cut():
    whole = pool()
    parts, rows = cut_tasks(whole, np.random.default_rng(0))
    codes = np.repeat(np.arange(whole.n_tasks), whole.sizes)
    assert np.bincount(rows).tolist() == [CUTS] * whole.n_rows
    starts = np.cumsum(parts.sizes) - parts.sizes
    of_task = [np.unique(codes[rows[a : a + n]]) for a, n in zip(starts, parts.sizes, strict=True)]
    assert all(len(t) == 1 for t in of_task)
    assert np.bincount(np.concatenate(of_task)).tolist() == [3 * CUTS, 2 * CUTS, CUTS]
    np.testing.assert_array_equal(parts.x, whole.x[rows])
    np.testing.assert_array_equal(parts.y, whole.y[rows])


def test_parts_differ_in_their_covariates():
    parts, _ = cut_tasks(pool((400,)), np.random.default_rng(0))
    starts = np.cumsum(parts.sizes) - parts.sizes
    means = np.array([parts.x[a : a + n].mean(0).numpy() for a, n in zip(starts, parts.sizes, strict=True)])
    assert means.std(0).max() > 0.5  # parts drawn at random would have 0.1


class Trick:
    """A member that knows the truth, or nothing."""

    name, response, from_base, expensive, variants = "trick", VALUES, False, False, ["trick"]

    def __init__(self, on_trial, knows):
        self.on_trial, self.knows = on_trial, knows

    def fit(self, pool, offset, rng):
        pass

    def adapt(self, support, offset):
        return {}

    def predict(self, state, x, task, offset):
        return offset[:, None] + (5.0 * x[:, :1, None] if self.knows else 100.0)


def test_a_member_on_trial_stays_only_if_held_out_tasks_gain():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    tasks = TaskSet.from_arrays(x, 5 * x, np.repeat(np.arange(8), 50), dtype=torch.float64)
    for knows in (True, False):
        done = StackFit(VALUES, 1, None, [Trick(True, knows)], tasks, 0)
        assert [m.name for m in done.run().members] == (["trick"] if knows else [])
        assert done.dropped == ([] if knows else ["trick"])


def test_with_few_tasks_subpopulations_are_tried():
    for n, tried in ((4, True), (12, False)):
        members = _stacked._members(MAMLRegressor(), VALUES, 400, n, 3)
        assert any(isinstance(m, OnSubpopulations) for m in members) == tried


def test_the_fit_does_not_depend_on_a_member_that_was_left_out(monkeypatch):
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(4), 40)
    X = rng.normal(size=(160, 2))
    y = X[:, 0] + rng.normal(size=4)[tasks] + 0.3 * rng.normal(size=160)
    models = []
    for few in (0, 10):
        monkeypatch.setattr(_stacked, "FEW", few)
        models.append(MAMLRegressor(max_iter=20, random_state=0).fit_meta(X, y, tasks=tasks))
    assert "dkt on subpopulations" in models[1].adaptation_report_.left_out
    first, second = (m.adapt(X[:5], y[:5]).predict(X) for m in models)
    np.testing.assert_array_equal(first, second)


def test_files_hold_such_a_member(tmp_path, monkeypatch):
    monkeypatch.setattr(fit, "LEAST_GAIN", -10.0)  # whatever it is worth
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(4), 40)
    X = rng.normal(size=(160, 2))
    y = 2 * np.sin(3 * X[:, 0]) * rng.normal(size=4)[tasks] + 0.1 * rng.normal(size=160)
    model = MAMLRegressor(random_state=0).fit_meta(X, y, tasks=tasks)
    assert "dkt on subpopulations" in model.adaptation_report_.weights
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    np.testing.assert_array_equal(again.adapt(X[:9], y[:9]).predict(X), model.adapt(X[:9], y[:9]).predict(X))
