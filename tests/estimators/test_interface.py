"""What a user of scikit-learn expects of the estimators."""

import copy
import logging
import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.inspection import DecisionBoundaryDisplay, permutation_importance
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fewshot import MAMLClassifier, MAMLRegressor, make_meta_pipeline
from fewshot.datasets import RotatingBoundaries, Sinusoids
from fewshot.errors import FewShotError, NotFittedError, UnknownTaskError
from fewshot.model_selection import few_shot_scorer

QUICK = dict(algorithm="maml", base=None, max_iter=4, random_state=0)


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def test_fit_is_fit_meta(lines):
    X, y, tasks = lines
    a = MAMLRegressor(**QUICK).fit(X, y, tasks=tasks).predict(X)
    b = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks).predict(X)
    assert np.array_equal(a, b)


def test_adapting_leaves_the_model_alone_and_starts_again_from_it(lines):
    X, y, tasks = lines
    model = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)
    before = model.predict(X)
    adapted = model.adapt(X[:5], y[:5])
    again = adapted.adapt(X[:5], y[:5])
    assert np.array_equal(model.predict(X), before)
    assert not np.array_equal(adapted.predict(X), before)
    assert np.array_equal(adapted.predict(X), again.predict(X))
    with torch.no_grad():
        module = model.module_(torch.as_tensor(X, dtype=torch.float32))[:, 0].numpy()
    assert np.allclose(module * model._target_scale + model._target_mean, before, atol=1e-5)


def test_adapting_pays_where_tasks_differ(lines):
    X, y, tasks = lines
    model = MAMLRegressor(max_iter=400, outer_lr=0.003, random_state=0, algorithm="maml", base=None).fit_meta(
        X[:150], y[:150], tasks=tasks[:150]
    )
    few = np.concatenate([np.arange(start, start + 5) for start in range(150, 200, 10)])
    rest = np.setdiff1d(np.arange(150, 200), few)
    adapted = model.adapt(X[few], y[few], tasks=tasks[few])
    error = np.mean((adapted.predict(X[rest], tasks=tasks[rest]) - y[rest]) ** 2)
    assert error < 0.5 * np.mean((model.predict(X[rest]) - y[rest]) ** 2)


def test_many_tasks_in_one_call_equal_one_by_one(lines):
    X, y, tasks = lines
    keep = np.random.default_rng(0).random(200) < 0.6  # ragged
    X, y, tasks = X[keep], y[keep], tasks[keep]
    model = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)
    together = model.adapt(X, y, tasks=tasks)
    shuffled = np.random.default_rng(1).permutation(len(X))
    predicted = together.predict(X[shuffled], tasks=tasks[shuffled])
    for label in np.unique(tasks):
        alone = model.adapt(X[tasks == label], y[tasks == label])
        assert np.allclose(
            alone.predict(X[tasks == label]),
            predicted[tasks[shuffled] == label][np.argsort(shuffled[tasks[shuffled] == label])],
            atol=1e-5,
        )
    with pytest.raises(UnknownTaskError, match=r"^tasks: .*'new'"):
        together.predict(X[:1], tasks=["new"])
    with pytest.raises(UnknownTaskError, match=r"^tasks: .*pass tasks="):
        together.predict(X[:1])


def test_multi_output(lines):
    X, y, tasks = lines
    Y = np.column_stack([y, -y, y + X[:, 1]])
    model = MAMLRegressor(**QUICK).fit_meta(X, Y, tasks=tasks)
    assert model.adapt(X[:4], Y[:4]).predict(X[:7]).shape == (7, 3)


def test_units_of_the_target_do_not_matter(lines):
    X, y, tasks = lines
    a = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks).adapt(X[:5], y[:5]).predict(X)
    b = MAMLRegressor(**QUICK).fit_meta(X, 1000 * y + 7, tasks=tasks).adapt(X[:5], 1000 * y[:5] + 7).predict(X)
    assert np.allclose(1000 * a + 7, b, rtol=1e-3, atol=1e-1)


def test_poisson_predicts_rates(lines):
    X, _, tasks = lines
    counts = np.random.default_rng(0).poisson(np.exp(0.5 * X[:, 0] + 1))
    model = MAMLRegressor(loss="poisson", **QUICK).fit_meta(X, counts, tasks=tasks)
    assert (model.adapt(X[:5], counts[:5]).predict(X) > 0).all()
    with pytest.raises(FewShotError, match="^y: .*counts"):
        model.adapt(X[:2], [-1, 2])


