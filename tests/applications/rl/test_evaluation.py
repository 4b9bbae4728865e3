"""Adaptation curves and families that tell the task."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from fewshot.applications.rl import MAMLPolicy, PointNavigation, Told, adaptation_curve
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError

FAMILY = PointNavigation(horizon=15)
SMALL = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1)


def test_a_curve_is_what_adapting_one_by_one_gives(policy):
    """Step by step with the same episodes: the batch of all tasks, and each task's rows by themselves."""
    curve = adaptation_curve(policy, FAMILY, n_tasks=3, episodes=4, steps=2, random_state=5)
    assert curve.columns.tolist() == ["task", "step", "return", "length"] and len(curve) == 9
    assert curve["length"].between(1, 15).all()
    again = adaptation_curve(policy, FAMILY, n_tasks=3, episodes=4, steps=2, random_state=5)
    assert again.equals(curve)
    other = adaptation_curve(policy, FAMILY, n_tasks=3, episodes=4, steps=2, random_state=6)
    assert not other.equals(curve)


def test_without_steps_it_is_the_initial_policy(policy):
    curve = adaptation_curve(policy, FAMILY, n_tasks=2, episodes=3, steps=0, random_state=0)
    assert curve["step"].tolist() == [0, 0]


def test_other_episodes_to_judge_by(policy):
    """Adapting itself goes on as before: full-length episodes bring no more than those that end at the goal."""
    options = {"n_tasks": 3, "episodes": 4, "steps": 2, "random_state": 5}
    usual, full, likely = (
        adaptation_curve(policy, FAMILY, **options, **more)
        for more in ({}, {"score_family": PointNavigation(horizon=15, tolerance=0.0)}, {"deterministic": True})
    )
    assert (full["length"] == 15).all() and not full["return"].equals(usual["return"])
    by_task = likely[likely["step"] == 0]["return"]
    one = policy.evaluate(FAMILY.make((0.4, -0.3)), episodes=2, deterministic=True)
    assert one[0] == pytest.approx(one[1]) and by_task.nunique() == 3
    # The episodes that are adapted from are the same: so are the policies, which a deterministic judge shows.
    again = adaptation_curve(policy, FAMILY, **options | {"episodes": 4}, deterministic=True, score_family=FAMILY)
    assert again.equals(likely)


def test_a_step_size_of_ones_own(policy):
    """A vanishing one changes nothing but the random numbers; the policy keeps its own."""
    before = {k: v.clone() for k, v in policy._meta.sizes.items()}
    still = adaptation_curve(policy, FAMILY, n_tasks=2, episodes=200, steps=1, inner_lr=1e-12, random_state=0)
    by_step = still.groupby("step")["return"].mean()
    assert by_step[0] == pytest.approx(by_step[1], rel=0.05)
    assert all(torch.equal(v, before[k]) for k, v in policy._meta.sizes.items())


def test_what_cannot_be_used_is_named(policy):
    with pytest.raises(NotFittedError, match="adaptation_curve: this MAMLPolicy is not meta-trained"):
        adaptation_curve(MAMLPolicy(), FAMILY)
    with pytest.raises(InvalidParameterError, match="n_tasks: got 0"):
        adaptation_curve(policy, FAMILY, n_tasks=0)
    with pytest.raises(InvalidParameterError, match="inner_lr: got -1"):
        adaptation_curve(policy, FAMILY, inner_lr=-1)
    with pytest.raises(InvalidDataError, match="family: its spaces are not those"):
        adaptation_curve(policy, "CartPole-v1")


def test_told_families_show_the_task_and_act_as_before():
    told, rng = Told(FAMILY), np.random.default_rng(0)
    tasks = [told.sample(rng) for _ in range(2)]
    batch, plain = told.batch(tasks, 3), FAMILY.batch(tasks, 3)
    observations, expected = batch.reset(rng), plain.reset(rng)
    assert observations.shape == (2, 3, 4)
    for _ in range(3):
        np.testing.assert_array_equal(observations[..., :2], expected)
        np.testing.assert_allclose(observations[..., 2:], np.broadcast_to(np.array(tasks)[:, None], (2, 3, 2)))
        actions = rng.uniform(-0.1, 0.1, (2, 3, 2)).astype(np.float32)
        (observations, *rest), (expected, *wanted) = batch.step(actions), plain.step(actions)
        for a, b in zip(rest, wanted, strict=True):
            np.testing.assert_array_equal(a, b)
    assert told.told(tasks[0]).tolist() == pytest.approx(list(tasks[0]))
    check_env(told.make(tasks[0]).unwrapped, skip_render_check=True)
    env = told.make(tasks[0])
    assert env.observation_space == told.observation_space and env.reset(seed=0)[0].shape == (4,)


def test_a_policy_that_is_told_the_task_needs_no_adaptation():
    told = Told(FAMILY)
    policy = MAMLPolicy(**SMALL | {"inner_steps": 0}).fit_meta(told, total_env_steps=1)
    assert policy.predict(np.zeros(4)).shape == (2,)
    assert "return_1" not in policy.history_
