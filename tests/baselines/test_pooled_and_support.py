"""Pooled, support-only and refitted models against scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fewshot.baselines import PooledModel, RefittedModel, SupportMean, SupportModel
from fewshot.errors import InvalidParameterError

RNG = np.random.default_rng(0)
TASKS = np.repeat(np.arange(6), 10)
X = RNG.normal(size=(60, 3))
Y = X @ [1.0, 2.0, 0.0] + 3.0 * TASKS + 0.1 * RNG.normal(size=60)
LABELS = np.where(np.median(Y) < Y, "high", "low")
SUPPORT = (RNG.normal(size=(5, 3)), np.array([1.0, 4.0, 2.0, 0.0, 3.0]))
WEIGHT = RNG.uniform(0.5, 2.0, 60)


def test_pooled_model_is_the_estimator_on_all_rows():
    model = PooledModel(Ridge(2.0)).fit_meta(X, Y, tasks=TASKS, sample_weight=WEIGHT)
    expected = Ridge(2.0).fit(X, Y, WEIGHT).predict(X)
    np.testing.assert_array_equal(model.predict(X), expected)
    np.testing.assert_array_equal(model.adapt(*SUPPORT).predict(X), expected)


def test_weights_reach_the_last_step_of_nested_pipelines():
    model = PooledModel(make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), Ridge())))
    scaled = StandardScaler().fit_transform(X)
    model.fit_meta(X, Y, tasks=TASKS, sample_weight=WEIGHT)
    np.testing.assert_allclose(model.predict(X), Ridge().fit(scaled, Y, WEIGHT).predict(scaled))


def test_an_estimator_that_takes_no_weights_is_an_error():
    with pytest.raises(InvalidParameterError, match="estimator: KNeighborsRegressor takes no sample_weight"):
        PooledModel(KNeighborsRegressor()).fit_meta(X, Y, tasks=TASKS, sample_weight=WEIGHT)


def test_pooled_classifier_has_the_responses_of_its_estimator():
    model = PooledModel(RidgeClassifier()).fit_meta(X, LABELS, tasks=TASKS)
    assert not hasattr(model, "predict_proba")
    np.testing.assert_array_equal(model.decision_function(X), RidgeClassifier().fit(X, LABELS).decision_function(X))
    assert model.classes_.tolist() == ["high", "low"]


def test_frames_reach_the_estimator_as_frames():
    frame = pd.DataFrame({"a": X[:, 0], "kind": pd.Series(np.where(TASKS > 2, "x", "y"))})
    encode = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    model = PooledModel(make_pipeline(encode, Ridge())).fit_meta(frame, Y, tasks=TASKS)
    assert model.feature_names_in_.tolist() == ["a", "kind"]
    refitted = RefittedModel(make_pipeline(encode, Ridge()), 1.0).fit_meta(frame, Y, tasks=TASKS)
    np.testing.assert_allclose(refitted.predict(frame), model.predict(frame))
    assert refitted.adapt(frame[:3], Y[:3]).predict(frame).shape == (60,)
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame.rename(columns={"a": "b"}))


def test_support_model_is_the_estimator_on_the_support_scaled_by_training_statistics():
    model = SupportModel(Ridge(0.5)).fit_meta(X, Y, tasks=TASKS)
    scale = StandardScaler().fit(X)
    expected = Ridge(0.5).fit(scale.transform(SUPPORT[0]), SUPPORT[1]).predict(scale.transform(X))
    np.testing.assert_allclose(model.adapt(*SUPPORT).predict(X), expected)
    weighted = Ridge(0.5).fit(scale.transform(SUPPORT[0]), SUPPORT[1], WEIGHT[:5]).predict(scale.transform(X))
    np.testing.assert_allclose(model.adapt(*SUPPORT, sample_weight=WEIGHT[:5]).predict(X), weighted)
    bare = SupportModel(Ridge(0.5), standardize=False).fit_meta(X, Y, tasks=TASKS)
    np.testing.assert_allclose(bare.adapt(*SUPPORT).predict(X), Ridge(0.5).fit(*SUPPORT).predict(X))


def test_missing_values_count_as_the_training_mean():
    holes, filled = X.copy(), X.copy()
    holes[0, 1] = np.nan
    model = SupportModel(Ridge()).fit_meta(X[1:], Y[1:], tasks=TASKS[1:])
    filled[0, 1] = X[1:, 1].mean()
    adapted = model.adapt(*SUPPORT)
    np.testing.assert_allclose(adapted.predict(holes), adapted.predict(filled))


def test_a_support_of_one_value_predicts_it():
    model = SupportModel(HistGradientBoostingRegressor()).fit_meta(X, Y, tasks=TASKS)
    np.testing.assert_array_equal(model.adapt(X[:1], [7.0]).predict(X[:4]), np.full(4, 7.0))


def test_a_support_of_one_class_predicts_it_with_a_smoothed_probability():
    model = SupportModel(LogisticRegression()).fit_meta(X[:40], LABELS[:40], tasks=TASKS[:40])
    share = np.mean(LABELS[:40] == "high")
    adapted = model.adapt(X[:3], ["high"] * 3)
    np.testing.assert_allclose(adapted.predict_proba(X[:1]), [[(3 + share) / 4, (1 - share) / 4]])
    assert adapted.predict(X[:2]).tolist() == ["high", "high"]


def test_classes_that_a_support_lacks_get_probability_zero():
    y = np.array(["a", "b", "c"])[np.arange(60) % 3]
    adapted = SupportModel(LogisticRegression()).fit_meta(X, y, tasks=TASKS).adapt(X[:4], ["c", "a", "c", "a"])
    proba = adapted.predict_proba(X)
    assert (proba[:, 1] == 0).all()
    np.testing.assert_allclose(proba.sum(1), 1)


def test_support_mean_by_hand():
    model = SupportMean().fit_meta(X[:2], [1.0, 3.0], tasks=[0, 1])
    adapted = model.adapt(X[:3], [1.0, 2.0, 6.0], tasks=["a", "b", "b"], sample_weight=[1.0, 1.0, 3.0])
    assert adapted.predict(X[:2], tasks=["b", "a"]).tolist() == [5.0, 1.0]
    shares = SupportMean("classification").fit_meta(X[:4], [0, 1, 1, 1], tasks=[0, 0, 1, 1])
    np.testing.assert_allclose(shares.predict_proba(X[:1]), [[0.25, 0.75]])
    np.testing.assert_allclose(shares.adapt(X[:3], [0, 0, 0]).predict_proba(X[:1]), [[3.25 / 4, 0.75 / 4]])
    with pytest.raises(InvalidParameterError, match="kind: got 'classify'; expected 'regression' or 'classification'"):
        SupportMean("classify").fit_meta(X, Y)


def test_refitted_model_weights_the_support():
    model = RefittedModel(Ridge(), support_weight=5.0).fit_meta(X, Y, tasks=TASKS, sample_weight=WEIGHT)
    rows, targets = np.concatenate([X, SUPPORT[0]]), np.concatenate([Y, SUPPORT[1]])
    expected = Ridge().fit(rows, targets, np.concatenate([WEIGHT, np.full(5, 5.0)])).predict(X)
    np.testing.assert_allclose(model.adapt(*SUPPORT).predict(X), expected)
    np.testing.assert_allclose(model.predict(X), Ridge().fit(X, Y, WEIGHT).predict(X))


@pytest.mark.parametrize("weight", [0.0, -1.0, [], "much"])
def test_support_weights_must_be_positive(weight):
    with pytest.raises((InvalidParameterError, ValueError), match="support_weight|much"):
        RefittedModel(Ridge(), support_weight=weight).fit_meta(X, Y, tasks=TASKS)
