"""evaluate_few_shot by hand, and what must not change a prediction."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.metrics import accuracy_score, make_scorer, mean_absolute_error
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from fewshot import make_meta_pipeline
from fewshot.baselines import MixedEffects, MixedLogistic, PooledModel, SupportMean, SupportModel
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import evaluate_few_shot
from fewshot.tasks import Rows

RNG = np.random.default_rng(0)
TASKS = np.repeat([3, 1, 4, 2, 5, 0], 8)
X = RNG.normal(size=(48, 2))
Y = X[:, 0] + 2.0 * TASKS + 0.1 * RNG.normal(size=48)
LABELS = np.where(X[:, 0] + 0.5 * RNG.normal(size=48) > 0, "yes", "no")
COLUMNS = ["method", "task", "shots", "draw", "metric", "value"]


class Spy(SupportMean):
    """Remembers what it was given; `log` is shared by clones."""

    def __init__(self, log=None):
        super().__init__()
        self.log = log

    def __sklearn_clone__(self):
        return Spy(self.log)

    def fit_meta(self, X, y=None, **columns):
        self.log.append(("fit", np.asarray(X), y, columns))
        return super().fit_meta(X, y, **columns)

    def adapt(self, X, y, **columns):
        self.log.append(("adapt", np.asarray(X), y, columns))
        return super().adapt(X, y, **columns)

    def predict(self, X, *, tasks=None):
        self.log.append(("predict", np.asarray(X), None, {"tasks": tasks}))
        return super().predict(X, tasks=tasks)


def test_a_case_worked_by_hand():
    # Constant tasks: from one row on the support mean is exact; zero-shot it is off by the distance to the other task.
    frame = evaluate_few_shot(
        SupportMean(), np.zeros((6, 1)), [1, 1, 1, 5, 5, 5], ["a", "a", "a", "b", "b", "b"], shots=[2, 0], draws=2, cv=2
    )
    assert frame.columns.tolist() == COLUMNS
    assert frame.value.tolist() == [-4.0, -4.0, 0.0, 0.0] * 2
    assert frame.task.tolist() == ["a"] * 4 + ["b"] * 4
    assert frame.shots.tolist() == [0, 0, 2, 2] * 2
    assert frame.draw.tolist() == [0, 1] * 4
    assert set(frame.method) == {"SupportMean"} and set(frame.metric) == {"neg_mean_absolute_error"}
    assert frame.attrs["left_out"] == {2: 0, 0: 0}


def test_scores_are_those_of_the_query_rows():
    log = []
    frame = evaluate_few_shot(Spy(log), X, Y, TASKS, shots=3, draws=1, cv=2, random_state=0)
    row_of = {tuple(x): i for i, x in enumerate(X)}
    for (_, Xs, ys, columns), (_, Xq, _, _) in zip(
        [e for e in log if e[0] == "adapt"], [e for e in log if e[0] == "predict"], strict=True
    ):
        support, query = [row_of[tuple(x)] for x in Xs], np.array([row_of[tuple(x)] for x in Xq])
        np.testing.assert_array_equal(Y[support], ys)
        np.testing.assert_array_equal(TASKS[support], columns["tasks"])
        assert not set(support) & set(query)
        for task in np.unique(TASKS[support]):
            own = query[TASKS[query] == task]
            assert len(own) == 5
            mean = np.mean([Y[i] for i in support if TASKS[i] == task])
            value = frame.value[frame.task == task].item()
            assert value == pytest.approx(-np.abs(Y[own] - mean).mean())


def test_one_vectorised_call_for_each_fold_draw_and_number_of_shots():
    log = []
    evaluate_few_shot(Spy(log), X, Y, TASKS, shots=[0, 1, 4], draws=2, cv=3, scoring=["r2", "neg_mean_absolute_error"])
    calls = [event for event, *_ in log]
    assert (calls.count("fit"), calls.count("adapt"), calls.count("predict")) == (3, 3 * 2 * 2, 3 * 2 * 3)


def test_training_and_test_tasks_are_apart_and_columns_arrive():
    log, weight = [], RNG.uniform(1, 2, 48)
    columns = {"blocks": np.arange(48) // 2, "time": np.arange(48), "sample_weight": weight}
    evaluate_few_shot(Spy(log), X, Y, TASKS, shots=1, draws=1, cv=GroupKFold(3), **columns)
    for (_, _, _, fitted), (_, Xs, _, adapted) in zip(
        [e for e in log if e[0] == "fit"], [e for e in log if e[0] == "adapt"], strict=True
    ):
        assert set(fitted) == {"tasks", "blocks", "time", "sample_weight"}
        assert not set(fitted["tasks"]) & set(adapted["tasks"])
        np.testing.assert_array_equal(
            adapted["sample_weight"], weight[[np.flatnonzero(X[:, 0] == x[0])[0] for x in Xs]]
        )


def test_all_methods_see_the_same_draws_and_jobs_change_nothing():
    first, second = [], []
    methods = {"one": Spy(first), "ridge": SupportModel(Ridge()), "two": Spy(second)}
    frame = evaluate_few_shot(methods, X, Y, TASKS, shots=[1, 3], draws=2, random_state=1)
    for mine, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(mine[1], theirs[1])
    assert frame.method.drop_duplicates().tolist() == ["one", "ridge", "two"]
    alone = evaluate_few_shot({"ridge": methods["ridge"]}, X, Y, TASKS, shots=[3, 1], draws=2, random_state=1, n_jobs=2)
    pd.testing.assert_frame_equal(frame[frame.method == "ridge"].reset_index(drop=True), alone)


def test_query_targets_and_other_test_tasks_change_no_prediction():
    log = []
    evaluate_few_shot(Spy(log), X, Y, TASKS, shots=2, draws=1, cv=[(TASKS < 3, TASKS >= 3)], random_state=0)
    support = next(e[1] for e in log if e[0] == "adapt")
    is_support = np.array([tuple(x) in set(map(tuple, support)) for x in X])
    changed = np.where(is_support | (TASKS < 3), Y, 99.0)
    kept = TASKS != 4

    class Predictions:
        def __init__(self):
            self.seen = {}

        def __call__(self, estimator, X, y):
            self.seen.update({tuple(x): p for x, p in zip(X, estimator.predict(X), strict=True)})
            return 0.0

    runs = []
    for rows, y in ((np.ones(48, dtype=bool), Y), (np.ones(48, dtype=bool), changed), (kept, Y)):
        note = Predictions()
        train, test = np.flatnonzero(TASKS[rows] < 3), np.flatnonzero(TASKS[rows] >= 3)
        evaluate_few_shot(
            MixedEffects(),
            X[rows],
            y[rows],
            TASKS[rows],
            shots=2,
            draws=1,
            cv=[(train, test)],
            random_state=0,
            scoring=note,
        )
        runs.append(note.seen)
    assert runs[0] == runs[1]
    assert runs[2] and all(runs[0][row] == value for row, value in runs[2].items())


def test_prefit_models_are_scored_on_all_tasks_as_they_are():
    model = MixedEffects().fit_meta(X, Y, tasks=TASKS)
    plain = Ridge().fit(X, Y)
    frame = evaluate_few_shot({"mixed": model, "ridge": plain}, X, Y, TASKS, shots=[0, 1], draws=1, cv="prefit")
    zero = frame[(frame.method == "ridge") & (frame.shots == 0)].set_index("task").value
    for task in range(6):
        rows = task == TASKS
        assert zero[task] == pytest.approx(-mean_absolute_error(Y[rows], plain.predict(X[rows])))
    assert len(frame) == 24


def test_the_callers_estimators_are_not_fitted():
    model, pipeline = SupportMean(), make_pipeline(StandardScaler(), SupportModel(Ridge()))
    evaluate_few_shot({"a": model, "b": pipeline}, X, Y, TASKS, shots=1, draws=1)
    assert not hasattr(model, "prior_") and not hasattr(pipeline[-1], "prior_") and not hasattr(pipeline[0], "mean_")


@pytest.mark.parametrize("routing", [False, True])
def test_pipelines_plain_and_meta_are_the_same_and_plain_estimators_are_pooled(routing):
    import sklearn

    model = SupportModel(Ridge(), standardize=False)
    methods = {
        "plain": make_pipeline(StandardScaler(), model),
        "meta": make_meta_pipeline(StandardScaler(), clone(model)),
        "ridge": Ridge(),
        "pooled": PooledModel(Ridge()),
    }
    with sklearn.config_context(enable_metadata_routing=routing):
        frame = evaluate_few_shot(methods, X, Y, TASKS, shots=[0, 4], draws=1, random_state=0)
    values = {name: part.value.to_numpy() for name, part in frame.groupby("method")}
    np.testing.assert_allclose(values["plain"], values["meta"])
    np.testing.assert_allclose(values["ridge"], values["pooled"])
    assert not np.allclose(values["plain"], values["pooled"])


@pytest.mark.parametrize("routing", [False, True])
def test_classifiers_by_accuracy_and_probabilities(routing):
    import sklearn

    methods = {
        "mixed": MixedLogistic(1.0),
        "pipeline": make_pipeline(StandardScaler(), SupportModel(LogisticRegression())),
        "plain": LogisticRegression(),
    }
    with sklearn.config_context(enable_metadata_routing=routing):
        scoring = ["accuracy", "roc_auc", "neg_log_loss"]
        frame = evaluate_few_shot(methods, X, LABELS, TASKS, shots=2, draws=1, scoring=scoring, random_state=0)
    assert evaluate_few_shot(SupportMean("classification"), X, LABELS, TASKS, shots=2).metric.unique() == ["accuracy"]
    train = TASKS != 0
    plain = frame[(frame.method == "plain") & (frame.metric == "accuracy") & (frame.task == 0)]
    fold = evaluate_few_shot(
        LogisticRegression(), X, LABELS, TASKS, shots=0, draws=1, cv=[(np.flatnonzero(train), np.flatnonzero(~train))]
    )
    expected = accuracy_score(LABELS[~train], LogisticRegression().fit(X[train], LABELS[train]).predict(X[~train]))
    assert fold.value.item() == pytest.approx(expected)
    assert len(plain) == 1


def test_frames_reach_the_methods_as_frames():
    frame = pd.DataFrame({"u": X[:, 0], "kind": pd.Series(np.where(X[:, 1] > 0, "x", "y"))})
    encode = make_column_transformer((OneHotEncoder(), ["kind"]), remainder="passthrough")
    scores = evaluate_few_shot(
        {"a": make_pipeline(encode, Ridge()), "b": make_pipeline(encode, SupportModel(Ridge()))},
        frame, pd.Series(Y), pd.Series(TASKS), shots=[0, 2], draws=1,
    )  # fmt: skip
    assert scores.value.notna().all()


def test_shots_per_class():
    frame = evaluate_few_shot(
        SupportMean("classification"), X, LABELS, TASKS, shots_per_class=[1, 2], draws=1, random_state=0
    )
    assert frame.shots.unique().tolist() == [1, 2]
    with pytest.raises(InvalidParameterError, match="shots_per_class: the methods are regressors"):
        evaluate_few_shot(SupportMean(), X, Y, TASKS, shots_per_class=1)


def test_tasks_left_out_are_told_once_and_counted():
    tasks = np.where(np.arange(48) < 4, 9, TASKS)
    with pytest.warns(UserWarning, match="left out: 2 of 7 for shots=5") as caught:
        frame = evaluate_few_shot({"a": SupportMean(), "b": SupportModel(Ridge())}, X, Y, tasks, shots=[1, 5], draws=2)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert frame.attrs["left_out"] == {1: 0, 5: 2}
    assert frame[frame.shots == 5].task.nunique() == 5 and frame[frame.shots == 1].task.nunique() == 7


class Lines:
    """Noise-free lines; the query lies further out than the support."""

    def sample(self, n_tasks, rng):
        slope = torch.from_numpy(rng.normal(size=(n_tasks, 1)))
        near, far = (
            torch.from_numpy(rng.uniform(-1, 1, (n_tasks, 6))),
            torch.from_numpy(rng.uniform(2, 3, (n_tasks, 4))),
        )
        weight = torch.ones(n_tasks, 6)
        weight[0, 3:] = 0.0  # the first task has three support rows
        return Rows(near[..., None], slope * near, weight), Rows(far[..., None], slope * far, torch.ones(n_tasks, 4))


def test_samplers_give_fresh_tasks_whose_support_and_query_stay_apart():
    log = []
    methods = {"spy": Spy(log), "ridge": SupportModel(Ridge(1e-9), standardize=False)}
    with pytest.warns(UserWarning, match="1 of 30 for shots=5"):
        frame = evaluate_few_shot(methods, Lines(), shots=[0, 2, 5], draws=2, n_tasks=30, random_state=0)
    support = [e for e in log if e[0] == "adapt"]
    assert all((np.abs(e[1]) < 1).all() for e in support)
    assert all((e[1] > 2).all() and len(e[1]) % 4 == 0 for e in log if e[0] == "predict")
    assert [len(e[1]) for e in support] == [60, 60, 145, 145]
    assert set(map(tuple, support[0][1])) < set(map(tuple, support[2][1])) | set(map(tuple, support[0][1][:2]))
    ridge = frame[frame.method == "ridge"]
    assert ridge[ridge.shots == 2].value.abs().max() < 1e-5 < ridge[ridge.shots == 0].value.abs().max()
    assert frame.task.nunique() == 30


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"shots": None}, InvalidParameterError, "shots: got None"),
        ({"tasks": None}, InvalidDataError, "tasks: got None; expected the task label of each row"),
        ({"tasks": np.zeros(48)}, InvalidDataError, r"cv: 1 fold\(s\) of 1 task"),
        ({"cv": 7}, InvalidDataError, r"cv: 7 fold\(s\) of 6 task"),
        ({"cv": "loo"}, InvalidParameterError, "cv: got 'loo'"),
        ({"cv": KFold(2, shuffle=True, random_state=0)}, InvalidDataError, "cv: task . is on both sides of a fold"),
        ({"estimator": {}}, InvalidParameterError, "estimator: got an empty dict"),
        ({"estimator": Ridge}, InvalidParameterError, "estimator: got <class .*an object, not a class"),
        ({"estimator": {"r": Ridge(), "c": RidgeClassifier()}}, InvalidParameterError, "'c' is a classifier and 'r' a"),
        ({"shots": 8}, InvalidDataError, "shots: 8 support row"),
        ({"scoring": "accurracy"}, InvalidParameterError, "scoring: .*accurracy"),
        ({"scoring": mean_absolute_error}, InvalidParameterError, "scoring: .*make_scorer"),
        ({"scoring": []}, InvalidParameterError, "scoring: got "),
        ({"scoring": [make_scorer(mean_absolute_error)]}, InvalidParameterError, "scoring: a list holds names"),
        ({"X": Lines()}, InvalidDataError, "y: X is a TaskSampler"),
        ({"X": Lines(), "y": None, "tasks": None, "cv": 3}, InvalidParameterError, "cv: got 3; a TaskSampler"),
        ({"X": Lines(), "y": None, "tasks": None, "n_tasks": 0}, InvalidParameterError, "n_tasks: got 0"),
        (
            {"X": Lines(), "y": None, "tasks": None, "shots_per_class": 1},
            InvalidParameterError,
            "shots_per_class: a Task",
        ),
    ],
)
def test_errors_name_the_parameter(change, error, message):
    arguments = {"estimator": SupportMean(), "X": X, "y": Y, "tasks": TASKS, "shots": 1, "draws": 1, **change}
    with pytest.raises(error, match=message) as caught:
        evaluate_few_shot(**arguments)
    assert "\n" not in str(caught.value)


def test_splitters_may_test_a_task_more_than_once():
    cv = GroupShuffleSplit(4, test_size=0.5, random_state=0)
    assert evaluate_few_shot(SupportMean(), X, Y, TASKS, shots=1, draws=1, cv=cv).shape[0] == 12
