"""CartPole-goal: the physics against Gymnasium's CartPole, the batch against single environments."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from fewshot.applications.rl.environments.batch_comparison import compare_batch
from fewshot.applications.rl.environments.cartpole_goal import CartPoleGoal
from fewshot.applications.rl.environments.checking import check_family
from fewshot.applications.rl.environments.protocols import EpisodeBatch, Family
from fewshot.errors import InvalidParameterError


def gymnasiums_cartpole(parameters):
    env = gymnasium.make("CartPole-v1").unwrapped
    for name in ("gravity", "masspole", "length", "force_mag"):
        setattr(env, name, parameters[name])
    env.total_mass = env.masspole + env.masscart
    env.polemass_length = env.masspole * env.length
    return env


@pytest.mark.parametrize("seed", range(5))
def test_physics_of_gymnasium(seed):
    """Positions, angles and ends agree with CartPole-v1 whose attributes were set, from the same start."""
    family = CartPoleGoal()
    rng = np.random.default_rng(seed)
    parameters = family.sample(rng)
    ours, theirs = family.make(parameters), gymnasiums_cartpole(parameters)
    first, _ = ours.reset(seed=seed)
    np.testing.assert_array_equal(first, theirs.reset(seed=seed)[0])
    for _ in range(200):
        # Upright as long as it goes: a rollout of random pushes ends too soon to compare much.
        action = int(theirs.state[2] + 0.3 * theirs.state[3] + 0.05 * theirs.state[1] > 0)
        state, reward, terminated, *_ = ours.step(action)
        expected, _, fell, *_ = theirs.step(action)
        np.testing.assert_allclose(state, expected, rtol=1e-5, atol=1e-7)
        assert terminated == fell
        assert reward == pytest.approx(np.exp(-2 * abs(theirs.state[0] - parameters["goal"])), rel=1e-9)
        if fell:
            break


def match(batch, slot, env):
    env.state = tuple(float(value[slot]) for value in batch._state)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_is_its_single_environments(seed):
    family = CartPoleGoal(horizon=60)
    rng = np.random.default_rng(seed)
    tasks = [family.sample(rng) for _ in range(4)]

    def act(now, rng):
        balancing = now[..., 2] + 0.3 * now[..., 3] > 0
        chance = np.linspace(0.05, 1.0, 5)  # the later slots fall
        return np.where(rng.random((4, 5)) < chance, rng.integers(2, size=(4, 5)), balancing)

    assert compare_batch(family, tasks, 5, act, rng, match=match, rtol=1e-5, atol=1e-7).all()
    batch = family.batch(tasks, 5)
    now, alive, ends = batch.reset(rng), np.ones((4, 5), bool), np.zeros(2, int)
    assert np.abs(now).max() <= 0.05 and now.std() == pytest.approx(0.05 / np.sqrt(3), rel=0.3)
    for _ in range(60):
        after, rewards, terminated, truncated = batch.step(act(now, rng))
        assert np.isfinite(after).all() and np.isfinite(rewards).all()
        np.testing.assert_array_equal(after[~alive], now[~alive])  # what has ended stands still
        ends += terminated.sum(), truncated.sum()
        alive &= ~(terminated | truncated)
        now = after
    assert not alive.any() and ends.sum() == 20 and ends.min() > 0  # both kinds of end were seen


def test_the_same_generator_gives_the_same_episodes():
    family = CartPoleGoal()
    tasks = [family.sample(np.random.default_rng(3)) for _ in range(2)]
    batch = family.batch(tasks, 3)
    starts = [batch.reset(np.random.default_rng(seed)) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(starts[0], starts[2])
    assert (starts[0] != starts[1]).all()


def test_distribution_of_tasks():
    family = CartPoleGoal()
    rng = np.random.default_rng(0)
    tasks = [family.sample(rng) for _ in range(5000)]
    ranges = {"gravity": (6, 14), "masspole": (0.05, 0.5), "length": (0.25, 1), "force_mag": (5, 15)}
    columns = {name: np.array([task[name] for task in tasks]) for name in [*ranges, "goal"]}
    columns["distance"] = np.abs(columns.pop("goal"))
    assert np.mean([task["goal"] > 0 for task in tasks]) == pytest.approx(0.5, abs=0.03)
    for name, (low, high) in {**ranges, "distance": (0.5, 1.5)}.items():
        assert low <= columns[name].min() and columns[name].max() <= high
        assert columns[name].mean() == pytest.approx((low + high) / 2, rel=0.03)
        assert columns[name].std() == pytest.approx((high - low) / np.sqrt(12), rel=0.05)


def test_told_names_every_number():
    family = CartPoleGoal()
    task = {"goal": 1.0, "gravity": 9.0, "masspole": 0.25, "length": 0.5, "force_mag": 10.0}
    assert family.told(task).tolist() == [10.0, 1.0, 9.0, 0.5, 0.25]


def test_gymnasiums_check():
    family = CartPoleGoal()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*A Box observation space m.*infinity", UserWarning)  # of velocities
        check_env(family.make(family.sample(np.random.default_rng(0))), skip_render_check=True)


def test_it_keeps_its_promises():
    check_family(CartPoleGoal(), match=match)
    with pytest.warns(UserWarning, match="family: got episodes of a batch and of single environments that begin apart"):
        check_family(CartPoleGoal())


def test_protocols():
    family = CartPoleGoal()
    assert isinstance(family, Family)
    assert isinstance(family.batch([family.sample(np.random.default_rng(0))], 1), EpisodeBatch)


def test_errors():
    family = CartPoleGoal()
    task = family.sample(np.random.default_rng(0))
    for wrong in [None, (1, 2), {}, {**task, "goal": "left"}, {**task, "length": 0.0}, {**task, "gravity": np.inf}]:
        with pytest.raises(
            InvalidParameterError, match="parameters: got .*expected a dict with finite numbers force_mag"
        ):
            family.make(wrong)
    with pytest.raises(InvalidParameterError, match=r"gravity: got \(1, 0\)"):
        CartPoleGoal(gravity=(1, 0))
    with pytest.raises(InvalidParameterError, match="length: got a range from 0.0; expected positive"):
        CartPoleGoal(length=(0, 1))
