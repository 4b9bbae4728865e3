"""Evaluation: scores against hand counts, what methods are given, frontiers and summaries."""

import numpy as np
import pandas as pd
import pytest
from fairlearn.metrics import demographic_parity_difference, equalized_odds_difference
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import FunctionTransformer

from fewshot import MAMLClassifier, make_meta_pipeline
from fewshot.applications.fairness import FairnessConstrainedClassifier, evaluate_fairness, summarize_fairness
from fewshot.applications.fairness.baselines import PlainClassifier
from fewshot.applications.fairness.operating_points import POINTS
from fewshot.errors import InvalidDataError, InvalidParameterError

QUICK = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0)


def table(seed=0, n_tasks=6, n=60):
    rng = np.random.default_rng(seed)
    task, group = np.repeat(np.arange(n_tasks), n), rng.choice(["a", "b"], n_tasks * n)
    x = rng.normal(size=(len(task), 2)) - 0.7 * (group == "b")[:, None]
    return x, (x.sum(1) + rng.normal(size=len(task)) > -0.7).astype(int), task, group


X, Y, TASK, GROUP = table()


class Recorder(PlainClassifier):
    """Says what it was given, and decides by the first column."""

    def __init__(self, log=None):
        super().__init__(None)
        self.log = log

    def fit_meta(self, X, y, *, tasks=None, sensitive_features=None):
        self.classes_ = np.unique(y)
        self.seen_ = set(tasks)
        return self

    def adapt(self, X, y, **columns):
        adapted = Recorder()
        adapted.given_ = {name: value for name, value in columns.items() if value is not None}
        adapted.support_, adapted.seen_ = X, self.seen_
        return adapted

    def predict(self, X, *, tasks=None, sensitive_features=None):
        assert not self.seen_ & set(tasks)  # held out
        GIVEN.append((self.given_, self.support_, X, sensitive_features))
        return (X[:, 0] > 0).astype(int)


GIVEN = []


def test_scores_are_fairlearns_on_the_same_rows():
    GIVEN.clear()
    frame = evaluate_fairness(
        {"by column": Recorder()}, X, Y, TASK, sensitive_features=GROUP, shots=10, draws=1, cv=2, random_state=0
    )
    checked = 0
    for _, _, x, group in GIVEN:
        rows = [np.flatnonzero((row == X).all(1))[0] for row in x]
        for t in np.unique(TASK[rows]):
            mine = np.array(rows)[TASK[rows] == t]
            y, d, g = Y[mine], (X[mine, 0] > 0).astype(int), GROUP[mine]
            own = frame[frame["task"] == t].set_index("metric")
            assert own.loc["accuracy", "value"] == pytest.approx((y == d).mean())
            expected = demographic_parity_difference(y, d, sensitive_features=g)
            assert own.loc["selection_rate_gap", "value"] == pytest.approx(expected)
            odds = own.loc[["true_positive_rate_gap", "false_positive_rate_gap"], "value"].max()
            assert odds == pytest.approx(equalized_odds_difference(y, d, sensitive_features=g))
            checked += 1
        assert len(x) == 150 and list(group) == GROUP[rows].tolist()
    assert checked == 6
    assert (frame["value"] == frame["signed"].abs())[frame["metric"] != "accuracy"].all()


@pytest.mark.parametrize(
    "given", [(), ("sensitive_features",), ("X_unlabelled",), ("X_unlabelled", "sensitive_unlabelled")]
)
def test_methods_are_given_what_is_declared(given):
    GIVEN.clear()
    evaluate_fairness(
        Recorder(), X, Y, TASK, sensitive_features=GROUP, shots=5, draws=1, cv=2, given=given, random_state=0
    )
    for columns, support, x, group in GIVEN:
        expected = {"tasks", *given} | ({"tasks_unlabelled"} if "X_unlabelled" in given else set())
        assert set(columns) == expected and group is None
        if "X_unlabelled" in given:
            np.testing.assert_array_equal(columns["X_unlabelled"], x)
        assert not {tuple(row) for row in support} & {tuple(row) for row in x}


def test_all_operating_points_of_one_fit_and_a_limit_of_rows():
    model = FairnessConstrainedClassifier(classifier=QUICK, random_state=0)
    frame = evaluate_fairness(
        {"ours": model, "plain": PlainClassifier(LogisticRegression())},
        X,
        Y,
        TASK,
        sensitive_features=GROUP,
        shots=5,
        draws=2,
        cv=2,
        scored=20,
        frontier=True,
        random_state=0,
    )
    settings = frame[frame["method"] == "ours"]["setting"].unique()
    assert settings.tolist() == list(POINTS) and frame[frame["method"] == "plain"]["setting"].isna().all()
    counts = frame[frame["metric"] == "accuracy"]["value"] * 20
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    summary = summarize_fairness(frame)
    gaps = summary[summary["metric"] == "selection_rate_gap"].set_index(["method", "setting"])["mean"]
    assert gaps["ours", 10.0] < gaps["ours", 0.0]
    again = evaluate_fairness(
        {"ours": model},
        X,
        Y,
        TASK,
        sensitive_features=GROUP,
        shots=5,
        draws=2,
        cv=2,
        scored=20,
        frontier=True,
        random_state=0,
    )
    pd.testing.assert_frame_equal(again, frame[frame["method"] == "ours"].reset_index(drop=True))


