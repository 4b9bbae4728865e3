"""The policy estimator as its users see it."""

import dataclasses

import gymnasium
import numpy as np
import pytest
import torch
from sklearn.base import clone

import fewshot
from fewshot.applications.rl.environments.point_navigation import PointNavigation
from fewshot.applications.rl.learning.learner import Learner
from fewshot.applications.rl.policy import MAMLPolicy
from fewshot.applications.rl.recorded import RecordedEpisodes
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError, SerializationError

FAMILY = PointNavigation(horizon=15)
SMALL = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}
BUDGET = 3 * 4 * 15 * 2 * 3


@pytest.fixture(scope="module")
def policy():
    return MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=BUDGET)


@pytest.fixture
def env():
    return FAMILY.make((0.4, -0.3))


def weights(policy):
    return torch.cat([p.detach().reshape(-1) for p in policy.module_.parameters()])


# ------------------------------------------------------------------------------------------------ meta-training


def test_the_same_seed_gives_the_same_policy_and_another_one_another(policy):
    again = MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=BUDGET)
    assert torch.equal(weights(policy), weights(again))
    assert policy.history_.drop(columns="seconds").equals(again.history_.drop(columns="seconds"))
    other = MAMLPolicy(**SMALL | {"random_state": 1}).fit_meta(FAMILY, total_env_steps=BUDGET)
    assert not torch.equal(weights(policy), weights(other))


def test_the_budget_is_kept(policy):
    assert policy.n_env_steps_ >= BUDGET > policy.n_env_steps_ - policy.history_["env_steps"].iloc[-1]
    assert policy.n_iter_ == len(policy.history_)
    assert MAMLPolicy(**SMALL).fit_meta(FAMILY, max_time=1e-9).n_iter_ == 1
    assert MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1).n_iter_ == 1


@pytest.mark.parametrize("outer", ["trpo", "ppo", "adam"])
@pytest.mark.parametrize("learn", [None, False, "parameter"])
@pytest.mark.parametrize("order", ["exact", "first"])
def test_every_way_to_train_moves_the_policy(outer, learn, order, monkeypatch):
    fixed = {"inner_steps": 2, "inner_lr": 0.1}  # otherwise calibration moves step sizes as well
    settings = SMALL | fixed | {"outer": outer, "learn_step_sizes": learn, "order": order}
    trained = MAMLPolicy(**settings).fit_meta(FAMILY, total_env_steps=1)
    start = MAMLPolicy(**settings)
    interrupted_at(monkeypatch, Learner, "iterate", 1)
    with pytest.raises(KeyboardInterrupt):
        start.fit_meta(FAMILY)
    assert not torch.equal(weights(trained), weights(start))
    assert {"return_0", "return_1", "return_2"} <= set(trained.history_)
    moved = [(trained._meta.sizes[k] - start._meta.sizes[k]).abs().max() > 0 for k in start._meta.sizes]
    assert all(moved) if learn is not False else not any(moved)


def test_discrete_actions_and_surrogates():
    for surrogate in ("lvc", "dice", "reinforce"):
        policy = MAMLPolicy(**SMALL | {"surrogate": surrogate}).fit_meta("CartPole-v1", total_env_steps=1)
        assert policy.predict(np.zeros(4)) in (0, 1)
        assert policy.predict(np.zeros((5, 4))).shape == (5,)
        assert {str(policy.predict(np.zeros(4), deterministic=False)) for _ in range(30)} == {"0", "1"}


