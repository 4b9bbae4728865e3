"""A user's vector environment: the same episodes whatever it does when one ends, in one process and in several."""

import os
import signal
import threading
import time

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from fewshot.applications.rl import MAMLPolicy, PointNavigation
from fewshot.applications.rl.environments._vector_calls import close_workers, settle_workers
from fewshot.applications.rl.environments.failures import EnvironmentFailedError
from fewshot.applications.rl.environments.gym_batches import SyncBatch
from fewshot.applications.rl.environments.protocols import EpisodeBatch, Family
from fewshot.applications.rl.environments.sources import as_family
from fewshot.applications.rl.environments.vector_batches import VectorBatch, VectorFamily
from fewshot.errors import InvalidDataError, InvalidParameterError

# Python 3.12 and later warn of forks in a process with threads, which torch has started; the workers do not use it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

MODES = list(AutoresetMode)
KINDS = [SyncVectorEnv, AsyncVectorEnv]


class Counter(gymnasium.Env):
    """Counts its steps and episodes; ends after as many steps as it is told."""

    def __init__(self, length, fail=None):
        self.observation_space = Box(-np.inf, np.inf, (3,), np.float64)
        self.action_space = Discrete(9)
        self.length, self.fail, self.episode = length, fail, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode = 1 if seed is not None else self.episode + 1
        self.time = 0
        return np.array([self.np_random.random() if seed is not None else -1, self.episode, 0.0]), {}

    def step(self, action):
        self.time += 1
        if self.fail == "raise" and self.time == 2:
            raise ZeroDivisionError("the pole broke")
        if self.fail == "die" and self.time == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        over = self.time >= self.length
        return np.array([action, self.episode, self.time], float), float(action), over, False, {}


def counters(kind, mode, lengths=(2, 3, 9), fail=(None, None, None)):
    def function(length, fail):
        return lambda: Counter(length, fail)

    return kind([function(*each) for each in zip(lengths, fail, strict=True)], autoreset_mode=mode)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("kind", KINDS)
def test_every_slot_has_one_episode(kind, mode):
    env = counters(kind, mode)
    try:
        batch = VectorBatch(env, 3, horizon=6)
        assert isinstance(batch, EpisodeBatch)
        for _ in range(2):
            first = batch.reset(np.random.default_rng(0))
            assert len(np.unique(first[..., 0])) == 3 and (first[..., 1] == 1).all()
            lengths = np.array([2, 3, 6])
            for t in range(1, 7):
                actions = np.array([[1, 2, 3]]) + t % 2
                observations, rewards, terminated, truncated = batch.step(actions)
                alive = t <= lengths
                assert (observations[0, :, 1] == 1).all()  # of the first episode, never of a next one
                np.testing.assert_array_equal(observations[0, :, 2], np.minimum(t, lengths))
                np.testing.assert_array_equal(observations[0, alive, 0], actions[0, alive])
                np.testing.assert_array_equal(rewards[0], actions[0] * alive)
                np.testing.assert_array_equal(terminated[0], [t == 2, t == 3, False])
                np.testing.assert_array_equal(truncated[0], [False, False, t == 6])
    finally:
        env.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("kind", KINDS)
def test_cartpole_is_what_it_is_in_single_environments(kind, mode):
    env = kind([lambda: gymnasium.make("CartPole-v1")] * 3, autoreset_mode=mode)
    single = SyncBatch(lambda _: gymnasium.make("CartPole-v1"), [None], 3, horizon=80)
    try:
        family = VectorFamily(env)
        assert isinstance(family, Family) and family.horizon == 500
        batch = family.batch([{}], 3)
        seed = int(np.random.default_rng(0).integers(2**31 - 3))
        now = batch.reset(np.random.default_rng(0))
        np.testing.assert_array_equal(now, single.begin(seed + np.arange(3)[None]))
        rng, alive = np.random.default_rng(1), np.ones((1, 3), bool)
        while alive.any():
            actions = rng.integers(2, size=(1, 3))
            for ours, theirs in zip(batch.step(actions), single.step(actions), strict=True):
                np.testing.assert_array_equal(ours, theirs)
                alive = alive & ~ours if ours.dtype == bool else alive
    finally:
        env.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_some_of_the_sub_environments(mode):
    env = counters(SyncVectorEnv, mode, lengths=(4, 2, 1))
    batch = as_family(env, horizon=5).batch([{}], 2)
    batch.reset(np.random.default_rng(0))
    ends = np.array([batch.step(np.array([[7, 8]]))[2][0] for _ in range(5)])
    np.testing.assert_array_equal(np.nonzero(ends.T)[1], [3, 1])


