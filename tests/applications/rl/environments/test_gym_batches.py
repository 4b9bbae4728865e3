"""Batches of single environments: each slot is the environment of its task, and failures name the task."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from fewshot.applications.rl.environments.failures import EnvironmentFailedError
from fewshot.applications.rl.environments.gym_batches import SyncBatch
from fewshot.applications.rl.environments.protocols import EpisodeBatch
from fewshot.errors import FewShotError, InvalidDataError, InvalidParameterError


class Counter(gymnasium.Env):
    """Counts its steps from a random start; ends after as many as it is told. The state is the observation."""

    def __init__(self, length, failing=None, closed=None):
        self.observation_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = Discrete(5, start=2)
        self.length, self.failing, self.closed = length, failing, closed

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.failing == "reset":
            raise OSError("no\nreset")
        self.state = np.array([self.np_random.random(), 0.0])
        return self.state, {}

    def step(self, action):
        assert isinstance(self.action_space, Box) or self.action_space.contains(action)
        assert self.state[1] < self.length, "stepped after its end"
        self.state[1] += 1  # in place: an observation that is not copied would change
        if self.failing == self.state[1]:
            raise ZeroDivisionError("the pole broke")
        return self.state, float(action), bool(self.state[1] == self.length), False, {}

    def close(self):
        if self.closed is not None:
            self.closed.append(self)


def make(parameters):
    return Counter(**parameters)


TASKS = [{"length": 2}, {"length": 4}, {"length": 9}]


def test_slots_end_when_their_own_episode_does():
    batch = SyncBatch(make, TASKS, 2, horizon=5)
    assert isinstance(batch, EpisodeBatch)
    for _ in range(2):
        first = batch.reset(np.random.default_rng(0))
        actions = np.arange(6).reshape(3, 2) % 5 + 2
        seen = [batch.step(actions) for _ in range(5)]
        observations, rewards, terminated, truncated = (np.stack(part) for part in zip(*seen, strict=True))
        lengths = np.array([2, 4, 5])
        t = np.arange(1, 6)[:, None, None]
        np.testing.assert_array_equal(observations[..., 0], np.broadcast_to(first[..., 0], (5, 3, 2)))
        np.testing.assert_array_equal(observations[..., 1], np.broadcast_to(np.minimum(t, lengths[:, None]), (5, 3, 2)))
        np.testing.assert_array_equal(rewards, actions * (t <= lengths[:, None]))
        np.testing.assert_array_equal(terminated, np.broadcast_to((t == lengths[:, None]) & (t < 5), (5, 3, 2)))
        np.testing.assert_array_equal(truncated, np.broadcast_to((t == 5) & (lengths == 5)[:, None], (5, 3, 2)))
    with pytest.raises(EnvironmentFailedError, match="step: .*call reset"):
        batch.step(actions)


def test_an_environments_own_time_limit_truncates():
    batch = SyncBatch(lambda n: gymnasium.wrappers.TimeLimit(Counter(9), n), [2, 3, 50], 1, horizon=5)
    batch.reset(np.random.default_rng(0))
    ends = np.array([batch.step(np.full((3, 1), 2))[2:] for _ in range(5)])[..., 0]
    assert not ends[:, 0].any()
    assert np.nonzero(ends[:, 1].T)[1].tolist() == [1, 2, 4]


def test_an_end_at_the_limit_is_terminal():
    """TimeLimit says truncated as well; nothing follows from that state, so nothing may be bootstrapped from it."""
    batch = SyncBatch(lambda n: gymnasium.wrappers.TimeLimit(Counter(n), n), [3], 1, horizon=3)
    batch.reset(np.random.default_rng(0))
    ends = [batch.step(np.full((1, 1), 2))[2:] for _ in range(3)]
    assert ends[2][0].all() and not ends[2][1].any()


def test_an_environment_may_keep_its_action():
    class Keeps(Counter):
        def step(self, action):
            self.kept = action
            return super().step(2)

    batch = SyncBatch(_with_box_actions(Keeps), [9], 1, horizon=5)
    batch.reset(np.random.default_rng(0))
    actions = np.full((1, 1, 1), 0.5, np.float32)
    batch.step(actions)
    actions[...] = 1.0  # the caller fills its array anew
    assert batch._envs[0].kept.tolist() == [0.5]


def _with_box_actions(kind):
    def build(length):
        env = kind(length)
        env.action_space = Box(-1.0, 1.0, (1,))
        return env

    return build


def test_episodes_follow_from_the_generator_alone():
    batch = SyncBatch(make, TASKS, 2, horizon=5)
    first = batch.reset(np.random.default_rng(0))
    assert len(np.unique(first[..., 0])) == 6  # no two slots begin alike
    batch.step(np.full((3, 2), 2))
    batch.reset(np.random.default_rng(1))
    np.testing.assert_array_equal(first, batch.reset(np.random.default_rng(0)))
    np.testing.assert_array_equal(first, SyncBatch(make, TASKS, 2, horizon=5).reset(np.random.default_rng(0)))


def test_cartpole_in_a_batch_is_cartpole():
    batch = SyncBatch(lambda _: gymnasium.make("CartPole-v1"), [None, None], 3, horizon=100)
    rng = np.random.default_rng(0)
    seeds = np.random.default_rng(0).integers(2**31, size=(2, 3))
    envs = {i: gymnasium.make("CartPole-v1") for i in np.ndindex(2, 3)}
    now = batch.reset(rng)
    for i, env in envs.items():
        np.testing.assert_array_equal(env.reset(seed=int(seeds[i]))[0], now[i])
    alive = np.ones((2, 3), bool)
    while alive.any():
        actions = rng.integers(2, size=(2, 3))
        after, rewards, terminated, truncated = batch.step(actions)
        for i in zip(*np.nonzero(alive), strict=True):
            observation, reward, *ends, _ = envs[i].step(actions[i])
            np.testing.assert_array_equal(observation, after[i])
            assert (reward, *ends) == (rewards[i], terminated[i], truncated[i])
        alive &= ~(terminated | truncated)


@pytest.mark.parametrize("failing, call", [("reset", "reset"), (1, "step"), (3, "step")])
def test_a_failure_names_the_task_and_its_cause(failing, call):
    batch = SyncBatch(make, [{"length": 2}, {"length": 7, "failing": failing}], 2, horizon=5)
    cause = {"reset": "OSError: no reset"}.get(call, "ZeroDivisionError: the pole broke")
    expected = rf"^{call}: got {cause} from .*task 1 \(parameters {{'failing': '?{failing}'?, 'length': 7}}\).*"
    with pytest.raises(EnvironmentFailedError, match=expected) as caught:
        batch.reset(np.random.default_rng(0))
        for _ in range(5):
            batch.step(np.full((2, 2), 2))
    assert isinstance(caught.value, FewShotError) and "\n" not in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError if call == "reset" else ZeroDivisionError)


def test_everything_is_closed():
    closed = []
    batch = SyncBatch(lambda n: Counter(n, closed=closed), [1, 2], 3, horizon=5)
    assert not closed
    batch.close()
    batch.close()
    assert len(closed) == len(set(map(id, closed))) == 6
    with pytest.raises(EnvironmentFailedError, match="reset: got called on a closed batch"):
        batch.reset(np.random.default_rng(0))

    def fails_for_task_1(n):
        if n == 2:
            raise ValueError("no such length")
        return Counter(n, closed=closed)

    closed.clear()
    with pytest.raises(EnvironmentFailedError, match=r"make: got ValueError: no such length .*task 1 \(parameters 2\)"):
        SyncBatch(fails_for_task_1, [1, 2], 3, horizon=5)
    assert len(closed) == 3


class Odd(Counter):
    def __init__(self, which):
        super().__init__(3)
        if which == "shape":
            self.observation_space = Box(-1.0, 1.0, (3,), np.float64)
        elif which == "kind":
            self.observation_space = Discrete(2)
        elif which == "actions":
            self.action_space = Discrete(5)


@pytest.mark.parametrize("which", ["shape", "kind", "actions"])
def test_environments_of_other_spaces(which):
    name = "action_space" if which == "actions" else "observation_space"
    with pytest.raises(InvalidParameterError, match=rf"make: got {name} .*task 1 \(parameters '{which}'\); expected"):
        SyncBatch(Odd, ["", which], 1, horizon=5)


def test_bounds_of_observations_may_differ():
    def with_bound(high):
        env = Counter(3)
        env.observation_space = Box(-1.0, high, (2,), np.float64)
        return env

    SyncBatch(with_bound, [10.0, 20.0], 1, horizon=5)


def test_one_object_cannot_fill_two_slots():
    env = Counter(3)
    with pytest.raises(InvalidParameterError, match="make: got the same environment object twice"):
        SyncBatch(lambda _: env, [0], 2, horizon=5)


def test_an_observation_that_would_be_broadcast():
    class Short(Counter):
        def reset(self, **kwargs):
            return super().reset(**kwargs)[0][:1], {}

    with pytest.raises(EnvironmentFailedError, match=r"reset: .*shape \(1,\)"):
        SyncBatch(Short, [3], 1, horizon=5).reset(np.random.default_rng(0))


class Seen(gymnasium.Env):
    """Shows what it is told, in a space of one kind of numbers."""

    action_space = Discrete(2)

    def __init__(self, space, first, then):
        self.observation_space, self.first, self.then = space, first, then

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.first, {}

    def step(self, action):
        return self.then, 0.0, False, False, {}


BYTES, FLOATS = Box(0, 255, (2,), np.uint8), Box(-9.0, 9.0, (2,), np.float32)


@pytest.mark.parametrize(
    "space, observation",
    [
        (BYTES, np.array([0.7, 0.9])),
        (BYTES, np.array([1.0, 2.0], np.float32)),
        (BYTES, [1.0, 2]),
        (Box(0, 1, (2,), np.bool_), np.array([0.5, 0.0])),
        (Discrete(3), 0.9),
        (Discrete(3), np.float64(1)),
        (FLOATS, np.array([1j, 0])),
        (FLOATS, ["1", "2"]),
    ],
    ids=str,
)
def test_an_observation_that_would_be_cut_off(space, observation):
    right = np.zeros(space.shape, space.dtype)
    for call, values in (("reset", (observation, right)), ("step", (right, observation))):
        batch = SyncBatch(lambda p: Seen(*p), [(space, *values)], 1, horizon=5)
        kind = np.asarray(observation).dtype
        with pytest.raises(
            EnvironmentFailedError, match=f"^{call}: got TypeError: observation of type {kind} for .*task 0"
        ):
            batch.reset(np.random.default_rng(0))
            batch.step(np.zeros((1, 1), int))


@pytest.mark.parametrize(
    "space, observation",
    [
        (BYTES, [3, 4]),
        (BYTES, np.array([3, 4], np.int64)),
        (BYTES, [True, False]),
        (FLOATS, np.array([3.5, 4.5])),
        (FLOATS, [3, 4]),
        (FLOATS, (True, False)),
        (Box(0, 1, (2,), np.bool_), [1, 0]),
        (Box(-9.0, 9.0, (2,), np.float16), np.array([3.5, 4.5], np.float64)),
        (Discrete(5), 3),
        (Discrete(5), np.int32(3)),
        (Discrete(5), True),
    ],
    ids=str,
)
def test_observations_of_another_type(space, observation):
    batch = SyncBatch(lambda p: Seen(*p), [(space, observation, observation)], 1, horizon=5)
    for seen in (batch.reset(np.random.default_rng(0)), batch.step(np.zeros((1, 1), int))[0]):
        assert seen.dtype == space.dtype and seen[0, 0].tolist() == np.asarray(observation).tolist()


def test_other_errors():
    with pytest.raises(InvalidParameterError, match="parameters: got none"):
        SyncBatch(make, [], 1, horizon=5)
    batch = SyncBatch(make, TASKS, 2, horizon=5)
    with pytest.raises(EnvironmentFailedError, match="step: .*call reset"):
        batch.step(np.full((3, 2), 2))
    batch.reset(np.random.default_rng(0))
    with pytest.raises(InvalidDataError, match=r"actions: got shape \(2, 3\); expected \(3, 2\)"):
        batch.step(np.full((2, 3), 2))
