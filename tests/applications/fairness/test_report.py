"""The report against fairlearn where that is right, and where it is silent."""

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, demographic_parity_difference, equal_opportunity_difference
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import FunctionTransformer

from fewshot import make_meta_pipeline
from fewshot.applications.fairness import FairnessConstrainedClassifier
from fewshot.applications.fairness.report import fairness_report
from fewshot.errors import InvalidDataError, InvalidParameterError

from ._people import GROUP, QUICK, TASK
from ._people import X as FEATURES
from ._people import Y as OUTCOMES


def data(n=300, seed=0):
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "c"], n)
    X = np.column_stack([rng.normal(size=n), group == "a"])
    return X, (X[:, 0] + X[:, 1] + 0.5 * rng.normal(size=n) > 0.5).astype(int), group


def test_rates_and_gaps_are_those_of_fairlearn():
    X, y, group = data()
    model = LogisticRegression().fit(X, y)
    report = fairness_report(model, X, y, sensitive_features=group, before=LogisticRegression(C=1e-4).fit(X, y))
    decision = model.predict(X)
    parity = report.gaps.query("model == 'after' and rate == 'selection_rate'")["gap"].abs().max()
    assert parity == pytest.approx(demographic_parity_difference(y, decision, sensitive_features=group))
    opportunity = report.gaps.query("model == 'after' and rate == 'true_positive_rate'")["gap"].abs().max()
    assert opportunity == pytest.approx(equal_opportunity_difference(y, decision, sensitive_features=group))
    frame = MetricFrame(metrics=accuracy_score, y_true=y, y_pred=decision, sensitive_features=group)
    np.testing.assert_allclose(report.by_group.loc["after", "accuracy"], frame.by_group)
    assert report.overall.index.tolist() == ["before", "after"]
    assert report.counts["all"].sum() == 300 and (report.counts["favourable"] + report.counts["other"]).sum() == 300


def test_what_is_empty_is_undefined_and_never_0_or_1():
    X, y, group = data()
    model = LogisticRegression().fit(X, y)
    keep = ~((group == "b") & (y == 1))
    report = fairness_report(model, X[keep], y[keep], sensitive_features=group[keep])
    assert np.isnan(report.by_group.loc[("after", "b"), "true_positive_rate"])
    with_b = report.gaps.query("rate == 'true_positive_rate' and (first == 'b' or second == 'b')")
    assert with_b[["gap", "low", "high", "ratio", "debiased_squared", "floor"]].isna().all(axis=None)
    assert "2 of 3 pairs undefined" in str(report)


def test_labels_may_be_words_and_the_favourable_one_is_named():
    X, y, group = data()
    words = np.where(y == 1, "granted", "refused")
    model = LogisticRegression().fit(X, words)
    report = fairness_report(model, X, words, sensitive_features=group, pos_label="granted")
    numbers = fairness_report(LogisticRegression().fit(X, y), X, y, sensitive_features=group)
    np.testing.assert_allclose(report.gaps["gap"], numbers.gaps["gap"], atol=0.02)


def test_it_says_what_so_few_rows_can_tell():
    X, y, group = data()
    report = fairness_report(LogisticRegression().fit(X, y), X[:60], y[:60], sensitive_features=group[:60])
    text = str(report)
    assert "could not be told from none" in text and "of each group would do" in text
    assert (report.gaps["low"] <= report.gaps["gap"]).all() and (report.gaps["gap"] <= report.gaps["high"]).all()


def test_of_a_pipeline_the_last_step_is_asked():
    words = np.where(OUTCOMES == 1, "granted", "refused")
    model = FairnessConstrainedClassifier(classifier=QUICK, pos_label="granted", random_state=0)
    pipeline = make_meta_pipeline(FunctionTransformer(), model)
    pipeline.fit_meta(FEATURES, words, tasks=TASK, sensitive_features=GROUP)
    reports = [fairness_report(m, FEATURES, words, sensitive_features=GROUP) for m in (pipeline, pipeline.steps[-1][1])]
    np.testing.assert_array_equal(*(report.gaps["gap"] for report in reports))


def test_mistakes():
    X, y, group = data()
    with pytest.raises(InvalidParameterError, match=r"^pos_label: got 'yes'; expected one of \[0, 1\]"):
        fairness_report(LogisticRegression().fit(X, y), X, y, sensitive_features=group, pos_label="yes")
    words = np.where(y == 1, "good", "poor")
    with pytest.raises(InvalidParameterError, match="^pos_label: got None, and of the labels"):
        fairness_report(LogisticRegression().fit(X, words), X, words, sensitive_features=group)
    with pytest.raises(InvalidDataError, match="^y: got an array of shape"):
        fairness_report(LogisticRegression().fit(X, y), X, y[:9], sensitive_features=group)
    with pytest.raises(InvalidDataError, match="^sensitive_features: got 9 rows"):
        fairness_report(LogisticRegression().fit(X, y), X, y, sensitive_features=group[:9])