def test_an_end_at_the_limit_is_terminal():
    batch = VectorBatch(counters(SyncVectorEnv, AutoresetMode.NEXT_STEP), 3, horizon=3)
    batch.reset(np.random.default_rng(0))
    ends = [batch.step(np.zeros((1, 3), int))[2:] for _ in range(3)]
    assert ends[2][0].tolist() == [[False, True, False]] and ends[2][1].tolist() == [[False, False, True]]


def test_gymnasiums_own_vectorised_cartpole():
    env = gymnasium.make_vec("CartPole-v1", num_envs=4, vectorization_mode="vector_entry_point", max_episode_steps=30)
    family = as_family(env)
    assert family.horizon == 30
    single = SyncBatch(lambda _: gymnasium.make("CartPole-v1"), [None], 4, horizon=30)
    batch = family.batch([{}], 4)
    first = batch.reset(np.random.default_rng(0))
    np.testing.assert_array_equal(first, batch.reset(np.random.default_rng(0)))
    single.begin(np.zeros((1, 4), int))
    for i, inner in enumerate(single._envs):
        inner.unwrapped.state = first[0, i].astype(np.float64)
    env.unwrapped.state = first[0].T.astype(np.float64)
    for t in range(30):
        actions = np.array([[t % 2, 1, t % 2, 0]])
        for ours, theirs in zip(batch.step(actions), single.step(actions), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_wrapped_vector_environments():
    inner = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP)
    wrapped = gymnasium.wrappers.vector.TransformReward(inner, lambda reward: 2 * reward)
    batch = as_family(wrapped, horizon=5).batch([{}], 3)
    batch.reset(np.random.default_rng(0))
    assert batch.step(np.array([[1, 2, 3]]))[1].tolist() == [[2.0, 4.0, 6.0]]


@pytest.mark.filterwarnings("ignore:.*ERROR:UserWarning")  # how Gymnasium logs
@pytest.mark.parametrize("fail", ["raise", "die"])
def test_a_worker_that_fails(fail):
    env = counters(AsyncVectorEnv, AutoresetMode.NEXT_STEP, fail=(None, fail, None))
    try:
        batch = VectorBatch(env, 3, horizon=6)
        batch.reset(np.random.default_rng(0))
        batch.step(np.zeros((1, 3), int))
        start = time.monotonic()
        expected = {
            "die": r"EOFError: from .*, task 0; the processes of sub-environments \[1\] have ended",
            "raise": "ZeroDivisionError: the pole broke from .*, task 0",
        }
        with pytest.raises(EnvironmentFailedError, match=f"step: got {expected[fail]}"):
            batch.step(np.zeros((1, 3), int))
        assert time.monotonic() - start < 30
    finally:
        close_workers(env)
    assert not any(process.is_alive() for process in env.processes)


def test_a_failure_in_this_process():
    batch = VectorBatch(counters(SyncVectorEnv, AutoresetMode.NEXT_STEP, fail=(None, "raise", None)), 3, horizon=6)
    batch.reset(np.random.default_rng(0))
    batch.step(np.zeros((1, 3), int))
    with pytest.raises(EnvironmentFailedError, match="step: got ZeroDivisionError: the pole broke from .*task 0"):
        batch.step(np.zeros((1, 3), int))


class Slow(Counter):
    """One whose time steps and resets take a while."""

    def reset(self, **options):
        time.sleep(0.1 if self.fail == "slow reset" else 0.0)
        return super().reset(**options)

    def step(self, action):
        time.sleep(0.1 if self.fail == "slow step" else 0.0)
        return super().step(action)


