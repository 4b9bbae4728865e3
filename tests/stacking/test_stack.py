"""What a stack promises: falls back to its base, adapts where that helps, sees nothing that it must not see."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.svm import SVC

import fewshot
from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.datasets import Sinusoids
from fewshot.errors import InvalidDataError, InvalidParameterError, SerializationError, UnknownTaskError
from fewshot.model_selection import evaluate_few_shot, few_shot_scorer

QUICK = dict(max_iter=20, random_state=0)


def family(kind, n_tasks=16, rows=30, seed=0, classes=False):
    """Tasks that are the same, or differ in their level, or have nothing in common: X, y, tasks."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rows)
    X = rng.normal(size=(n_tasks * rows, 3))
    f = X @ [1.0, -0.5, 0.0]
    if kind == "levels":
        f = f + 2.0 * rng.normal(size=n_tasks)[tasks]
    elif kind == "unrelated":
        f = (X * rng.normal(size=(n_tasks, 3))[tasks]).sum(1)
    if classes:
        return X, np.where(rng.random(len(f)) < 1 / (1 + np.exp(-2 * f)), "yes", "no"), tasks
    return X, f + 0.3 * rng.normal(size=len(f)), tasks


@pytest.fixture(scope="module")
def levels():
    X, y, tasks = family("levels")
    return MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)


@pytest.fixture(scope="module")
def named():
    X, y, tasks = family("levels", classes=True)
    return MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks)


def rows_of(tasks, k):
    """Mask of the first k rows of each task."""
    return pd.Series(tasks).groupby(tasks).cumcount().to_numpy() < k


def test_tasks_that_are_the_same_leave_the_base_as_it_is():
    X, y, tasks = family("same")
    model = MAMLRegressor(algorithm="map", random_state=0).fit_meta(X, y, tasks=tasks)
    assert (model.adaptation_report_.strength() < 0.35).all()
    X, y, _ = family("same", seed=1)
    adapted = model.adapt(X[:5], y[:5])
    error, base = (np.mean((m.predict(X) - y) ** 2) for m in (adapted, model))
    assert error < 1.05 * 0.09 and base < 1.05 * 0.09


def test_levels_are_found_from_a_few_rows(levels):
    assert (levels.adaptation_report_.strength().loc[5:] > 0.9).all()
    X, y, tasks = family("levels", seed=1)
    support = rows_of(tasks, 5)
    adapted = levels.adapt(X[support], y[support], tasks=tasks[support])
    error = np.mean((adapted.predict(X[~support], tasks=tasks[~support]) - y[~support]) ** 2)
    assert error < 0.09 * (1 + 1 / 5) * 1.5  # noise, that of the mean of five, and that of the slopes
    assert error < 0.05 * np.mean((levels.predict(X[~support]) - y[~support]) ** 2)


def test_classes_whose_levels_differ(named):
    X, y, tasks = family("levels", seed=1, classes=True)
    support = rows_of(tasks, 10)
    adapted = named.adapt(X[support], y[support], tasks=tasks[support])
    p = adapted.predict_proba(X[~support], tasks=tasks[~support])
    np.testing.assert_allclose(p.sum(1), 1.0)
    assert (named.classes_[p.argmax(1)] == adapted.predict(X[~support], tasks=tasks[~support])).all()

    def log_loss(p):
        return -np.log(p[np.arange(len(p)), (y[~support] == "yes").astype(int)]).mean()

    assert log_loss(p) < 0.75 * log_loss(named.predict_proba(X[~support]))


def test_a_support_of_one_class_does_no_harm(named):
    X, y, _ = family("levels", seed=1, classes=True)
    yes = np.flatnonzero(y == "yes")[:6]
    p = named.adapt(X[yes], y[yes]).predict_proba(X)
    assert np.isfinite(p).all() and (p[:, 1] < 1 - 1e-6).any()


def test_many_tasks_at_once_are_as_one_by_one(levels):
    X, y, tasks = family("levels", seed=2)
    sizes = np.arange(16) % 7 + 1  # supports of unequal size
    support = pd.Series(tasks).groupby(tasks).cumcount().to_numpy() < sizes[tasks]
    together = levels.adapt(X[support], y[support], tasks=tasks[support]).predict(X, tasks=tasks)
    for task in (0, 3, 15):
        mine = tasks == task
        alone = levels.adapt(X[support & mine], y[support & mine])
        np.testing.assert_allclose(alone.predict(X[mine]), together[mine], rtol=1e-6)


