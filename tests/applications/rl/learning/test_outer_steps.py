"""Outer steps against what they promise: bounds kept, steps taken back, losses and divergences of plain loops."""

import math

import numpy as np
import pytest
import torch

from fewshot.applications.rl import CartPoleGoal, MAMLPolicy, PointNavigation
from fewshot.applications.rl.learning.learner import FIRST_KL, Learner
from fewshot.applications.rl.learning.outer_steps import MOST_SHORTENED, RATE_CHANGE, Batch, ProximalSteps
from fewshot.kernels import LoopKernels
from fewshot.metagradient import expand, meta_gradient
from fewshot.tasks import Rows

FAMILY = PointNavigation(horizon=15)
SETTINGS = {"hidden": (8,), "inner_lr": 0.3, "engine": "vectorized", "random_state": 0}


def learner_of(family=FAMILY, **settings):
    """A learner before its first iteration."""
    policy = MAMLPolicy(**SETTINGS | settings)
    policy.tasks_per_batch, policy.episodes = 4, 5
    _, actor = policy._policy_settings().build(family.observation_space, family.action_space, seed=0)
    return Learner(actor, family, policy._learner_settings(), calibrate=policy.inner_lr is None)


def collected(learner, seed=0):
    """A batch of episodes, and the meta-gradient in it by plain loops."""
    rng, family, actor = np.random.default_rng(seed), learner.family, learner.actor
    tasks = [family.sample(rng) for _ in range(4)]
    batch = family.batch(tasks, 5)
    path, supports = [expand(learner.parameters.moving, 4)], []
    kernels = LoopKernels(actor.functional)
    for k in range(actor.adaptation.inner_steps):
        supports.append(actor.rows(actor.run(batch, path[-1], 5, family.horizon, rng)))
        path.append(actor.step(kernels, learner.parameters, path[-1], supports[-1], k))
    query = actor.rows(actor.run(batch, path[-1], 5, family.horizon, rng))

    def gradient_at(parameters):
        given = supports or [query]
        return meta_gradient(kernels, actor.adaptation, parameters, given, query, order=learner.settings.order)

    return Batch(path, supports, query), gradient_at


def adapted_outputs(learner, parameters, batch, t):
    """Plain adaptation of one task; outputs on its query."""
    f = learner.actor.functional
    theta = parameters.moving
    for support in batch.supports:
        rows = Rows(support.x[t], support.y[t], support.weight[t])
        grads = torch.func.grad(f.support_loss)(theta, {}, f.constant, rows)
        theta = {name: theta[name] - parameters.sizes[f"log_alpha.{name}"].exp()[0] * grads[name] for name in theta}
    return f.output(theta, {}, f.constant, batch.query.x[t])


@pytest.mark.parametrize("outer", ["trpo", "ppo"])
def test_judging_is_adapting_each_task_by_itself(outer):
    learner = learner_of(outer=outer, learn_step_sizes="tensor")
    batch, _ = collected(learner)
    d, f = learner.actor.distribution, learner.actor.functional
    old = learner.outer.outputs(batch.path[-1], batch.query)
    moved = learner.optimizer.copy().parameters
    for value in moved.moving.values():
        value += 0.05
    losses, divergences = [], []
    for t in range(4):
        now, weight = adapted_outputs(learner, moved, batch, t), batch.query.weight[t]
        log_prob, advantage = batch.query.y[t, :, -3], batch.query.y[t, :, -2]
        ratio = (d.log_prob(now, batch.query.y[t, :, :-3]) - log_prob).exp()
        gain = ratio * advantage
        if outer == "ppo":
            gain = torch.minimum(gain, ratio.clamp(0.8, 1.2) * advantage)
        losses.append(-(gain * weight).sum() / weight.sum())
        divergences.append((d.kl(old[t], now) * weight).sum() / weight.sum())
    loss, kl = learner.outer.judge(moved, batch, old)
    assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
    assert kl == pytest.approx(float(torch.stack(divergences).mean()), rel=1e-4)
    assert f.query_row_loss is not f.row_loss if outer == "ppo" else f.query_row_loss is f.row_loss


