"""Per-task views: scikit-learn's scorers must not notice that nothing is predicted for them."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import get_scorer, log_loss, make_scorer, roc_auc_score

from fewshot.baselines import MixedLogistic, PooledModel, SupportMean
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import evaluate_few_shot

RNG = np.random.default_rng(0)
TASKS = np.repeat(np.arange(5), 20)
X = RNG.normal(size=(100, 2))
Y = (X[:, 0] + RNG.normal(size=100) > 0).astype(int)
SCORERS = ["accuracy", "roc_auc", "neg_log_loss", "f1", "average_precision", "neg_brier_score", "balanced_accuracy"]


def zero_shot(model, y=Y, **options):
    return evaluate_few_shot(model, X, y, TASKS, shots=0, draws=1, cv="prefit", **options)


@pytest.mark.parametrize("name", SCORERS)
def test_each_task_has_the_score_that_scikit_learn_gives_its_rows(name):
    model = PooledModel(LogisticRegression()).fit_meta(X, Y, tasks=TASKS)
    values = zero_shot(model, scoring=name).set_index("task").value
    for task in range(5):
        rows = task == TASKS
        assert values[task] == pytest.approx(get_scorer(name)(model.estimator_, X[rows], Y[rows]))


def test_several_classes():
    y = np.digitize(X[:, 0] + RNG.normal(size=100), [-0.5, 0.5])
    model = MixedLogistic(1.0).fit_meta(X, y, tasks=TASKS)
    values = zero_shot(model, y, scoring="roc_auc_ovr").value
    expected = [roc_auc_score(y[t == TASKS], model.predict_proba(X[t == TASKS]), multi_class="ovr") for t in range(5)]
    np.testing.assert_allclose(values, expected)


def test_undefined_metrics_are_nan():
    y = np.where(TASKS == 0, 1, Y)
    model = PooledModel(LogisticRegression()).fit_meta(X, y, tasks=TASKS)
    frame = zero_shot(model, y, scoring=["roc_auc", "neg_log_loss", "accuracy", "balanced_accuracy"])
    undefined = frame[frame.value.isna()]
    assert set(undefined.task) == {0} and set(undefined.metric) == {"roc_auc", "neg_log_loss"}
    small = evaluate_few_shot(SupportMean(), X, X[:, 0], TASKS, shots=19, draws=1, scoring="r2")
    assert small.value.isna().all()  # queries of one row


def test_a_metric_that_fails_for_every_task_is_an_error():
    model = PooledModel(LogisticRegression()).fit_meta(X, Y, tasks=TASKS)
    wrong = make_scorer(log_loss, response_method="predict_proba", labels=[7, 8, 9])
    with pytest.raises(InvalidParameterError, match="scoring: 'wrong' could not be computed for any task: "):
        zero_shot(model, scoring={"wrong": wrong})


def test_own_scorers_see_the_query_rows_and_cannot_ask_for_others():
    model = SupportMean().fit_meta(X, X[:, 0], tasks=TASKS)

    def largest(estimator, X, y):
        assert X.shape == (20, 2) and not hasattr(estimator, "predict_proba")
        return y.max()

    values = zero_shot(model, X[:, 0], scoring=largest)
    assert values.metric.unique() == ["score"]
    np.testing.assert_array_equal(values.value, [X[t == TASKS, 0].max() for t in range(5)])

    def peeking(estimator, X, y):
        return estimator.predict(X[:3]).mean()

    with pytest.raises(InvalidDataError, match="scoring: predict was asked for 3 rows instead of the 20 query rows"):
        zero_shot(model, X[:, 0], scoring={"peeking": peeking})


def test_errors_of_a_method_are_not_taken_for_undefined_metrics():
    class Failing(SupportMean):
        def predict(self, X, *, tasks=None):
            raise ValueError("the method's own")

    with pytest.raises(ValueError, match="the method's own"):
        zero_shot(Failing().fit_meta(X, X[:, 0], tasks=TASKS), X[:, 0])


def test_a_missing_response_is_told_by_scikit_learn():
    with pytest.raises(AttributeError, match="predict_proba"):
        zero_shot(SupportMean().fit_meta(X, X[:, 0], tasks=TASKS), X[:, 0], scoring="neg_log_loss")
