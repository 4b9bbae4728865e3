"""What holds for every baseline."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.utils.estimator_checks import parametrize_with_checks

from fewshot.baselines import (
    BiasedRegularization,
    BoostedMixedEffects,
    MixedEffects,
    MixedLogistic,
    PooledModel,
    RefittedModel,
    SupportMean,
    SupportModel,
    default_baselines,
)
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError, UnknownTaskError
from fewshot.tasks import Rows

RNG = np.random.default_rng(0)
TASKS = np.repeat(np.array(["a", "b", "c", "d", "e"]), 12)
X = RNG.normal(size=(60, 3))
Y = X[:, 0] + np.repeat(RNG.normal(size=5), 12)
LABELS = np.where(np.median(Y) < Y, "yes", "no")

REGRESSORS = [
    PooledModel(Ridge()),
    SupportModel(Ridge()),
    SupportMean(),
    RefittedModel(Ridge(), 3.0),
    MixedEffects(),
    MixedEffects("slopes"),
    BoostedMixedEffects(random_state=0),
    BiasedRegularization(random_state=0),
]
CLASSIFIERS = [
    PooledModel(LogisticRegression()),
    SupportModel(LogisticRegression()),
    SupportMean("classification"),
    RefittedModel(LogisticRegression(), 3.0),
    MixedLogistic(1.0),
    BiasedRegularization("classification", random_state=0),
]


def name(model):
    return f"{type(model).__name__}-{'classifier' if is_classifier(model) else 'regressor'}"


@pytest.fixture(params=REGRESSORS + CLASSIFIERS, ids=name)
def model(request):
    return clone(request.param)


def targets(model):
    return LABELS if is_classifier(model) else Y


def answer(model, X, **tasks):
    return model.predict_proba(X, **tasks) if is_classifier(model) else model.predict(X, **tasks)


def test_adapting_returns_a_new_model_and_leaves_the_old_one(model):
    y = targets(model)
    assert model.fit_meta(X, y, tasks=TASKS) is model
    before = answer(model, X)
    adapted = model.adapt(X[:5], y[:5])
    again = adapted.adapt(X[30:34], y[30:34])
    assert adapted is not model and type(adapted) is type(model)
    np.testing.assert_array_equal(answer(model, X), before)
    np.testing.assert_array_equal(answer(again, X), answer(model.adapt(X[30:34], y[30:34]), X))
    assert not hasattr(clone(adapted), "_state")


def test_many_tasks_at_once_are_each_by_itself(model):
    y = targets(model)
    model.fit(X, y, tasks=TASKS)
    support, query = np.arange(60) % 12 < 4, np.arange(60) % 12 >= 4
    shuffled = np.random.default_rng(1).permutation(np.flatnonzero(query))
    together = answer(model.adapt(X[support], y[support], tasks=TASKS[support]), X[shuffled], tasks=TASKS[shuffled])
    for task in "abcde":
        own = support & (task == TASKS)
        alone = answer(model.adapt(X[own], y[own]), X[shuffled])
        np.testing.assert_allclose(together[TASKS[shuffled] == task], alone[TASKS[shuffled] == task], atol=1e-8)


def test_an_empty_support_changes_nothing(model):
    y = targets(model)
    model.fit_meta(X, y, tasks=TASKS)
    np.testing.assert_allclose(answer(model.adapt(X[:0], y[:0]), X), answer(model, X), atol=1e-7)
    with pytest.raises(UnknownTaskError, match="not adapted to task 'a'"):
        model.adapt(X[:0], y[:0], tasks=TASKS[:0]).predict(X, tasks=TASKS)


def test_tasks_must_be_known_and_told(model):
    y = targets(model)
    model.fit_meta(X, y, tasks=TASKS)
    labelled, single = model.adapt(X[:24], y[:24], tasks=TASKS[:24]), model.adapt(X[:3], y[:3])
    with pytest.raises(UnknownTaskError, match="tasks: the model was not adapted to task 'c'"):
        labelled.predict(X, tasks=TASKS)
    with pytest.raises(UnknownTaskError, match="tasks: this model was adapted to 2 labelled task"):
        labelled.predict(X)
    with pytest.raises(UnknownTaskError, match="tasks: this model was adapted to one task without a label"):
        single.predict(X, tasks=TASKS)
    with pytest.raises(InvalidDataError, match=r"tasks: got an array of shape \(3,\) for 60 rows"):
        labelled.predict(X, tasks=TASKS[:3])
    np.testing.assert_array_equal(model.predict(X, tasks=TASKS), model.predict(X))


def test_frames_weights_blocks_and_pickles(model):
    y = targets(model)
    frame = pd.DataFrame(X, columns=["u", "v", "w"])
    model.fit_meta(frame, y, tasks=TASKS, blocks=np.arange(60) // 2, time=np.arange(60), sample_weight=np.ones(60))
    plain = clone(model).fit_meta(X, y, tasks=TASKS)
    np.testing.assert_allclose(answer(model, frame), answer(plain, X), atol=1e-7)
    adapted = pickle.loads(pickle.dumps(model.adapt(frame[:5], y[:5], sample_weight=np.ones(5))))
    np.testing.assert_allclose(answer(adapted, frame), answer(plain.adapt(X[:5], y[:5]), X), atol=1e-7)
    with pytest.raises(ValueError, match="feature names"):
        model.adapt(frame.rename(columns={"u": "other"})[:5], y[:5])


def test_kinds_scores_and_probabilities(model):
    y = targets(model)
    model.fit_meta(X, y, tasks=TASKS)
    assert is_classifier(model) != is_regressor(model)
    assert model.score(X, y) <= 1.0
    assert hasattr(model, "predict_proba") == is_classifier(model)
    if is_classifier(model):
        np.testing.assert_allclose(model.adapt(X[:3], y[:3]).predict_proba(X).sum(1), 1)
        with pytest.raises(InvalidDataError, match=r"y: class 'maybe' did not occur in training"):
            model.adapt(X[:1], ["maybe"])


def test_errors_of_columns(model):
    y = targets(model)
    with pytest.raises(NotFittedError, match="call fit_meta first"):
        model.predict(X)
    with pytest.raises(InvalidDataError, match="tasks: got 3 labels for 60 rows"):
        model.fit_meta(X, y, tasks=TASKS[:3])
    with pytest.raises(InvalidDataError, match="blocks: got 3 values for 60 rows"):
        model.fit_meta(X, y, tasks=TASKS, blocks=[1, 2, 3])
    with pytest.raises(InvalidDataError, match="y: requires y to be passed"):
        model.fit_meta(X, tasks=TASKS)


class Lines:
    """Lines through the origin (the sign of their values, for classes), with padded supports of one to three rows."""

    def __init__(self, classes, shape=(1,)):
        self.classes, self.shape = classes, shape

    def sample(self, n_tasks, rng):
        slope = torch.from_numpy(rng.normal(size=(n_tasks, 1)))

        def rows(n, weight):
            x = torch.from_numpy(rng.normal(size=(n_tasks, n, *self.shape)))
            y = slope * x.flatten(2)[..., 0]
            return Rows(x, (y > 0).long() if self.classes else y, weight)

        return rows(3, (torch.arange(3) <= torch.arange(n_tasks)[:, None] % 3).double()), rows(
            5, torch.ones(n_tasks, 5)
        )


@pytest.mark.parametrize("shape", [(1,), (2, 2)])
def test_samplers_are_laid_out_as_tables(model, shape):
    if isinstance(model, RefittedModel) and is_classifier(model):
        model.set_params(estimator__max_iter=1000)
    model.fit_meta(Lines(is_classifier(model), shape))
    assert model.n_features_in_ == np.prod(shape)
    assert model.adapt(np.ones((1, *shape)), [1]).predict(np.ones((2, *shape))).shape == (2,)
    with pytest.raises(InvalidDataError, match="tasks: X is a TaskSampler"):
        model.fit_meta(Lines(is_classifier(model)), tasks=TASKS)


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_default_baselines_run(kind):
    for baseline in default_baselines(kind, random_state=0).values():
        if "boosting" in str(baseline).lower():
            baseline.set_params(param_grid={"max_iter": [2, 3]})
        y = LABELS if kind == "classification" else Y
        assert baseline.fit_meta(X, y, tasks=TASKS).adapt(X[:5], y[:5]).predict(X).shape == (60,)


def test_unknown_kind_of_defaults():
    with pytest.raises(InvalidParameterError, match="kind: got 'ranking'; expected 'regression' or 'classification'"):
        default_baselines("ranking")


@parametrize_with_checks(
    [*REGRESSORS, *CLASSIFIERS], expected_failed_checks=lambda estimator: estimator._expected_failed_checks
)
def test_scikit_learn_checks(estimator, check):
    check(estimator)
