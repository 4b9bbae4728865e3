"""Pictures of the native environments: what is drawn is where the state says."""

import numpy as np
import pytest
from gymnasium.utils.passive_env_checker import env_render_passive_checker

from fewshot.applications.rl import CartPoleGoal, PointNavigation
from fewshot.applications.rl.environments._drawing import (
    CART_VIEW,
    GOAL,
    MOVER,
    POINT_VIEW,
    POLE,
    Canvas,
    draw_cart,
    draw_point,
)
from fewshot.errors import InvalidParameterError

TASK = {"goal": 1.0, "gravity": 9.8, "masspole": 0.1, "length": 0.5, "force_mag": 10.0}


def rgb(colour):
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])


def middle(frame, colour):
    """Mean (x, y) of the pixels of a colour, y upwards from the lower edge."""
    rows, columns = np.nonzero(np.abs(frame.astype(int) - rgb(colour)).max(-1) < 12)
    assert len(rows) > 5, f"no {colour} in the picture"
    return columns.mean() + 0.5, len(frame) - rows.mean() - 0.5


def place(frame, colour, view):
    """The same in a square world that reaches from -view to view."""
    return (np.array(middle(frame, colour)) / frame.shape[0] * 2 - 1) * view


def test_a_canvas_has_the_world_upright():
    canvas = Canvas((60, 40), centre=(1.0, 2.0), scale=10.0)
    canvas.disc((3.0, 3.0), 3.0, GOAL)  # 20 pixels to the right of the middle, 10 above
    assert middle(canvas.frame(), GOAL) == pytest.approx((50, 30), abs=0.6)


@pytest.mark.parametrize("goal, at", [((0.5, -0.25), (-0.3, 0.4)), ((-0.1, 0.6), (0.55, 0.0))])
def test_point_and_goal_are_where_they_should_be(goal, at):
    frame = draw_point([(0.0, 0.0), at], goal)
    assert frame.shape == (320, 320, 3) and frame.dtype == np.uint8
    assert place(frame, GOAL, POINT_VIEW) == pytest.approx(goal, abs=0.02)
    assert place(draw_point([at], goal), MOVER, POINT_VIEW) == pytest.approx(at, abs=0.02)


def test_a_far_goal_widens_the_view():
    frame = draw_point([(0.0, 0.0)], (2.0, -3.0))
    assert place(frame, GOAL, 1.2 * 3.0) == pytest.approx((2.0, -3.0), abs=0.06)
    draw_point([(0.0, 0.0)], (1e6, 0.0))


def test_a_point_outside_is_hollow_and_at_the_edge():
    inside, outside = (draw_point([at], (0.0, -0.5)) for at in ((0.5, 0.0), (5.0, 0.0)))

    def blue(frame):
        return (np.abs(frame.astype(int) - rgb(MOVER)).max(-1) < 12).sum()

    assert 0 < blue(outside) < 0.5 * blue(inside)
    assert place(outside, MOVER, POINT_VIEW)[0] > 0.9 * POINT_VIEW


def test_cart_pole_and_goal_are_where_they_should_be():
    scale = 400 / (2 * CART_VIEW)
    frame = draw_cart(0.5, 0.0, 0.5, 0.1, -1.0, 2.4)
    assert frame.shape == (225, 400, 3)
    assert middle(frame, MOVER)[0] == pytest.approx(200 + 0.5 * scale, abs=1)
    assert middle(frame, POLE)[0] == pytest.approx(200 + 0.5 * scale, abs=1)
    assert middle(frame, GOAL)[0] == pytest.approx(200 - 1.0 * scale, abs=10)  # the flag hangs to one side
    leaning = draw_cart(0.5, 0.2, 0.5, 0.1, -1.0, 2.4)
    assert middle(leaning, POLE)[0] == pytest.approx(200 + scale * (0.5 + 0.5 * np.sin(0.2)), abs=1.5)
    longer, heavier = draw_cart(0.5, 0.0, 1.0, 0.1, -1.0, 2.4), draw_cart(0.5, 0.0, 0.5, 0.5, -1.0, 2.4)
    assert middle(longer, POLE)[1] == pytest.approx(middle(frame, POLE)[1] + 0.5 * scale, abs=2)

    def orange(frame):
        return (np.abs(frame.astype(int) - rgb(POLE)).max(-1) < 12).sum()

    assert orange(heavier) > 1.3 * orange(frame)


def test_the_environments_draw_their_state():
    env = PointNavigation().make((0.3, -0.2), render_mode="rgb_array")
    env.reset(seed=0)
    start = env.render()
    env.step(np.float32([0.1, 0.1]))
    env.step(np.float32([0.1, 0.0]))
    np.testing.assert_array_equal(env.render(), draw_point([(0.0, 0.0), (0.1, 0.1), (0.2, 0.1)], (0.3, -0.2)))
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), start)  # the trail is that of one episode
    cart = CartPoleGoal().make(TASK, render_mode="rgb_array")
    cart.reset(seed=0)
    cart.step(1)
    np.testing.assert_array_equal(cart.render(), draw_cart(cart.state[0], cart.state[2], 0.5, 0.1, 1.0, 2.4))


@pytest.mark.parametrize("family, task", [(PointNavigation(), (0.3, -0.2)), (CartPoleGoal(), TASK)])
def test_drawing_changes_no_number(family, task):
    plain, drawn = family.make(task), family.make(task, render_mode="rgb_array")
    actions = np.random.default_rng(0).integers(2, size=12) if task is TASK else np.full((12, 2), 0.03, np.float32)
    for env in (plain, drawn):
        env.reset(seed=5)
    for action in actions:
        found = drawn.step(action)
        drawn.render()
        expected = plain.step(action)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1:] == expected[1:]
    assert drawn.metadata["render_modes"] == ["rgb_array"] and drawn.metadata["render_fps"] > 0


@pytest.mark.parametrize("family, task", [(PointNavigation(), (0.3, -0.2)), (CartPoleGoal(), TASK)])
def test_gymnasiums_check_of_rendering(family, task):
    env = family.make(task, render_mode="rgb_array")
    env.reset(seed=0)
    env_render_passive_checker(env)


@pytest.mark.parametrize("family, task", [(PointNavigation(), (0.3, -0.2)), (CartPoleGoal(), TASK)])
def test_errors(family, task):
    with pytest.raises(InvalidParameterError, match="render_mode: got 'human'; expected 'rgb_array' or None"):
        family.make(task, render_mode="human")
    env = family.make(task)
    env.reset(seed=0)
    with pytest.raises(InvalidParameterError, match="render_mode: got None; expected 'rgb_array' to draw"):
        env.render()
