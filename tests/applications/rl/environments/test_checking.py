"""The check of a family: good ones pass, and each way to be wrong has an error of its own."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary

from fewshot.applications.rl.environments.batch_comparison import compare_batch
from fewshot.applications.rl.environments.checking import check_family
from fewshot.applications.rl.environments.failures import EnvironmentFailedError
from fewshot.applications.rl.environments.families import EnvFamily
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.environments.protocols import Family
from fewshot.applications.rl.environments.told import Told
from fewshot.errors import InvalidDataError, InvalidParameterError

LAST = 6  # time steps of an episode


class Walk(gymnasium.Env):
    """A walk on a line towards a goal, and what can be wrong with it."""

    observation_space, action_space = Box(-20.0, 20.0, (1,), np.float64), Discrete(2)

    def __init__(self, goal, wrong=None):
        self.goal, self.wrong = goal, wrong
        if wrong == "spaces" and goal > 0:
            self.action_space = Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        rng = np.random.default_rng() if self.wrong == "start" else self.np_random
        self.place, self.time = rng.uniform(-1, 1), 0
        return self.observe(), {}

    def observe(self):
        outside = 99.0 if self.wrong == "outside" else 0.0
        return np.array([self.place + outside])

    def step(self, action):
        self.time += 1
        self.place += 1.0 if action else -1.0
        if self.wrong == "noise":
            self.place += np.random.default_rng().normal()
        if self.wrong == "raises" and self.time == 3:
            raise ZeroDivisionError("the floor broke")
        reward = -abs(self.place - self.goal)
        if self.time == 3:
            reward = {"nan": np.nan, "inf": -np.inf}.get(self.wrong, reward)
        if self.wrong == "hole" and self.time == 3:
            return np.array([np.nan]), reward, False, False, {}
        return self.observe(), reward, False, self.time >= LAST and self.wrong != "endless", {}


def walks(wrong=None, sample=None):
    return EnvFamily(lambda goal: Walk(goal, wrong), sample or (lambda rng: float(rng.normal())), horizon=LAST)


def test_good_families_pass():
    family = walks()
    assert check_family(family) is family
    assert isinstance(check_family(Told(PointNavigation(horizon=10))), Family)
    check_family(Told(family))  # a batch of single environments in disguise: equal generators, equal starts
    check_family(EnvFamily.vary("Pendulum-v1", m=(0.5, 1.5), horizon=20))
    for n in (1, 2):
        envs = gymnasium.vector.SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * n)
        assert check_family(gymnasium.wrappers.vector.RecordEpisodeStatistics(envs), random_state=1).n_slots == n


def parametrised(wrong, error, message):
    return pytest.param(wrong, error, message, id=wrong)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        parametrised("spaces", InvalidParameterError, r"make: got action_space Discrete\(3\) for task \d"),
        parametrised("start", InvalidParameterError, r"make: got .*Walk.* for task 0 .*check_env refuses: .*seed"),
        parametrised("noise", InvalidParameterError, "make: got .*check_env refuses: Deterministic step observations"),
        parametrised("outside", InvalidParameterError, "check_env refuses: .*not within the observation space"),
        parametrised("raises", EnvironmentFailedError, "step: got ZeroDivisionError: the floor broke .*task 0"),
        parametrised("nan", EnvironmentFailedError, r"step: got reward nan in time step 3 of episode 0 of task 0"),
        parametrised("inf", EnvironmentFailedError, r"step: got reward -inf in time step 3 of episode 0 of task 0"),
        parametrised("hole", EnvironmentFailedError, r"step: got observation \[nan\] in time step 3 of episode 0"),
    ],
)
def test_environments_that_are_wrong(wrong, error, message):
    with pytest.raises(error, match=message) as caught:
        check_family(walks(wrong, sample=lambda rng: float(abs(rng.normal())) * (rng.random() - 0.5)))
    assert "\n" not in str(caught.value)


def test_episodes_that_do_not_follow_from_their_seed_after_the_first_steps():
    """Gymnasium's check looks at one step."""

    class Later(Walk):
        def step(self, action):
            self.wrong = "noise" if self.time == 4 else None
            return super().step(action)

    with pytest.raises(InvalidDataError, match="make: got two environments of task 0 .* differ with the same seed"):
        check_family((lambda goal: gymnasium.wrappers.TimeLimit(Later(goal), LAST), lambda rng: float(rng.normal())))


def test_samplers_that_are_wrong():
    with pytest.raises(InvalidParameterError, match="sample: got task 0 .*from equal generators.*draw everything"):
        check_family(walks(sample=lambda rng: float(np.random.default_rng().normal())))

    class Parameters:  # says nothing about equality
        def __init__(self, goal):
            self.goal = np.array([goal])

    family = EnvFamily(lambda p: Walk(float(p.goal[0])), lambda rng: Parameters(rng.normal()), horizon=LAST)
    assert check_family(family) is family


def test_nothing_to_adapt_to():
    with pytest.warns(UserWarning, match="family: got 3 tasks whose episodes are alike"):
        check_family(EnvFamily(lambda goal: Walk(0.0), lambda rng: float(rng.normal()), horizon=LAST))
    with pytest.warns(UserWarning, match="family: got one task only"):
        check_family("CartPole-v1")
    # A family of two tasks is not taken for one of one task, though the first three draws may be equal.
    for seed in range(8):
        check_family(walks(sample=lambda rng: float(rng.integers(2))), random_state=seed)


