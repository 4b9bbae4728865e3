"""The constrained classifier: what it keeps, what it refuses, and that a row's decision is its own."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_validate
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewshot import make_meta_pipeline
from fewshot.applications.fairness.classifier import FairnessConstrainedClassifier
from fewshot.errors import FewShotError, InvalidDataError, InvalidParameterError, NotFittedError

from ._people import GROUP, QUICK, TASK, TRAIN, X, Y, table


@pytest.fixture(scope="module")
def model():
    return FairnessConstrainedClassifier(classifier=QUICK, random_state=0).fit_meta(
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
    penalized = model.with_penalty(4.0)
    alone = penalized.adapt(xs, ys, tasks=ts)
    columns = dict(tasks=ts, sensitive_features=gs, X_unlabelled=xu, tasks_unlabelled=tu)
    guessed, told = (penalized.adapt(xs, ys, **columns, **more) for more in ({}, {"sensitive_unlabelled": gu}))
    mean, _ = gap(free, gq, tq)
    assert mean > 0.3
    for known in ({}, {"sensitive_features": gq}):
        for adapted in (alone, guessed, told):
            decided = adapted.predict(xq, tasks=tq, **known)
            assert abs(gap(decided, gq, tq)[0]) < 0.5 * mean and gap(decided, gq, tq)[1] < 0.7 * gap(free, gq, tq)[1]
            assert (decided == yq).mean() > 0.65
    # Rows that are to be decided are matched, whatever other rows would have been like.
    batch = [told.predict(xu, tasks=tu, sensitive_features=gu), alone.predict(xu, tasks=tu, sensitive_features=gu)]
    assert gap(batch[0], gu, tu)[1] < 0.5 * gap(batch[1], gu, tu)[1]


def test_the_report_says_what_was_reached(model):
    report = model.constraint_report_
    assert report.table.index.tolist() == [
        "unconstrained",
        "group unknown",
        "group unknown, other rows of the task given",
        "group known",
        "group known, other rows of the task given",
    ]
    assert report.table.loc["unconstrained", "gap"] > 0.3 > report.table.loc["group known", "gap"]
    assert "demographic parity within 0.05 between a, b" in str(report)
    met = report.table["gap"] <= 0.05 + 1e-9
    assert (report.table["feasible"] == met).all()
    assert str(report).count("NOT within") == (~met).sum() - 1  # the unconstrained one is not blamed


def test_a_row_is_decided_alone_as_in_its_batch(model):
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, gq) = split()
    adapted = model.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    for rows in ([0], [150, 7]):
        for known in (True, False):
            some = {"sensitive_features": gq[rows]} if known else {}
            everyone = {"sensitive_features": gq} if known else {}
            np.testing.assert_allclose(  # but for the rounding of sums
                adapted.predict_proba(xq[rows], tasks=tq[rows], **some),
                adapted.predict_proba(xq, tasks=tq, **everyone)[rows],
                rtol=1e-12,
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


@pytest.mark.parametrize("constraint", ["demographic_parity", "equal_opportunity", "equalized_odds"])
def test_supports_without_a_group_or_without_an_outcome_force_nobody(constraint):
    fitted = FairnessConstrainedClassifier(constraint, classifier=QUICK, random_state=0).fit_meta(
        X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
    )
    (xs, ys, ts, gs), _, (xq, yq, tq, gq) = split()
    mine = tq == 0
    for cell in (gs == "a", gs == "b", ys == 1, (gs == "a") | (ys == 0)):
        some = (ts == 0) & cell
        adapted = fitted.adapt(xs[some], ys[some], sensitive_features=gs[some])
        for known in ({}, {"sensitive_features": gq[mine]}):
            p = adapted.predict_proba(xq[mine], **known)
            assert np.isfinite(p).all()
            for group in ("a", "b"):
                rate = (p[gq[mine] == group, 1] > 0.5).mean()
                assert 0 < rate < 1
            assert ((p[:, 1] > 0.5) == yq[mine]).mean() > 0.5


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
    assert report["group known, other rows of the task given"] < report["unconstrained"]
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, _) = split()
    adapted = fitted.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    assert set(adapted.predict(xq, tasks=tq)) == {0, 1}


def test_another_bound_needs_no_training(model):
    loose = model.with_bound(0.3)
    assert loose.bound == 0.3 and model.bound is None
    assert loose.constraint_report_.table.loc["group known", "gap"] <= 0.3
    errors = [m.constraint_report_.table.loc["group known", "error"] for m in (loose, model)]
    assert errors[0] < errors[1]
    (xs, ys, ts, gs), _, (xq, _, tq, _) = split()
    before = model.adapt(xs, ys, tasks=ts, sensitive_features=gs).with_bound(0.3)
    np.testing.assert_array_equal(
        before.predict(xq, tasks=tq), loose.adapt(xs, ys, tasks=ts, sensitive_features=gs).predict(xq, tasks=tq)
    )


def test_a_penalty_in_place_of_a_bound(model):
    fitted = FairnessConstrainedClassifier(penalty=1.0, classifier=QUICK, random_state=0).fit_meta(
        X[TRAIN], Y[TRAIN], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
    )
    assert str(fitted.constraint_report_).startswith("demographic parity between a, b")
    gaps = [fitted.with_penalty(p).constraint_report_.table.loc["group known", "gap"] for p in (0.0, 0.3, 3.0)]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 2 * gaps[2]
    np.testing.assert_array_equal(fitted.predict(X[:60]), model.with_penalty(1.0).predict(X[:60]))
    free = fitted.with_penalty(0.0)
    np.testing.assert_array_equal(free.predict(X[:60]), free.classifier_.predict(X[:60]))


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
    unlabelled = dict(X_unlabelled=X[5:7], sensitive_unlabelled=GROUP[5:7])
    for wrong, message in (
        ({"X_unlabelled": np.full((2, X.shape[1]), np.nan)}, "^X_unlabelled: contains .* NaN"),
        ({"sensitive_unlabelled": ["a", "z"]}, "^sensitive_unlabelled: group 'z' did not occur"),
        ({"sensitive_unlabelled": ["a"]}, "^sensitive_unlabelled: got 1 rows for 2 rows"),
    ):
        with pytest.raises(InvalidDataError, match=message):
            model.adapt(X[:5], Y[:5], **unlabelled | wrong)
    with pytest.raises(InvalidDataError, match="^tasks_unlabelled: given without tasks"):
        model.adapt(X[:5], Y[:5], X_unlabelled=X[5:7], tasks_unlabelled=[0, 1])
    with pytest.raises(InvalidDataError, match="^y: "):
        FairnessConstrainedClassifier(classifier=QUICK).fit_meta(
            X[TRAIN], Y[TRAIN][:-1], tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
        )
    several = model.adapt(X[:70], Y[:70], tasks=TASK[:70], sensitive_features=GROUP[:70])
    for tasks, message in (
        (None, "^tasks: this model was adapted to 2"),
        ([0], "^tasks: "),
        ([0, 77], "^tasks: 77 is not"),
    ):
        with pytest.raises(FewShotError, match=message):
            several.predict(X[:2], tasks=tasks)
    forbidden = copy_with(model, use_sensitive_at_predict=False)
    with pytest.raises(InvalidDataError, match="^sensitive_features: given, but use_sensitive_at_predict=False"):
        forbidden.predict(X[:2], sensitive_features=GROUP[:2])


@pytest.mark.parametrize("columns", [{}, {"sensitive_features": GROUP[:3]}])
def test_other_features_are_refused_by_the_name_of_the_model(model, columns):
    with pytest.raises(ValueError, match="^X: X has 2 features, but MAMLClassifier is expecting 3 features"):
        model.predict(X[:3, :2], **columns)
    with pytest.raises(ValueError, match="^X_unlabelled: X has 2 features, but MAMLClassifier is expecting 3 features"):
        model.adapt(X[:5], Y[:5], X_unlabelled=X[:3, :2])


def test_a_refit_leaves_nothing_of_the_fit_before(model, short_curve):
    columns = dict(tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN])
    settings = dict(classifier=QUICK, use_sensitive_at_predict=False, random_state=0)
    again = model.adapt(X[:20], Y[:20], tasks=TASK[:20], sensitive_features=GROUP[:20]).set_params(**settings)
    again.fit_meta(X[TRAIN], Y[TRAIN], **columns)
    new = FairnessConstrainedClassifier(**settings).fit_meta(X[TRAIN], Y[TRAIN], **columns)
    np.testing.assert_array_equal(again.predict_proba(X), new.predict_proba(X))
    with pytest.warns(UserWarning, match="nothing is constrained"):
        again.fit_meta(X[TRAIN, :2], Y[TRAIN], tasks=TASK[TRAIN])
    assert not hasattr(again, "groups_")
    np.testing.assert_array_equal(again.predict_proba(X[:, :2]), again.classifier_.predict_proba(X[:, :2]))


def test_settings_changed_after_the_fit_change_nothing(model):
    before, report = model.predict_proba(X), str(model.constraint_report_)
    changed = copy_with(model, bound=0.9)
    np.testing.assert_array_equal(changed.predict_proba(X), before)
    adapted = changed.adapt(X[:10], Y[:10], sensitive_features=GROUP[:10])
    assert (
        adapted.constraint_report_.bound == model.constraint_report_.bound and str(changed.constraint_report_) == report
    )
    assert changed.with_bound(0.9).constraint_report_.bound == 0.9


def test_a_group_of_a_few_people_does_not_pass_for_the_largest_gap():
    group = pd.Series(GROUP, dtype=object)
    group[[70, 71]] = None
    columns = dict(tasks=TASK[TRAIN], sensitive_features=group[TRAIN])
    found = FairnessConstrainedClassifier(
        bound=0.2, classifier=QUICK, use_sensitive_at_predict=False, random_state=0
    ).fit_meta(X[TRAIN], Y[TRAIN], **columns)
    report = found.constraint_report_
    assert report.unjudged == ("a - unknown", "b - unknown") and "a - unknown" in str(report)
    assert report.table.loc["group unknown", "feasible"] and report.table.loc["unconstrained", "gap"] < 0.5
    assert np.isfinite(found.predict_proba(X)).all()


def test_a_task_of_which_nothing_is_told_stays_as_it_was_beside_others(model):
    one, other = (np.flatnonzero(t == TASK)[:12] for t in (8, 9))
    one = one[GROUP[one] == "a"]
    rows = np.concatenate([one, other])
    settings = dict(tasks=TASK[rows], sensitive_features=GROUP[rows])
    alone = model.adapt(X[one], Y[one], sensitive_features=GROUP[one])
    together = model.adapt(X[rows], Y[rows], X_unlabelled=X[-30:], tasks_unlabelled=TASK[-30:], **settings)
    of_one = {"tasks": np.full(60, 8)}
    x = X[TASK == 8]
    np.testing.assert_allclose(together.predict_proba(x, **of_one), alone.predict_proba(x), rtol=1e-9)


def test_one_more_row_does_not_put_the_support_aside(model):
    few = slice(0, 40)
    columns = dict(sensitive_features=GROUP[few])
    plain = model.adapt(X[few], Y[few], **columns)
    more = model.adapt(X[few], Y[few], X_unlabelled=X[50:51], sensitive_unlabelled=GROUP[50:51], **columns)
    many = model.adapt(X[few], Y[few], X_unlabelled=X[50:100], sensitive_unlabelled=GROUP[50:100], **columns)
    deciders = [found._deciders["known"] for found in (plain, more, many)]
    assert [decider.levels.tolist() for decider in deciders] == [[0], [0], [1]]
    shifts = [decider.rule(model._choose).shifts for decider in deciders]
    np.testing.assert_allclose(shifts[1], shifts[0], atol=0.03)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
def test_outcomes_may_stand_in_a_column(short_curve):
    flat, column = (
        FairnessConstrainedClassifier(classifier=QUICK, use_sensitive_at_predict=False, random_state=0).fit_meta(
            X[TRAIN], y, tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN]
        )
        for y in (Y[TRAIN], Y[TRAIN][:, None])
    )
    np.testing.assert_array_equal(flat.predict_proba(X), column.predict_proba(X))
    adapted = [flat.adapt(X[:9], y, sensitive_features=GROUP[:9]) for y in (Y[:9], Y[:9, None])]
    np.testing.assert_array_equal(*(found.predict_proba(X) for found in adapted))


def test_all_operating_points_at_once_are_as_one_after_the_other(model):
    (xs, ys, ts, gs), (xu, _, tu, gu), (xq, _, tq, gq) = split()
    adapted = model.adapt(
        xs, ys, tasks=ts, sensitive_features=gs, X_unlabelled=xu, sensitive_unlabelled=gu, tasks_unlabelled=tu
    )
    for one, tasks in ((model, None), (adapted, tq)):
        for columns in ({"tasks": tasks}, {"tasks": tasks, "sensitive_features": gq}):
            decided = one.predict_frontier(xq, **columns)
            for penalty, point in one.operating_points().items():
                np.testing.assert_array_equal(decided[penalty], point.predict(xq, **columns))


def test_the_frontier_passes_over_pairs_without_rows(model):
    group = np.where(TASK == 0, "a", GROUP)
    frame = model.frontier(X, Y, sensitive_features=group)
    assert frame.index.tolist()[0] == 0.0 and np.isfinite(frame).all(axis=None)
    one = model.frontier(X[:60], Y[:60], sensitive_features=["a"] * 60)
    assert one["gap"].isna().all() and np.isfinite(one["accuracy"]).all()
    plain = (model.classifier_.predict(X[:60]) == Y[:60]).mean()
    assert model.frontier(X[:60], Y[:60], sensitive_features=GROUP[:60], told=False)["accuracy"].iloc[0] == plain


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


def test_groups_are_routed_through_a_pipeline_in_cross_validation(short_curve):
    with sklearn.config_context(enable_metadata_routing=True):
        pipeline = make_meta_pipeline(
            StandardScaler(), FairnessConstrainedClassifier(classifier=QUICK, use_sensitive_at_predict=False)
        )
        found = cross_validate(
            pipeline,
            X,
            Y,
            cv=GroupKFold(2),
            params={"tasks": TASK, "groups": TASK, "sensitive_features": GROUP},
            error_score="raise",
        )
    assert (found["test_score"] > 0.6).all()


@parametrize_with_checks([FairnessConstrainedClassifier(classifier=QUICK)])
def test_scikit_learn_checks(estimator, check):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="sensitive_features: not given", category=UserWarning)
        warnings.filterwarnings("ignore", message="tasks: not given", category=UserWarning)
        check(estimator)
