"""Meta-World's ML1 and ML10: whose tasks they are, what they hide, when they count as solved."""

import contextlib
import importlib.util
import pickle

import gymnasium
import numpy as np
import pytest

from fewshot.applications.rl import MAMLPolicy, Told, adaptation_curve, check_family
from fewshot.applications.rl.environments import metaworld_families as families
from fewshot.applications.rl.environments.metaworld_families import FirstSuccess, metaworld_ml1, metaworld_ml10
from fewshot.applications.rl.environments.protocols import Family
from fewshot.errors import InvalidParameterError, MissingDependencyError

# Meta-World needs an old mujoco, so it is in no environment that has the other extras.
needs_metaworld = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="metaworld is not installed: pip install 'fewshot[metaworld]' in an environment of its own",
)
# Python 3.12 and later warn of forks in a process with threads, which torch has started; the workers do not use it.
forks = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

# The paper's figure of ML10, but for renamings of Meta-World since.
TRAIN = {"reach", "push", "pick-place", "door-open", "drawer-close", "button-press-topdown", "peg-insert-side"}
TRAIN |= {"window-open", "sweep", "basketball"}
TEST = {"drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull"}


@pytest.mark.parametrize("name, arguments", [("metaworld_ml1", ["reach-v3"]), ("metaworld_ml10", [])])
def test_without_metaworld(name, arguments, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=rf"^{name} needs the package metaworld.*fewshot\[metaworld\]"):
        getattr(families, name)(*arguments)


class Script(gymnasium.Env):
    """Says in each step what it was told to."""

    action_space = observation_space = gymnasium.spaces.Discrete(2)

    def __init__(self, successes, ends=False):
        self.left, self.ends = list(successes), ends

    def step(self, action):
        return 0, 3.5, self.ends, False, {"success": self.left.pop(0)}


@pytest.mark.parametrize(
    "successes, expected", [([0.0, 1.0, 0.0], [(0.0, False), (1.0, True)]), ([False] * 3, [(0.0, False)] * 3)]
)
def test_first_success(successes, expected):
    env = FirstSuccess(Script(successes))
    assert [env.step(0)[1:3] for _ in expected] == expected
    assert FirstSuccess(Script([0.0], ends=True)).step(0)[1:3] == (0.0, True)


def run(env, actions):
    """Rows of observation, reward and the two ends."""
    rows = [[*env.reset(seed=0)[0], 0.0, False, False]]
    for action in actions:
        observation, *judged, _ = env.step(action)
        rows.append([*observation, *judged])
    return np.array(rows)


def actions_of(rng, *shape):
    return rng.uniform(-1, 1, (*shape, 4)).astype(np.float32)


@needs_metaworld
def test_ml1_splits():
    """Training tasks are the benchmark's, and none is a test task (as they are in gymnasium.make_vec)."""
    import metaworld

    drawn = metaworld.ML1("push-v3", seed=3)
    parts = [metaworld_ml1("push-v3", split, random_state=3) for split in ("train", "test")]
    for family, tasks in zip(parts, (drawn.train_tasks, drawn.test_tasks), strict=True):
        assert [family.task({"env_name": "push-v3", "index": i}) for i in range(50)] == tasks
        assert isinstance(family, Family) and family.names == ("push-v3",) and family.horizon == 500
    told = [{tuple(family.told({"env_name": "push-v3", "index": i})) for i in range(50)} for family in parts]
    assert len(told[0]) == len(told[1]) == 50 and not told[0] & told[1]
    rng = np.random.default_rng(0)
    assert {parts[1].sample(rng)["index"] for _ in range(1000)} == set(range(50))
    # Goals are the last of the numbers; the environment puts their heights at that of the object.
    for family, task in zip(parts, (drawn.train_tasks[7], drawn.test_tasks[7]), strict=True):
        with contextlib.closing(family.make({"env_name": "push-v3", "index": 7})) as env:
            env.reset(seed=0)
            np.testing.assert_array_equal(env.unwrapped._target_pos[:2], pickle.loads(task.data)["rand_vec"][3:5])