def interrupted_at(monkeypatch, place, name, call):
    """Raise KeyboardInterrupt in one call of a function."""
    original, calls = getattr(place, name), []

    def interrupting(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    monkeypatch.setattr(place, name, interrupting)


@pytest.mark.parametrize("where", ["acting", "meta-gradient", "trust region", "optimiser"])
def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(policy, monkeypatch, where):
    from fewshot.applications.rl.learning import outer_steps, rollouts
    from fewshot.engine import Engine
    from fewshot.training.outer import OuterOptimizer

    place, name = {
        "acting": (rollouts, "encode_observations"),
        "meta-gradient": (Engine, "gradient"),
        "trust region": (outer_steps, "trust_region_step"),
        "optimiser": (OuterOptimizer, "step"),
    }[where]
    going = MAMLPolicy(**SMALL, warm_start=True)
    with monkeypatch.context() as patch:
        interrupted_at(patch, place, name, 2 if where != "acting" else 55)
        with pytest.raises(KeyboardInterrupt):
            going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert going.n_iter_ < policy.n_iter_
    assert going.predict([0.0, 0.0]).shape == (2,)  # usable as it is
    going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert torch.equal(weights(going), weights(policy))
    assert going.history_.drop(columns="seconds").equals(policy.history_.drop(columns="seconds"))


def test_an_interruption_right_after_an_iteration_loses_no_row(policy, monkeypatch):
    going = MAMLPolicy(**SMALL, warm_start=True)
    original = Learner.iterate

    def late(self, rng):
        original(self, rng)
        if self.done == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "iterate", late)
        with pytest.raises(KeyboardInterrupt):
            going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert going.history_["iteration"].tolist() == [1, 2]
    going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert torch.equal(weights(going), weights(policy))
    assert going.history_.drop(columns="seconds").equals(policy.history_.drop(columns="seconds"))


def test_going_on_with_other_settings():
    policy = MAMLPolicy(**SMALL, warm_start=True).fit_meta(FAMILY, total_env_steps=1)
    learner = policy._training.learner
    policy.set_params(max_kl=1e-6, tasks_per_batch=2, outer_lr=0.5).fit_meta(FAMILY, total_env_steps=2000)
    assert policy._training.learner is learner and learner.outer.max_kl == 1e-6 and policy.n_iter_ > 1
    assert 0 < policy.history_["kl"].iloc[1:].max() <= 1e-6
    assert policy.history_["env_steps"].iloc[1] <= 2 * 4 * 15 * 2
    for name, value in (("outer", "adam"), ("order", "first")):
        with pytest.raises(InvalidParameterError, match=f"{name}: got '{value}' to go on with .* that began with"):
            policy.set_params(outer="trpo", order="exact").set_params(**{name: value}).fit_meta(FAMILY, 10**6)


def test_an_environment_that_fails_late_costs_no_training(policy, monkeypatch):
    going = MAMLPolicy(**SMALL, warm_start=True)
    original, calls = PointNavigation.batch, []

    def fail(self, *arguments):
        calls.append(0)
        if len(calls) == 3:
            raise OSError("gone")
        return original(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(PointNavigation, "batch", fail)
        with pytest.raises(OSError, match="gone"):
            going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert going.n_iter_ == 1
    going.fit_meta(FAMILY, total_env_steps=BUDGET)
    assert torch.equal(weights(going), weights(policy))


def test_observations_are_standardised_once(policy, env):
    assert not torch.equal(policy.module_.scale, torch.ones(2))
    adapted = policy.adapt(env, episodes=2)
    assert torch.equal(adapted.module_.scale, policy.module_.scale)
    far = policy.module_(torch.tensor([[1e6, -1e6], [1e9, -1e9]]))
    assert torch.equal(far[0], far[1])  # beyond ten deviations all is equally far
    plain = MAMLPolicy(**SMALL | {"normalise_observations": False}).fit_meta(FAMILY, total_env_steps=1)
    assert torch.equal(plain.module_.scale, torch.ones(2)) and torch.equal(plain.module_.mean, torch.zeros(2))


def test_one_of_several_values_is_not_standardised():
    """A rare one would arrive as a number of its own size."""
    policy = MAMLPolicy(**SMALL).fit_meta("FrozenLake-v1", total_env_steps=1)
    assert torch.equal(policy.module_.scale, torch.ones(16)) and torch.equal(policy.module_.mean, torch.zeros(16))


# ------------------------------------------------------------------------------------------------ adapting


def test_adapting_leaves_the_policy_as_it_was(policy, env):
    before, report = weights(policy), policy.adapt(env, episodes=3, guard=False)
    assert torch.equal(weights(policy), before) and not torch.equal(weights(report), before)
    assert not hasattr(policy, "adaptation_report_")
    again = report.adapt(env, episodes=3, guard=False)
    assert torch.equal(weights(again), weights(report))  # it starts from the initial policy again
    more = policy.adapt(env, episodes=3, steps=3, guard=False)
    assert not torch.equal(weights(more), weights(report)) and more.adaptation_report_.episodes == 9


def test_the_guard_keeps_the_unadapted_policy_where_adapting_does_not_help(policy, env, monkeypatch):
    """With the sign of the step turned round adapting does harm."""
    from fewshot.applications.rl.learning.actor import Actor

    honest = policy.adapt(env, episodes=10)
    assert honest.adaptation_report_.episodes == 20
    original = Actor.step

    def backwards(self, kernels, parameters, theta, support, k):
        stepped = original(self, kernels, parameters, theta, support, k)
        return {name: theta[name] - 30 * (stepped[name] - theta[name]) for name in theta}

    monkeypatch.setattr(Actor, "step", backwards)
    guarded, harmed = policy.adapt(env, episodes=10), policy.adapt(env, episodes=10, guard=False)
    report = guarded.adaptation_report_
    assert not report.kept and report.gain < 0 and report.interval[0] < report.gain < report.interval[1]
    assert "the unadapted policy is kept" in str(report)
    assert torch.equal(weights(guarded), weights(policy)) and not torch.equal(weights(harmed), weights(policy))


def test_the_guard_keeps_the_best_of_several_steps(policy, env, monkeypatch):
    """The second step is made to do harm."""
    from fewshot.applications.rl.learning.actor import Actor

    original = Actor.step

    def harmful(self, kernels, parameters, theta, support, k):
        stepped = original(self, kernels, parameters, theta, support, k)
        return {name: theta[name] + (-30 if k else 1) * (stepped[name] - theta[name]) for name in theta}

    monkeypatch.setattr(Actor, "step", harmful)
    guarded, once = policy.adapt(env, episodes=20, steps=2), policy.adapt(env, episodes=20, guard=False)
    assert guarded.adaptation_report_.step == 1 and guarded.adaptation_report_.kept
    assert torch.equal(weights(guarded), weights(once))


class Told(gymnasium.Env):
    """Rewards whatever is done by the number it was told, and can be told others."""

    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-0.1, 0.1, (2,))
    number = 0.0

    def set_task(self, task):
        self.number = task

    def sample_tasks(self, n):
        return list(self.np_random.uniform(-1, 1, n))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        return np.zeros(2, np.float32), self.number, False, False, {}


