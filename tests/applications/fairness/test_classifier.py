"""The constrained classifier: what it keeps, what it refuses, and that a row's decision is its own."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewshot import MAMLClassifier, make_meta_pipeline
from fewshot.applications.fairness.classifier import FairnessConstrainedClassifier
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError

QUICK = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0)


def table(n_tasks=10, rows=60, seed=0):
    """Two groups; the second has the lower outcomes, by a column that tells of the group too."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), rows)
    group = (rng.random(n_tasks * rows) < 0.4).astype(int)
    X = rng.normal(size=(n_tasks * rows, 3))
    X[:, 1] -= (1.5 + 0.8 * rng.normal(size=n_tasks))[task] * group
    level = 0.5 * rng.normal(size=n_tasks)
    y = (X[:, 0] + X[:, 1] + level[task] + 0.5 * rng.normal(size=len(task)) > -0.3).astype(int)
    return X, y, task, np.array(["a", "b"])[group]


X, Y, TASK, GROUP = table()
TRAIN = TASK < 8


@pytest.fixture(scope="module")
def model():
    return FairnessConstrainedClassifier(classifier=QUICK).fit_meta(
        X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
    )


def split(shots=10, seed=1):
    """New tasks: supports, other rows with groups, rows to score."""
    x, y, task, group = table(n_tasks=20, rows=200, seed=seed)
    place = np.arange(len(task)) % 200
    return [(x[m], y[m], task[m], group[m]) for m in (place < shots, (place >= shots) & (place < 100), place >= 100)]


def gap(decision, group, task):
    """Mean over tasks of the signed gap, and its root mean square."""
    gaps = [
        decision[(task == t) & (group == "a")].mean() - decision[(task == t) & (group == "b")].mean()
        for t in np.unique(task)
    ]
    return np.mean(gaps), np.sqrt(np.mean(np.square(gaps)))


def test_gaps_shrink_on_new_tasks_and_shrink_more_with_rows_of_the_task(model):
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, yq, tq, gq) = split()
    free = model.classifier_.adapt(xs, ys, tasks=ts).predict(xq, tasks=tq)
    alone = model.adapt(xs, ys, tasks=ts)
    told = model.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    mean, _ = gap(free, gq, tq)
    assert mean > 0.3
    for known in ({}, {"sensitive_features": gq}):
        without, of_task = (m.predict(xq, tasks=tq, **known) for m in (alone, told))
        assert abs(gap(without, gq, tq)[0]) < 0.4 * mean
        assert gap(of_task, gq, tq)[1] < gap(without, gq, tq)[1] < gap(free, gq, tq)[1]
        assert (of_task == yq).mean() > 0.6


def test_the_report_says_what_was_reached(model):
    report = model.constraint_report_
    assert report.table.index.tolist() == ["unconstrained", "group unknown", "group known"]
    assert report.table.loc["unconstrained", "gap"] > 0.3 > report.table.loc["group known", "gap"]
    assert "demographic parity within 0.05 between a, b" in str(report)


def test_a_row_is_decided_alone_as_in_its_batch(model):
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, gq) = split()
    adapted = model.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    for rows in ([0], [150, 7]):
        for known in (True, False):
            some = {"sensitive_features": gq[rows]} if known else {}
            everyone = {"sensitive_features": gq} if known else {}
            np.testing.assert_array_equal(
                adapted.predict_proba(xq[rows], tasks=tq[rows], **some),
                adapted.predict_proba(xq, tasks=tq, **everyone)[rows],
            )


def test_many_tasks_adapt_as_one_by_one(model):
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, gq) = split()
    both = model.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    for t in (0, 7):
        s, u, q = ts == t, tu == t, tq == t
        alone = model.adapt(xs[s], ys[s], sensitive_features=gs[s], X_unlabelled=xu[u], sensitive_unlabelled=gu[u])
        for known in ({}, {"sensitive_features": gq[q]}):
            np.testing.assert_allclose(
                alone.predict_proba(xq[q], **known), both.predict_proba(xq[q], tasks=tq[q], **known), atol=1e-6
            )


