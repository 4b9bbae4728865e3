"""Point navigation: the batch against single environments, step by step, and the rules of the paper."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.applications.rl.environments.batch_comparison import compare_batch
from fewshot.applications.rl.environments.checking import check_family
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.environments.protocols import EpisodeBatch, Family
from fewshot.errors import InvalidDataError, InvalidParameterError


@settings(deadline=None, max_examples=20)
@given(
    n_tasks=st.integers(1, 4),
    n_episodes=st.integers(1, 4),
    horizon=st.integers(1, 30),
    aim=st.floats(0.0, 1.0),
    seed=st.integers(0, 100),
)
def test_a_batch_is_its_single_environments(n_tasks, n_episodes, horizon, aim, seed):
    family = PointNavigation(horizon=horizon)
    rng = np.random.default_rng(seed)
    goals = [family.sample(rng) for _ in range(n_tasks)]

    def act(now, rng):
        towards = np.array(goals)[:, None] - now
        return (aim * towards + (1 - aim) * rng.normal(0, 0.1, now.shape)).astype(np.float32)

    assert compare_batch(family, goals, n_episodes, act, rng, rtol=0.0, atol=0.0).all()


def test_rules():
    env = PointNavigation().make((0.3, -0.2))
    position, _ = env.reset(seed=0)
    assert position.tolist() == [0.0, 0.0]
    position, reward, terminated, truncated, _ = env.step(np.float32([0.5, -0.05]))  # clipped to 0.1
    np.testing.assert_allclose(position, [0.1, -0.05])
    assert reward == pytest.approx(-np.hypot(0.2, 0.15)) and not terminated and not truncated
    env.step(np.float32([0.1, -0.1]))
    *_, terminated, _, _ = env.step(np.float32([0.095, -0.08]))  # (0.295, -0.23): one coordinate is not enough
    assert not terminated
    *_, terminated, truncated, _ = env.step(np.float32([0.0, 0.025]))
    assert terminated and not truncated


def test_without_tolerance_episodes_go_on_at_the_goal():
    for tolerance, ends in ((0.01, True), (0.0, False), (0.2, True)):
        env = PointNavigation(tolerance=tolerance).make((0.05, 0.0))
        env.reset(seed=0)
        assert env.step(np.float32([0.05, 0.0]))[2] == ends
    check_family(PointNavigation(tolerance=0.0))


def test_cut_off_after_the_horizon():
    batch = PointNavigation().batch([(0.4, 0.4)], 2)
    batch.reset(np.random.default_rng(0))
    ends = [batch.step(np.zeros((1, 2, 2)))[2:] for _ in range(100)]
    assert not any(terminated.any() for terminated, _ in ends)
    assert [truncated.all() for _, truncated in ends] == [False] * 99 + [True]


def test_goals():
    family = PointNavigation()
    rng = np.random.default_rng(0)
    goals = np.array([family.sample(rng) for _ in range(20_000)])
    assert abs(goals.mean()) < 0.01 and goals.std() == pytest.approx(1 / np.sqrt(12), rel=0.02)
    assert -0.5 <= goals.min() < -0.499 and 0.499 < goals.max() <= 0.5
    np.testing.assert_array_equal(family.told((0.25, -0.5)), np.float32([0.25, -0.5]))


@pytest.mark.parametrize("horizon", [1, 7, 100])
def test_positions_stay_in_the_space(horizon):
    family = PointNavigation(horizon=horizon)
    batch = family.batch([(0.0, -0.5)], 1)
    batch.reset(np.random.default_rng(0))
    for _ in range(horizon):
        positions, *_ = batch.step(np.full((1, 1, 2), np.float32(0.1)))
        assert family.observation_space.contains(positions[0, 0])


def test_gymnasiums_check():
    family = PointNavigation()
    check_env(family.make((0.1, 0.2)), skip_render_check=True)


def test_it_keeps_its_promises():
    check_family(PointNavigation())


def test_protocols():
    family = PointNavigation()
    assert isinstance(family, Family)
    assert isinstance(family.batch([(0.0, 0.1)], 1), EpisodeBatch)


def test_errors():
    family = PointNavigation()
    with pytest.raises(InvalidParameterError, match="horizon: got 0; expected an integer of at least 1"):
        PointNavigation(horizon=0)
    with pytest.raises(InvalidParameterError, match="tolerance: got -1; expected a number of at least 0"):
        PointNavigation(tolerance=-1)
    with pytest.raises(InvalidParameterError, match="goals: got .*low <= high"):
        PointNavigation(goals=(0.5, -0.5))
    for goal in [(0.1,), (0.1, np.nan), "xy", None, {"x": 1}]:
        with pytest.raises(InvalidParameterError, match="parameters: got .*two finite numbers"):
            family.make(goal)
    with pytest.raises(InvalidParameterError, match="parameters: got none"):
        family.batch([], 3)
    with pytest.raises(InvalidParameterError, match="n_episodes: got 0"):
        family.batch([(0.0, 0.1)], 0)
    batch = family.batch([(0.0, 0.1)], 3)
    with pytest.raises(RuntimeError, match="step: .*call reset"):
        batch.step(np.zeros((1, 3, 2)))
    batch.reset(np.random.default_rng(0))
    with pytest.raises(InvalidDataError, match=r"actions: got shape \(3, 2\); expected \(1, 3, 2\)"):
        batch.step(np.zeros((3, 2)))
    batch.close()
    with pytest.raises(RuntimeError, match="step: .*call reset"):
        batch.step(np.zeros((1, 3, 2)))
