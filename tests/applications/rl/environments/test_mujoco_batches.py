"""Batches of MuJoCo's runners against Gymnasium's environments, bit for bit."""

import threading

import numpy as np
import pytest

from fewshot.applications.rl.environments import mujoco_families as families
from fewshot.applications.rl.environments.mujoco_batches import available_cores
from fewshot.applications.rl.environments.protocols import EpisodeBatch
from fewshot.errors import InvalidDataError, InvalidParameterError

mujoco = pytest.importorskip("mujoco", reason="mujoco is not installed: pip install 'fewshot[mujoco]'")

TASKS = {
    "half_cheetah_velocity": [{"velocity": 0.4}, {"velocity": 1.7}],
    "half_cheetah_direction": [{"direction": 1.0}, {"direction": -1.0}],
    "ant_direction": [{"direction": -1.0}, {"direction": 1.0}],
}


def actions_of(family, rng, slots):
    """Some beyond the bounds, which the simulation clips and the cost does not."""
    return rng.uniform(-1.2, 1.2, (*slots, *family.action_space.shape)).astype(np.float32)


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("threads", [1, 2])
def test_it_equals_gymnasiums_environments(name, threads):
    tasks, horizon, slots = TASKS[name], 50, (2, 3)
    family = getattr(families, name)(horizon=horizon, threads=threads)
    batch = family.batch(tasks, slots[1])
    envs = {i: family.make(tasks[i[0]]) for i in np.ndindex(slots)}
    rng, falls = np.random.default_rng(0), 0
    for episode in range(2):  # a second reset begins anew
        ours, theirs = np.random.default_rng(episode), np.random.default_rng(episode)
        now = batch.reset(ours)
        for i, env in envs.items():
            env.unwrapped.np_random = theirs  # so that its noise is drawn from where the batch's is
            np.testing.assert_array_equal(now[i], env.reset()[0])
        alive = np.ones(slots, bool)
        for _ in range(horizon):
            actions, before = actions_of(family, rng, slots), now.copy()
            after, rewards, terminated, truncated = batch.step(actions)
            np.testing.assert_array_equal(now, before)  # what was returned is not written to later
            for i in zip(*np.nonzero(alive), strict=True):
                observation, reward, over, cut, _ = envs[i].step(actions[i])
                np.testing.assert_array_equal(after[i], observation)
                assert (rewards[i], terminated[i]) == (reward, over)
                assert truncated[i] == (cut and not over)
            assert not (terminated | truncated)[~alive].any() and np.isfinite(after).all()
            falls += terminated.sum()
            alive &= ~(terminated | truncated)
            now = after
        assert not alive.any()
    batch.close()
    assert falls > 0 or name != "ant_direction"  # or nothing was tested of how its episodes end


@pytest.mark.parametrize("name", TASKS)
def test_an_unstable_simulation(name):
    """MuJoCo starts an exploding simulation anew, within the step, in both alike."""
    family = getattr(families, name)(horizon=5, threads=1)
    batch, env = family.batch(TASKS[name][:1], 1), family.make(TASKS[name][0])
    batch.reset(np.random.default_rng(0))
    env.reset(seed=0)
    mujoco.mj_resetData(env.unwrapped.model, env.unwrapped.data)
    env.unwrapped.set_state(batch._qpos[0], batch._qvel[0])
    batch._qvel[0, 3] = env.unwrapped.data.qvel[3] = 1e12
    action = np.full((1, 1, *family.action_space.shape), 0.5, np.float32)
    said = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(said.append)
    try:
        for _ in range(3):
            found, reward, terminated, _ = batch.step(action)
            expected = env.step(action[0, 0])
            np.testing.assert_array_equal(found[0, 0], expected[0])
            assert (reward[0, 0], terminated[0, 0]) == expected[1:3]
            if terminated[0, 0]:
                break
    finally:
        mujoco.set_mju_user_warning(before)
    assert any("unstable" in message for message in said)


@pytest.mark.parametrize("name", TASKS)
def test_ended_slots_stay_and_others_do_not_feel_them(name):
    """Slots do not depend on one another, nor on the number of threads."""
    tasks = TASKS[name]
    many = getattr(families, name)(horizon=40, threads=3)
    one = getattr(families, name)(horizon=40, threads=1)
    wide, narrow = many.batch(tasks, 5), one.batch(tasks[:1], 5)
    rng = np.random.default_rng(1)
    wide.reset(np.random.default_rng(2))
    narrow.reset(np.random.default_rng(2))  # the first task's slots draw first
    alive = np.ones((2, 5), bool)
    for _ in range(40):
        actions = actions_of(many, rng, (2, 5))
        one_step, other = wide.step(actions), narrow.step(actions[:1])
        for found, expected in zip(one_step, other, strict=True):
            np.testing.assert_array_equal(found[:1][alive[:1]], expected[alive[:1]])
        alive &= ~(one_step[2] | one_step[3])
    wide.close()
    narrow.close()


def test_starts_are_those_of_reset_model():
    batch = families.half_cheetah_velocity(threads=1).batch([{"velocity": 1.0}], 4000)
    observations = batch.reset(np.random.default_rng(0))[0]
    positions, velocities = observations[:, :8], observations[:, 8:]
    assert np.abs(positions).max() <= 0.1 and positions.std() == pytest.approx(0.1 / np.sqrt(3), rel=0.02)
    assert velocities.std() == pytest.approx(0.1, rel=0.02) and abs(velocities.mean()) < 0.002


def test_threads_end_with_the_batch():
    before = threading.active_count()
    batch = families.half_cheetah_velocity(threads=3).batch([{"velocity": 1.0}], 6)
    batch.reset(np.random.default_rng(0))
    batch.step(np.zeros((1, 6, 6), np.float32))
    assert before < threading.active_count() <= before + 3
    batch.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="step: .*call reset"):
        batch.step(np.zeros((1, 6, 6), np.float32))


def test_an_error_in_a_thread_is_raised(monkeypatch):
    batch = families.half_cheetah_velocity(threads=2).batch([{"velocity": 1.0}], 20)
    batch.reset(np.random.default_rng(0))

    def fail(data, slot):
        raise OSError("broken")

    monkeypatch.setattr(batch, "_look", fail)
    for _ in range(2):  # nor does the second wait for ever
        with pytest.raises(OSError, match="broken"):
            batch.step(np.zeros((1, 20, 6), np.float32))
    batch.close()


def test_protocol_and_errors():
    family = families.half_cheetah_velocity(threads=1)
    batch = family.batch([{"velocity": 1.0}], 2)
    assert isinstance(batch, EpisodeBatch) and available_cores() >= 1
    with pytest.raises(RuntimeError, match="step: .*call reset"):
        batch.step(np.zeros((1, 2, 6)))
    batch.reset(np.random.default_rng(0))
    with pytest.raises(InvalidDataError, match=r"actions: got shape \(2, 6\); expected \(1, 2, 6\)"):
        batch.step(np.zeros((2, 6)))
    with pytest.raises(InvalidParameterError, match="n_episodes: got 0"):
        family.batch([{"velocity": 1.0}], 0)
    with pytest.raises(InvalidParameterError, match="parameters: got none"):
        family.batch([], 2)