def test_a_group_that_is_missing_from_the_rows_leaves_thresholds_as_learned(model):
    (xs, ys, ts, gs), _, (xq, _, tq, gq) = split()
    one = (ts == 0) & (gs == "a")
    plain, told = model.adapt(xs[one], ys[one]), model.adapt(xs[one], ys[one], sensitive_features=gs[one])
    mine = tq == 0
    np.testing.assert_array_equal(
        plain.predict(xq[mine], sensitive_features=gq[mine]), told.predict(xq[mine], sensitive_features=gq[mine])
    )


def test_probabilities_and_decisions_agree(model):
    p = model.predict_proba(X[:50])
    np.testing.assert_allclose(p.sum(1), 1)
    np.testing.assert_array_equal(model.predict(X[:50]), (p[:, 1] > 0.5).astype(int))


@pytest.mark.parametrize("constraint", ["equal_opportunity", "false_positive_rate_parity", "equalized_odds"])
def test_other_notions(constraint):
    fitted = FairnessConstrainedClassifier(constraint, classifier=QUICK).fit_meta(
        X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
    )
    report = fitted.constraint_report_.table["gap"]
    assert report["group known"] < report["unconstrained"]
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, _) = split()
    adapted = fitted.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    assert set(adapted.predict(xq, tasks=tq)) == {0, 1}


def test_another_bound_needs_no_training(model):
    loose = model.with_bound(0.3)
    assert loose.bound == 0.3 and model.bound_ == 0.05
    assert loose.constraint_report_.table.loc["group known", "gap"] <= 0.3
    errors = [m.constraint_report_.table.loc["group known", "error"] for m in (loose, model)]
    assert errors[0] < errors[1]
    (xs, ys, ts, gs), _, (xq, _, tq, _) = split()
    before = model.adapt(xs, ys, tasks=ts, sensitive_features=gs).with_bound(0.3)
    np.testing.assert_array_equal(
        before.predict(xq, tasks=tq), loose.adapt(xs, ys, tasks=ts, sensitive_features=gs).predict(xq, tasks=tq)
    )


def test_a_penalty_chooses_the_bound():
    bounds = [
        FairnessConstrainedClassifier(penalty=penalty, classifier=QUICK)
        .fit_meta(X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN])
        .bound_
        for penalty in (0.0, 10.0)
    ]
    assert bounds[0] > bounds[1]


def test_words_crossed_features_and_unknown_groups():
    words = np.where(Y == 1, "granted", "refused")
    sensitive = pd.DataFrame({"group": GROUP, "half": np.arange(len(Y)) % 2}).astype(object)
    sensitive.iloc[::50, 0] = None
    fitted = FairnessConstrainedClassifier(pos_label="granted", classifier=QUICK)
    fitted.fit_meta(X[TRAIN], words[TRAIN], tasks=TASK[TRAIN], sensitive_features=sensitive[TRAIN])
    assert len(fitted.groups_) == 5 or len(fitted.groups_) == 6
    decided = fitted.predict(X[:20], sensitive_features=sensitive[:20])
    assert set(decided) <= {"granted", "refused"} and fitted.pos_label_ == "granted"
    unseen = sensitive[:1].assign(group="z")
    with pytest.raises(InvalidDataError, match="^sensitive_features: group .*z.* did not occur"):
        fitted.predict(X[:1], sensitive_features=unseen)


def test_without_groups_it_is_the_classifier_and_says_so():
    with pytest.warns(UserWarning, match="^sensitive_features: not given, so nothing is constrained"):
        fitted = FairnessConstrainedClassifier(classifier=QUICK).fit_meta(X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN])
    plain = clone(QUICK).fit_meta(X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN])
    np.testing.assert_array_equal(fitted.predict_proba(X[:30]), plain.predict_proba(X[:30]))
    assert "Not constrained" in str(fitted.constraint_report_)
    with pytest.raises(InvalidDataError, match="^sensitive_features: the model was fitted without"):
        fitted.predict(X[:3], sensitive_features=GROUP[:3])