def test_the_model_stays_as_it_is_and_rows_are_predicted_by_themselves(levels):
    X, y, _ = family("levels", seed=3)
    before = levels.predict(X)
    adapted = levels.adapt(X[:4], y[:4])
    whole = adapted.predict(X)
    np.testing.assert_array_equal(levels.predict(X), before)
    np.testing.assert_allclose([adapted.predict(X[i : i + 1])[0] for i in range(5)], whole[:5], rtol=1e-12)
    again = adapted.adapt(X[:4], y[:4]).predict(X)  # starts anew
    np.testing.assert_array_equal(again, whole)


def test_a_row_of_no_weight_is_no_row(levels):
    X, y, _ = family("levels", seed=3)
    weight = np.array([1.0, 1.0, 1.0, 0.0])
    wild = y[:4].copy()
    wild[3] = 1e6
    with_it = levels.adapt(X[:4], wild, sample_weight=weight).predict(X)
    np.testing.assert_allclose(with_it, levels.adapt(X[:3], y[:3]).predict(X), rtol=1e-6)


def test_the_same_seed_gives_the_same_model(levels):
    X, y, tasks = family("levels")
    again = clone(levels).fit_meta(X, y, tasks=tasks)
    np.testing.assert_array_equal(again.adapt(X[:5], y[:5]).predict(X), levels.adapt(X[:5], y[:5]).predict(X))
    assert str(again.adaptation_report_) == str(levels.adaptation_report_)


# ---------------------------------------------------------------- no leak


@pytest.mark.parametrize("how", ["permuted", "changed", "dropped"])
def test_predictions_depend_on_no_other_query_row(how):
    """Through evaluation as well: what is not support is not seen."""
    X, y, tasks = family("levels", n_tasks=8, rows=12)
    seen = []

    class Watching(MAMLRegressor):
        def predict(self, X, *, tasks=None):
            out = super().predict(X, tasks=tasks)
            seen.append((np.asarray(X)[:, 0], out))
            return out

    def run(X, y):
        seen.clear()
        model = Watching(algorithm="map", random_state=0)
        evaluate_few_shot(
            model,
            X,
            y,
            tasks,
            shots=3,
            draws=1,
            random_state=0,
            cv=[(np.flatnonzero(tasks < 6), np.flatnonzero(tasks >= 6))],
        )
        return {x: p for xs, out in seen for x, p in zip(xs.tolist(), out.tolist(), strict=True)}

    whole = run(X, y)
    queries = np.flatnonzero(np.isin(X[:, 0], list(whole)))
    X2, y2 = X.copy(), y.copy()
    if how == "permuted":
        y2[queries] = y[queries[::-1]]
    elif how == "changed":
        y2[queries] += 100.0
    else:
        y2[queries[::2]], X2[queries[::2], 1] = -50.0, 99.0
    again = run(X2, y2)
    for i in queries[1::2] if how == "dropped" else queries:
        assert again[X[i, 0]] == whole[X[i, 0]]


def test_rows_of_test_tasks_leave_the_fitted_model_unchanged_and_training_labels_do_not():
    X, y, tasks = family("levels", n_tasks=8)
    test = tasks >= 6

    def predictions(y):
        return (
            MAMLRegressor(algorithm="map", random_state=0).fit_meta(X[~test], y[~test], tasks=tasks[~test]).predict(X)
        )

    other = y.copy()
    other[test] = 1e3
    np.testing.assert_array_equal(predictions(other), predictions(y))
    other = y.copy()
    other[~test] = np.random.default_rng(0).permutation(y[~test])
    assert not np.allclose(predictions(other), predictions(y))


def test_members_learn_from_offsets_by_models_that_did_not_see_the_task():
    """A base that knows every row by heart would leave nothing to explain."""
    X, y, tasks = family("levels", n_tasks=6)
    forest = RandomForestRegressor(10, min_samples_leaf=1, bootstrap=False, random_state=0)
    model = MAMLRegressor(algorithm="map", base=forest, random_state=0).fit_meta(X, y, tasks=tasks)
    assert (np.abs(model.predict(X) - y) < 1e-9).all()
    assert model.adaptation_report_.losses["base"].iloc[0] > 1.5  # of tasks that were left out
    assert model.adaptation_report_.strength().iloc[-1] > 0.9


# ---------------------------------------------------------------- interruption, files