class TestClassifier:
    def test_text_labels_and_probabilities(self, halves):
        X, y, tasks = halves
        model = MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks)
        adapted = model.adapt(X[:9], y[:9])
        p = adapted.predict_proba(X)
        assert adapted.classes_.tolist() == ["high", "low", "mid"]
        assert np.allclose(p.sum(1), 1) and np.array_equal(adapted.classes_[p.argmax(1)], adapted.predict(X))
        assert adapted.decision_function(X).shape == (240, 3)
        assert list(adapted.feature_names_in_) == ["age", "dose", "time"]

    def test_a_class_may_miss_from_the_support(self, halves):
        X, y, tasks = halves
        model = MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks)
        only = model.adapt(X[y == "low"][:3], y[y == "low"][:3])
        assert only.predict_proba(X).shape == (240, 3)

    @pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
    def test_two_classes(self, halves, loss):
        X, y, tasks = halves
        model = MAMLClassifier(loss=loss, **QUICK).fit_meta(X, y == "low", tasks=tasks).adapt(X[:9], y[:9] == "low")
        score, p = model.decision_function(X), model.predict_proba(X)
        assert score.shape == (240,) and np.allclose(1 / (1 + np.exp(-score)), p[:, 1])
        assert np.array_equal(model.predict(X), score > 0)

    def test_class_weight_is_row_weight(self, halves):
        X, y, tasks = halves
        weight = {"low": 2.0, "mid": 1.0, "high": 0.5}
        a = MAMLClassifier(class_weight=weight, **QUICK).fit_meta(X, y, tasks=tasks).predict_proba(X)
        rows = pd.Series(y).map(weight).to_numpy()
        b = MAMLClassifier(**QUICK).fit_meta(X, y, tasks=tasks, sample_weight=rows).predict_proba(X)
        assert np.allclose(a, b)

    def test_labels_per_task(self):
        rng = np.random.default_rng(0)
        tasks = np.repeat(np.arange(30), 20)
        X = rng.normal(size=(600, 2))
        side = (X[:, 0] > 0).astype(int)
        y = np.array([f"{t}-{s}" for t, s in zip(tasks, side, strict=True)])  # every task has two labels of its own
        model = MAMLClassifier(
            label_space="per_task", shots_per_class=3, max_iter=150, random_state=0, algorithm="maml", base=None
        )
        model.fit_meta(X[:400], y[:400], tasks=tasks[:400])
        with pytest.raises(NotFittedError, match=r"adapt"):
            model.predict(X)
        few = np.concatenate([np.arange(start, start + 8) for start in range(400, 600, 20)])
        adapted = model.adapt(X[few], y[few], tasks=tasks[few])
        assert adapted.score(X[400:], y[400:], tasks=tasks[400:]) > 0.9
        one = model.adapt(X[few[:8]], y[few[:8]])
        assert set(one.classes_) == set(y[few[:8]])
        assert np.array_equal(one.predict(X[400:420]), adapted.predict(X[400:420], tasks=tasks[400:420]))
        p = adapted.predict_proba(X[400:420], tasks=tasks[400:420])
        assert np.allclose(p.sum(1), 1) and (p[:, adapted.classes_ == "25-0"] == 0).all()


class TestWithScikitLearn:
    def test_meta_pipeline(self, halves):
        X, y, tasks = halves
        X = X.assign(sex=np.where(X["dose"] > 0, "f", "m"))
        X.loc[::7, "age"] = np.nan
        encode = ColumnTransformer([("sex", OneHotEncoder(), ["sex"])], remainder=SimpleImputer())
        model = make_meta_pipeline(encode, StandardScaler(), MAMLClassifier(**QUICK))
        adapted = model.fit_meta(X, y, tasks=tasks).adapt(X[:9], y[:9])
        assert adapted.predict(X).shape == (240,) and adapted.predict_proba(X).shape == (240, 3)
        many = model.adapt(X, y, tasks=tasks)
        assert many.predict(X, tasks=tasks).shape == (240,) and 0 <= many.score(X, y, tasks=tasks) <= 1
        assert many.predict_proba(X, tasks=tasks).shape == (240, 3)
        assert not sklearn.get_config()["enable_metadata_routing"]

    @pytest.mark.parametrize("kind", ["bare", "meta-pipeline", "plain pipeline"])
    def test_cross_validation(self, lines, routing, kind):
        X, y, tasks = lines
        model = MAMLRegressor(**QUICK)
        if kind != "bare":
            model = (make_pipeline if kind == "plain pipeline" else make_meta_pipeline)(StandardScaler(), model)
        scoring = {"few": few_shot_scorer(shots=5), "none": few_shot_scorer(shots=1)}
        result = cross_validate(
            model,
            X,
            y,
            cv=GroupKFold(3),
            scoring=scoring,
            params={"tasks": tasks, "groups": tasks},
            error_score="raise",
        )
        assert np.isfinite(result["test_few"]).all() and len(result["test_none"]) == 3
        name = "inner_lr" if kind == "bare" else "mamlregressor__inner_lr"
        search = GridSearchCV(model, {name: [0.01, 0.1]}, cv=GroupKFold(3), scoring=few_shot_scorer(shots=5))
        search.fit(X, y, tasks=tasks, groups=tasks)
        assert search.best_params_[name] in (0.01, 0.1)

    def test_plain_pipeline_fits_with_tasks(self, lines, routing):
        X, y, tasks = lines
        model = Pipeline([("scale", StandardScaler()), ("maml", MAMLRegressor(**QUICK))]).fit(X, y, tasks=tasks)
        assert model.named_steps["maml"].n_iter_ == 4

    def test_scorer_without_tasks_says_what_to_switch_on(self, lines):
        X, y, tasks = lines
        model = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)
        with pytest.raises(FewShotError, match="enable_metadata_routing"):
            few_shot_scorer(shots=5)(model, X, y)

    def test_inspection(self, halves):
        X, y, tasks = halves
        model = MAMLClassifier(**QUICK).fit_meta(X[["age", "dose"]], y == "low", tasks=tasks)
        adapted = model.adapt(X[["age", "dose"]][:9], y[:9] == "low")
        result = permutation_importance(adapted, X[["age", "dose"]], y == "low", n_repeats=2, random_state=0)
        assert result.importances_mean.shape == (2,)
        DecisionBoundaryDisplay.from_estimator(adapted, X[["age", "dose"]], grid_resolution=5)

    def test_clone_pickle_copy_and_repr(self, lines):
        X, y, tasks = lines
        adapted = MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks).adapt(X[:5], y[:5])
        for twin in (pickle.loads(pickle.dumps(adapted)), copy.deepcopy(adapted)):
            assert np.array_equal(twin.predict(X), adapted.predict(X))
        assert not hasattr(clone(adapted), "n_iter_")
        assert (
            "MAMLRegressor(algorithm='maml', base=None, max_iter=4" in repr(adapted) and "<div" in adapted._repr_html_()
        )