def test_an_environment_that_can_be_told_a_task_stays_with_the_one_it_has():
    trained = MAMLPolicy(**SMALL).fit_meta(gymnasium.wrappers.TimeLimit(Told(), 10), total_env_steps=1)
    env = Told()
    env.set_task(0.5)
    np.testing.assert_allclose(trained.evaluate(env, episodes=2), 5.0)
    assert trained.adapt(env, episodes=2).adaptation_report_.before == pytest.approx(5.0)
    with pytest.raises(InvalidParameterError, match="env: got PointNavigation.*expected one gymnasium.Env"):
        trained.evaluate(FAMILY)


def test_test_tasks_drawn_from_the_seed_of_training_are_others(monkeypatch):
    drawn = []
    monkeypatch.setattr(
        PointNavigation, "sample", lambda self, rng: drawn.append(tuple(rng.uniform(size=2))) or drawn[-1]
    )
    MAMLPolicy(**SMALL | {"random_state": 3}).fit_meta(PointNavigation(horizon=3), total_env_steps=1)
    rng = np.random.default_rng(3)
    assert not set(drawn) & {tuple(rng.uniform(size=2)) for _ in range(50)}


def test_a_training_that_fails_leaves_the_policy_as_it_was(policy, env, monkeypatch):
    again = MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1).adapt(env, episodes=2)
    before = again.predict([0.1, 0.1])

    def fail(*arguments):
        raise OSError("no reset")

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "measure_observations", fail)
        with pytest.raises(OSError, match="no reset"):
            again.fit_meta("CartPole-v1", total_env_steps=1)
    assert np.array_equal(again.predict([0.1, 0.1]), before) and again.observation_space_ == FAMILY.observation_space
    again.fit_meta(FAMILY, total_env_steps=1)
    assert not hasattr(again, "adaptation_report_")


def test_a_refit_that_is_broken_off_at_once_leaves_the_policy_as_it_was(env, monkeypatch):
    trained = MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1)
    before = weights(trained)
    interrupted_at(monkeypatch, Learner, "iterate", 1)
    with pytest.raises(KeyboardInterrupt):
        trained.fit_meta(FAMILY, total_env_steps=1)
    assert torch.equal(weights(trained), before) and trained.n_iter_ == 1


