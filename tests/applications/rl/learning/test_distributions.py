"""Distributions of actions against torch.distributions."""

import pytest
import torch
import torch.distributions as D

from fewshot.applications.rl.learning.distributions import Categorical, Gaussian

F64 = torch.float64


def outputs(distribution, seed=0):
    return torch.randn(5, 3, distribution.n_outputs, generator=torch.Generator().manual_seed(seed), dtype=F64)


def reference(distribution, output):
    if isinstance(distribution, Categorical):
        return D.Categorical(logits=output)
    mean, log_std = output.chunk(2, -1)
    return D.Independent(D.Normal(mean, log_std.exp()), 1)


@pytest.mark.parametrize("distribution", [Gaussian(1), Gaussian(3), Categorical(2), Categorical(5)], ids=str)
def test_against_torch(distribution):
    output, other = outputs(distribution), outputs(distribution, 1)
    expected = reference(distribution, output)
    action = expected.sample()
    raw = action.unsqueeze(-1).to(F64) if isinstance(distribution, Categorical) else action
    torch.testing.assert_close(distribution.log_prob(output, raw), expected.log_prob(action))
    torch.testing.assert_close(
        distribution.kl(output, other), D.kl_divergence(expected, reference(distribution, other))
    )
    assert not distribution.kl(output, output).abs().max() > 1e-12
    assert distribution.mode(output).shape == (5, 3, distribution.n_values)


def test_draws_follow_the_distribution():
    g = torch.Generator().manual_seed(0)
    n = 200_000
    gaussian = Gaussian(2)
    output = torch.tensor([1.0, -2.0, 0.5, -1.0])
    drawn = gaussian.sample(output.expand(n, 4), gaussian.noise((n,), g))
    torch.testing.assert_close(drawn.mean(0), output[:2], rtol=0, atol=0.02)
    torch.testing.assert_close(drawn.std(0), output[2:].exp(), rtol=0.02, atol=0)
    categorical = Categorical(3)
    logits = torch.tensor([0.0, 1.0, -1.0])
    codes = categorical.sample(logits.expand(n, 3), categorical.noise((n,), g)).long().squeeze(-1)
    torch.testing.assert_close(torch.bincount(codes) / n, logits.softmax(0), rtol=0, atol=0.01)


def test_the_same_generator_draws_the_same():
    for distribution in (Gaussian(2), Categorical(3)):
        a, b = (distribution.noise((4,), torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b)