@needs_metaworld
def test_ml10_splits():
    train, test = metaworld_ml10(), metaworld_ml10("test")
    assert {f"{name}-v3" for name in TRAIN} == set(train.names) and {f"{name}-v3" for name in TEST} == set(test.names)
    rng = np.random.default_rng(0)
    drawn = [train.sample(rng) for _ in range(2000)]
    counts = [sum(p["env_name"] == name for p in drawn) for name in train.names]
    assert min(counts) > 130 and max(counts) < 270  # 200 expected, with a standard deviation of 13
    assert max(p["index"] for p in drawn) == 49
    told = train.told({"env_name": "drawer-close-v3", "index": 4}), test.told({"env_name": "lever-pull-v3", "index": 4})
    assert told[0].shape == told[1].shape == (15 + 6,)
    assert [np.flatnonzero(numbers[:15]).tolist() for numbers in told] == [[4], [14]]
    np.testing.assert_array_equal(told[0][18:], 0)  # only three numbers are drawn for a drawer
    assert train.observation_space == test.observation_space == metaworld_ml1("push-v3").observation_space
    batch = Told(test).batch([{"env_name": "lever-pull-v3", "index": 4}], 1)
    np.testing.assert_array_equal(batch.reset(rng)[0, 0, -21:], told[1])
    batch.close()


@needs_metaworld
@pytest.mark.parametrize("split", ["train", "test"])
def test_goals_are_hidden(split):
    family = metaworld_ml10(split, horizon=3)
    for name in family.names:
        with contextlib.closing(family.make({"env_name": name, "index": 0})) as env:
            found = run(env, actions_of(np.random.default_rng(0), 3))
        np.testing.assert_array_equal(found[:, 36:39], 0, err_msg=name)


@needs_metaworld
def test_only_the_reward_knows_the_goal():
    """With the object in one place, other goals change rewards and no observation."""
    from metaworld.types import Task

    family = metaworld_ml1("reach-v3", horizon=40)
    env = family.make({"env_name": "reach-v3", "index": 0})
    actions = actions_of(np.random.default_rng(0), 40)
    here = run(env, actions)
    task = family.task({"env_name": "reach-v3", "index": 0})
    data = pickle.loads(task.data)
    data["rand_vec"] = np.concatenate([data["rand_vec"][:3], [0.09, 0.81, 0.06]])
    env.unwrapped.set_task(Task(env_name=task.env_name, data=pickle.dumps(data)))
    there = run(env, actions)
    np.testing.assert_array_equal(here[:, :39], there[:, :39])
    assert np.abs(here[1:, 39] - there[1:, 39]).min() > 1e-3


@needs_metaworld
@pytest.mark.parametrize("split", ["train", "test"])
def test_batches_are_single_environments(split):
    """Of every manipulation, though episodes of a task share a model: also after other episodes, with actions of their own."""
    family = metaworld_ml10(split, horizon=15)
    rng = np.random.default_rng(1)
    tasks = [{"env_name": name, "index": int(i)} for name in family.names for i in rng.choice(50, 2, replace=False)]
    actions = actions_of(rng, 15, len(tasks), 2)
    with contextlib.closing(family.batch(tasks, 2)) as batch:
        for wild in (True, False):
            first = batch.reset(rng)
            steps = [batch.step(actions_of(rng, len(tasks), 2) if wild else now) for now in actions]
        models = [[env.unwrapped.model for env in batch._envs[i : i + 2]] for i in range(0, 2 * len(tasks), 2)]
    assert all(one is other for one, other in models) and len({id(one) for one, _ in models}) == len(tasks)
    for i, j in np.ndindex(len(tasks), 2):
        with contextlib.closing(family.make(tasks[i])) as env:
            alone = run(env, actions[:, i, j])
        together = [[*first[i, j], 0.0, False, False]]
        together += [[*step[0][i, j], *(value[i, j] for value in step[1:])] for step in steps]
        np.testing.assert_array_equal(np.array(together), alone, err_msg=tasks[i]["env_name"])
        assert alone[:, -1].tolist() == [0.0] * 15 + [1.0]  # cut off by the horizon


@forks
@needs_metaworld
def test_workers_change_nothing():
    rng = np.random.default_rng(2)
    one, several = (metaworld_ml10(horizon=15, workers=workers) for workers in (None, 2))
    tasks = [one.sample(rng) for _ in range(3)]
    actions = actions_of(rng, 15, 3, 3)
    found = []
    for family in (one, several):
        with contextlib.closing(family.batch(tasks, 3)) as batch:
            found.append([batch.reset(np.random.default_rng(0)), *(batch.step(now) for now in actions)])
    np.testing.assert_array_equal(found[0][0], found[1][0])
    for here, there in zip(found[0][1:], found[1][1:], strict=True):
        for value, other in zip(here, there, strict=True):
            np.testing.assert_array_equal(value, other)


@needs_metaworld
@pytest.mark.parametrize("reward", ["shaped", "success"])
def test_families_pass_the_check(reward):
    family = metaworld_ml1("push-v3", horizon=12, reward=reward)
    assert check_family(family) is family and reward in repr(family)
    assert pickle.loads(pickle.dumps(family)).task(family.sample(np.random.default_rng(0))) == family.task(
        family.sample(np.random.default_rng(0))
    )