def test_threads_do_not_mix_policies(policy, env):
    from concurrent.futures import ThreadPoolExecutor

    policies = [policy, policy.adapt(env, episodes=4, guard=False)]
    expected = [p.predict([0.2, -0.1]) for p in policies]
    assert not np.array_equal(*expected)

    def wrong(i):
        return sum(not np.array_equal(policies[i].predict([0.2, -0.1]), expected[i]) for _ in range(500))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(wrong, [0, 1])) == [0, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rewards": [[0.0, np.nan]]}, "rewards: episode 0 holds values that are not finite"),
        ({"log_probs": [[[0.0], [0.0]]]}, r"log_probs: episode 0 has shape \(2, 1\); expected \(2,\)"),
        ({"raw_actions": [np.zeros((3, 2))]}, "raw_actions: episode 0 has 3 entries and 2 rewards"),
        ({"raw_actions": [np.full((2, 2), np.inf)]}, "raw_actions: episode 0 holds values that are not finite"),
        ({"raw_actions": []}, "raw_actions: got 0 episodes; expected 1"),
    ],
)
def test_recorded_episodes_that_cannot_be_used(change, message):
    good = {"observations": [np.zeros((3, 2))], "actions": [np.zeros((2, 2))], "rewards": [np.ones(2)]}
    good |= {"terminated": [False], "log_probs": [np.zeros(2)], "raw_actions": np.zeros((1, 2, 2))}
    assert len(RecordedEpisodes(**good).trajectories(FAMILY.observation_space, FAMILY.action_space).rewards) == 1
    with pytest.raises(InvalidDataError, match=message):
        RecordedEpisodes(**good | change)


def test_recorded_episodes_give_what_the_environment_gives(policy, env, monkeypatch):
    from fewshot.applications.rl import policy as module

    monkeypatch.setattr(module, "RECORD", module.ADAPT)  # the same random numbers
    recorded = policy.record(env, episodes=6)
    assert len(recorded) == 6 and recorded.actions[0].shape[1:] == (2,)
    direct = policy.adapt(env, episodes=6, guard=False)
    torch.testing.assert_close(weights(policy.adapt(recorded)), weights(direct))
    assert "nothing was judged" in str(policy.adapt(recorded).adaptation_report_)


def test_actions_can_be_filtered_while_adapting(policy, env):
    seen = []

    def careful(observations, actions):
        seen.append(actions.shape)
        return np.clip(actions, -0.01, 0.01)

    policy.adapt(env, episodes=3, action_filter=careful)
    assert set(seen) == {(1, 3, 2)}


def test_what_a_filter_returns_is_checked(policy, env):
    for call in (policy.adapt, policy.evaluate, policy.record):
        with pytest.raises(InvalidParameterError, match="action_filter: got int; expected a function"):
            call(env, episodes=2, action_filter=3)
        with pytest.raises(
            InvalidParameterError, match=r"action_filter: returned object of shape \(\); expected float32"
        ):
            call(env, episodes=2, action_filter=lambda observations, actions: None)
    discrete = MAMLPolicy(**SMALL).fit_meta("CartPole-v1", total_env_steps=1)
    with pytest.raises(InvalidParameterError, match="action_filter: returned float64 of shape .* expected int64"):
        discrete.evaluate(gymnasium.make("CartPole-v1"), 2, action_filter=lambda observations, actions: 0.5 * actions)


def test_filtered_actions_are_those_of_the_environment(policy, env):
    def still(observations, actions):
        actions[...] = 0  # in place, which is none of the policy's business
        return actions

    np.testing.assert_allclose(policy.evaluate(env, 3, action_filter=still), -15 * 0.5, rtol=1e-5)
    recorded = policy.record(env, 3, action_filter=still)
    np.testing.assert_allclose(np.stack(recorded.rewards), -0.5, rtol=1e-5)
    assert np.abs(np.stack(recorded.raw_actions)).min() > 0


def test_log_probabilities_of_another_policy_or_in_other_units_are_noticed(policy, env):
    recorded = policy.record(env, episodes=4)
    policy.adapt(recorded)  # no warning, which would be an error
    other_units = [p - 2 * np.log(0.1) for p in recorded.log_probs]
    with pytest.warns(
        UserWarning, match=r"log_probs: got values that differ from .* by 4.6 \(median\), a factor of 1e\+02"
    ):
        policy.adapt(dataclasses.replace(recorded, log_probs=other_units))
    trained = MAMLPolicy(**SMALL | {"random_state": 5, "log_std": 1.5}).fit_meta(FAMILY, total_env_steps=1)
    with pytest.warns(UserWarning, match="expected episodes of the policy before adapting"):
        policy.adapt(trained.record(env, episodes=4))


