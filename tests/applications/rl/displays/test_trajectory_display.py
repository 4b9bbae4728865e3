"""Ways in the plane: the drawn paths against episodes."""

import numpy as np
import pytest
from matplotlib import pyplot as plt

from fewshot.applications.rl import CartPoleGoal, MAMLPolicy, PointNavigation, TrajectoryDisplay
from fewshot.errors import InvalidDataError, InvalidParameterError

FAMILY = PointNavigation(horizon=10)


@pytest.fixture(scope="module")
def policy():
    settings = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}
    return MAMLPolicy(**settings).fit_meta(FAMILY, total_env_steps=1)


def test_the_paths_are_the_policys_episodes(policy):
    goal = (0.3, -0.2)
    display = TrajectoryDisplay.from_policy(policy, FAMILY, goals=[goal], episodes=4, n_paths=2)
    recorded = policy.record(FAMILY.make(goal), episodes=2).observations
    for found, expected in zip(display.before[0][1:], recorded, strict=True):
        np.testing.assert_array_equal(found, expected)
    likely, position = display.before[0][0], np.zeros(2)
    for at in likely[1:]:
        position = position + policy.predict(position)
        np.testing.assert_allclose(at, position, atol=1e-6)
        position = at
    assert len(display.after[0]) == 3 and len(likely) <= 11
    drawn = [line.get_xydata() for line in display.ax_.lines]
    for path in (*display.before[0], *display.after[0]):
        assert any(np.array_equal(line, path) for line in drawn)
    assert any(np.allclose(line, [goal]) for line in drawn)


def test_panels(policy):
    display = TrajectoryDisplay.from_policy(policy, FAMILY, n_tasks=3, episodes=4, random_state=1)
    assert display.axes_.shape == (3,) and display.axes_[0] is display.ax_
    rng = np.random.default_rng(1)
    assert display.goals == [FAMILY.sample(rng) for _ in range(3)]
    assert len({ax.get_xlim() for ax in display.axes_}) == 1
    low, high = display.ax_.get_xlim()
    for path in (*display.before, *display.after):
        assert np.abs(np.concatenate(path)).max() < high == -low
    texts = [t.get_text() for t in display.figure_.legends[0].get_texts()]
    assert texts == ["before adapting", "after adapting", "start", "goal (hidden)"]


def test_nothing_is_cut_off():
    paths = [[np.zeros((2, 2))]]
    for n in (1, 2, 3, 5):
        display = TrajectoryDisplay(goals=[(0.3, 0.1)] * n, before=paths * n, after=paths * n).plot()
        display.figure_.canvas.draw()
        whole = display.figure_.bbox
        for text in (display.ax_.xaxis.label, display.ax_.yaxis.label, *display.figure_.legends[0].get_texts()):
            box = text.get_window_extent()
            assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1, (n, text)


def test_given_axes_are_used(policy):
    figure, axes = plt.subplots(1, 2)
    display = TrajectoryDisplay.from_policy(policy, FAMILY, n_tasks=2, episodes=4, ax=axes)
    assert display.axes_.tolist() == axes.tolist() and display.figure_ is figure
    with pytest.raises(InvalidParameterError, match="ax: got 2 axes for 3 tasks"):
        TrajectoryDisplay.from_policy(policy, FAMILY, n_tasks=3, episodes=4, ax=axes)


def test_errors(policy):
    with pytest.raises(InvalidParameterError, match="family: got CartPoleGoal; expected PointNavigation"):
        TrajectoryDisplay.from_policy(policy, CartPoleGoal())
    with pytest.raises(InvalidParameterError, match="n_paths: got 0"):
        TrajectoryDisplay.from_policy(policy, FAMILY, n_paths=0)
    with pytest.raises(InvalidDataError, match="goals, before, after: got 1, 0 and 0"):
        TrajectoryDisplay(goals=[(0.1, 0.2)], before=[], after=[]).plot()