def test_an_interrupted_fit_predicts_as_its_base_and_goes_on_to_the_same_model(levels, monkeypatch):
    from fewshot.stacking import StackFit

    X, y, tasks = family("levels")
    model = MAMLRegressor(**QUICK, warm_start=True)
    judge = StackFit._judge

    def interrupted(self, fold):
        if fold == 2:
            raise KeyboardInterrupt
        return judge(self, fold)

    monkeypatch.setattr(StackFit, "_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X, y, tasks=tasks)
    np.testing.assert_allclose(model.predict(X), model.adapt(X[:5], y[:5]).predict(X))
    assert "predictions are the base's" in str(model.adaptation_report_)
    monkeypatch.setattr(StackFit, "_judge", judge)
    model.fit_meta(X, y, tasks=tasks)
    np.testing.assert_array_equal(model.adapt(X[:5], y[:5]).predict(X), levels.adapt(X[:5], y[:5]).predict(X))


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_files_pickles_and_copies(kind, levels, named, tmp_path):
    model = levels if kind == "regression" else named
    X, y, tasks = family("levels", seed=1, classes=kind != "regression")
    one, many = model.adapt(X[:5], y[:5]), model.adapt(X[:60], y[:60], tasks=tasks[:60])
    fewshot.save(model, tmp_path / "model")
    fewshot.save(one, tmp_path / "one")
    fewshot.save(many, tmp_path / "many")
    loaded = fewshot.load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))
    np.testing.assert_array_equal(loaded.adapt(X[:5], y[:5]).predict(X), one.predict(X))
    np.testing.assert_array_equal(fewshot.load(tmp_path / "one").predict(X), one.predict(X))
    again = fewshot.load(tmp_path / "many").predict(X[:60], tasks=tasks[:60])
    np.testing.assert_array_equal(again, many.predict(X[:60], tasks=tasks[:60]))
    assert str(loaded.adaptation_report_) == str(model.adaptation_report_)
    assert hasattr(loaded, "module_") == hasattr(model, "module_")
    for copied in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one)):
        np.testing.assert_array_equal(copied.predict(X), one.predict(X))


def test_a_base_that_no_file_holds_says_so(tmp_path):
    X, y, tasks = family("levels", n_tasks=4)
    model = MAMLRegressor(algorithm="map", base=RandomForestRegressor(3), random_state=0).fit_meta(X, y, tasks=tasks)
    with pytest.raises(SerializationError, match="RandomForest"):
        fewshot.save(model, tmp_path / "model")


# ---------------------------------------------------------------- what users may ask for


def test_a_user_brings_the_base():
    X, y, tasks = family("levels", classes=True)
    base = LogisticRegression(C=0.5)
    model = MAMLClassifier(algorithm="map", base=base, random_state=0).fit_meta(X, y, tasks=tasks)
    scaled = (X - X.mean(0)) / X.std(0)
    np.testing.assert_allclose(model.predict_proba(X), base.fit(scaled, y).predict_proba(scaled), atol=1e-6)
    assert model.adaptation_report_.base == "LogisticRegression 100%"


def test_an_algorithm_by_name_is_weighed_against_the_base():
    X, y, tasks = family("levels", n_tasks=10)
    model = MAMLRegressor(algorithm="anil", hidden=(8,), **QUICK).fit_meta(X, y, tasks=tasks)
    assert list(model.adaptation_report_.weights) == ["base", "anil"]
    assert model.module_(torch.zeros(1, 3)).shape == (1, 1)


def test_a_search_over_tasks_chooses_the_base():
    X, y, tasks = family("levels", n_tasks=6)
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            MAMLRegressor(algorithm="map", random_state=0),
            {"base": [None, Ridge()]},
            cv=GroupKFold(2),
            scoring=few_shot_scorer(shots=5),
            error_score="raise",
        )
        search.fit(X, y, tasks=tasks, groups=tasks)
    assert isinstance(search.best_params_["base"], Ridge)  # the slopes are the same everywhere


def test_several_outputs():
    X, y, tasks = family("levels", n_tasks=10)
    both = np.column_stack([y, 100 - 3 * y])
    model = MAMLRegressor(**QUICK).fit_meta(X, both, tasks=tasks)
    adapted = model.adapt(X[:10], both[:10])
    assert adapted.predict(X).shape == both.shape
    np.testing.assert_allclose(adapted.predict(X)[:, 1], 100 - 3 * adapted.predict(X)[:, 0], atol=2.0)