def test_a_vector_environment_will_do(policy):
    envs = gymnasium.vector.SyncVectorEnv([lambda: FAMILY.make((0.4, -0.3))] * 4)
    assert policy.evaluate(envs, episodes=6).shape == (6,)
    assert policy.adapt(envs, episodes=6).predict([0.0, 0.0]).shape == (2,)


# ------------------------------------------------------------------------------------------------ acting


def test_actions_stay_within_bounds(policy):
    far = policy.predict([[50.0, -50.0], [0.0, 0.0]], deterministic=False)
    assert (np.abs(far) <= 0.1 + 1e-9).all() and far.dtype == np.float32
    assert policy.predict([0.0, 0.0]).shape == (2,)


def test_evaluating_is_a_function_of_the_seed(policy, env):
    first, again = policy.evaluate(env, episodes=4), policy.evaluate(env, episodes=4)
    assert first.shape == (4,) and np.array_equal(first, again) and first.std() > 0
    assert policy.evaluate(env, episodes=4, deterministic=True).std() == 0  # nothing random is left in it


def test_module_is_a_plain_network_that_acts_alike(policy, env):
    adapted = policy.adapt(env, episodes=3, guard=False)
    x = torch.tensor([[0.1, -0.2]])
    mean = adapted.module_(x)[:, :2].detach().numpy()
    np.testing.assert_allclose(np.clip(0.1 * mean, -0.1, 0.1), adapted.predict(x.numpy()), rtol=1e-5)


# ------------------------------------------------------------------------------------------------ contract


def test_parameters_clone_and_repr(policy):
    copy = clone(policy)
    assert copy.get_params() == policy.get_params() and not hasattr(copy, "n_iter_")
    assert repr(MAMLPolicy(max_kl=0.5)) == "MAMLPolicy(max_kl=0.5)"


@pytest.mark.parametrize("call", ["adapt", "predict", "evaluate", "record"])
def test_nothing_works_before_fitting(call, env):
    argument = [0.0, 0.0] if call == "predict" else env
    with pytest.raises(NotFittedError, match=f"{call}: this MAMLPolicy is not meta-trained yet; call fit_meta first"):
        getattr(MAMLPolicy(), call)(argument)