def test_mistakes(model):
    columns = dict(tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN])
    words = np.where(Y == 1, "granted", "refused")
    wrong = [
        (dict(constraint="parity"), Y, InvalidParameterError, "^constraint: got 'parity'"),
        (dict(bound=-0.1), Y, InvalidParameterError, "^bound: got -0.1"),
        (dict(bound=0.1, penalty=1.0), Y, InvalidParameterError, "^penalty: a bound was given too"),
        (dict(classifier="svm"), Y, InvalidParameterError, "^classifier: got 'svm'"),
        (dict(pos_label=3), Y, InvalidParameterError, "^pos_label: got 3"),
        ({}, words, InvalidParameterError, "^pos_label: got None"),
        ({}, np.arange(len(Y)) % 3, InvalidDataError, "^y: got 3 classes"),
    ]
    for settings, y, error, message in wrong:
        settings = {"classifier": QUICK} | settings
        with pytest.raises(error, match=message):
            FairnessConstrainedClassifier(**settings).fit_meta(X[TRAIN], y[TRAIN], **columns)
    with pytest.raises(InvalidDataError, match="^sensitive_features: got one group only"):
        FairnessConstrainedClassifier(classifier=QUICK).fit_meta(
            X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=["a"] * TRAIN.sum()
        )
    with pytest.raises(NotFittedError, match="^predict: this Fairness"):
        FairnessConstrainedClassifier().predict(X[:2])
    with pytest.raises(InvalidDataError, match="^sensitive_unlabelled: given without X_unlabelled"):
        model.adapt(X[:5], Y[:5], sensitive_unlabelled=GROUP[:5])
    with pytest.raises(InvalidDataError, match="^tasks_unlabelled: got None"):
        model.adapt(X[:5], Y[:5], tasks=TASK[:5], X_unlabelled=X[5:9], sensitive_unlabelled=GROUP[5:9])
    with pytest.raises(InvalidDataError, match="^tasks_unlabelled: task 99 has no support"):
        model.adapt(
            X[:5], Y[:5], tasks=TASK[:5], X_unlabelled=X[5:6], sensitive_unlabelled=["a"], tasks_unlabelled=[99]
        )
    forbidden = copy_with(model, use_sensitive_at_predict=False)
    with pytest.raises(InvalidDataError, match="^sensitive_features: given, but use_sensitive_at_predict=False"):
        forbidden.predict(X[:2], sensitive_features=GROUP[:2])


def copy_with(model, **settings):
    return pickle.loads(pickle.dumps(model)).set_params(**settings)


def test_a_pipeline_transforms_unlabelled_rows_and_passes_groups_on(model):
    pipeline = make_meta_pipeline(StandardScaler(), FairnessConstrainedClassifier(classifier=QUICK))
    pipeline.fit_meta(X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN])
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, gq) = split()
    columns = dict(tasks=ts, sensitive_features=gs, sensitive_unlabelled=gu, tasks_unlabelled=tu)
    adapted = pipeline.adapt(xs, ys, X_unlabelled=xu, **columns)
    scale = pipeline[:-1].transform
    inner = pipeline[-1].adapt(scale(xs), ys, X_unlabelled=scale(xu), **columns)
    for known in ({}, {"sensitive_features": gq}):
        np.testing.assert_array_equal(
            adapted.predict(xq, tasks=tq, **known), inner.predict(scale(xq), tasks=tq, **known)
        )
        assert adapted.predict_proba(xq, tasks=tq, **known).shape == (len(xq), 2)


def test_a_failed_fit_leaves_the_model_as_it_was(model):
    mine = pickle.loads(pickle.dumps(model))
    before = mine.predict(X[:40])
    with pytest.raises(InvalidDataError):
        mine.fit_meta(X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[:3])
    np.testing.assert_array_equal(mine.predict(X[:40]), before)


def test_metadata_routing_knows_the_columns():
    with sklearn.config_context(enable_metadata_routing=True):
        routed = FairnessConstrainedClassifier().get_metadata_routing()
        assert {"tasks", "sensitive_features"} <= set(routed.consumes("fit", ["tasks", "sensitive_features"]))
        assert set(routed.consumes("predict", ["tasks", "sensitive_features"])) == {"tasks", "sensitive_features"}


@parametrize_with_checks([FairnessConstrainedClassifier(classifier=QUICK)])
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="sensitive_features: not given", category=UserWarning)
        warnings.filterwarnings("ignore", message="tasks: not given", category=UserWarning)
        check(estimator)
