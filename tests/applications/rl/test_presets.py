"""Presets: every parameter matters, and an environment with a parameter set is one that was built with it."""

import importlib.util

import gymnasium
import numpy as np
import pytest
from gymnasium.envs import classic_control
from gymnasium.utils.env_checker import check_env

from fewshot.applications.rl import _presets as presets
from fewshot.errors import InvalidParameterError, MissingDependencyError

HAS_MUJOCO = importlib.util.find_spec("mujoco") is not None
# MuJoCo is an extra of its own, which the tests do not need otherwise.
needs_mujoco = pytest.mark.skipif(not HAS_MUJOCO, reason="mujoco is not installed: pip install 'fewshot[mujoco]'")

CARTPOLE = {"gravity": 8.0, "masscart": 0.75, "masspole": 0.3, "length": 0.8, "force_mag": 7.0}
PENDULUM = {"g": 12.0, "m": 0.75, "l": 1.3}
ACROBOT = {"LINK_LENGTH_1": 1.2, "LINK_LENGTH_2": 0.8, "LINK_MASS_1": 0.9, "LINK_MASS_2": 1.1}
CAR = {"power": 0.0018, "goal_position": 0.35, "goal_velocity": 0.01}


class FreshCartPole(classic_control.CartPoleEnv):
    """Gymnasium's constructor with the task's numbers in the place of its own, line by line."""

    def __init__(self):
        super().__init__()
        self.gravity, self.masscart, self.masspole = CARTPOLE["gravity"], CARTPOLE["masscart"], CARTPOLE["masspole"]
        self.total_mass = self.masspole + self.masscart
        self.length = CARTPOLE["length"]
        self.polemass_length = self.masspole * self.length
        self.force_mag = CARTPOLE["force_mag"]


class FreshPendulum(classic_control.PendulumEnv):
    def __init__(self):
        super().__init__(g=PENDULUM["g"])
        self.m, self.l = PENDULUM["m"], PENDULUM["l"]


class FreshAcrobot(classic_control.AcrobotEnv):
    LINK_LENGTH_1, LINK_LENGTH_2, LINK_MASS_1, LINK_MASS_2 = ACROBOT.values()
    LINK_COM_POS_1, LINK_COM_POS_2 = 0.6, 0.4


class FreshCar(classic_control.Continuous_MountainCarEnv):
    def __init__(self):
        super().__init__(goal_velocity=CAR["goal_velocity"])
        self.power, self.goal_position = CAR["power"], CAR["goal_position"]


def with_the_motion(t, observation):
    """Full power in the direction of the velocity, which swings the car out of its valley."""
    return np.array([1.0 if observation[1] >= 0 else -1.0], np.float32)


PRESETS = {
    "cartpole": (presets.cartpole, CARTPOLE, FreshCartPole, lambda t, _: [0, 1, 1, 0, 0, 1][t % 6]),
    "pendulum": (presets.pendulum, PENDULUM, FreshPendulum, lambda t, _: np.float32([np.sin(t)])),
    "acrobot": (presets.acrobot, ACROBOT, FreshAcrobot, lambda t, _: [0, 0, 2, 2, 1][t % 5]),
    "mountain_car_continuous": (presets.mountain_car_continuous, CAR, FreshCar, with_the_motion),
}


def rollout(env, act, steps=300):
    """Observations, rewards and ends under one policy."""
    observation, _ = env.reset(seed=3)
    rows = []
    for t in range(steps):
        observation, reward, terminated, *_ = env.step(act(t, observation))
        rows.append([*observation, reward, terminated])
        if terminated:
            break
    return np.array(rows)


@pytest.mark.parametrize("name", PRESETS)
def test_it_equals_a_freshly_built_environment(name):
    preset, task, fresh, act = PRESETS[name]
    found, expected = rollout(preset().make(task), act), rollout(fresh(), act)
    assert len(found) > 10
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name, parameter", [(name, parameter) for name in PRESETS for parameter in PRESETS[name][1]])
def test_every_parameter_changes_a_rollout(name, parameter):
    preset, task, _, act = PRESETS[name]
    family = preset()
    low, high = (family.make({**task, parameter: value}) for value in RANGES[name][parameter])
    one, other = rollout(low, act), rollout(high, act)
    assert one.shape != other.shape or np.abs(one - other).max() > 1e-3


RANGES = {
    "cartpole": {
        "gravity": (6.0, 14.0),
        "masscart": (0.5, 2.0),
        "masspole": (0.05, 0.5),
        "length": (0.25, 1.0),
        "force_mag": (5.0, 15.0),
    },
    "pendulum": {"g": (5.0, 15.0), "m": (0.5, 1.5), "l": (0.5, 1.5)},
    "acrobot": dict.fromkeys(ACROBOT, (0.75, 1.25)),
    "mountain_car_continuous": {"power": (0.001, 0.002), "goal_position": (0.3, 0.5), "goal_velocity": (0.0, 0.02)},
}