@pytest.mark.parametrize("inner_steps", [0, 1, 2])
def test_proximal_steps_stay_within_the_bound(inner_steps):
    learner = learner_of(outer="ppo", inner_steps=inner_steps, outer_lr=1e-3)
    batch, gradient_at = collected(learner)
    step = ProximalSteps(learner.actor, 4, max_kl=1e-3, epochs=50)
    optimizer, _, kl = step(learner.optimizer, batch, gradient_at)
    assert 0 < kl <= 1e-3 and step.rate == 1 / RATE_CHANGE  # the last of the steps was not taken
    old = step.outputs(batch.path[-1], batch.query)
    assert step.judge(optimizer.parameters, batch, old)[1] <= 1e-3
    first = (batch.supports or [batch.query])[0]
    moved = step.outputs(expand(optimizer.parameters.moving, 4), first)
    assert step.divergence(step.outputs(batch.path[0], first), moved, first) <= 1e-3


def test_a_first_step_too_far_is_shortened():
    learner = learner_of(outer="ppo", outer_lr=0.1)
    batch, gradient_at = collected(learner)
    step = ProximalSteps(learner.actor, 4, max_kl=1e-3, epochs=1)
    before = {name: value.clone() for name, value in learner.parameters.flat().items()}
    optimizer, _, kl = step(learner.optimizer, batch, gradient_at)
    n = round(-math.log(step.rate) / math.log(RATE_CHANGE))
    assert 0 < kl <= 1e-3 and n > 1 and optimizer.steps == 1
    direct = learner.optimizer.copy()
    direct.step(gradient_at(learner.parameters).vector, step.rate)  # as if it had been tried first
    for name, value in optimizer.parameters.flat().items():
        assert torch.equal(value, direct.parameters.flat()[name])
        assert torch.equal(learner.parameters.flat()[name], before[name])


def test_where_no_step_is_short_enough_none_is_taken():
    learner = learner_of(outer="ppo", outer_lr=0.1)
    batch, gradient_at = collected(learner)
    step = ProximalSteps(learner.actor, 4, max_kl=1e-12, epochs=5)
    optimizer, _, kl = step(learner.optimizer, batch, gradient_at)
    assert kl == 0 and optimizer is learner.optimizer
    assert step.rate == pytest.approx(RATE_CHANGE ** -(MOST_SHORTENED + 1))


def test_without_a_signal_the_rate_stays():
    learner = learner_of(outer="ppo")
    batch, gradient_at = collected(learner)

    def nothing(parameters):
        found = gradient_at(parameters)
        found.vector.zero_()
        return found

    step = ProximalSteps(learner.actor, 4, max_kl=0.1, epochs=2)
    assert step(learner.optimizer, batch, nothing)[2] == 0 and step.rate == 1.0


def test_the_rate_rises_where_there_is_room():
    learner = learner_of(outer="ppo", outer_lr=1e-4)
    batch, gradient_at = collected(learner)
    step = ProximalSteps(learner.actor, 4, max_kl=1.0, epochs=3)
    optimizer, *_ = step(learner.optimizer, batch, gradient_at)
    assert step.rate == RATE_CHANGE and optimizer.steps == 3


def test_the_trust_region_moves_step_sizes_by_the_optimiser_alone():
    learner = learner_of()
    batch, gradient_at = collected(learner)
    reference = learner.optimizer.copy()
    optimizer, loss, kl = learner.outer(learner.optimizer, batch, gradient_at)
    gradient = gradient_at(learner.parameters)
    assert loss == pytest.approx(gradient.mean_loss()) and 0 < kl <= learner.settings.max_kl
    reference.step(gradient.vector, 1.0)
    for name, value in optimizer.parameters.sizes.items():
        torch.testing.assert_close(value, reference.parameters.sizes[name])
    # The bound holds in the tasks that judged it.
    judged = batch.first(learner.settings.judged_tasks)
    start = learner.optimizer.copy().parameters
    for name, value in start.moving.items():
        value.copy_(optimizer.parameters.moving[name])
    old = learner.outer.outputs(judged.path[-1], judged.query)
    assert learner.outer.judge(start, judged, old)[1] == pytest.approx(kl, rel=1e-4)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        (FAMILY, {}),
        (FAMILY, {"log_std": -3.0}),
        (FAMILY, {"log_std": 0.5, "hidden": (64, 64)}),
        (FAMILY, {"inner_steps": 0}),
        (CartPoleGoal(horizon=20), {}),
    ],
)
def test_step_sizes_are_calibrated_by_what_the_first_step_does(family, settings):
    learner = learner_of(family, inner_lr=None, **settings)
    batch, _ = collected(learner)
    support = (batch.supports or [batch.query])[0]
    learner._calibrate(support)
    old = learner.outer.outputs(batch.path[0], support)
    after = learner.actor.step(learner.kernels, learner.parameters, batch.path[0], support, 0)
    assert learner.outer.divergence(old, learner.outer.outputs(after, support), support) == pytest.approx(
        FIRST_KL, rel=0.1
    )
    again = {name: value.clone() for name, value in learner.parameters.sizes.items()}
    learner._calibrate(support)  # begins from the same sizes, so an interrupted iteration can be made again
    assert all(torch.equal(value, again[name]) for name, value in learner.parameters.sizes.items())


