"""The adapter for Stable-Baselines3: what its tools get is what the policy gives."""

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Discrete

from fewshot.applications.rl import MAMLPolicy, PointNavigation, SB3Policy
from fewshot.errors import InvalidParameterError, NotFittedError

SMALL = {"tasks_per_batch": 2, "episodes": 3, "hidden": (8,), "random_state": 0}
FAMILY = PointNavigation(horizon=15)


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1)


def test_actions_are_the_policys(policy):
    model = SB3Policy(policy)
    seen = np.random.default_rng(0).normal(size=(4, 2))
    actions, state = model.predict(seen, state="kept", episode_start=np.ones(4, bool), deterministic=True)
    np.testing.assert_array_equal(actions, policy.predict(seen))
    assert state == "kept" and model.predict(seen[0], deterministic=True)[0].shape == (2,)
    assert (model.predict(seen)[0] != actions).any()  # drawn, as Stable-Baselines3 does by default
    assert (model.observation_space, model.action_space) == (FAMILY.observation_space, FAMILY.action_space)


def test_evaluate_policy_finds_the_returns_of_evaluate(policy):
    """Without anything random in it, both play the same episode."""
    evaluation = pytest.importorskip(
        "stable_baselines3.common.evaluation", reason="stable-baselines3 is not installed: pip install 'fewshot[sb3]'"
    )
    from stable_baselines3.common.monitor import Monitor

    env = FAMILY.make((0.4, -0.3))
    adapted = policy.adapt(env, episodes=3, guard=False)
    returns, lengths = evaluation.evaluate_policy(
        SB3Policy(adapted), Monitor(env), n_eval_episodes=3, return_episode_rewards=True
    )
    np.testing.assert_allclose(returns, adapted.evaluate(env, episodes=3, deterministic=True), rtol=1e-5)
    assert lengths == [15] * 3


class Corridor(gymnasium.Env):
    """Five places in a row; discrete observations and actions, neither counted from 0."""

    observation_space, action_space = Discrete(5, start=1), Discrete(2, start=3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 3
        return self.place, {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place += 1 if action == 4 else -1
        return self.place, float(self.place), self.place in (1, 5), False, {}


def test_discrete_spaces_in_a_vector_environment():
    evaluation = pytest.importorskip(
        "stable_baselines3.common.evaluation", reason="stable-baselines3 is not installed: pip install 'fewshot[sb3]'"
    )
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    def limited():  # without a limit, a policy that walks to and fro would walk for ever
        return gymnasium.wrappers.TimeLimit(Corridor(), 9)

    policy = MAMLPolicy(**SMALL).fit_meta(limited(), total_env_steps=1)
    mean, _ = evaluation.evaluate_policy(SB3Policy(policy), VecMonitor(DummyVecEnv([limited] * 3)), n_eval_episodes=6)
    assert 1 <= mean <= 45


def test_what_cannot_be_used_is_named(policy):
    with pytest.raises(InvalidParameterError, match="policy: got str; expected a MAMLPolicy"):
        SB3Policy("ppo")
    with pytest.raises(NotFittedError, match="SB3Policy: this MAMLPolicy is not meta-trained"):
        SB3Policy(MAMLPolicy())
