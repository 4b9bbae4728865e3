"""Trainings that go on: after an interruption, from a file or a copy, and with numbers that are none."""

import copy
import logging
import pickle

import numpy as np
import pytest
import torch

import fewshot
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.policy import MAMLPolicy
from fewshot.engine import Engine
from fewshot.errors import DivergenceError, InvalidParameterError

FAMILY = PointNavigation(horizon=15)
SMALL = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}
BUDGET = 3 * 4 * 15 * 2 * 3
MORE = 10 * BUDGET


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL, warm_start=True).fit_meta(FAMILY, total_env_steps=BUDGET)


def weights(policy):
    return torch.cat([p.detach().reshape(-1) for p in policy.module_.parameters()])


def saved_and_loaded(policy, folder):
    fewshot.save(policy, folder / "policy")
    return fewshot.load(folder / "policy")


COPIES = {
    "file": saved_and_loaded,
    "pickle": lambda policy, _: pickle.loads(pickle.dumps(policy)),
    "deepcopy": lambda policy, _: copy.deepcopy(policy),
    "adapted": lambda policy, _: policy.adapt(FAMILY.make((0.4, -0.3)), episodes=3),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_goes_on_from_where_the_policy_is(policy, how, tmp_path, monkeypatch):
    drawn = []
    original = PointNavigation.sample
    monkeypatch.setattr(
        PointNavigation, "sample", lambda self, rng: drawn.append(tuple(original(self, rng))) or drawn[-1]
    )
    MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=BUDGET)
    first, other = set(drawn), COPIES[how](policy, tmp_path)
    scale, start = policy.module_.scale.clone(), weights(policy)
    drawn.clear()
    other.set_params(outer_lr=1e-30, max_kl=1e-30).fit_meta(FAMILY, total_env_steps=policy.n_env_steps_ + 1)
    torch.testing.assert_close(weights(other), start)  # with steps of no length it stays there
    assert other.n_iter_ == policy.n_iter_ + 1 and other.n_env_steps_ > policy.n_env_steps_
    assert other.history_["iteration"].tolist() == list(range(1, other.n_iter_ + 1))
    assert other.history_.iloc[:-1].equals(policy.history_)
    assert torch.equal(other.module_.scale, scale) and not hasattr(other, "adaptation_report_")
    assert len(drawn) == 3 and not first & set(drawn)  # other tasks than those that it has seen
    other.set_params(outer_lr=0.01, max_kl=0.02).fit_meta(FAMILY, total_env_steps=MORE)
    assert not torch.equal(weights(other), start) and torch.equal(weights(policy), start)


OF_THE_POLICY = {
    "surrogate": "dice",
    "hidden": (9,),
    "discount": 0.5,
    "inner_lr": 0.3,
    "inner_steps": 2,
    "module": torch.nn.Linear(2, 2),
    "normalise_observations": False,
}
OF_A_TRAINING = {
    "engine": "loop",
    "outer": "adam",
    "order": "first",
}  # a copy begins one of its own, by other means if wanted


@pytest.mark.parametrize(
    ("name", "copied"),
    [(name, copied) for copied in (False, True) for name in OF_THE_POLICY] + [(name, False) for name in OF_A_TRAINING],
)
def test_what_a_policy_is_made_of_cannot_change_on_the_way(policy, name, copied):
    other = copy.deepcopy(policy) if copied else MAMLPolicy(**SMALL, warm_start=True).fit_meta(FAMILY, 1)
    n_iter = other.n_iter_
    other.set_params(**{name: (OF_THE_POLICY | OF_A_TRAINING)[name]})
    with pytest.raises(InvalidParameterError, match=f"{name}: got .* to go on with a training that began with"):
        other.fit_meta(FAMILY, total_env_steps=MORE)
    assert other.n_iter_ == n_iter and other.predict([0.0, 0.0]).shape == (2,)


