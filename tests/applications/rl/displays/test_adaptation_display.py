"""Adaptation curves: what is drawn against the frames, and intervals against their formula."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy import stats

from fewshot.applications.rl import AdaptationCurveDisplay, MAMLPolicy, PointNavigation, adaptation_curve
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError

FAMILY = PointNavigation(horizon=10)


def curve(seed=0, n_tasks=5, steps=2):
    rng = np.random.default_rng(seed)
    index = pd.MultiIndex.from_product([range(steps + 1), range(n_tasks)], names=["step", "task"]).to_frame(index=False)
    return index.assign(**{"return": rng.normal(-20 + 5 * index["step"], 3.0), "length": 10.0})


def segments(ax):
    """Lower and upper ends of each interval, a policy after another."""
    return [np.array(c.lines[2][0].get_segments())[:, :, 1] for c in ax.containers]


def test_means_and_student_intervals():
    frame = curve()
    display = AdaptationCurveDisplay.from_curves(frame)
    assert display.summary["n_tasks"].tolist() == [5, 5, 5]
    for step, (low, high) in enumerate(segments(display.ax_)[0]):
        values = frame.loc[frame["step"] == step, "return"]
        expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
        assert (low, high) == pytest.approx(expected)
        assert display.lines_[0].get_ydata()[step] == pytest.approx(values.mean())
    assert display.lines_[0].get_xdata().tolist() == [0, 1, 2]
    assert display.ax_.get_legend() is None and "5 tasks, 95 % interval" in display.ax_.get_ylabel()


def test_several_policies():
    display = AdaptationCurveDisplay.from_curves({"MAML": curve(0), "joint": curve(1), "random": curve(2)})
    assert [t.get_text() for t in display.ax_.get_legend().get_texts()] == ["MAML", "joint", "random"]
    assert (
        len({line.get_color() for line in display.lines_}) == len({line.get_marker() for line in display.lines_}) == 3
    )
    starts = [line.get_xdata()[0] for line in display.lines_]
    assert starts == sorted(starts) and np.mean(starts) == pytest.approx(0) and max(starts) < 0.1


def test_one_task_has_no_interval():
    display = AdaptationCurveDisplay.from_curves(curve(n_tasks=1))
    np.testing.assert_array_equal(np.diff(segments(display.ax_)[0], axis=1), 0)


def test_given_axes_are_used():
    figure, ax = plt.subplots()
    display = AdaptationCurveDisplay.from_curves(curve(), ax=ax)
    assert display.ax_ is ax and display.figure_ is figure
    again = display.plot()
    assert again is display and display.ax_ is not ax


def test_from_policies():
    settings = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,)}
    first, second = (MAMLPolicy(random_state=s, **settings).fit_meta(FAMILY, total_env_steps=1) for s in (0, 1))
    options = {"n_tasks": 3, "episodes": 4, "steps": 2}
    display = AdaptationCurveDisplay.from_policy({"a": first, "b": second}, FAMILY, random_state=4, **options)
    expected = adaptation_curve(second, FAMILY, random_state=4, **options).groupby("step")["return"].mean()
    np.testing.assert_allclose(display.lines_[1].get_ydata(orig=False), expected, rtol=1e-6)
    alone = AdaptationCurveDisplay.from_policy(first, FAMILY, random_state=4, **options)
    np.testing.assert_array_equal(alone.lines_[0].get_ydata(), display.lines_[0].get_ydata())


def test_errors():
    with pytest.raises(InvalidDataError, match="curves: got list; expected a frame, or a dict of frames"):
        AdaptationCurveDisplay.from_curves([1, 2])
    with pytest.raises(InvalidDataError, match="curves: got an empty dict"):
        AdaptationCurveDisplay.from_curves({})
    with pytest.raises(
        InvalidDataError, match="curves: got a frame with no column 'return'; expected what adaptation_curve"
    ):
        AdaptationCurveDisplay.from_curves(curve().drop(columns="return"))
    with pytest.raises(InvalidDataError, match="curves: got a frame with no rows"):
        AdaptationCurveDisplay.from_curves(curve().head(0))
    with pytest.raises(InvalidParameterError, match="ax: got str; expected matplotlib axes"):
        AdaptationCurveDisplay.from_curves(curve(), ax="here")
    with pytest.raises(NotFittedError, match="not meta-trained"):
        AdaptationCurveDisplay.from_policy(MAMLPolicy(), FAMILY)
