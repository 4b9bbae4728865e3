"""What a policy does with environments that fail: one error, which names the place, and a policy that stays as it was."""

import copy

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete

from fewshot.applications.rl import EnvFamily, EnvironmentFailedError, MAMLPolicy
from fewshot.applications.rl.environments.failures import check_finite
from fewshot.errors import InvalidDataError

SMALL = {"tasks_per_batch": 2, "episodes": 2, "hidden": (4,), "random_state": 0}
HORIZON = 6


class Fragile(gymnasium.Env):
    """Goes well for two time steps of its second episode, and then does what it is told."""

    action_space = Box(-1.0, 1.0, (1,), np.float32)
    observation_space = Box(-np.inf, np.inf, (2,), np.float32)

    def __init__(self, how=None):
        self.how, self.episode = how, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        self.episode += 1
        if self.how == "reset":
            raise OSError("no reset")
        return np.array([0.0, np.nan if self.how == "start" else 0.0], np.float32), {}

    def step(self, action):
        self.time += 1
        bad = self.time == 3
        if bad and self.how == "step":
            raise ZeroDivisionError("the pole broke")
        seen = np.array([self.time, np.nan if bad and self.how == "observation" else 0.0], np.float32)
        if self.how == "last" and self.time == HORIZON:
            seen[0] = np.inf
        if bad and self.how == "shape":
            seen = seen[:1]
        return seen, np.nan if bad and self.how == "reward" else float(action[0]), False, False, {}


def family(how=None):
    return EnvFamily(lambda p: Fragile(how), lambda rng: {"task": rng.integers(9)}, horizon=HORIZON)


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL).fit_meta(family(), total_env_steps=1)


FAILURES = [
    ("reset", "reset: got OSError: no reset from the environment of task 0"),
    ("step", "step: got ZeroDivisionError: the pole broke from the environment of task 0"),
    ("shape", r"step: got ValueError: observation of shape \(1,\) for Box.* from the environment of task 0"),
    ("reward", "step: got reward nan in time step 3 of episode 0 of task 0; expected finite numbers"),
    (
        "observation",
        r"step: got observation \[3.0, nan\] in time step 3 of episode 0 of task 0; expected finite numbers",
    ),
    ("start", r"reset: got observation \[0.0, nan\] in the beginning of episode 0 of task 0; expected finite numbers"),
    (
        "last",
        r"step: got observation \[inf, 0.0\] in the last time step of episode 0 of task 0; expected finite numbers",
    ),
]


@pytest.mark.parametrize(("how", "message"), FAILURES, ids=[how for how, _ in FAILURES])
def test_adapting_to_an_environment_that_fails(policy, how, message):
    before = {name: p.clone() for name, p in policy.module_.named_parameters()}
    for call in (policy.adapt, policy.evaluate, policy.record):
        with pytest.raises(EnvironmentFailedError, match=f"^{message}") as caught:
            call(Fragile(how), episodes=2)
        assert "\n" not in str(caught.value)
    assert all(torch.equal(p, before[name]) for name, p in policy.module_.named_parameters())
    assert policy.adapt(Fragile(), episodes=2).predict([0.0, 0.0]).shape == (1,)


@pytest.mark.parametrize(("how", "message"), FAILURES, ids=[how for how, _ in FAILURES])
def test_meta_training_on_environments_that_fail(policy, how, message):
    fresh, fitted = MAMLPolicy(**SMALL), copy.deepcopy(policy)
    before = vars(fresh).copy(), vars(fitted).copy()
    weights = {name: p.clone() for name, p in fitted.module_.named_parameters()}
    message = message.replace("task 0", r"task 0 \(parameters {'task': .*}\)")
    for each, known in zip((fresh, fitted), before, strict=True):
        with pytest.raises(EnvironmentFailedError, match=f"^{message}"):
            each.fit_meta(family(how), total_env_steps=1)
        assert vars(each).keys() == known.keys() and all(value is known[name] for name, value in vars(each).items())
    assert all(torch.equal(p, weights[name]) for name, p in fitted.module_.named_parameters())
    assert fitted.n_iter_ == 1 and fitted.adapt(Fragile(), episodes=2).predict([0.0, 0.0]).shape == (1,)


@pytest.mark.parametrize("place", [(0, 1), (1, 0)])
def test_the_task_and_the_episode_are_named(place):
    rewards = np.zeros((4, 2, 2))
    rewards[2][place] = rewards[3, 0, 0] = -np.inf
    with pytest.raises(EnvironmentFailedError, match=f"in time step 3 of episode {place[1]} of task {place[0]};"):
        check_finite(np.ones((4, 2, 2), bool), 1, reward=rewards)
    alive = np.ones((4, 2, 2), bool)
    alive[2][place] = alive[3, 0, 0] = False  # what comes after the end means nothing
    check_finite(alive, 1, reward=rewards)


class Outside(gymnasium.Env):
    """Observations of another space than it says."""

    observation_space, action_space = Discrete(3), Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 0, {}

    def step(self, action):
        return 3, 0.0, False, False, {}


def test_observations_of_another_space():
    with pytest.raises(InvalidDataError, match=r"observations: got a value that is not in Discrete\(3\)"):
        MAMLPolicy(**SMALL).fit_meta(gymnasium.wrappers.TimeLimit(Outside(), 4), total_env_steps=1)


def test_an_environment_of_other_spaces(policy):
    env = gymnasium.wrappers.TimeLimit(Outside(), 4)
    for call in (policy.adapt, policy.evaluate, policy.record):
        with pytest.raises(
            InvalidDataError, match=r"env: its observation_space is Discrete\(3\); the policy was trained"
        ):
            call(env)
