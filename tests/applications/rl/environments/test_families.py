"""Families: what varies reaches the environment, and what the environment lacks is refused."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete, MultiBinary

from fewshot.applications.rl.environments.families import EnvFamily, told_numbers
from fewshot.applications.rl.environments.limits import horizon_of
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.environments.protocols import EpisodeBatch, Family
from fewshot.errors import InvalidParameterError


def rollout(env, seed=0, steps=30):
    """Observations and rewards of a fixed sequence of actions."""
    rng = np.random.default_rng(seed)
    env.action_space.seed(seed)
    seen = [(env.reset(seed=int(rng.integers(1000)))[0], 0.0)]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append((observation, reward))
        if terminated or truncated:
            break
    return np.array([[*observation, reward] for observation, reward in seen])


def test_a_factory_and_a_sampler():
    family = EnvFamily(
        make=lambda p: gymnasium.make("Pendulum-v1", g=p["gravity"]),
        sample=lambda rng: {"gravity": rng.uniform(5, 15)},
    )
    assert isinstance(family, Family)
    rng = np.random.default_rng(0)
    parameters = [family.sample(rng) for _ in range(2)]
    assert 5 < parameters[0]["gravity"] < 15 and parameters[0] != parameters[1]
    assert family.make(parameters[0]).unwrapped.g == parameters[0]["gravity"]
    assert family.told(parameters[0]).tolist() == [np.float32(parameters[0]["gravity"])]
    batch = family.batch(parameters, 3)
    assert isinstance(batch, EpisodeBatch)
    assert batch.reset(rng).shape == (2, 3, 3)
    assert family.horizon == 200


def test_told_by_the_user():
    family = EnvFamily(
        make=lambda p: gymnasium.make("CartPole-v1"), sample=lambda rng: "left", told=lambda p: [p == "left"]
    )
    assert family.told("left").tolist() == [1.0] and family.told("left").dtype == np.float32


@pytest.mark.parametrize(
    "parameters, expected",
    [
        ({}, []),
        (3, [3]),
        ((1, 2.5), [1, 2.5]),
        (np.eye(2), [1, 0, 0, 1]),
        ({"b": 1, "a": [2, 3], "c": {"z": 5, "y": True}}, [2, 3, 1, 1, 5]),
    ],
)
def test_numbers_of_parameters(parameters, expected):
    assert told_numbers(parameters).tolist() == expected


@pytest.mark.parametrize("parameters", ["left", {"a": "1.5"}, [[1], [2, 3]], None, object()])
def test_parameters_without_numbers(parameters):
    with pytest.raises(InvalidParameterError, match="told: .*expected numbers; give told="):
        told_numbers(parameters)


def test_horizons():
    assert EnvFamily.vary("CartPole-v1").horizon == 500
    family = EnvFamily.vary("CartPole-v1", horizon=700)  # beyond the registered limit
    assert family.horizon == horizon_of(family.make({})) == 700
    bare = gymnasium.make("CartPole-v1").unwrapped.__class__
    assert EnvFamily(make=lambda p: bare(), sample=lambda rng: None, horizon=30).horizon == 30
    limited = EnvFamily(make=lambda p: gymnasium.wrappers.TimeLimit(bare(), 40), sample=lambda rng: None)
    assert limited.horizon == 40
    with pytest.raises(
        InvalidParameterError, match="horizon: got None for .*CartPoleEnv.*give horizon= to EnvFamily or as_family"
    ):
        EnvFamily(make=lambda p: bare(), sample=lambda rng: None)
    assert EnvFamily(make=PointNavigation(horizon=7).make, sample=lambda rng: (0.1, 0.2)).horizon == 7  # an attribute
    with pytest.raises(InvalidParameterError, match="horizon: got -1"):
        EnvFamily.vary("CartPole-v1", horizon=-1)


def test_arguments_of_a_family():
    with pytest.raises(InvalidParameterError, match="make: got 3; expected a function"):
        EnvFamily(make=3, sample=lambda rng: None)
    with pytest.raises(InvalidParameterError, match="sample: got None; expected a function"):
        EnvFamily(make=lambda p: None, sample=None)
    with pytest.raises(InvalidParameterError, match="make: .*returned NoneType; expected a gymnasium.Env"):
        EnvFamily(make=lambda p: None, sample=lambda rng: None)
    with pytest.raises(InvalidParameterError, match="n_episodes: got 0"):
        EnvFamily.vary("CartPole-v1").batch([{}], 0)

    class Switches(gymnasium.Env):
        observation_space, action_space = Discrete(2), MultiBinary(2)

    with pytest.raises(InvalidParameterError, match="action_space: got MultiBinary"):
        EnvFamily(make=lambda p: Switches(), sample=lambda rng: None, horizon=3)


def test_kinds_of_choices():
    family = EnvFamily.vary(
        "CartPole-v1",
        gravity=(5.0, 15.0),
        masscart=[1.0, 2.0],
        length={0.5, 0.25},
        force_mag=lambda rng: float(rng.normal(10, 1)),
        masspole=np.array([0.1, 0.3]),
        tau=[0.02],
    )
    rng = np.random.default_rng(0)
    tasks = [family.sample(rng) for _ in range(300)]
    gravity = np.array([task["gravity"] for task in tasks])
    assert 5 <= gravity.min() < 5.2 and 14.8 < gravity.max() <= 15
    for name, values in {"masscart": {1.0, 2.0}, "length": {0.25, 0.5}, "masspole": {0.1, 0.3}, "tau": {0.02}}.items():
        assert {task[name] for task in tasks} == values
    assert np.std([task["force_mag"] for task in tasks]) == pytest.approx(1, rel=0.2)
    inner = family.make(tasks[0]).unwrapped
    assert {name: getattr(inner, name) for name in tasks[0]} == tasks[0]
    again = np.random.default_rng(0)
    assert [family.sample(again) for _ in range(300)] == tasks


def test_the_order_of_a_set_does_not_matter():
    """It differs from process to process where the values are strings."""
    families = [EnvFamily.vary("CartPole-v1", length=lengths) for lengths in ({1.0, 0.5, 0.25}, [0.25, 0.5, 1.0])]
    draws = [[family.sample(rng) for _ in range(20)] for family in families for rng in [np.random.default_rng(0)]]
    assert draws[0] == draws[1]


@pytest.mark.parametrize("choices", [0.5, (1.0, 0.5), (0.1, 0.2, 0.3), [], "long", (0.1, np.inf), None, {"low": 1}])
def test_choices_that_are_none(choices):
    with pytest.raises(InvalidParameterError, match="^length: got .*expected"):
        EnvFamily.vary("CartPole-v1", length=choices)


@pytest.mark.parametrize(
    "env_id, name, hint",
    [
        ("CartPole-v1", "lenght", "did you mean 'length'"),
        ("CartPole-v1", "mass_pole", "did you mean 'masspole'"),
        ("CartPole-v1", "friction", "it has .*gravity.*"),
        ("Acrobot-v1", "link_mass_1", "did you mean 'LINK_MASS_1'"),
        ("MountainCarContinuous-v0", "goal_velocty", "did you mean 'goal_velocity'"),
        ("CartPole-v1", "model.body_mass", "it has"),
        ("CartPole-v1", "_max_episode_steps", ""),  # of a wrapper, where it would change nothing in the environment
    ],
)
def test_a_name_that_the_environment_lacks(env_id, name, hint):
    with pytest.raises(InvalidParameterError, match=f"^{name}: got a name that .*Env lacks; .*{hint}"):
        EnvFamily.vary(env_id, **{name: (0.1, 0.2)})


def test_a_method_cannot_vary():
    with pytest.raises(InvalidParameterError, match="^step: got a method"):
        EnvFamily.vary("CartPole-v1", step=[1])


def test_an_environment_that_is_not_registered():
    with pytest.raises(
        InvalidParameterError, match="env_id: got 'CartPoel-v1'; expected a registered environment; .*CartPole"
    ):
        EnvFamily.vary("CartPoel-v1")


def test_constructor_arguments_and_constants():
    family = EnvFamily.vary(
        "MountainCarContinuous-v0", goal_velocity=(0.01, 0.02), constants={"render_mode": "rgb_array"}
    )
    env = family.make({"goal_velocity": 0.015})
    assert env.unwrapped.goal_velocity == 0.015 and env.render_mode == "rgb_array"
    assert env.spec.kwargs["goal_velocity"] == 0.015  # handed to the constructor, so that it may compute with it


def test_what_cartpole_derives():
    family = EnvFamily.vary("CartPole-v1", length=(0.25, 1.0), masspole=(0.05, 0.5))
    inner = family.make({"length": 0.8, "masspole": 0.3}).unwrapped
    assert inner.polemass_length == pytest.approx(0.24) and inner.total_mass == pytest.approx(1.3)
    inner = EnvFamily.vary("CartPole-v1", total_mass=[3.0]).make({"total_mass": 3.0}).unwrapped
    assert inner.total_mass == 3.0  # asked for


def test_derive_of_the_user_has_the_last_word():
    seen = []

    def derive(env):
        seen.append(env.polemass_length)
        env.x_threshold = env.length

    inner = EnvFamily.vary("CartPole-v1", length=[0.8], derive=derive).make({"length": 0.8}).unwrapped
    assert inner.x_threshold == 0.8 and seen[-1] == pytest.approx(0.08)


def test_wrap():
    family = EnvFamily.vary(
        "CartPole-v1", length=(0.25, 1.0), wrap=lambda env: gymnasium.wrappers.TransformReward(env, lambda r: -r)
    )
    env = family.make({"length": 0.5})
    env.reset(seed=0)
    assert env.step(0)[1] == -1.0


class Model:
    def __init__(self):
        self.masses = np.array([1.0, 2.0])
        self.friction = 0.5


class WithModel(gymnasium.Env):
    observation_space, action_space = Discrete(2), Discrete(2)

    def __init__(self):
        self.model = Model()
        self.view = self.model.masses
        self.wind = np.zeros(2)


gymnasium.register("fewshot-test/WithModel-v0", entry_point=WithModel, max_episode_steps=5)


def test_paths_scale_and_arrays_keep_their_place():
    name = "fewshot-test/WithModel-v0"
    family = EnvFamily.vary(name, **{"model.masses": (0.5, 2.0), "model.friction": [2.0]})
    inner = family.make({"model.masses": 3.0, "model.friction": 2.0}).unwrapped
    assert inner.view.tolist() == [3.0, 6.0] and inner.view is inner.model.masses
    assert inner.model.friction == 1.0
    assert family.make({"model.masses": 3.0, "model.friction": 2.0}).unwrapped.view.tolist() == [3.0, 6.0]
    each = EnvFamily.vary(name, **{"model.masses": lambda rng: rng.uniform(0.5, 2.0, 2)})
    assert each.make({"model.masses": [1.0, 0.5]}).unwrapped.view.tolist() == [1.0, 1.0]
    with pytest.raises(InvalidParameterError, match=r"^model.mases: got a name that WithModel lacks.*'model.masses'\?"):
        EnvFamily.vary(name, **{"model.mases": (0.5, 2.0)})
    with pytest.raises(InvalidParameterError, match=r"^wind: got a value of shape \(\); expected \(2,\)"):
        EnvFamily.vary(name, wind=(0.5, 2.0))
    windy = EnvFamily.vary(name, wind=lambda rng: rng.normal(size=2))
    assert windy.make({"wind": [1.0, 2.0]}).unwrapped.wind.tolist() == [1.0, 2.0]


def test_parameters_of_another_family():
    family = EnvFamily.vary("CartPole-v1", length=(0.25, 1.0))
    for wrong in [{}, {"length": 0.5, "tau": 1}, {"tau": 1}, 0.5]:
        with pytest.raises(InvalidParameterError, match=r"parameters: got .*dict with the keys \['length'\]"):
            family.make(wrong)


def test_a_varied_environment_is_a_freshly_built_one():
    class Heavy(gymnasium.envs.classic_control.CartPoleEnv):
        def __init__(self):
            super().__init__()
            self.masspole, self.length = 0.4, 0.9
            self.total_mass, self.polemass_length = 1.4, 0.36

    family = EnvFamily.vary("CartPole-v1", length=(0.25, 1.0), masspole=(0.05, 0.5))
    long = rollout(family.make({"length": 0.9, "masspole": 0.4}))
    np.testing.assert_allclose(long, rollout(Heavy()), rtol=1e-6)
    assert not np.allclose(long[:10], rollout(family.make({"length": 0.5, "masspole": 0.4}))[:10])
