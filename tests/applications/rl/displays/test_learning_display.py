"""Learning curves: lines and bands against histories."""

import numpy as np
import pandas as pd
import pytest

from fewshot.applications.rl import LearningCurveDisplay, MAMLPolicy, PointNavigation
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError


def history(n=20, slope=1.0, steps=100, inner=1):
    i = np.arange(n)
    columns = {f"return_{k}": -30.0 + 10 * k + slope * i for k in range(inner + 1)}
    return pd.DataFrame({"iteration": i + 1, "env_steps": steps, **columns, "seconds": 0.1})


def test_one_training():
    display = LearningCurveDisplay.from_histories(history(), window=1)
    after, before = display.lines_
    np.testing.assert_array_equal(before.get_xdata(), 100 * np.arange(1, 21))
    np.testing.assert_array_equal(before.get_ydata(), -30.0 + np.arange(20))
    np.testing.assert_array_equal(after.get_ydata(), -20.0 + np.arange(20))
    assert len(display.ax_.lines) == 2 and display.ax_.get_ylabel() == "return"
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == ["after adapting", "before adapting"]
    assert before.get_linestyle() != after.get_linestyle() and before.get_color() != after.get_color()


def test_moving_means_over_single_iterations():
    frame = history()
    frame["return_1"] = np.where(np.arange(20) % 2, 1.0, -1.0)
    display = LearningCurveDisplay.from_histories(frame, window=4)
    np.testing.assert_allclose(display.lines_[0].get_ydata()[3:-3], 0.0)
    assert len(display.ax_.lines) == 4  # the iterations themselves, behind
    raw = next(line for line in display.ax_.lines if np.array_equal(line.get_ydata(), frame["return_1"]))
    assert raw.get_alpha() < 0.5


def test_the_last_of_several_steps_is_after():
    display = LearningCurveDisplay.from_histories(history(inner=3), window=1)
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), np.arange(20.0))


def test_without_inner_steps_there_is_one_line():
    display = LearningCurveDisplay.from_histories(history(inner=0))
    assert len(display.lines_) == 1 and display.ax_.get_legend() is None


def test_several_seeds_as_median_and_range():
    """Straight lines of different slopes and lengths: medians and ranges are straight lines, too."""
    slopes, steps = {"a": 1.0, "b": 2.0, "c": 4.0}, {"a": 100, "b": 100, "c": 150}
    given = {name: history(20, slopes[name], steps[name]) for name in slopes}
    display = LearningCurveDisplay.from_histories(given, window=1)
    x, y = display.lines_[1].get_data()
    assert (x[0], x[-1]) == (150, 2000)  # where all of them have been
    at = {name: -30 + slopes[name] * (x / steps[name] - 1) for name in slopes}
    table = np.array(list(at.values()))
    np.testing.assert_allclose(y, np.median(table, axis=0))
    band = display.ax_.collections[1].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(table.max()) and band[:, 1].min() == pytest.approx(table.min())
    assert "median and range of 3 seeds" in display.ax_.get_ylabel()


def test_a_policys_steps_are_counted_from_the_very_first():
    family = PointNavigation(horizon=10)
    policy = MAMLPolicy(tasks_per_batch=3, episodes=4, hidden=(8,), random_state=0).fit_meta(
        family, total_env_steps=600
    )
    display = LearningCurveDisplay.from_policy(policy, window=1)
    assert display.lines_[0].get_xdata()[-1] == policy.n_env_steps_ > policy.history_["env_steps"].sum()
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), policy.history_["return_1"])
    assert len(LearningCurveDisplay.from_policy([policy, policy]).curves) == 2


def test_errors():
    with pytest.raises(InvalidDataError, match="histories: got a frame with no column 'return_0'"):
        LearningCurveDisplay.from_histories(history().drop(columns="return_0"))
    with pytest.raises(InvalidDataError, match="histories: got none"):
        LearningCurveDisplay.from_histories([])
    with pytest.raises(InvalidParameterError, match="window: got 0"):
        LearningCurveDisplay.from_histories(history(), window=0)
    with pytest.raises(NotFittedError, match="LearningCurveDisplay: this MAMLPolicy is not meta-trained"):
        LearningCurveDisplay.from_policy(MAMLPolicy())
