"""Collecting episodes: batched against one at a time, the ends of episodes, and that a seed says everything."""

import gymnasium
import numpy as np
import pytest
import torch
from torch import nn

from fewshot.applications.rl.learning.distributions import Categorical, Gaussian
from fewshot.applications.rl.learning.networks import PolicyNetwork
from fewshot.applications.rl.learning.rollouts import BatchedForward, collect
from fewshot.functional import FunctionalModule

HORIZON = 6


class Counting:
    """Slots that count their steps and end after as many as their number says; the observation is (time, last action)."""

    observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)

    def __init__(self, lengths, terminates, discrete=False):
        self.lengths, self.terminates = np.asarray(lengths), np.asarray(terminates)
        self.action_space = (
            gymnasium.spaces.Discrete(3) if discrete else gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        )
        self.seen = []

    def observe(self, action):
        return np.stack([np.full(self.lengths.shape, self.time, np.float32), action.astype(np.float32)], -1)

    def reset(self, rng):
        self.time = 0
        return self.observe(rng.normal(size=self.lengths.shape))

    def step(self, actions):
        self.time += 1
        self.seen.append(actions)
        action = actions if actions.ndim == 2 else actions[..., 0]
        over = self.time == self.lengths
        return self.observe(action), self.time + 0.0 * self.lengths, over & self.terminates, over & ~self.terminates

    def close(self):
        pass


def network(distribution):
    n = distribution.n_values if isinstance(distribution, Gaussian) else distribution.n_outputs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, n))
    return PolicyNetwork(body, 2, n, 0.1 if isinstance(distribution, Gaussian) else None)


def run(distribution, lengths=((1, 4, 9), (6, 2, 3)), terminates=((True, False, True), (False, True, True)), **options):
    functional = FunctionalModule(network(distribution), None, "all", distribution.n_outputs)
    theta = {k: torch.stack([v, v + 0.5]) for k, v in functional.moving.items()}
    batch = Counting(lengths, terminates, discrete=isinstance(distribution, Categorical))
    rng = options.pop("rng", None) or np.random.default_rng(0)
    found = collect(
        batch,
        BatchedForward(functional.skeleton),
        distribution,
        (theta, {}, functional.constant),
        n_tasks=2,
        n_episodes=3,
        horizon=HORIZON,
        rng=rng,
        **options,
    )
    return found, functional, theta, batch


BOTH = pytest.mark.parametrize("distribution", [Gaussian(1), Categorical(3)], ids=["gaussian", "categorical"])


@BOTH
def test_what_is_recorded_is_what_the_policy_did(distribution):
    found, functional, theta, batch = run(distribution)
    for t in range(2):
        mine = {k: v[t] for k, v in theta.items()}
        for e in range(3):
            n = int(found.mask[t, e].sum())
            output = functional.output(mine, {}, functional.constant, found.observations[t, e, :n])
            torch.testing.assert_close(
                found.log_probs[t, e, :n], distribution.log_prob(output, found.actions[t, e, :n])
            )
            assert found.observations[t, e, :n, 0].tolist() == list(range(n))
            taken = torch.stack([torch.as_tensor(np.asarray(a[t, e], np.float32)).reshape(1) for a in batch.seen[:n]])
            torch.testing.assert_close(found.actions[t, e, :n], taken)


@BOTH
def test_episodes_end_each_at_its_own_time(distribution):
    found, *_ = run(distribution)
    assert found.mask.sum(-1).tolist() == [[1, 4, 6], [6, 2, 3]]
    assert found.terminated.tolist() == [[True, False, False], [False, True, True]]  # 9 steps are more than the horizon
    assert found.last_observations[..., 0].tolist() == [[1, 4, 6], [6, 2, 3]]
    for value in (found.observations, found.actions, found.log_probs, found.rewards):
        assert not value[found.mask == 0].any()
    assert found.returns().tolist() == [[1.0, 10.0, 21.0], [21.0, 3.0, 6.0]]
    assert found.n_steps == 22


@BOTH
def test_a_seed_says_everything(distribution):
    first, again = (run(distribution, rng=np.random.default_rng(5))[0] for _ in range(2))
    other = run(distribution, rng=np.random.default_rng(6))[0]
    for name, value in vars(first).items():
        assert torch.equal(value, vars(again)[name])
    assert not torch.equal(first.observations, other.observations)
    before = torch.random.get_rng_state()
    run(distribution)
    assert torch.equal(before, torch.random.get_rng_state())


def test_most_likely_actions():
    found, functional, theta, _ = run(Gaussian(1), deterministic=True)
    output = functional.output({k: v[0] for k, v in theta.items()}, {}, functional.constant, found.observations[0, 2])
    torch.testing.assert_close(found.actions[0, 2], output[:, :1])


def test_a_filter_changes_what_is_done_and_not_what_was_wanted():
    unsafe = []

    def filtered(observations, actions):
        unsafe.append(observations.shape)
        return np.clip(actions, -0.01, 0.01)

    found, *_, batch = run(Gaussian(1), action_filter=filtered)
    assert all(np.abs(a).max() <= 0.01 for a in batch.seen) and set(unsafe) == {(2, 3, 2)}
    assert found.actions.abs().max() > 0.01


def test_collecting_stops_with_the_last_episode():
    *_, batch = run(Gaussian(1), lengths=((1, 2, 2), (2, 1, 1)))
    assert len(batch.seen) == 2


class Counted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.calls = nn.Linear(2, 2), 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x)


def test_a_pass_is_recorded_once_for_all_parameters():
    module = Counted()
    forward = BatchedForward(module)
    moving = {k: v.detach().expand(1, *v.shape) for k, v in module.named_parameters()}
    x = torch.randn(1, 4, 2, generator=torch.Generator().manual_seed(0))
    run = forward.bind(moving, {}, {}, x)
    expected = module.layer(x).detach()
    torch.testing.assert_close(run(x), expected)
    calls = module.calls
    run(2 * x)
    assert module.calls == calls, "the pass was not recorded"
    other = {k: 2 * v for k, v in moving.items()}
    torch.testing.assert_close(forward.bind(other, {}, {}, x)(x), 2 * expected)


def test_records_are_bounded_and_stay_at_home(monkeypatch):
    """Each number of rows needs one of its own; a policy in a file needs none."""
    import pickle

    from fewshot.applications.rl.learning import rollouts

    monkeypatch.setattr(rollouts, "MAX_RECORDS", 3)
    functional = FunctionalModule(network(Gaussian(1)), None, "all", 2)
    forward = BatchedForward(functional.skeleton)
    theta = {k: v[None] for k, v in functional.moving.items()}
    for n in (1, 2, 3, 4, 5, 4):
        x = torch.randn(1, n, 2)
        expected = functional.output(functional.moving, {}, functional.constant, x[0])
        torch.testing.assert_close(forward.bind(theta, {}, functional.constant, x)(x)[0], expected)
    assert len(forward._recorded) == 3
    size = len(pickle.dumps(BatchedForward(functional.skeleton)))
    assert len(pickle.dumps(forward)) == size
