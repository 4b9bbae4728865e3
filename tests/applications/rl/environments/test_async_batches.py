"""Environments in several processes: the numbers of one process, and no failure that hangs or leaves processes behind."""

import multiprocessing
import os
import signal
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from fewshot.applications.rl.environments._vector_calls import wait_for_workers
from fewshot.applications.rl.environments.async_batches import AsyncBatch
from fewshot.applications.rl.environments.failures import EnvironmentFailedError
from fewshot.applications.rl.environments.families import EnvFamily
from fewshot.applications.rl.environments.gym_batches import SyncBatch
from fewshot.applications.rl.environments.protocols import EpisodeBatch
from fewshot.errors import InvalidDataError, InvalidParameterError

# Python 3.12 and later warn of forks in a process with threads, which torch has started; the workers do not use it.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def no_process_is_left():
    yield
    deadline = time.monotonic() + 10
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not multiprocessing.active_children()


class Fails(gymnasium.Env):
    observation_space, action_space = Box(-9.0, 9.0, (1,), np.float32), Discrete(2)

    def __init__(self, how):
        self.how = how
        if how == "make":
            raise FileNotFoundError("no model")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self.how == "reset":
            raise OSError("no reset")
        return np.zeros(1, np.float32), {}

    def step(self, action):
        if self.how == "step":
            raise ZeroDivisionError("the pole\nbroke")
        if self.how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(3)
        if self.how == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.how in ("sleep", "deaf"):
            time.sleep(60)
        return np.zeros(1, np.float32), 1.0, False, False, {}


SPACES = Fails.observation_space, Fails.action_space


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("n_episodes, workers", [(3, 2), (1, 2), (2, 5)])
def test_the_numbers_of_one_process(env_id, n_episodes, workers):
    """Shares of 3, 1 and 1 slots of 6, 2 and 4: one batch of shares that are not all of one size is among them."""
    name = {"CartPole-v1": "length", "Pendulum-v1": "m"}[env_id]
    families = [EnvFamily.vary(env_id, horizon=40, workers=n, **{name: (0.2, 1.0)}) for n in (None, workers)]
    rng = np.random.default_rng(0)
    tasks = [families[0].sample(rng) for _ in range(2)]
    ours, theirs = (family.batch(tasks, n_episodes) for family in families)
    assert isinstance(ours, SyncBatch) and isinstance(theirs, AsyncBatch) and isinstance(theirs, EpisodeBatch)
    try:
        for seed in (1, 2):
            np.testing.assert_array_equal(
                ours.reset(np.random.default_rng(seed)), theirs.reset(np.random.default_rng(seed))
            )
            for _ in range(40):
                actions = rng.random((2, n_episodes, 1)).astype(np.float32)
                actions = rng.integers(2, size=(2, n_episodes)) if env_id == "CartPole-v1" else actions
                for mine, other in zip(ours.step(actions), theirs.step(actions), strict=True):
                    np.testing.assert_array_equal(mine, other)
                    assert mine.dtype == other.dtype
    finally:
        theirs.close()


def test_slots_of_different_numbers():
    batch = AsyncBatch(Fails, ["", "", ""], 1, 5, SPACES, workers=2)
    assert [len(share) for share in batch._shares] == [2, 1]
    batch.reset(np.random.default_rng(0))
    assert batch.step(np.zeros((3, 1), int))[1].tolist() == [[1.0]] * 3
    batch.close()
    batch.close()
    with pytest.raises(EnvironmentFailedError, match="reset: got called on a closed batch"):
        batch.reset(np.random.default_rng(0))


def test_a_family_cuts_off_at_its_horizon():
    family = EnvFamily(make=lambda _: Fails(""), sample=lambda rng: None, horizon=3, workers=2)
    batch = family.batch([None], 3)
    batch.reset(np.random.default_rng(0))
    assert [batch.step(np.zeros((1, 3), int))[3].all() for _ in range(3)] == [False, False, True]
    batch.close()


