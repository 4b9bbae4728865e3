"""Adaptation curves and families that tell the task."""

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from fewshot.applications.rl import MAMLPolicy, PointNavigation, Told, adaptation_curve
from fewshot.applications.rl.learning.advantages import advantages
from fewshot.errors import DivergenceError, InvalidDataError, InvalidParameterError, NotFittedError

FAMILY = PointNavigation(horizon=15)
SMALL = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1)


@pytest.mark.parametrize("inner_lr", [None, 0.3])
def test_a_curve_is_what_adapting_one_by_one_gives(policy, inner_lr):
    """The same episodes, and then plain gradient steps of a network for each task by itself, one of them past meta-training."""
    n_tasks, episodes, steps = 3, 4, 2
    options = {"n_tasks": n_tasks, "episodes": episodes, "steps": steps, "random_state": 5}
    curve = adaptation_curve(policy, FAMILY, **options, inner_lr=inner_lr)
    assert curve.columns.tolist() == ["task", "step", "return", "length"]
    actor, rng = policy._actor, np.random.default_rng(5)
    rng.spawn(1)
    tasks = [FAMILY.sample(rng) for _ in range(n_tasks)]
    batch = FAMILY.batch(tasks, episodes)
    networks = [policy.module_ for _ in tasks]
    for step in range(steps + 1):
        named = [dict(network.named_parameters()) for network in networks]
        theta = {name: torch.stack([each[name].detach() for each in named]) for name in named[0]}
        found = actor.run(batch, theta, episodes, FAMILY.horizon, rng)
        rows = curve[curve["step"] == step]
        assert rows["task"].tolist() == [0, 1, 2]
        np.testing.assert_allclose(rows["return"], found.returns().mean(1), rtol=2e-3)
        np.testing.assert_allclose(rows["length"], found.mask.sum(-1).mean(1))
        for i, (network, parameters) in enumerate(zip(networks, named, strict=True)):
            own = found.task(i)
            gain = advantages(own, discount=policy.discount, trace=policy.gae_lambda)
            log_prob = actor.distribution.log_prob(network(own.observations), own.actions)
            loss = -(log_prob * gain * own.mask).sum() / own.mask.sum()
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                size = inner_lr
                if inner_lr is None:
                    later = policy.later_step_factor if step else 1.0
                    size = later * policy._meta.sizes[f"log_alpha.{name}"][0].exp()
                value.data -= size * gradient


def test_a_curve_follows_from_its_seed(policy):
    options = {"n_tasks": 3, "episodes": 4, "steps": 2}
    curve = adaptation_curve(policy, FAMILY, **options, random_state=5)
    assert adaptation_curve(policy, FAMILY, **options, random_state=5).equals(curve)
    assert not adaptation_curve(policy, FAMILY, **options, random_state=6).equals(curve)
    assert curve["length"].between(1, 15).all()


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
    for wrong in (None, -1, 1.5, "2", True):
        with pytest.raises(InvalidParameterError, match=f"steps: got {wrong!r}; expected an integer of at least 0"):
            adaptation_curve(policy, FAMILY, steps=wrong)
    for wrong in (-1, 0, "x", np.inf, np.nan, True, [0.1]):
        with pytest.raises(InvalidParameterError, match=r"inner_lr: got .*; expected a finite number above 0, or None"):
            adaptation_curve(policy, FAMILY, inner_lr=wrong)
    with pytest.raises(DivergenceError, match="inner_lr: got .* not finite after an inner step 1; .*smaller"):
        adaptation_curve(policy, FAMILY, n_tasks=2, episodes=2, inner_lr=1e300)
    with pytest.raises(
        InvalidDataError, match=r"family: got observation_space Box.*4.*; the policy was trained with Box"
    ):
        adaptation_curve(policy, "CartPole-v1")


def test_other_bounds_of_observations(policy):
    """The horizon of point navigation is in them; a network reads the same numbers whatever they are."""
    longer = PointNavigation(horizon=20)
    assert longer.observation_space != FAMILY.observation_space
    assert adaptation_curve(policy, longer, n_tasks=2, episodes=2, random_state=0)["length"].max() <= 20


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


@pytest.mark.filterwarnings(
    "ignore:.*(unwrapped version|infinity):UserWarning"
)  # unwrapped, it would not tell the task
def test_a_single_environment_that_tells_the_task():
    told = Told(FAMILY)
    env = told.make((0.1, -0.2))
    check_env(env, skip_render_check=True)
    assert env.observation_space == told.observation_space
    np.testing.assert_allclose(env.reset(seed=0)[0], [0.0, 0.0, 0.1, -0.2])


def test_a_policy_that_is_told_the_task_needs_no_adaptation():
    told = Told(FAMILY)
    policy = MAMLPolicy(**SMALL | {"inner_steps": 0}).fit_meta(told, total_env_steps=1)
    assert policy.predict(np.zeros(4)).shape == (2,)
    assert "return_1" not in policy.history_