def test_steps_past_those_of_training_are_smaller():
    learner = learner_of(later_step_factor=0.25, inner_steps=2)
    batch, _ = collected(learner)
    first, second, third, fourth = (
        learner.actor.step(learner.kernels, learner.parameters, batch.path[0], batch.supports[0], k) for k in range(4)
    )
    for name, start in batch.path[0].items():
        assert torch.equal(first[name], second[name]) and torch.equal(third[name], fourth[name])
        torch.testing.assert_close(third[name] - start, 0.25 * (second[name] - start), rtol=1e-3, atol=1e-6)


def test_products_are_made_with_rows_that_were_taken_and_from_all_time_steps():
    """30 episodes of 50 steps: a fixed stride of 50 would give the first observation 30 times."""
    g = torch.Generator().manual_seed(0)
    ends = torch.randint(5, 51, (2, 30), generator=g)
    mask = (torch.arange(50) < ends[..., None]).float()
    x = torch.arange(50.0).expand(2, 30, 50).flatten(1)[..., None]
    place = 2 - (torch.arange(50) == 0).float().expand(2, 30, 50).flatten(1)
    y = torch.stack([x[..., 0], x[..., 0], x[..., 0], place], -1)
    batch = Batch([], [], Rows(x, y, mask.flatten(1)))
    some = batch.some_rows(60).query
    assert some.x.shape == (2, 30, 1) and (some.weight == 1).all() and torch.equal(some.y[..., :1], some.x)
    for t in range(2):
        taken = torch.arange(50.0).expand(30, 50)[mask[t] > 0]
        assert float(some.x[t].mean()) == pytest.approx(float(taken.mean()), rel=0.15)
        assert len(some.x[t].unique()) > 15
    assert batch.some_rows(10**6).query.x.shape == (2, 1500, 1)


def test_without_a_reward_nothing_is_calibrated():
    learner = learner_of(inner_lr=None)
    batch, _ = collected(learner)
    support = batch.supports[0]
    y = support.y.clone()
    y[..., -2] = 0  # advantages
    before = {name: value.clone() for name, value in learner.parameters.sizes.items()}
    assert not learner._calibrate(support._replace(y=y))
    assert all(torch.equal(value, before[name]) for name, value in learner.parameters.sizes.items())
    assert learner._calibrate(support)


def test_calibration_waits_for_a_reward(monkeypatch):
    learner = learner_of(inner_lr=None)
    answers, rng = iter([False, True]), np.random.default_rng(0)
    monkeypatch.setattr(learner, "_calibrate", lambda support: next(answers))
    for left in (True, False, False):
        learner.iterate(rng)
        assert learner.calibrate == left


def test_the_region_of_dice_is_that_of_lvc():
    """Products with a part of the rows, against lvc's with all of them."""
    products = []
    for surrogate, rows in (("lvc", 10**6), ("dice", 10**6), ("dice", 200)):
        learner = learner_of(surrogate=surrogate)
        batch, _ = collected(learner)
        part = batch.some_rows(rows)
        query = part.query._replace(y=learner.outer.outputs(part.path[-1], part.query))
        run = learner.outer.fisher.product(learner.parameters, part.path, part.supports, query)
        n = sum(p.numel() for p in learner.parameters.moving.values())
        products.append(run(torch.linspace(-1, 1, n)))
    torch.testing.assert_close(products[0], products[1])
    assert float((products[2] - products[0]).norm() / products[0].norm()) < 0.5
