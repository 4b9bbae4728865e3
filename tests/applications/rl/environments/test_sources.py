"""What users bring becomes a family; what cannot is refused with a remedy."""

import functools
import itertools
import random

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.envs.classic_control import CartPoleEnv
from gymnasium.spaces import Box, Discrete
from gymnasium.utils import EzPickle
from gymnasium.wrappers import TimeLimit, TransformReward

from fewshot.applications.rl.environments._copying import copy_env
from fewshot.applications.rl.environments.families import EnvFamily
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.environments.protocols import Family
from fewshot.applications.rl.environments.sources import as_family, as_one_task
from fewshot.applications.rl.recorded import RecordedEpisodes
from fewshot.errors import InvalidParameterError


class WithTasks(gymnasium.Env):
    """The old convention: a task is a goal; which generator draws it differs from code to code."""

    observation_space, action_space = Box(-9.0, 9.0, (1,)), Discrete(2)
    source = "own"

    def __init__(self):
        self.goal = None

    def sample_tasks(self, n):
        if self.source == "own":
            return [{"goal": goal} for goal in self.np_random.normal(size=n)]
        if self.source == "numpy":
            return [{"goal": goal} for goal in np.random.normal(size=n)]  # noqa: NPY002
        return [{"goal": random.gauss(0, 1)} for _ in range(n)]

    def set_task(self, task):
        self.goal = task["goal"]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), self.goal, False, False, {}


@pytest.mark.parametrize("source", ["own", "numpy", "random"])
@pytest.mark.parametrize("as_class", [False, True])
def test_an_environment_that_is_told_its_task(source, as_class):
    kind = type("Told", (WithTasks,), {"source": source})
    given = kind if as_class else gymnasium.wrappers.TimeLimit(kind(), 7)
    family = as_family(given, horizon=7 if as_class else None)
    assert isinstance(family, Family) and family.horizon == 7
    before = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    draws = [[family.sample(rng) for _ in range(3)] for rng in map(np.random.default_rng, (0, 0, 1))]
    assert draws[0] == draws[1] and draws[0] != draws[2] and draws[0][0] != draws[0][1]
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])  # noqa: NPY002
    assert random.getstate() == before[1]
    batch = family.batch(draws[0], 2)
    batch.reset(np.random.default_rng(0))
    rewards = batch.step(np.zeros((3, 2), int))[1]
    np.testing.assert_array_equal(rewards, np.repeat([[task["goal"]] for task in draws[0]], 2, axis=1))
    assert family.told(draws[0][0]).shape == (1,)
    if not as_class:
        assert given.unwrapped.goal is None  # the user's own has been left alone


def test_other_names_of_the_convention():
    class Other(WithTasks):
        sample_tasks = set_task = None

        def sample_task(self):
            return float(self.np_random.normal())

        def reset_task(self, task):
            self.goal = task

    del Other.sample_tasks, Other.set_task
    base = type("Base", (Other,), {})
    family = as_family(type("Named", (_without(base),), {}), horizon=3)
    task = family.sample(np.random.default_rng(0))
    assert family.make(task).goal == task


def _without(kind):
    """The class with the methods of the other name hidden."""

    class Hidden(kind):
        def __getattribute__(self, name):
            if name in ("set_task", "sample_tasks"):
                raise AttributeError(name)
            return super().__getattribute__(name)

    return Hidden


def test_a_setter_without_a_sampler():
    class Half(CartPoleEnv):
        def set_task(self, task):
            pass

    with pytest.raises(
        InvalidParameterError, match="family: got .* with set_task but none of sample_tasks, sample_task"
    ):
        as_family(Half(), horizon=3)


def test_names_and_plain_environments():
    env = gymnasium.make("CartPole-v1")
    for source in ["CartPole-v1", gymnasium.spec("CartPole-v1"), env]:
        family = as_family(source)
        assert family.horizon == 500 and family.sample(np.random.default_rng(0)) == {}
        assert family.told({}).shape == (0,)
        assert family.batch([{}], 3).reset(np.random.default_rng(0)).shape == (1, 3, 4)
    family = as_family("CartPole-v1", horizon=40, workers=2, worker_timeout=9.0)
    assert (family.workers, family.worker_timeout) == (2, 9.0)
    assert as_family(CartPoleEnv, horizon=12).horizon == 12


def test_a_plain_environment_keeps_what_was_changed():
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.length = 0.9
    env.reset(seed=3)
    state = env.unwrapped.state.copy()
    family = as_family(env)
    batch = family.batch([{}], 2)
    batch.reset(np.random.default_rng(0))
    batch.step(np.zeros((1, 2), int))
    assert family.make({}).unwrapped.length == 0.9
    np.testing.assert_array_equal(env.unwrapped.state, state)


def test_copies_of_an_environment_that_pickles_by_its_arguments():
    class Pickled(CartPoleEnv, EzPickle):
        def __init__(self):
            CartPoleEnv.__init__(self)
            EzPickle.__init__(self)

    env = gymnasium.wrappers.TimeLimit(Pickled(), 5)
    env.unwrapped.length = 0.9
    made = copy_env(env)
    assert made.unwrapped.length == 0.9 and made.unwrapped is not env.unwrapped
    made.reset(seed=0)
    assert env.unwrapped.state is None


def test_an_environment_that_cannot_be_copied():
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.window = (line for line in "")
    with pytest.raises(InvalidParameterError, match="family: got .*cannot be copied .*generator.*give EnvFamily"):
        as_family(env)


