"""Means and intervals against scipy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import bootstrap, ttest_1samp

from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.model_selection import summarize

RNG = np.random.default_rng(0)


def scores(n_tasks=12, draws=3):
    index = pd.MultiIndex.from_product(
        [["b", "a"], range(n_tasks), [1, 5], range(draws), ["r2", "mae"]],
        names=["method", "task", "shots", "draw", "metric"],
    )
    return pd.Series(RNG.normal(size=len(index)), index, name="value").reset_index()


def test_mean_and_interval_are_those_of_the_task_means():
    frame = scores()
    summary = summarize(frame, 0.9)
    assert summary.columns.tolist() == ["method", "shots", "metric", "mean", "low", "high", "n_tasks"]
    assert len(summary) == 8 and summary.method.tolist() == ["b"] * 4 + ["a"] * 4
    for row in summary.itertuples():
        own = frame[(frame.method == row.method) & (frame.shots == row.shots) & (frame.metric == row.metric)]
        task_means = own.groupby("task").value.mean()
        interval = ttest_1samp(task_means, 0).confidence_interval(0.9)
        assert (row.mean, row.low, row.high) == pytest.approx((task_means.mean(), interval.low, interval.high))
        assert row.n_tasks == 12


def test_interval_is_near_the_bootstrap_over_tasks():
    frame = scores(60)[lambda f: (f.method == "a") & (f.shots == 1) & (f.metric == "r2")]
    row = summarize(frame).iloc[0]
    resampled = bootstrap((frame.groupby("task").value.mean(),), np.mean, rng=np.random.default_rng(0))
    assert (row.low, row.high) == pytest.approx(tuple(resampled.confidence_interval), abs=0.03)


def test_undefined_scores_are_passed_over():
    frame = scores(3, 2)[lambda f: (f.method == "a") & (f.shots == 1) & (f.metric == "r2")].copy()
    frame.loc[frame.task == 0, "value"] = np.nan
    frame.loc[(frame.task == 1) & (frame.draw == 0), "value"] = np.nan
    row = summarize(frame).iloc[0]
    assert row.n_tasks == 2
    by_task = [frame[(frame.task == 1) & (frame.draw == 1)].value.mean(), frame[frame.task == 2].value.mean()]
    assert row["mean"] == pytest.approx(np.mean(by_task))


def test_one_task_has_a_mean_and_no_interval():
    row = summarize(scores(1)).iloc[0]
    assert np.isfinite(row["mean"]) and np.isnan(row.low) and np.isnan(row.high) and row.n_tasks == 1


def test_errors_name_the_parameter():
    with pytest.raises(InvalidDataError, match="frame: no column 'task'"):
        summarize(scores().drop(columns="task"))
    for level in (0, 95, 1.0, "0.9"):
        with pytest.raises(InvalidParameterError, match="level: got"):
            summarize(scores(), level)
