"""Comparisons: tests against scipy and simulation, opponents chosen on training tasks, conclusions in words."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression

from fewshot.baselines import MixedEffects, PooledModel, SupportMean
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import combine, compare, evaluate_few_shot
from fewshot.model_selection._paired import concluded, differences_of, holm


def levels(n_tasks=24, rows=12, seed=0):
    """One slope, and a level for each task."""
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rows)
    X = rng.normal(size=(n_tasks * rows, 1))
    return X, 2 * X[:, 0] + 2 * rng.normal(size=n_tasks)[tasks] + 0.3 * rng.normal(size=len(tasks)), tasks


RIVALS = {"mean": SupportMean(), "pooled": PooledModel(LinearRegression())}


def test_p_values_are_those_of_scipy():
    d = np.random.default_rng(0).normal(0.3, 1.0, size=30)
    found = concluded(pd.DataFrame([differences_of(d) | {"margin": 0.2}])).iloc[0]
    assert found["p_better"] == pytest.approx(ttest_1samp(d, 0.0, alternative="greater").pvalue)
    assert found["p_worse"] == pytest.approx(ttest_1samp(d, 0.0, alternative="less").pvalue)
    assert found["p_no_worse"] == pytest.approx(ttest_1samp(d, -0.2, alternative="greater").pvalue)
    interval = ttest_1samp(d, 0.0).confidence_interval(0.95)
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))


def test_holm_keeps_the_level_where_nothing_differs():
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)
    rng = np.random.default_rng(0)
    wrong = [holm(rng.uniform(size=5)).min() < 0.05 for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.012)


def test_the_detectable_difference_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    detectable = np.mean([differences_of(rng.normal(size=25))["detectable"] for _ in range(200)])
    shown = [differences_of(rng.normal(detectable, 1.0, size=25))["low"] > 0 for _ in range(2000)]
    assert np.mean(shown) == pytest.approx(0.8, abs=0.04)


def test_a_better_method_and_its_words():
    X, y, tasks = levels()
    found = compare(MixedEffects(), X, y, tasks, shots=[1, 5], baselines=RIVALS, random_state=0)
    assert found.table["conclusion"].tolist() == ["better", "better"]
    assert str(found).endswith("It adapts better from 1 support row(s).")
    assert found.table["n_tasks"].tolist() == [24, 24]
    same = evaluate_few_shot({"MixedEffects": MixedEffects(), **RIVALS}, X, y, tasks, shots=[1, 5], random_state=0)
    np.testing.assert_array_equal(found.scores["value"], same["value"])


def test_a_worse_method_and_its_words():
    X, y, tasks = levels()
    found = compare(SupportMean(), X, y, tasks, shots=[3], baselines={"mixed": MixedEffects()}, random_state=0)
    assert found.table["conclusion"].item() == "worse"
    assert str(found).endswith("It is worse with 3 support row(s): use mixed instead.")
    assert found.table["difference"].item() < 0


def test_twins_are_no_worse():
    X, y, tasks = levels()
    found = compare(
        {"twin": MixedEffects()}, X, y, tasks, shots=[5], baselines={"mixed": MixedEffects()}, random_state=0
    )
    assert found.table["difference"].item() == 0
    assert found.table["conclusion"].item() == "no worse"
    assert "no evidence of a difference" in str(found)
    assert found.table["margin"].item() == pytest.approx(-0.02 * found.table["opponent_score"].item())


def test_the_opponent_is_chosen_on_training_tasks_and_the_luckiest_is_shown_beside():
    """Whatever the test tasks look like."""
    X, y, tasks = levels()
    rivals = {"constant": PooledModel(DummyRegressor()), **RIVALS}
    found = compare({"mixed": MixedEffects()}, X, y, tasks, shots=[0, 5], baselines=rivals, random_state=0)
    assert found.table["opponent"].tolist()[0] == "pooled"
    assert "pooled" in found.table["best"].tolist()[0]
    flipped = y.copy()
    test = tasks >= 20  # what the held-out tasks look like has no say
    flipped[test] = np.random.default_rng(1).permutation(y[test]) * 100
    cv = [(np.flatnonzero(~test), np.flatnonzero(test))]
    one, two = (
        compare({"m": MixedEffects()}, X, v, tasks, shots=[5], baselines=rivals, cv=cv, random_state=0)
        for v in (y, flipped)
    )
    assert one.table["opponent"].item() == two.table["opponent"].item()


def test_small_tasks_are_left_out_and_counted_and_few_are_no_evidence():
    X, y, tasks = levels(n_tasks=8)
    keep = (tasks > 3) | (np.tile(np.arange(12), 8) < 4)  # four tasks of four rows
    with pytest.warns(UserWarning, match="too small"):
        found = compare(
            MixedEffects(), X[keep], y[keep], tasks[keep], shots=[1, 6], cv=4, baselines=RIVALS, random_state=0
        )
    assert found.table["left_out"].tolist() == [0, 4]
    assert found.table["conclusion"].tolist()[1] == "too few tasks"
    assert "(4 too small)" in str(found)


def test_scores_that_are_no_errors_have_a_margin_in_points():
    X, y, tasks = levels()
    found = compare(MixedEffects(), X, y, tasks, shots=5, scoring="r2", baselines=RIVALS, random_state=0)
    assert found.table["margin"].item() == 0.005 and found.metric == "r2"
    wide = compare(
        MixedEffects(), X, y, tasks, shots=5, margin=9.0, baselines={"mixed": MixedEffects()}, random_state=0
    )
    assert wide.table["margin"].item() == 9.0


def test_conclusions_need_enough_tasks():
    rows = [
        {"shots": k, "opponent": "a", "score": 0.0, "opponent_score": 0.0, "margin": 0.1, "left_out": 0} for k in (1, 2)
    ]
    rows[0] |= differences_of(np.array([1.0, 1.1, 0.9, 1.0]))
    rows[1] |= differences_of(np.array([1.0, 1.1, 0.9, 1.0, 1.05]))
    assert concluded(pd.DataFrame(rows))["conclusion"].tolist() == ["too few tasks", "better"]


def test_several_comparisons_are_corrected_together():
    X, y, tasks = levels(n_tasks=8)
    found = {
        str(seed): compare(
            MixedEffects(), X, y, tasks, shots=[1, 5], baselines={"mean": SupportMean()}, random_state=seed
        )
        for seed in (0, 1)
    }
    table = combine(found)
    assert table["comparison"].tolist() == ["0", "0", "1", "1"]
    alone = pd.concat([c.table for c in found.values()], ignore_index=True)
    raw = [ttest_1samp(d, 0.0, alternative="greater").pvalue for d in differences(found)]
    np.testing.assert_allclose(table["p_better"], holm(raw), rtol=1e-9)
    assert (table["p_better"] >= alone["p_better"]).all()
    with pytest.raises(InvalidParameterError, match="^comparisons: got none"):
        combine({})


def differences(comparisons):
    for c in comparisons.values():
        means = c.scores.groupby(["shots", "task", "method"])["value"].mean().unstack("method")
        for k, opponent in zip(c.table["shots"], c.table["opponent"], strict=True):
            yield (means.loc[k, "MixedEffects"] - means.loc[k, opponent]).to_numpy()


WRONG = [
    (dict(tasks=None), InvalidDataError, "^tasks: got None"),
    (dict(baselines={}), InvalidParameterError, "^baselines: got ..; expected at least one"),
    (
        dict(baselines={"MixedEffects": SupportMean()}),
        InvalidParameterError,
        "^baselines: got .*none of them named 'MixedEffects'",
    ),
    (dict(cv="prefit"), InvalidParameterError, "^cv: got 'prefit'; expected None"),
    (dict(scoring=["r2", "neg_mean_absolute_error"]), InvalidParameterError, "^scoring: got 2 scorers; expected one"),
    (dict(margin=-1), InvalidParameterError, "^margin: got -1; expected a number of 0 or more"),
    (dict(shots=-1), InvalidParameterError, "^shots: got -1"),
    (
        dict(estimator={"a": MixedEffects(), "b": MixedEffects()}),
        InvalidParameterError,
        "^estimator: got 2; expected one method",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_wrong_calls(change, error, message):
    X, y, tasks = levels(n_tasks=6)
    call = dict(estimator=MixedEffects(), X=X, y=y, tasks=tasks, baselines=RIVALS) | change
    with pytest.raises(error, match=message):
        compare(**call)


def test_nothing_is_warned_about_where_nothing_is_wrong():
    X, y, tasks = levels(n_tasks=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare(MixedEffects(), X, y, tasks, shots=3, baselines=RIVALS, random_state=0)