def test_a_dead_process_whose_pipe_somebody_holds_open():
    """A process that was forked by others inherits the pipe's end, so no end of file tells of the death."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=int)
    process.start()
    assert wait_for_workers(SimpleNamespace(parent_pipes=[ours], processes=[process]), timeout=30) == [0]
    theirs.close()


@pytest.mark.parametrize(
    "how, message",
    [
        ("make", "make: got FileNotFoundError: no model from the environment of task 2"),
        ("reset", "reset: got OSError: no reset from the environment of task 2"),
        ("step", "step: got ZeroDivisionError: the pole broke from the environment of task 2"),
        ("die", "step: got a process that ended with code -9 from the environments of task 1 .*, task 2"),
        ("exit", "step: got a process that ended with code 3 from the environments of task 1 .*, task 2"),
        ("sleep", "step: got no answer within 0.5 seconds from the environments of task 1 .*, task 2"),
        ("deaf", "step: got no answer within 0.5 seconds from the environments of task 1 .*, task 2"),
    ],
)
def test_a_failure_names_the_task_and_ends_all_processes(how, message):
    batch = AsyncBatch(Fails, ["", "", how], 3, 5, SPACES, workers=2, timeout=0.5 if how in ("sleep", "deaf") else None)
    start = time.monotonic()
    with pytest.raises(EnvironmentFailedError, match=f"^{message} \\(parameters '{how}'\\)"):
        batch.reset(np.random.default_rng(0))
        batch.step(np.zeros((3, 3), int))
    assert time.monotonic() - start < 20
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("call", ["make", "step"])
def test_a_family_waits_for_its_workers_so_long(call):
    def make(parameters):
        if call == "make" and multiprocessing.parent_process() is not None:
            time.sleep(60)
        return Fails("sleep" if call == "step" else "")

    family = EnvFamily(make=make, sample=lambda rng: None, horizon=5, workers=2, worker_timeout=0.5)
    batch = family.batch([None], 2)
    start = time.monotonic()
    place = {"make": "reset"}.get(call, call)
    with pytest.raises(EnvironmentFailedError, match=f"^{place}: got no answer within 0.5 seconds .*task 0"):
        batch.reset(np.random.default_rng(0))
        batch.step(np.zeros((1, 2), int))
    assert time.monotonic() - start < 20
    assert EnvFamily.vary("CartPole-v1", workers=2, worker_timeout=3).batch([{}], 2).timeout == 3
    for wrong in (0, -1.0, np.inf, np.nan, "5", True):
        with pytest.raises(
            InvalidParameterError, match="worker_timeout: got .*expected a finite number above 0, or None"
        ):
            EnvFamily.vary("CartPole-v1", worker_timeout=wrong)


def test_a_worker_killed_between_two_steps():
    batch = AsyncBatch(Fails, ["", ""], 2, 5, SPACES, workers=2)
    batch.reset(np.random.default_rng(0))
    process = batch._env.processes[1]
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with pytest.raises(EnvironmentFailedError, match=r"step: got a process that ended with code -9 .* of task 1"):
        batch.step(np.zeros((2, 2), int))


def test_an_interruption_closes_the_batch(monkeypatch):
    batch = AsyncBatch(Fails, ["", ""], 2, 5, SPACES, workers=2)
    batch.reset(np.random.default_rng(0))

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot.applications.rl.environments.async_batches.wait_for_workers", interrupted)
    with pytest.raises(KeyboardInterrupt):
        batch.step(np.zeros((2, 2), int))
    assert not multiprocessing.active_children()


def test_environments_of_other_spaces():
    spaces = Box(-9.0, 9.0, (1,), np.float32), Discrete(3)
    batch = AsyncBatch(Fails, ["", ""], 1, 5, spaces, workers=2)
    with pytest.raises(InvalidParameterError, match=r"make: got action_space Discrete\(2\) for task 0 .*Discrete\(3\)"):
        batch.reset(np.random.default_rng(0))


def test_errors():
    with pytest.raises(InvalidParameterError, match="workers: got 0"):
        AsyncBatch(Fails, [""], 1, 5, SPACES, workers=0)
    with pytest.raises(InvalidParameterError, match="workers: got 1.5"):
        EnvFamily.vary("CartPole-v1", workers=1.5)
    with pytest.raises(InvalidParameterError, match="parameters: got none"):
        AsyncBatch(Fails, [], 1, 5, SPACES, workers=1)
    batch = AsyncBatch(Fails, ["", ""], 1, 5, SPACES, workers=1)
    with pytest.raises(EnvironmentFailedError, match="step: .*call reset"):
        batch.step(np.zeros((2, 1), int))
    batch.reset(np.random.default_rng(0))
    with pytest.raises(InvalidDataError, match=r"actions: got shape \(1, 2\); expected \(2, 1\)"):
        batch.step(np.zeros((1, 2), int))
    batch.close()