class TestSamplers:
    def test_regression(self):
        model = MAMLRegressor(inner_steps=1, **QUICK).fit_meta(Sinusoids(shots=5, queries=5))
        assert model.adapt([[0.0], [1.0]], [0.0, 1.0]).predict([[0.5]]).shape == (1,)

    def test_classification(self):
        model = MAMLClassifier(**QUICK).fit_meta(RotatingBoundaries(shots=5, queries=5))
        assert model.classes_.tolist() == [0, 1]

    def test_targets_of_samplers_keep_their_units(self):
        model = MAMLRegressor(**QUICK).fit_meta(Sinusoids())
        assert model._target_scale.tolist() == [1.0]


class TestReproducible:
    def test_same_seed_same_result(self, lines):
        X, y, tasks = lines
        fits = [MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks).predict(X) for _ in range(2)]
        assert np.array_equal(*fits)
        other = (
            MAMLRegressor(max_iter=4, random_state=1, algorithm="maml", base=None)
            .fit_meta(X, y, tasks=tasks)
            .predict(X)
        )
        assert not np.array_equal(fits[0], other)

    def test_nothing_global_changes(self, lines):
        X, y, tasks = lines
        torch.manual_seed(5)
        before = (
            torch.get_rng_state(),
            np.random.get_state()[1].copy(),  # noqa: NPY002
            torch.get_num_threads(),
            torch.get_default_dtype(),
        )
        MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks).adapt(X[:5], y[:5]).predict(X)
        assert torch.equal(before[0], torch.get_rng_state()) and np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
        assert (torch.get_num_threads(), torch.get_default_dtype()) == before[2:]


class TestProgress:
    def test_interrupted_and_resumed(self, lines):
        X, y, tasks = lines
        whole = MAMLRegressor(max_iter=60, random_state=0, algorithm="maml", base=None).fit_meta(X, y, tasks=tasks)

        class Stop:
            def setup(self, estimator, context): ...
            def teardown(self, estimator, context): ...
            def on_fit_task_begin(self, estimator, context): ...
            def on_fit_task_end(self, estimator, context):
                if context.task_id == 20:
                    raise KeyboardInterrupt

        model = MAMLRegressor(max_iter=60, random_state=0, warm_start=True, algorithm="maml", base=None).set_callbacks(
            Stop()
        )
        with pytest.raises(KeyboardInterrupt):
            model.fit_meta(X, y, tasks=tasks)
        assert 0 < model.n_iter_ < 60 and np.isfinite(model.predict(X)).all()
        model.set_callbacks().fit_meta(X, y, tasks=tasks)
        assert model.n_iter_ == whole.n_iter_ and np.array_equal(model.predict(X), whole.predict(X))

    def test_silent_by_default_and_a_bar_on_request(self, lines, capsys, caplog):
        X, y, tasks = lines
        with caplog.at_level(logging.WARNING):
            MAMLRegressor(**QUICK).fit_meta(X, y, tasks=tasks)
        out = capsys.readouterr()
        assert not out.out and not out.err and not caplog.records
        MAMLRegressor(verbose=1, **QUICK).fit_meta(X, y, tasks=tasks)
        out = capsys.readouterr()
        assert "MAMLRegressor" in out.out + out.err

    def test_warm_start_goes_on(self, lines):
        X, y, tasks = lines
        model = MAMLRegressor(max_iter=300, warm_start=True, random_state=0, algorithm="maml", base=None).fit_meta(
            X, y, tasks=tasks
        )
        before = model.history_["loss"].iloc[0]
        model.set_params(max_iter=2, early_stopping=False).fit_meta(X, y, tasks=tasks)
        assert model.history_["loss"].iloc[0] < 0.7 * before
