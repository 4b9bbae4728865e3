"""Families of MuJoCo's runners: rewards, tasks, and what they say."""

import importlib.util
import logging

import gymnasium
import numpy as np
import pytest

from fewshot.applications.rl import EnvFamily, Told
from fewshot.applications.rl.environments import mujoco_families as families
from fewshot.applications.rl.environments.protocols import Family
from fewshot.errors import InvalidParameterError, MissingDependencyError

# MuJoCo is an extra of its own, which the tests do not need otherwise.
needs_mujoco = pytest.mark.skipif(
    importlib.util.find_spec("mujoco") is None, reason="mujoco is not installed: pip install 'fewshot[mujoco]'"
)


@pytest.mark.parametrize("name", ["half_cheetah_direction", "half_cheetah_velocity", "ant_direction"])
def test_without_mujoco(name, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"^{name} needs the package mujoco.*fewshot\[mujoco\]"):
        getattr(families, name)()


@needs_mujoco
@pytest.mark.parametrize("name, env_id", [("half_cheetah_direction", "HalfCheetah-v5"), ("ant_direction", "Ant-v5")])
def test_directions(name, env_id):
    """Forwards is Gymnasium's environment with default arguments; backwards differs by twice the forward reward."""
    family = getattr(families, name)(horizon=30)
    rng = np.random.default_rng(0)
    assert {family.sample(rng)["direction"] for _ in range(20)} == {-1.0, 1.0} and family.horizon == 30
    with families._without_deprecations():
        plain = gymnasium.make(env_id)
    forwards, backwards = (family.make({"direction": sign}) for sign in (1, -1))
    envs = plain, forwards, backwards
    starts = [env.reset(seed=4)[0] for env in envs]
    for action in rng.uniform(-1, 1, (5, *family.action_space.shape)).astype(np.float32):
        steps = [env.step(action) for env in envs]
        for observation, *_ in steps[1:]:
            np.testing.assert_array_equal(observation, steps[0][0])
        assert steps[1][1:4] == steps[0][1:4]
        assert steps[0][1] - steps[2][1] == pytest.approx(2 * steps[0][4]["x_velocity"])
    np.testing.assert_array_equal(starts[0], starts[1])
    assert family.told({"direction": -1}).tolist() == [-1.0]
    for wrong in [{"direction": 0.5}, {"direction": np.nan}, {"velocity": 1.0}, {"direction": 1, "x": 2}, 1.0, {}]:
        with pytest.raises(InvalidParameterError, match="parameters: got .*; expected a dict with 1 or -1 as its dir"):
            family.make(wrong)


@needs_mujoco
def test_goal_velocities():
    family = families.half_cheetah_velocity(horizon=30)
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
    for wrong in [1.5, {"velocity": np.inf}, {"velocity": "fast"}, {"velocity": None}, {"direction": 1.0}]:
        with pytest.raises(
            InvalidParameterError, match="parameters: got .*expected a dict with a finite number as its v"
        ):
            family.make(wrong)
    with pytest.raises(InvalidParameterError, match="velocities: got .*low <= high"):
        families.half_cheetah_velocity((2.0, 0.0))
    with pytest.raises(InvalidParameterError, match="threads: got 0"):
        families.half_cheetah_velocity(threads=0)
    with pytest.raises(InvalidParameterError, match="horizon: got 0"):
        families.half_cheetah_direction(horizon=0)


@needs_mujoco
def test_told_and_protocol():
    family = families.half_cheetah_velocity(horizon=5, threads=1)
    assert isinstance(family, Family) and "HalfCheetah-v5" in repr(family)
    batch = Told(family).batch([{"velocity": 0.5}, {"velocity": 2.0}], 3)
    assert batch.reset(np.random.default_rng(0))[:, 0, -1].tolist() == [0.5, 2.0]
    batch.close()


@needs_mujoco
def test_nothing_is_printed_or_written(tmp_path, monkeypatch, capfd, caplog):
    """Gymnasium's HalfCheetah uses what MuJoCo 4 announces to drop, which MuJoCo itself prints and writes to a file."""
    import mujoco

    monkeypatch.chdir(tmp_path)
    said = []
    mujoco.set_mju_user_warning(said.append)
    try:
        families.half_cheetah_velocity().make({"velocity": 1.0})
        assert mujoco.get_mju_user_warning() == said.append  # the user's own is put back
    finally:
        mujoco.set_mju_user_warning(None)
    assert not said and capfd.readouterr() == ("", "") and not list(tmp_path.iterdir()) and not caplog.records
    with families._without_deprecations(), caplog.at_level(logging.WARNING, "fewshot"):
        mujoco.get_mju_user_warning()("something else")
    assert caplog.messages == ["mujoco: something else"]


@needs_mujoco
def test_model_arrays_of_a_varied_environment():
    family = EnvFamily.vary("Hopper-v5", horizon=30, **{"model.body_mass": (0.5, 2.0)})
    light, heavy = (family.make({"model.body_mass": scale}).unwrapped for scale in (1.0, 2.0))
    np.testing.assert_allclose(heavy.model.body_mass, 2 * light.model.body_mass)
    np.testing.assert_allclose(heavy.model.body_subtreemass, 2 * light.model.body_subtreemass)  # derived by MuJoCo
    for env in (light, heavy):
        env.reset(seed=0)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, 3)).astype(np.float32)
    one, other = ([env.step(action)[0] for action in actions] for env in (light, heavy))
    assert np.abs(np.array(one) - other).max() > 0.1