def _interrupted_at(place, env):
    """Let a call be broken off where the second worker is called, or where its answer is read, after that of the first."""
    pipes = env.parent_pipes
    pipe = pipes[1]

    class Interrupted:
        def __getattr__(self, name):
            if name == place:
                pipes[1] = pipe  # the second time nothing is in the way
                raise KeyboardInterrupt
            return getattr(pipe, name)

    pipes[1] = Interrupted()


@pytest.mark.parametrize("shared_memory", [False, True])
@pytest.mark.parametrize("place", ["send", "recv", "signal"])
@pytest.mark.parametrize("call", ["reset", "step"])
def test_after_an_interruption_the_environment_can_be_used_again(call, place, shared_memory):
    """Whatever was called, and whatever was answered: no answer is left that a later call would take for its own."""

    def function(fail):
        return lambda: Slow(9, fail)

    functions = [function(fail) for fail in (None, "slow step", "slow reset")]
    mode = AutoresetMode.NEXT_STEP if shared_memory else AutoresetMode.SAME_STEP
    env = AsyncVectorEnv(functions, shared_memory=shared_memory, autoreset_mode=mode)
    fresh = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP, lengths=(9, 9, 9))
    try:
        given = gymnasium.wrappers.vector.TransformReward(env, lambda reward: reward) if shared_memory else env
        batch, expected = VectorBatch(given, 3, horizon=6), VectorBatch(fresh, 3, horizon=6)
        batch.reset(np.random.default_rng(3))
        batch.step(np.array([[1, 2, 3]]))
        if place == "signal":
            main = threading.main_thread().ident
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
        else:
            _interrupted_at(place, env)
        with pytest.raises(KeyboardInterrupt):
            batch.reset(np.random.default_rng(4)) if call == "reset" else batch.step(np.array([[4, 5, 6]]))
        with pytest.raises(EnvironmentFailedError, match="step: .*call reset"):
            batch.step(np.array([[1, 2, 3]]))
        for _ in range(2):
            np.testing.assert_array_equal(*(each.reset(np.random.default_rng(0)) for each in (batch, expected)))
            for t in range(3):
                actions = np.array([[7, 8, t]])
                for ours, theirs in zip(batch.step(actions), expected.step(actions), strict=True):
                    np.testing.assert_array_equal(ours, theirs)
    finally:
        env.close()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # how Gymnasium logs a pending call
def test_an_interruption_that_ends_a_worker(monkeypatch):
    """Ctrl-C in a terminal reaches the processes, too."""
    env = counters(AsyncVectorEnv, AutoresetMode.NEXT_STEP)
    try:
        batch = VectorBatch(env, 3, horizon=6)
        batch.reset(np.random.default_rng(0))

        def interrupted(*args):
            os.kill(env.processes[2].pid, signal.SIGINT)
            raise KeyboardInterrupt

        monkeypatch.setattr(env, "step_wait", interrupted)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            batch.step(np.zeros((1, 3), int))
        with pytest.raises(
            EnvironmentFailedError, match=r"reset: .*sub-environments \[2\] have ended.*build the .* anew"
        ):
            batch.reset(np.random.default_rng(0))
        assert time.monotonic() - start < 9
    finally:
        close_workers(env)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_worker_that_is_stuck_stays_pending():
    env = AsyncVectorEnv([lambda: Slow(9, "slow step")])
    try:
        env.reset(seed=0)
        env.step_async(np.zeros(1, int))
        settle_workers(env, patience=0.01)
        batch = VectorBatch(env, 1, horizon=6)
        with pytest.raises(EnvironmentFailedError, match="reset: got AlreadyPendingCallError"):
            batch.reset(np.random.default_rng(0))
    finally:
        close_workers(env)


def test_where_a_limit_is_said():
    class Limited(Counter):
        def __init__(self, horizon):
            super().__init__(9)
            self.horizon = horizon

    def function(horizon):
        return lambda: Limited(horizon)

    for kind in KINDS:
        env = kind([function(4), function(7)])
        try:
            assert as_family(env).horizon == 7  # the longest
            env.horizon = 3  # one of its own
            assert as_family(env).horizon == 3 and as_family(env, horizon=2).horizon == 2
        finally:
            env.close()
        env = kind([lambda: gymnasium.wrappers.TimeLimit(Counter(9), 5), function(4)])
        try:
            with pytest.raises(InvalidParameterError, match="horizon: got None"):  # nothing that all of them say
                as_family(env)
            env.reset(seed=0)  # asking has not ended its processes
        finally:
            env.close()
    env = SyncVectorEnv([lambda: PointNavigation(horizon=8).make((0.1, 0.2))])
    assert as_family(env).horizon == 8


