"""Generalised advantage estimation against its definition, one episode after another in plain Python."""

import numpy as np
import pytest
import torch

from fewshot.applications.rl.learning.advantages import RIDGE, advantages, linear_baseline, returns_to_go
from fewshot.applications.rl.learning.trajectories import Trajectories

F64 = torch.float64
DISCOUNT, TRACE = 0.9, 0.8


@pytest.fixture
def found():
    """Two tasks, three episodes of unequal length, some cut off and some ended."""
    g = torch.Generator().manual_seed(0)
    lengths = torch.tensor([[7, 3, 1], [5, 7, 2]])
    mask = (torch.arange(7) < lengths[..., None]).to(F64)

    def draw(*shape):
        return torch.randn(2, 3, *shape, generator=g, dtype=F64)

    return Trajectories(
        draw(7, 2) * mask[..., None],
        draw(7, 1) * mask[..., None],
        draw(7) * mask,
        draw(7) * mask,
        mask,
        torch.tensor([[False, True, True], [True, False, False]]),
        draw(2),
    )


def episodes(found, t):
    for e in range(found.rewards.shape[1]):
        n = int(found.mask[t, e].sum())
        yield e, n, found.observations[t, e, :n].numpy(), found.rewards[t, e, :n].numpy()


def features(x, time, seen):
    x = (x - seen.mean(0)) / seen.std(0)
    time = np.asarray(time, dtype=float).reshape(-1, 1) / 7
    return np.concatenate([x, x**2, time, time**2, time**3, np.ones_like(time)], 1)


def plain_returns(rewards, discount):
    return np.array([sum(discount**k * r for k, r in enumerate(rewards[t:])) for t in range(len(rewards))])


def test_returns_to_go(found):
    got = returns_to_go(found.rewards, DISCOUNT)
    for t in range(2):
        for e, n, _, rewards in episodes(found, t):
            np.testing.assert_allclose(got[t, e, :n], plain_returns(rewards, DISCOUNT))


def test_the_baseline_is_a_ridge_regression_of_each_task(found):
    values, last = linear_baseline(found, DISCOUNT)
    for t in range(2):
        seen = np.concatenate([x for _, _, x, _ in episodes(found, t)])
        phi = np.concatenate([features(x, range(n), seen) for _, n, x, _ in episodes(found, t)])
        target = np.concatenate([plain_returns(r, DISCOUNT) for *_, r in episodes(found, t)])
        gram = phi.T @ phi
        weights = np.linalg.solve(gram + RIDGE * np.diag(np.diag(gram)), phi.T @ target)
        for e, n, x, _ in episodes(found, t):
            np.testing.assert_allclose(values[t, e, :n], features(x, range(n), seen) @ weights, rtol=1e-6)
            assert not values[t, e, n:].any()
            after = features(found.last_observations[t, e].numpy()[None], [n], seen) @ weights
            np.testing.assert_allclose(last[t, e], after[0], rtol=1e-6)


@pytest.mark.parametrize("horizon", [20, 1000, 3000])
def test_neither_units_nor_long_episodes_spoil_the_baseline(horizon):
    """Returns are a parabola of a position far from 0, which a baseline of squares can learn whatever the horizon."""
    g = torch.Generator().manual_seed(0)
    x = 200 + 30 * torch.randn(1, 4, horizon, 1, generator=g, dtype=F64)
    mask, nothing = torch.ones(1, 4, horizon, dtype=F64), torch.zeros(1, 4, dtype=torch.bool)
    rewards = (x[..., 0] - 190) ** 2
    values, last = linear_baseline(Trajectories(x, x, mask, rewards, mask, nothing, x[:, :, -1]), 0.0)
    torch.testing.assert_close(values, rewards, rtol=1e-3, atol=1.0)
    torch.testing.assert_close(last, rewards[..., -1], rtol=1e-3, atol=1.0)
    x, rewards, mask = (torch.cat([v, torch.zeros_like(v)], 2) for v in (x, rewards, mask))
    padded = Trajectories(x, x, mask, rewards, mask, nothing, x[:, :, horizon - 1])
    torch.testing.assert_close(linear_baseline(padded, 0.0)[0][:, :, :horizon], values)


def test_advantages_by_their_definition(found):
    """Where an episode is cut off the last observation's value follows; where it ends, nothing."""
    values, last = linear_baseline(found, DISCOUNT)
    got = advantages(found, discount=DISCOUNT, trace=TRACE, standardise=False)
    for t in range(2):
        for e, n, _, rewards in episodes(found, t):
            v = [*values[t, e, :n].tolist(), 0.0 if found.terminated[t, e] else float(last[t, e])]
            errors = [rewards[k] + DISCOUNT * v[k + 1] - v[k] for k in range(n)]
            expected = [sum((DISCOUNT * TRACE) ** (j - k) * errors[j] for j in range(k, n)) for k in range(n)]
            np.testing.assert_allclose(got[t, e, :n], expected, rtol=1e-6, atol=1e-9)
            assert not got[t, e, n:].any()


def test_standardised_advantages_have_mean_0_and_deviation_1_in_each_task(found):
    got = advantages(found)
    for t in range(2):
        real = got[t][found.mask[t] > 0]
        assert abs(float(real.mean())) < 1e-9
        assert float((real**2).mean()) == pytest.approx(1.0)
        assert not got[t][found.mask[t] == 0].any()


def test_tasks_do_not_touch_each_other(found):
    both = advantages(found)
    for t in range(2):
        torch.testing.assert_close(advantages(found.task(t)), both[t : t + 1])
    torch.testing.assert_close(advantages(Trajectories.join([found.task(0), found.task(1)])), both)


def test_wide_observations_leave_a_baseline_of_time(found, monkeypatch):
    from fewshot.applications.rl.learning import advantages as module

    without = Trajectories(
        **{**vars(found), "observations": found.observations[..., :0], "last_observations": torch.zeros(2, 3, 0)}
    )
    expected = linear_baseline(without, DISCOUNT)
    assert not torch.allclose(linear_baseline(found, DISCOUNT)[0], expected[0])
    monkeypatch.setattr(module, "WIDEST", 1)
    torch.testing.assert_close(linear_baseline(found, DISCOUNT), expected)