def test_methods_that_know_nothing_of_groups_are_wrapped():
    columns = dict(sensitive_features=GROUP, shots=5, draws=1, cv=2, random_state=0)
    plain, wrapped = (
        evaluate_fairness({"m": method}, X, Y, TASK, **columns)
        for method in (LogisticRegression(), PlainClassifier(LogisticRegression()))
    )
    pd.testing.assert_frame_equal(plain, wrapped)
    fitted = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0).fit_meta(X, Y, tasks=TASK)
    with pytest.raises(InvalidParameterError, match="^methods: 'm', a MAMLClassifier, takes no sensitive_features"):
        evaluate_fairness({"m": fitted}, X, Y, TASK, **columns | {"cv": "prefit"})


def test_the_frontier_of_a_pipeline_is_that_of_its_last_step():
    columns = dict(sensitive_features=GROUP, shots=5, draws=1, cv="prefit", frontier=True, random_state=0)
    pipeline = make_meta_pipeline(
        FunctionTransformer(), FairnessConstrainedClassifier(classifier=QUICK, random_state=0)
    )
    pipeline.fit_meta(X, Y, tasks=TASK, sensitive_features=GROUP)
    frames = [evaluate_fairness({"m": model}, X, Y, TASK, **columns) for model in (pipeline, pipeline[-1])]
    pd.testing.assert_frame_equal(*frames)


def test_rows_that_are_scored_are_drawn_by_the_seed():
    fitted = PlainClassifier(LogisticRegression()).fit_meta(X, Y, tasks=TASK)
    columns = dict(sensitive_features=GROUP, shots=0, draws=1, cv="prefit", scored=10)
    found = [
        evaluate_fairness(fitted, X, Y, TASK, **columns, random_state=seed)["value"].to_numpy() for seed in (0, 1, 0)
    ]
    assert not np.array_equal(found[0], found[1], equal_nan=True)
    np.testing.assert_array_equal(found[0], found[2])


def test_the_favourable_outcome_is_the_methods_own():
    words = np.where(Y == 1, "granted", "refused")
    model = FairnessConstrainedClassifier(classifier=QUICK, pos_label="granted", random_state=0)
    model.fit_meta(X, words, tasks=TASK, sensitive_features=GROUP)
    columns = dict(sensitive_features=GROUP, shots=5, draws=1, cv="prefit", random_state=0)
    own = evaluate_fairness(model, X, words, TASK, **columns)
    pd.testing.assert_frame_equal(own, evaluate_fairness(model, X, words, TASK, pos_label="granted", **columns))
    other = evaluate_fairness(model, X, words, TASK, pos_label="refused", **columns)
    assert not np.array_equal(own["value"], other["value"], equal_nan=True)
    with pytest.raises(InvalidParameterError, match="^pos_label: got None, and the methods have"):
        evaluate_fairness(
            {"one": model, "two": FairnessConstrainedClassifier(pos_label="refused")}, X, words, TASK, **columns
        )


def test_three_groups_have_a_row_for_each_pair_and_empty_cells_are_undefined():
    group = GROUP.copy()
    group[TASK == 0] = "c"
    frame = evaluate_fairness(Recorder(), X, Y, TASK, sensitive_features=group, shots=5, draws=1, cv=2, random_state=0)
    gaps = frame[frame["metric"] == "selection_rate_gap"]
    assert set(gaps["pair"]) == {"a - b", "a - c", "b - c"}
    assert gaps[gaps["task"] == 0]["value"].isna().all()


def test_the_debiased_gap_of_decisions_by_lot_is_zero_and_its_floor_is_what_is_seen():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 1))
    frame = evaluate_fairness(
        Recorder(),
        x,
        rng.integers(2, size=4000),
        np.repeat(np.arange(80), 50),
        sensitive_features=rng.choice(["a", "b"], 4000),
        shots=2,
        draws=2,
        cv=2,
        random_state=0,
    )
    row = summarize_fairness(frame).set_index("metric").loc["selection_rate_gap"]
    assert row["mean"] == pytest.approx(row["floor"], rel=0.15) and row["mean"] > 0.08
    assert row["debiased"] ** 2 < 0.008  # twice the standard error of the mean square
    assert row["signed_low"] < 0 < row["signed_high"]


def test_mistakes():
    columns = dict(sensitive_features=GROUP, shots=5)
    for wrong, error, message in (
        (dict(given="all"), InvalidParameterError, "^given: got 'all'"),
        (dict(given=["s"]), InvalidParameterError, "^given: got"),
        (dict(scored=0), InvalidParameterError, "^scored: got 0"),
        (dict(pos_label="yes"), InvalidParameterError, "^pos_label: got 'yes'"),
        (dict(sensitive_features=GROUP[:5]), InvalidDataError, "^sensitive_features: got 5 rows"),
    ):
        with pytest.raises(error, match=message):
            evaluate_fairness(Recorder(), X, Y, TASK, **(columns | wrong))
    with pytest.raises(InvalidDataError, match="^y: got 3 classes"):
        evaluate_fairness(Recorder(), X, np.arange(len(X)) % 3, TASK, **columns)
    with pytest.raises(InvalidDataError, match="^frame: no column 'method'"):
        summarize_fairness(pd.DataFrame())
