"""The gap between tasks that were trained on and tasks left out, against loops written out and cases where it is known."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsRegressor

from fewshot import MAMLRegressor
from fewshot.baselines import SupportMean
from fewshot.datasets import Sinusoids
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import leave_one_task_out, task_gap


def data(n_tasks=8, rows=9, seed=0):
    rng = np.random.default_rng(seed)
    tasks = np.repeat([f"t{i}" for i in range(n_tasks)], rows)
    X = rng.normal(size=(n_tasks * rows, 2))
    return X, X[:, 0] + rng.normal(size=n_tasks).repeat(rows) + 0.1 * rng.normal(size=len(X)), tasks


def by_hand(model, X, y, tasks, left_out):
    """Mean absolute error of each task, where it was left out and where it was not."""
    labels = np.unique(tasks)
    errors = {True: {t: [] for t in labels}, False: {t: [] for t in labels}}
    for held in left_out:
        train = ~np.isin(tasks, held)
        fitted = clone(model).fit(X[train], y[train])
        for task in labels:
            mine = tasks == task
            errors[task in held][task].append(np.abs(fitted.predict(X[mine]) - y[mine]).mean())
    return [np.array([np.mean(errors[out][t]) for t in labels]) for out in (False, True)]


@pytest.mark.parametrize("model", [Ridge(), KNeighborsRegressor(3)])
def test_leaving_out_each_task_is_the_loop_written_out(model):
    X, y, tasks = data()
    found = leave_one_task_out(model, X, y, tasks, shots=0, draws=1)
    trained, left_out = by_hand(model, X, y, tasks, [[t] for t in np.unique(tasks)])
    assert found.trained_on == pytest.approx(-trained.mean())
    assert found.left_out == pytest.approx(-left_out.mean())
    gaps = left_out - trained
    half = 2.364624 * gaps.std(ddof=1) / np.sqrt(8)  # Student's t, 7 degrees of freedom
    assert (found.gap, found.low, found.high) == pytest.approx(
        (gaps.mean(), gaps.mean() - half, gaps.mean() + half), rel=1e-4
    )
    assert found.n_tasks == 8 and found.metric == "neg_mean_absolute_error"
    assert len(found.frame) == 8 * 8 and found.frame["left_out"].sum() == 8


def test_folds_of_tasks_are_the_loop_written_out():
    X, y, tasks = data()
    labels, codes = np.unique(tasks, return_inverse=True)
    held = [labels[np.unique(codes[test])] for _, test in GroupKFold(3).split(X, y, codes)]
    found = task_gap(Ridge(), X, y, tasks, shots=0, draws=1, cv=3)
    trained, left_out = by_hand(Ridge(), X, y, tasks, held)
    assert (found.trained_on, found.left_out) == pytest.approx((-trained.mean(), -left_out.mean()))
    assert task_gap(Ridge(), X, y, tasks, shots=0, draws=1, cv=GroupKFold(3)).gap == pytest.approx(found.gap)
    assert task_gap(Ridge(), X, y, tasks, shots=0, draws=1, cv=3, n_jobs=2).gap == pytest.approx(found.gap)


def test_a_method_that_learns_nothing_across_tasks_has_no_gap():
    X, y, tasks = data()
    found = task_gap(SupportMean(), X, y, tasks, shots=3, random_state=0)
    assert found.gap == 0 and found.frame["draw"].nunique() == 5
    assert "no more than chance" in str(found)


def test_a_method_that_remembers_its_tasks_has_one_and_says_so():
    X, y, tasks = data()
    found = leave_one_task_out(KNeighborsRegressor(1), X, y, tasks, shots=0)
    assert found.trained_on == 0 and found.low > 0
    assert str(found).startswith("neg_mean_absolute_error: 0 on training tasks, -")
    assert str(found).endswith("over 8 tasks: it does better on tasks that it was trained on")


def test_a_meta_learned_model():
    X, y, tasks = data(n_tasks=6)
    model = MAMLRegressor(max_iter=20, hidden=(8,), random_state=0, algorithm="maml", base=None)
    first, second = (task_gap(model, X, y, tasks, shots=3, cv=2, random_state=0) for _ in range(2))
    assert first == second and np.isfinite(first.gap)
    assert not hasattr(model, "module_")


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({}, InvalidParameterError, "^shots: got None; give one support size"),
        ({"shots": [1, 2]}, InvalidParameterError, r"^shots: got \[1, 2\]; expected one support size"),
        ({"shots": 1, "cv": "prefit"}, InvalidParameterError, "^cv: got 'prefit'; expected None, a number of folds"),
        (
            {"shots": 1, "scoring": ["r2", "neg_mean_squared_error"]},
            InvalidParameterError,
            "^scoring: got 2 scorers; expected one",
        ),
        ({"shots": 1, "cv": 9}, InvalidDataError, r"^cv: 9 fold\(s\) of 8 task\(s\)"),
    ],
)
def test_wrong_calls(settings, error, match):
    with pytest.raises(error, match=match):
        task_gap(Ridge(), *data(), **settings)


def test_other_wrong_calls():
    X, y, tasks = data()
    with pytest.raises(InvalidParameterError, match="^cv: leave_one_task_out has a fold for each task"):
        leave_one_task_out(Ridge(), X, y, tasks, shots=1, cv=3)
    with pytest.raises(InvalidDataError, match="^tasks: got None"):
        leave_one_task_out(Ridge(), X, y, shots=1)
    with pytest.raises(InvalidDataError, match="^X: got a sampler, whose tasks do not come again"):
        task_gap(MAMLRegressor(algorithm="maml", base=None), Sinusoids(), shots=1)
    with pytest.raises(InvalidParameterError, match="^estimator: got 2; expected one"):
        task_gap({"a": Ridge(), "b": Ridge()}, X, y, tasks, shots=1)
    with pytest.raises(InvalidDataError, match="^cv: no task is left out of one fold and trained on in another"):
        task_gap(Ridge(), X, y, tasks, shots=0, cv=[(np.flatnonzero(tasks != "t0"), np.flatnonzero(tasks == "t0"))])