def test_an_environment_that_cannot_be_asked_for_its_limit():
    env = counters(AsyncVectorEnv, AutoresetMode.NEXT_STEP)
    env.close()
    with pytest.raises(EnvironmentFailedError, match="horizon: got ClosedEnvironmentError.*give horizon="):
        as_family(env)


def test_meta_training_in_a_vector_environment():
    """The messages say what to pass; with that it works."""
    env = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP)
    policy = MAMLPolicy(hidden=(4,), random_state=0)
    family = as_family(env, horizon=6)
    with pytest.raises(
        InvalidParameterError, match="parameters: got 20 tasks; .*tasks_per_batch=1 and .*episodes=3.*EnvFamily"
    ):
        policy.fit_meta(family, total_env_steps=1)
    policy.set_params(tasks_per_batch=1)
    with pytest.raises(
        InvalidParameterError, match="n_episodes: got 20 for 3 .*tasks_per_batch=1 and .*episodes=3.*EnvFamily"
    ):
        policy.fit_meta(family, total_env_steps=1)
    assert policy.set_params(episodes=3).fit_meta(family, total_env_steps=1).n_iter_ == 1


def test_final_observations_that_are_missing():
    class Forgetful(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            *values, infos = super().step(actions)
            infos.pop("final_obs", None)
            return *values, infos

    batch = VectorBatch(Forgetful(counters(SyncVectorEnv, AutoresetMode.SAME_STEP)), 3, horizon=6)
    batch.reset(np.random.default_rng(0))
    batch.step(np.zeros((1, 3), int))
    with pytest.raises(EnvironmentFailedError, match=r"step: got no info\['final_obs'\]"):
        batch.step(np.zeros((1, 3), int))


def test_errors():
    env = counters(SyncVectorEnv, AutoresetMode.NEXT_STEP)
    with pytest.raises(InvalidParameterError, match="horizon: got None for .*give horizon="):
        as_family(env)
    with pytest.raises(InvalidParameterError, match="workers: .*vector environment"):
        as_family(env, horizon=3, workers=2)
    family = as_family(env, horizon=3)
    assert family.n_slots == 3 and family.sample(np.random.default_rng(0)) == {} and family.told({}).shape == (0,)
    with pytest.raises(InvalidParameterError, match="n_episodes: got 4 for 3 sub-environments"):
        family.batch([{}], 4)
    with pytest.raises(InvalidParameterError, match="parameters: got 2 tasks; expected 1"):
        family.batch([{}, {}], 2)
    with pytest.raises(InvalidParameterError, match="make: got .*EnvFamily"):
        family.make({})
    with pytest.raises(InvalidParameterError, match="env: got Counter; expected a gymnasium.vector.VectorEnv"):
        VectorFamily(Counter(3))
    batch = family.batch([{}], 2)
    with pytest.raises(EnvironmentFailedError, match="step: .*call reset"):
        batch.step(np.zeros((1, 2), int))
    batch.reset(np.random.default_rng(0))
    with pytest.raises(InvalidDataError, match=r"actions: got shape \(2,\); expected \(1, 2\)"):
        batch.step(np.zeros(2, int))
    batch.close()
    env.reset(seed=0)  # still open
    env.metadata = {}
    with pytest.raises(InvalidParameterError, match=r"env: got .*metadata\['autoreset_mode'\] None"):
        as_family(env, horizon=3)


def test_a_vector_environment_that_swallows_steps_is_refused():
    env = AsyncVectorEnv([lambda: Counter(2)] * 2, shared_memory=False)
    try:
        with pytest.raises(InvalidParameterError, match="env: got .*shared_memory=False.*SAME_STEP"):
            VectorFamily(env)
    finally:
        env.close()
