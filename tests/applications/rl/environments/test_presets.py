"""Presets: every parameter matters, and an environment with a parameter set is one that was built with it."""

import gymnasium
import numpy as np
import pytest
from gymnasium.envs import classic_control
from gymnasium.utils.env_checker import check_env

from fewshot.applications.rl.environments import presets

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