def test_a_copy_may_go_on_by_other_means(policy):
    other = copy.deepcopy(policy).set_params(**OF_A_TRAINING)
    assert other.fit_meta(FAMILY, total_env_steps=policy.n_env_steps_ + 1).n_iter_ == policy.n_iter_ + 1


def test_hidden_may_be_a_list(policy):
    other = copy.deepcopy(policy).set_params(hidden=[8])
    assert other.fit_meta(FAMILY, total_env_steps=policy.n_env_steps_ + 1).n_iter_ == policy.n_iter_ + 1


def test_environments_to_go_on_in_may_differ_in_bounds_of_observations_alone(policy):
    other = copy.deepcopy(policy).fit_meta(PointNavigation(horizon=20), total_env_steps=MORE)
    assert other.horizon_ == 20
    with pytest.raises(InvalidParameterError, match="family: its observation_space is .*pass warm_start=False"):
        other.fit_meta("CartPole-v1", total_env_steps=10 * MORE)


def test_settings_changed_after_training_change_neither_adapting_nor_files(policy, tmp_path):
    env = FAMILY.make((0.4, -0.3))
    expected = weights(policy.adapt(env, episodes=3, guard=False))
    changed = copy.deepcopy(policy).set_params(hidden=(16,), surrogate="dice", discount=0.2, inner_lr=5.0)
    assert torch.equal(weights(changed.adapt(env, episodes=3, guard=False)), expected)
    loaded = saved_and_loaded(changed, tmp_path)
    assert torch.equal(weights(loaded.adapt(env, episodes=3, guard=False)), expected)
    assert loaded.get_params() == changed.get_params()


# ------------------------------------------------------------------------------------------------ numbers that are none


def spoilt(monkeypatch, which):
    """Make some of the meta-gradients useless."""
    original, calls = Engine.gradient, []

    def gradient(self, *arguments):
        found = original(self, *arguments)
        calls.append(0)
        if which(len(calls)):
            found.vector[3] = float("nan")
        return found

    monkeypatch.setattr(Engine, "gradient", gradient)


@pytest.mark.parametrize("outer", ["trpo", "ppo", "adam"])
def test_an_iteration_without_a_gradient_is_skipped_and_said_so(outer, monkeypatch, caplog):
    spoilt(monkeypatch, lambda n: n == 1)
    with caplog.at_level(logging.WARNING, "fewshot"):
        trained = MAMLPolicy(**SMALL, outer=outer, inner_lr=0.1).fit_meta(FAMILY, total_env_steps=BUDGET)
    assert [r.getMessage() for r in caplog.records] == ["iteration 1 is skipped: the meta-gradient is not finite"]
    assert trained.n_iter_ == 3 and trained.history_["loss"].isna().tolist() == [True, False, False]
    assert np.isfinite(trained.predict([0.0, 0.0])).all()


def test_training_gives_up_where_no_gradient_is_finite(monkeypatch):
    spoilt(monkeypatch, lambda n: True)
    trained = MAMLPolicy(**SMALL)
    with pytest.raises(DivergenceError, match="inner_lr, outer_lr: the meta-gradient is not finite in 26 iterations"):
        trained.fit_meta(FAMILY, total_env_steps=100 * BUDGET)
    assert trained.n_iter_ == 25 and trained.predict([0.0, 0.0]).shape == (2,)


def test_a_step_size_that_ruins_the_parameters_is_named():
    """Not the environment, which would be given actions that are no numbers."""
    ruined = MAMLPolicy(**SMALL, inner_lr=1e38, learn_step_sizes=False, normalise_observations=False, log_std=-6.0)
    with pytest.raises(
        DivergenceError, match="inner_lr, outer_lr: .* is not finite after an inner step in 26 iterations"
    ):
        ruined.fit_meta(FAMILY, total_env_steps=100 * BUDGET)
    assert ruined.history_["return_1"].isna().all()
    with pytest.raises(DivergenceError, match="env: got episodes from which .* is not finite after an inner step"):
        ruined.adapt(FAMILY.make((0.4, -0.3)), episodes=3)
