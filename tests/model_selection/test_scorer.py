"""The scorer inside scikit-learn's tools."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot import make_meta_pipeline
from fewshot.baselines import MixedEffects, PooledModel, SupportMean, SupportModel
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import evaluate_few_shot, few_shot_scorer

RNG = np.random.default_rng(0)
TASKS = np.repeat(np.arange(9), 10)
X = RNG.normal(size=(90, 2))
Y = X[:, 0] + 2.0 * RNG.normal(size=9)[TASKS] + 0.1 * RNG.normal(size=90)
BLOCKS, TIME = np.arange(90) // 2, np.arange(90)
PARAMS = {"tasks": TASKS, "groups": TASKS}


@pytest.fixture
def routing():
    with sklearn.config_context(enable_metadata_routing=True):
        yield


def mean_of_folds(estimator, shots, **options):
    frame = evaluate_few_shot(estimator, X, Y, TASKS, shots=shots, cv=GroupKFold(3), random_state=0, **options)
    by_task = frame.groupby("task").value.mean()
    return [by_task[np.unique(TASKS[test])].mean() for _, test in GroupKFold(3).split(X, Y, TASKS)]


@pytest.mark.parametrize(
    "estimator",
    [
        MixedEffects(),
        make_meta_pipeline(StandardScaler(), SupportModel(Ridge())),
        make_pipeline(StandardScaler(), SupportModel(Ridge())),
        Ridge(),
        make_pipeline(StandardScaler(), Ridge()),
    ],
    ids=["bare", "meta pipeline", "plain pipeline", "plain estimator", "pipeline of plain estimators"],
)
def test_cross_validate_gives_what_evaluate_few_shot_gives(routing, estimator):
    scores = cross_validate(
        estimator, X, Y, cv=GroupKFold(3), params=PARAMS, scoring=few_shot_scorer(3), error_score="raise"
    )
    np.testing.assert_allclose(scores["test_score"], mean_of_folds(clone(estimator), 3))


def test_blocks_and_time_arrive_too(routing):
    params = {**PARAMS, "blocks": BLOCKS, "time": TIME}
    scoring = few_shot_scorer(1, support="first", draws=1)
    scores = cross_val_score(MixedEffects(), X, Y, cv=GroupKFold(3), params=params, scoring=scoring)
    expected = mean_of_folds(MixedEffects(), 1, support="first", draws=1, blocks=BLOCKS, time=TIME)
    np.testing.assert_allclose(scores, expected)
    assert not np.allclose(scores, mean_of_folds(MixedEffects(), 1, draws=1))


def test_several_scorers_by_name_beside_ordinary_ones(routing):
    scoring = {"zero": few_shot_scorer(0), "five": few_shot_scorer(5, scoring="r2"), "plain": "neg_mean_absolute_error"}
    scores = cross_validate(MixedEffects(), X, Y, cv=GroupKFold(3), params=PARAMS, scoring=scoring, n_jobs=2)
    np.testing.assert_allclose(scores["test_five"], mean_of_folds(MixedEffects(), 5, scoring="r2"))
    np.testing.assert_allclose(scores["test_zero"], mean_of_folds(MixedEffects(), 0, draws=1))
    # Tasks are of one size, so the mean over rows is the mean over tasks.
    np.testing.assert_allclose(scores["test_plain"], scores["test_zero"])


@pytest.mark.parametrize("several", [False, True])
def test_grid_search(routing, several):
    scoring = {"one": few_shot_scorer(1), "four": few_shot_scorer(4)} if several else few_shot_scorer(4)
    grid = {"supportmodel__estimator__alpha": [1e-3, 1e6]}
    model = make_meta_pipeline(StandardScaler(), SupportModel(Ridge(), standardize=False))
    search = GridSearchCV(model, grid, scoring=scoring, cv=GroupKFold(3), refit="four" if several else True)
    search.fit(X, Y, **PARAMS)
    assert search.best_params_ == {"supportmodel__estimator__alpha": 1e-3}
    means = search.cv_results_["mean_test_four" if several else "mean_test_score"]
    expected = [
        np.mean(mean_of_folds(clone(model).set_params(supportmodel__estimator__alpha=a), 4)) for a in (1e-3, 1e6)
    ]
    np.testing.assert_allclose(means, expected)
    assert search.score(X, Y, tasks=TASKS) == few_shot_scorer(4)(search.best_estimator_, X, Y, tasks=TASKS)
    clone(search)


def test_shots_per_class_and_support_for_classifiers(routing):
    labels = np.where(X[:, 0] > 0, "yes", "no")
    scorer = few_shot_scorer(shots_per_class=2, scoring="neg_log_loss")
    model = SupportModel(LogisticRegression())
    scores = cross_val_score(model, X, labels, cv=GroupKFold(3), params=PARAMS, scoring=scorer, error_score="raise")
    assert np.isfinite(scores).all()


def test_draws_are_averaged_within_tasks_and_tasks_count_the_same():
    tasks = np.array([0] * 3 + [1] * 9)
    y = np.array([0.0] * 3 + [8.0] * 9)
    model = SupportMean().fit_meta(X[:12], np.full(12, 2.0), tasks=tasks)
    assert few_shot_scorer(0)(model, X[:12], y, tasks=tasks) == pytest.approx(-(2 + 6) / 2)


def test_where_no_task_defines_the_metric_the_score_is_nan():
    model = SupportMean().fit_meta(X, Y, tasks=TASKS)
    assert np.isnan(few_shot_scorer(9, scoring="r2")(model, X, Y, tasks=TASKS))


def test_without_tasks_it_says_what_to_do():
    model = SupportMean().fit_meta(X, Y, tasks=TASKS)
    with pytest.raises(InvalidDataError, match="enable_metadata_routing=True") as caught:
        few_shot_scorer()(model, X, Y)
    assert "\n" not in str(caught.value)
    with pytest.raises(InvalidDataError, match="enable_metadata_routing=True"):
        cross_validate(
            SupportMean(), X, Y, groups=TASKS, cv=GroupKFold(3), scoring=few_shot_scorer(), error_score="raise"
        )


def test_one_number_and_one_metric():
    model = SupportMean().fit_meta(X, Y, tasks=TASKS)
    with pytest.raises(InvalidParameterError, match=r"shots: got \[1, 2\]; a scorer takes one number"):
        few_shot_scorer([1, 2])(model, X, Y, tasks=TASKS)
    with pytest.raises(InvalidParameterError, match="scoring: got .*; a scorer takes one metric"):
        few_shot_scorer(1, scoring=["r2", "neg_max_error"])(model, X, Y, tasks=TASKS)


def test_it_can_be_printed_cloned_and_pickled():
    scorer = few_shot_scorer(7, scoring="r2", support="first")
    assert repr(scorer) == "FewShotScorer(scoring='r2', shots=7, support='first')"
    assert clone(scorer).get_params() == pickle.loads(pickle.dumps(scorer)).get_params() == scorer.get_params()


def test_pooled_models_route_their_scores_without_ceremony(routing):
    scores = cross_validate(PooledModel(Ridge()), X, Y, cv=GroupKFold(3), params=PARAMS)
    assert scores["test_score"].shape == (3,)
