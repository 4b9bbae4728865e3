"""The parameters to keep where a training loses what it has learned."""

import math

import numpy as np
import pytest
import torch

from fewshot.applications.rl import MAMLPolicy, PointNavigation
from fewshot.applications.rl.learning import decline as module
from fewshot.applications.rl.learning.decline import WINDOW, Decline
from fewshot.applications.rl.learning.learner import Iteration, Learner


def after(returns):
    found = Decline()
    for k, value in enumerate(returns):
        found.update(value, k, k + 1)  # the parameters are passed through
    return found


def noise(n, seed=0):
    return np.random.default_rng(seed).normal(size=n)


def test_a_fall_is_seen_and_the_best_stretch_is_kept():
    found = after(
        np.concatenate([np.linspace(-40, -10, 100), np.full(20, -10.0), np.linspace(-10, -15, 60)]) + noise(180)
    )
    assert found.has_come() and 100 <= found.iteration <= 130
    assert found.parameters == found.iteration - 1
    assert found.mean == pytest.approx(-10, abs=1)


@pytest.mark.parametrize("seed", range(20))
def test_noise_is_no_fall(seed):
    assert not after(noise(300, seed)).has_come()


def test_growth_is_no_fall():
    found = after(np.linspace(-40, -10, 100) + noise(100))
    assert not found.has_come() and found.iteration > 90


def test_few_iterations_tell_nothing():
    found = after(np.linspace(0, -100, WINDOW - 1))
    assert not found.has_come() and found.parameters is None


def test_skipped_iterations_are_no_measure():
    found = after([1.0] * WINDOW + [math.nan] * 3)
    assert not found.has_come() and found.iteration == WINDOW


def test_training_gives_back_the_parameters_from_before_the_fall(monkeypatch, caplog):
    """Returns are made up: they rise until the fourth iteration and fall then."""
    monkeypatch.setattr(module, "WINDOW", 2)
    seen, original = [], Learner.iterate

    def iterate(self, rng):
        seen.append({name: value.clone() for name, value in self.parameters.moving.items()})
        original(self, rng)
        made_up = -abs(self.done - 4.0)
        self.last = Iteration([0.0, made_up], self.last.env_steps, self.last.loss, self.last.kl)

    monkeypatch.setattr(Learner, "iterate", iterate)
    family = PointNavigation(horizon=5)
    policy = MAMLPolicy(hidden=(4,), tasks_per_batch=2, episodes=2, warm_start=True, random_state=0)
    policy.fit_meta(family, total_env_steps=190)
    assert policy.n_iter_ == 5 and not caplog.records  # 4, 5: as good as 3, 4
    policy.fit_meta(family, total_env_steps=400)
    assert policy.n_iter_ > 8
    assert "has fallen since iteration 4" in caplog.text
    for name, value in policy._meta.moving.items():
        assert torch.equal(value, seen[3][name]) and not torch.equal(value, seen[-1][name])
    assert len(policy.history_) == policy.n_iter_  # nothing else is lost
    before = len(seen)
    policy.fit_meta(family, total_env_steps=policy.n_env_steps_ + 1)  # going on goes on from the last parameters
    assert not torch.equal(seen[before]["log_std"], seen[3]["log_std"])