def _pendulum():
    return gymnasium.make("Pendulum-v1", max_episode_steps=10)


def _angle(env, reward=None):
    return float(env.unwrapped.state[0])


def _angle_of_the_script():
    return _angle(OF_A_SCRIPT)  # noqa: F821


def _wrapped(kind):
    env = _pendulum()
    if kind == "closure":
        return TransformReward(env, lambda reward: float(env.unwrapped.state[0]))
    if kind == "default":
        return TransformReward(env, lambda reward, env=env: _angle(env))
    if kind == "within":  # another function, a comprehension, a partial function
        angle = functools.partial(_angle, env)
        return TransformReward(env, lambda reward: max(angle() for _ in range(2)))
    if kind == "global":
        globals()["OF_A_SCRIPT"] = env
        return TransformReward(env, lambda reward: float(OF_A_SCRIPT.unwrapped.state[0]))  # noqa: F821
    if kind == "helper":  # of the same script
        globals()["OF_A_SCRIPT"] = env
        return TransformReward(env, lambda reward: _angle_of_the_script())
    if kind == "itself":

        def angle_after(reward, calls=2):
            return angle_after(reward, calls - 1) if calls else _angle(env)

        return TransformReward(env, angle_after)
    if kind == "inner":
        return TimeLimit(TransformReward(env, functools.partial(lambda reward: _angle(env))), 5)
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["closure", "default", "within", "global", "helper", "itself", "inner"])
def test_a_function_that_looks_at_the_environment_looks_at_the_copy(kind):
    env = _wrapped(kind)
    made = copy_env(env), as_one_task(env, horizon=5).make({}), as_family(env).make({})
    everyone = env, *made
    for seed, one in enumerate(everyone):
        one.reset(seed=seed)
    rewards = [one.step(np.zeros(1, np.float32))[1] for one in everyone]
    assert rewards == [_angle(one) for one in everyone] and len(set(rewards)) == 4


def test_functions_are_shared_unless_they_look_at_the_environment():
    def doubled(reward):
        return 2 * reward

    env = TransformReward(_pendulum(), doubled)
    assert copy_env(env).func is doubled
    bounded = wrappers.ClipAction(_pendulum())
    made = copy_env(bounded)
    assert made.func is not bounded.func and made.func.__closure__[0].cell_contents is made.env
    assert 2 * _reward(_pendulum()) == _reward(copy_env(env))


def _reward(env):
    env.reset(seed=0)
    return env.step(np.zeros(1, np.float32))[1]


@pytest.mark.parametrize(
    "wrap",
    [
        wrappers.FlattenObservation,  # its function reads the observation space of the environment it holds
        wrappers.ClipAction,
        wrappers.NormalizeObservation,
        wrappers.RecordEpisodeStatistics,
        lambda env: wrappers.TimeAwareObservation(env, normalize_time=True),
        lambda env: wrappers.ClipReward(env, -99, 99),
    ],
)
def test_wrappers_that_can_be_copied(wrap):
    assert _reward(copy_env(wrap(_pendulum()))) == _reward(_pendulum())


def test_what_is_bound_to_an_environment_is_bound_to_its_copy():
    class Pickled(gymnasium.Wrapper, EzPickle):
        """One that is built anew where copy.deepcopy comes first."""

        def __init__(self, env):
            EzPickle.__init__(self, env)
            gymnasium.Wrapper.__init__(self, env)
            self.factor = 1.0

        def angle(self, reward):
            return self.factor * self.unwrapped.state[0]

    class FunctionFirst(gymnasium.Wrapper):
        """Whose attributes begin with the function."""

        def __init__(self, env, function):
            self.function = function
            super().__init__(env)

        def step(self, action):
            observation, reward, *rest = self.env.step(action)
            return observation, self.function(reward), *rest

    env = Pickled(_pendulum())
    env.reset(seed=1)
    env.factor = 3.0
    for wrap, function in itertools.product(
        (TransformReward, FunctionFirst), (env.angle, functools.partial(Pickled.angle, env))
    ):
        made = copy_env(wrap(env, function))
        assert _reward(made) == 3 * _angle(made) != 3 * _angle(env)


def test_one_task_names_what_is_none_by_its_type():
    for value in (RecordedEpisodes, np.zeros((900, 900)), "CartPole-v1"):
        with pytest.raises(
            InvalidParameterError, match=f"^env: got {type(value).__name__}; expected one gymnasium.Env"
        ):
            as_one_task(value, horizon=3)


def test_a_pair_and_families():
    family = as_family((lambda p: gymnasium.make("Pendulum-v1", g=p), lambda rng: float(rng.uniform(5, 15))))
    assert isinstance(family, EnvFamily) and 5 < family.sample(np.random.default_rng(0)) < 15
    for family in [PointNavigation(), EnvFamily.vary("CartPole-v1", length=(0.2, 1.0))]:
        assert as_family(family) is family
        with pytest.raises(InvalidParameterError, match="horizon: got 5 for a family; expected None"):
            as_family(family, horizon=5)


@pytest.mark.parametrize("source", [None, 3, [1], (1, 2), (len,), lambda: None, np.zeros(3), CartPoleEnv.step])
def test_anything_else(source):
    with pytest.raises(InvalidParameterError, match="family: got .*expected a family, the name of an environment"):
        as_family(source)