class Deciding(torch.nn.Module):
    """Takes one of two ways by what it sees."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x) if x.sum() > 0 else self.layer(-x)


def test_a_network_in_double_precision_acts_in_single():
    policy = MAMLPolicy(torch.nn.Linear(2, 2).double(), tasks_per_batch=3, episodes=4, random_state=0)
    policy.fit_meta(FAMILY, total_env_steps=1)
    assert policy.predict([0.1, 0.2]).dtype == np.float32
    assert {p.dtype for p in policy.module_.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outer": "sgd"}, "outer: got 'sgd'; expected one of 'trpo', 'ppo', 'adam'"),
        ({"order": "second"}, "order: got 'second'"),
        ({"surrogate": "lcv"}, "surrogate: got 'lcv'"),
        ({"episodes": 0}, "episodes: got 0"),
        ({"tasks_per_batch": 2.5}, "tasks_per_batch: got 2.5"),
        ({"max_kl": -1}, "max_kl: got -1"),
        ({"discount": 1.5}, "discount: got 1.5"),
        ({"inner_lr": 0}, "inner_lr: got 0"),
        ({"engine": "fast"}, "engine: got 'fast'"),
        ({"activation": "cosine"}, "activation: got 'cosine'"),
        ({"random_state": -1}, "random_state: got -1; expected an integer of at least 0"),
        ({"random_state": 1.5}, "random_state: got 1.5"),
        ({"log_std": "x"}, "log_std: got 'x'; expected a finite number above -6.9"),
        ({"log_std": -8}, "log_std: got -8; expected a finite number above -6.9"),
        ({"clip": 0}, "clip: got 0; expected a number above 0"),
        ({"inner_lr": np.inf}, "inner_lr: got inf"),
        (
            {"module": torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, 2))},
            "module: got one with batch norm",
        ),
        ({"module": torch.nn.Linear(2, 3)}, r"module: returned \(3, 3\) for 3 observations; expected \(3, 2\)"),
        ({"module": torch.nn.LSTM(2, 2)}, r"module: returned tuple for 3 observations"),
        (
            {"module": torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))},
            "module: got one that cannot act in several environments at once .* leave out dropout",
        ),
        ({"module": Deciding()}, "module: got one that cannot act in several environments at once"),
    ],
)
def test_settings_that_cannot_be_used_are_named(settings, message):
    with pytest.raises(InvalidParameterError, match=message) as error:
        MAMLPolicy(**SMALL | settings).fit_meta(FAMILY, total_env_steps=1)
    assert "\n" not in str(error.value)


def test_calls_that_cannot_be_used_are_named(policy, env):
    with pytest.raises(InvalidParameterError, match="total_env_steps: got -1"):
        MAMLPolicy().fit_meta(FAMILY, total_env_steps=-1)
    with pytest.raises(InvalidParameterError, match="max_time: got 'long'"):
        MAMLPolicy().fit_meta(FAMILY, max_time="long")
    with pytest.raises(InvalidParameterError, match="episodes: got 0"):
        policy.adapt(env, episodes=0)
    with pytest.raises(InvalidParameterError, match="steps: got 1.5"):
        policy.adapt(env, steps=1.5)
    with pytest.raises(InvalidParameterError, match="steps: got 2 with recorded episodes; expected 1"):
        policy.adapt(policy.record(env, 2), steps=2)
    with pytest.raises(InvalidDataError, match="env: its observation_space is Box"):
        policy.adapt(gymnasium.make("CartPole-v1"))
    with pytest.raises(InvalidDataError, match="obs"):
        policy.predict(np.zeros((2, 3, 2)))


def episodes(**changes):
    found = {
        "observations": [np.zeros((4, 2))],
        "actions": [np.zeros((3, 2))],
        "rewards": [np.ones(3)],
        "terminated": [True],
        "log_probs": [np.zeros(3)],
    }
    return RecordedEpisodes(**found | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"log_probs": None}, "log_probs: got None; expected the log-probability of every action"),
        ({"observations": [np.zeros((3, 2))]}, "observations: episode 0 has 3 entries and 3 rewards; expected 4"),
        ({"actions": []}, "actions: got 0 episodes; expected 1"),
        ({"log_probs": [np.full(3, np.nan)]}, "log_probs: episode 0 holds values that are not finite"),
    ],
)
def test_recorded_episodes_are_checked(changes, message):
    assert len(episodes()) == 1
    with pytest.raises(InvalidDataError, match=message):
        episodes(**changes)


# ------------------------------------------------------------------------------------------------ files


@pytest.mark.parametrize("adapted", [False, True])
def test_a_saved_policy_acts_and_adapts_alike(policy, env, tmp_path, adapted):
    model = policy.adapt(env, episodes=3) if adapted else policy
    fewshot.save(model, tmp_path / "policy")
    loaded = fewshot.load(tmp_path / "policy")
    assert loaded.get_params() == model.get_params()
    assert np.array_equal(loaded.predict([[0.1, 0.2]]), model.predict([[0.1, 0.2]]))
    assert np.array_equal(loaded.evaluate(env, 3), model.evaluate(env, 3))
    assert torch.equal(weights(loaded.adapt(env, episodes=3)), weights(model.adapt(env, episodes=3)))
    assert loaded.history_.equals(model.history_)
    assert not adapted or loaded.adaptation_report_ == model.adaptation_report_
    fresh = MAMLPolicy(max_kl=0.2)
    fewshot.save(fresh, tmp_path / "fresh")
    assert fewshot.load(tmp_path / "fresh").get_params() == fresh.get_params()


def test_a_network_of_ones_own_is_handed_over(tmp_path):
    def own(n_in, n_out):
        return torch.nn.Linear(n_in, n_out)

    policy = MAMLPolicy(own, **{k: v for k, v in SMALL.items() if k != "hidden"}).fit_meta(FAMILY, total_env_steps=1)
    fewshot.save(policy, tmp_path / "policy")
    loaded = fewshot.load(tmp_path / "policy", module=own)
    assert np.array_equal(loaded.predict([0.1, 0.2]), policy.predict([0.1, 0.2]))
    with pytest.raises(SerializationError, match="module: its parameters are not those"):
        fewshot.load(tmp_path / "policy", module=lambda n_in, n_out: torch.nn.Linear(n_in, n_out, bias=False))