def test_three_classes_and_one_that_a_fold_lacks():
    X, y, tasks = family("levels", n_tasks=10)
    classes = np.digitize(y, [-1.0, 1.0])
    classes[tasks == 3] = np.where(X[tasks == 3, 0] > 1.0, 3, classes[tasks == 3])
    model = MAMLClassifier(**QUICK).fit_meta(X, classes, tasks=tasks)
    p = model.adapt(X[:10], classes[:10]).predict_proba(X)
    assert p.shape == (300, 4) and np.isfinite(p).all()


@pytest.mark.parametrize("n_tasks", [1, 2, 3])
def test_few_tasks(n_tasks):
    X, y, tasks = family("levels", n_tasks=n_tasks)
    model = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)
    assert np.isfinite(model.adapt(X[:3], y[:3]).predict(X)).all()
    assert isinstance(str(model.adaptation_report_), str)


def test_tiny_tables():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 2)), rng.normal(size=6)
    model = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=[0, 0, 1, 1, 2, 2])
    assert np.isfinite(model.adapt(X[:1], y[:1]).predict(X)).all()
    constant = np.ones((6, 2))
    assert np.isfinite(MAMLRegressor(**QUICK).fit_meta(constant, y, tasks=[0, 0, 1, 1, 2, 2]).predict(constant)).all()
    level = MAMLRegressor(**QUICK).fit_meta(X, np.full(6, 7.0), tasks=[0, 0, 1, 1, 2, 2])
    np.testing.assert_allclose(level.adapt(X[:1], [7.0]).predict(X), 7.0)


def test_samplers_and_labels_per_task_have_no_pooled_base(caplog):
    model = MAMLRegressor(max_iter=2, hidden=(4,), random_state=0).fit_meta(Sinusoids(shots=5, queries=5))
    assert not hasattr(model, "adaptation_report_")
    X, y, tasks = family("levels", classes=True, n_tasks=6)
    model = MAMLClassifier(label_space="per_task", **QUICK).fit_meta(X, y, tasks=tasks)
    assert not hasattr(model, "adaptation_report_")


WRONG = [
    (dict(base="pooled"), "^base: got 'pooled'; expected 'auto', None or a scikit-learn estimator"),
    (
        dict(base=LogisticRegression()),
        "^base: got LogisticRegression.*expected 'auto', None or a scikit-learn regressor",
    ),
    (dict(base=Ridge), "^base: got .*expected 'auto', None or a scikit-learn regressor"),
    (
        dict(algorithm="map", inner_steps=3),
        "^inner_steps: got 3, which algorithm='map' cannot take, since it takes Newton steps",
    ),
    (dict(algorithm="map", loss="poisson"), "^algorithm: got 'map', but loss='poisson' is another scale"),
    (dict(base=LinearRegression(), loss="poisson"), "^base: got LinearRegression.*another scale"),
    (dict(algorithm="maps"), "^algorithm: got 'maps' .did you mean 'map'"),
]


@pytest.mark.parametrize(("settings", "message"), WRONG)
def test_wrong_settings(settings, message):
    X, y, tasks = family("levels", n_tasks=4)
    with pytest.raises(InvalidParameterError, match=message):
        MAMLRegressor(**settings).fit_meta(X, np.abs(y), tasks=tasks)


def test_wrong_calls(levels, named):
    X, y, tasks = family("levels", n_tasks=4)
    with pytest.raises(InvalidParameterError, match="^steps: got 2, but how strongly this model adapts was learned"):
        levels.adapt(X[:3], y[:3], steps=2)
    with pytest.raises(InvalidParameterError, match="^return_std: algorithm='auto' gives no predictive variance"):
        levels.predict(X, return_std=True)
    with pytest.raises(UnknownTaskError, match="^tasks: 9 is not among the 1 tasks"):
        levels.adapt(X[:3], y[:3], tasks=[1, 1, 1]).predict(X, tasks=np.full(len(X), 9))
    with pytest.raises(InvalidDataError, match="^y: class 'perhaps' was not seen"):
        named.adapt(X[:2], ["yes", "perhaps"])
    with pytest.raises(InvalidParameterError, match="^base: got SVC.*has no predict_proba"):
        MAMLClassifier(base=SVC()).fit_meta(X, y > 0, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^algorithm: got 'map', but a sampler draws new tasks for ever"):
        MAMLRegressor(algorithm="map").fit_meta(Sinusoids(shots=5, queries=5))