@pytest.mark.parametrize("name", PRESETS)
def test_ranges(name):
    family = PRESETS[name][0]()
    rng = np.random.default_rng(0)
    tasks = [family.sample(rng) for _ in range(500)]
    for parameter, (low, high) in RANGES[name].items():
        values = [task[parameter] for task in tasks]
        width = high - low
        assert low <= min(values) < low + 0.02 * width and high - 0.02 * width < max(values) <= high
    assert set(tasks[0]) == set(RANGES[name])
    assert family.told(tasks[0]).shape == (len(RANGES[name]),)


@pytest.mark.parametrize("name", PRESETS)
def test_gymnasiums_check(name):
    """Gymnasium warns of Pendulum's action bounds of 2, and of CartPole's unbounded velocities; of nothing else."""
    family = PRESETS[name][0]()
    with pytest.MonkeyPatch.context() as patch:
        warned = []
        patch.setattr(gymnasium.logger, "warn", lambda message, *a, **k: warned.append(message))
        check_env(family.make(PRESETS[name][1]), skip_render_check=True)
    tolerated = ("A Box observation space m", "For Box action spaces, we recommend", "The environment ")
    assert not [message for message in warned if not message.startswith(tolerated)]


@pytest.mark.parametrize("name", PRESETS)
def test_options(name):
    preset, task, *_ = PRESETS[name]
    first = next(iter(task))
    family = preset(horizon=12, workers=2, **{first: [task[first]]})
    assert family.horizon == 12 and family.workers == 2
    assert family.sample(np.random.default_rng(0))[first] == task[first]


@pytest.mark.parametrize("preset", ["half_cheetah_direction", "half_cheetah_velocity", "ant_direction"])
def test_without_mujoco(preset, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"^{preset} needs the package mujoco.*fewshot\[mujoco\]"):
        getattr(presets, preset)()


@needs_mujoco
@pytest.mark.parametrize("name", ["half_cheetah_direction", "ant_direction"])
def test_directions(name):
    family = getattr(presets, name)(horizon=30)
    rng = np.random.default_rng(0)
    assert {family.sample(rng)["forward_reward_weight"] for _ in range(20)} == {-1.0, 1.0} and family.horizon == 30
    batch = family.batch([{"forward_reward_weight": 1.0}, {"forward_reward_weight": -1.0}], 1)
    batch.begin(np.zeros((2, 1), int))  # the same start in both
    action = rng.uniform(-1, 1, (1, 1, *family.action_space.shape)).astype(np.float32)
    observations, rewards, *_ = batch.step(np.repeat(action, 2, axis=0))
    np.testing.assert_array_equal(observations[0], observations[1])
    info = {n: env.unwrapped.data.qpos for n, env in enumerate(batch._envs)}
    np.testing.assert_array_equal(info[0], info[1])
    env = family.make({"forward_reward_weight": 1.0})
    env.reset(seed=0)
    velocity = env.step(action[0, 0])[4]["x_velocity"]
    assert (rewards[0] - rewards[1]).item() == pytest.approx(2 * velocity)
    batch.close()


@needs_mujoco
def test_goal_velocities():
    family = presets.half_cheetah_velocity(horizon=30)
    rng = np.random.default_rng(0)
    goals = np.array([family.sample(rng)["velocity"] for _ in range(500)])
    assert 0 <= goals.min() < 0.05 and 1.95 < goals.max() <= 2.0
    env = family.make({"velocity": 1.5})
    env.reset(seed=0)
    action = rng.uniform(-1, 1, 6).astype(np.float32)
    _, reward, terminated, truncated, info = env.step(action)
    expected = -abs(info["x_velocity"] - 1.5) - 0.05 * np.square(action).sum()
    assert reward == pytest.approx(expected, rel=1e-5) and not terminated and not truncated
    ends = [env.step(action)[3] for _ in range(29)]
    assert ends == [False] * 28 + [True]
    assert family.told({"velocity": 1.5}).tolist() == [1.5]
    with pytest.raises(InvalidParameterError, match="parameters: got 1.5; expected a dict with a number velocity"):
        family.make(1.5)


@needs_mujoco
def test_model_arrays():
    family = presets.half_cheetah_direction(horizon=30, **{"model.body_mass": (0.5, 2.0)})
    light, heavy = (
        family.make({"forward_reward_weight": 1.0, "model.body_mass": scale}).unwrapped for scale in (1.0, 2.0)
    )
    np.testing.assert_allclose(heavy.model.body_mass, 2 * light.model.body_mass)
    np.testing.assert_allclose(heavy.model.body_subtreemass, 2 * light.model.body_subtreemass)  # derived by MuJoCo
    for env in (light, heavy):
        env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 6)).astype(np.float32)
    one, other = ([env.step(action)[0] for action in actions] for env in (light, heavy))
    assert np.abs(np.array(one) - other).max() > 0.1