@needs_metaworld
@pytest.mark.filterwarnings(
    "ignore:Constant.s. may be too high:UserWarning"
)  # the scripted policy's actions are clipped
def test_success_is_seen():
    """Meta-World's own scripted policy, which is shown the goal, reaches it; the noted success is that of `info`."""
    from metaworld.policies import SawyerReachV3Policy

    script = SawyerReachV3Policy()
    shaped, judged = (metaworld_ml1("reach-v3", "test", horizon=150, reward=reward) for reward in ("shaped", "success"))
    task = {"env_name": "reach-v3", "index": 5}

    def episode(family, acting):
        env = family.make(task)
        observation, _ = env.reset(seed=0)
        rewards, successes, over = [], [], False
        while not over:
            shown = np.concatenate([observation[:36], env.unwrapped._target_pos])
            action = np.asarray(script.get_action(shown), np.float32) if acting else np.zeros(4, np.float32)
            observation, reward, terminated, truncated, info = env.step(np.clip(action, -1, 1))
            rewards.append(reward)
            successes.append(bool(info["success"]))
            over = terminated or truncated
        return rewards, successes, terminated

    rewards, successes, terminated = episode(shaped, acting=True)
    first = successes.index(True)
    assert len(rewards) == 150 and not terminated and 10 < first < 149 and 0 <= min(rewards) < max(rewards) <= 10
    rewards, successes, terminated = episode(judged, acting=True)
    assert rewards == [0.0] * first + [1.0] and terminated
    rewards, successes, terminated = episode(judged, acting=False)
    assert rewards == [0.0] * 150 and not terminated and not any(successes)


@forks
@needs_metaworld
def test_policies_learn_in_it():
    """Everything that a policy does with a family, with success for a score."""
    options = {"horizon": 10, "workers": 2}
    train, test = (metaworld_ml1("reach-v3", split, **options) for split in ("train", "test"))
    policy = MAMLPolicy(hidden=(8,), tasks_per_batch=2, episodes=2, random_state=0).fit_meta(train, total_env_steps=80)
    assert policy.n_env_steps_ == 40 + 80 and np.isfinite(policy.history_["return_1"]).all()
    judged = metaworld_ml1("reach-v3", "test", reward="success", **options)
    curve = adaptation_curve(policy, test, n_tasks=2, episodes=2, score_family=judged, random_state=0)
    assert curve["return"].between(0, 1).all() and len(curve) == 4
    env = test.make(test.sample(np.random.default_rng(0)))
    adapted = policy.adapt(env, episodes=2)
    assert adapted.evaluate(env, episodes=2).shape == (2,)


@needs_metaworld
def test_wrong_settings():
    wrong = {
        "task_name: got 'reach-v2'; expected .*did you mean 'reach-v3'?": lambda: metaworld_ml1("reach-v2"),
        "task_name: got 'fly'; expected .*they are assembly-v3": lambda: metaworld_ml1("fly"),
        "split: got 'validation'; expected 'train' or 'test'": lambda: metaworld_ml1("push-v3", "validation"),
        "reward: got 'sparse'; expected 'shaped' or 'success'": lambda: metaworld_ml1("push-v3", reward="sparse"),
        "horizon: got 501; expected at most 500": lambda: metaworld_ml1("push-v3", horizon=501),
        "horizon: got 0": lambda: metaworld_ml1("push-v3", horizon=0),
        "workers: got 0": lambda: metaworld_ml1("push-v3", workers=0),
        "random_state: got None; expected an integer from 0": lambda: metaworld_ml1("push-v3", random_state=None),
        "random_state: got -1; expected an integer from 0": lambda: metaworld_ml10(random_state=-1),
    }
    for message, call in wrong.items():
        with pytest.raises(InvalidParameterError, match=message):
            call()
    family = metaworld_ml1("push-v3")
    for parameters in [
        {"env_name": "push-v3"},
        {"env_name": "push-v3", "index": 50},
        {"env_name": "push-v3", "index": -1},
        {"env_name": "push-v3", "index": 1.0},
        {"env_name": "push-v3", "index": True},
        {"env_name": "reach-v3", "index": 0},
        {"env_name": ["push-v3"], "index": 0},
        ("push-v3", 0),
        None,
    ]:
        for call in (family.make, family.told, lambda p: family.batch([p], 2)):
            with pytest.raises(
                InvalidParameterError, match="parameters: got .*; expected a dict with an env_name of ML1 "
            ):
                call(parameters)
    with pytest.raises(InvalidParameterError, match="n_episodes: got 0"):
        family.batch([{"env_name": "push-v3", "index": 0}], 0)
    with pytest.raises(InvalidParameterError, match="parameters: got none"):
        family.batch([], 1)