def test_warnings_of_gymnasium_are_passed_on_or_tolerated():
    class Whole(Walk):
        def step(self, action):
            values = super().step(action)
            return values[0].astype(np.float32), *values[1:]

    with pytest.warns(UserWarning, match="family: gymnasium's check_env says of .*float64.*float32") as met:
        check_family((lambda goal: gymnasium.wrappers.TimeLimit(Whole(goal), LAST), lambda rng: float(rng.normal())))
    assert len(met) == 1  # wrapped, and no word of it


def test_episodes_of_one_step():
    class Short(Walk):
        def step(self, action):
            observation, reward, *_ = super().step(action)
            return observation, reward, False, True, {}

    check_family(EnvFamily(Short, lambda rng: float(rng.normal()), horizon=1))


class Walks:
    """All walks in arrays, and what can be wrong with them."""

    observation_space, action_space, horizon = Walk.observation_space, Walk.action_space, LAST

    def __init__(self, wrong=None):
        self.wrong = wrong

    def sample(self, rng):
        return float(rng.normal())

    def make(self, parameters):
        return Walk(parameters)

    def batch(self, parameters, n_episodes):
        return np.zeros(3) if self.wrong == "kind" else WalkBatch(parameters, n_episodes, self.wrong)

    def told(self, parameters):
        return np.array([parameters])


class WalkBatch:
    observation_space, action_space = Walk.observation_space, Walk.action_space

    def __init__(self, parameters, n_episodes, wrong):
        self.goals, self.n, self.wrong = np.array(parameters)[:, None], n_episodes, wrong

    def reset(self, rng):
        rng = np.random.default_rng() if self.wrong == "start" else rng
        self.time, shape = 0, (len(self.goals), self.n)
        self.places = rng.uniform(-1, 1, shape)
        return self.places[..., None].copy() if self.wrong != "shape" else self.places

    def step(self, actions):
        self.time += 1
        self.places += np.where(actions, 1.0, -1.0)
        rewards = -np.abs(self.places - self.goals)
        if self.wrong == "reward" and self.time == 4:
            rewards[1, 1] += 0.01
        cut = np.full(self.places.shape, self.time >= LAST + (self.wrong == "endless"))
        if self.wrong == "early":
            cut[0, 0] = self.time == 2 or cut[0, 0]
        over = np.zeros(cut.shape, bool)
        seen = self.places[..., None]
        return (seen if self.wrong == "kept" else seen.copy()), rewards, over, cut

    def close(self):
        self.time = LAST


def match(batch, slot, env):
    env.place = float(batch.places[slot])


def test_a_batch_in_arrays():
    family = Walks()
    assert check_family(family, match=match) is family
    with pytest.warns(UserWarning, match="begin apart, which were not compared.*give match="):
        check_family(family)


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ("kind", InvalidParameterError, "batch: got ndarray; expected an object with reset, step, close and spaces"),
        ("shape", InvalidDataError, r"batch: got observations of shape \(3, 2\).*expected \(3, 2, 1\)"),
        ("start", InvalidDataError, "batch: got other episodes of task 0 .*from equal generators"),
        ("endless", InvalidDataError, "horizon: got an episode of task 0 .*goes on after 6 time steps"),
        (
            "reward",
            InvalidDataError,
            r"batch: got reward -\d.* in time step 4 of episode 1 of task 1 .*as the environment",
        ),
        ("early", InvalidDataError, "batch: got truncated True in time step 2 of episode 0 of task 0 .*expected False"),
        ("kept", InvalidDataError, "batch: got observations that changed in time step 2 after they had been returned"),
    ],
)
def test_batches_that_are_wrong(wrong, error, message):
    with pytest.raises(error, match=message):
        check_family(Walks(wrong), match=match)


def test_single_environments_have_to_end_with_the_batch():
    class Endless(Walks):
        def make(self, parameters):
            return Walk(parameters, "endless")

    with pytest.raises(InvalidDataError, match="batch: got truncated True in time step 6 .*expected False"):
        check_family(Endless(), match=match)


def test_ends_of_slots_that_are_over():
    class Twice(Walks):
        def batch(self, parameters, n_episodes):
            batch = super().batch(parameters, n_episodes)
            step = batch.step
            batch.step = lambda actions: (
                *step(actions)[:2],
                np.full((1, 2), True) & [[True, batch.time > 2]],
                np.zeros((1, 2), bool),
            )
            return batch

    def act(now, rng):
        return np.zeros(now.shape[:2], int)

    family = Twice()
    with pytest.raises(InvalidDataError, match="batch: got an end in time step 2 in a slot whose episode had ended"):
        compare_batch(family, [0.5], 2, act, np.random.default_rng(0))


def test_other_errors():
    with pytest.raises(InvalidParameterError, match="family: got None; expected a family"):
        check_family(None)
    with pytest.raises(InvalidParameterError, match="n_tasks: got 1; expected at least 2"):
        check_family(walks(), n_tasks=1)
    with pytest.raises(InvalidParameterError, match="n_tasks: got 0"):
        check_family(walks(), n_tasks=0)
    family = Walks()
    family.action_space = MultiBinary(2)
    with pytest.raises(InvalidParameterError, match=r"action_space: got MultiBinary\(2\); expected Box or Discrete"):
        check_family(family)
    family = Walks()
    family.horizon = None
    with pytest.raises(InvalidParameterError, match="horizon: got None; expected an integer"):
        check_family(family)
