"""Callbacks of meta-training: one round is one iteration."""

import numpy as np
import pytest

from fewshot.applications.rl import MAMLPolicy, PointNavigation

FAMILY = PointNavigation(horizon=10)
SMALL = {"tasks_per_batch": 3, "episodes": 4, "hidden": (8,), "random_state": 0}


class Watching:
    """Notes what happens; may stop training, or interrupt it, after some rounds."""

    def __init__(self, stop_after=None, interrupt_after=None):
        self.events, self.histories = [], []
        self.stop_after, self.interrupt_after = stop_after, interrupt_after

    def setup(self, estimator, context):
        self.events.append("setup")

    def on_fit_task_begin(self, estimator, context):
        self.events.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, fitted_estimator):
        self.events.append(f"end {context.task_name}")
        if context.task_name == "round":
            self.histories.append(fitted_estimator.history_)
            fitted_estimator.predict(np.zeros(2))
            fitted_estimator.evaluate(FAMILY.make((0.1, 0.2)), episodes=1)
        if len(self.histories) == self.interrupt_after:
            raise KeyboardInterrupt
        return len(self.histories) == self.stop_after

    def teardown(self, estimator, context):
        self.events.append("teardown")


def same(one, other):
    return one._meta.flat().keys() == other._meta.flat().keys() and all(
        np.array_equal(value, other._meta.flat()[name]) for name, value in one._meta.flat().items()
    )


def test_rounds_are_iterations_and_change_nothing():
    plain = MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1000)
    watching = Watching()
    policy = MAMLPolicy(**SMALL).set_callbacks(watching).fit_meta(FAMILY, total_env_steps=1000)
    n = policy.n_iter_
    assert n > 2 and same(policy, plain)
    assert watching.events == ["setup", "begin fit", *["begin round", "end round"] * n, "end fit", "teardown"]
    assert [len(h) for h in watching.histories] == list(range(1, n + 1))
    assert policy.history_.drop(columns="seconds").equals(watching.histories[-1].drop(columns="seconds"))


def test_a_callback_stops_training():
    policy = MAMLPolicy(**SMALL).set_callbacks(Watching(stop_after=2)).fit_meta(FAMILY, total_env_steps=100_000)
    assert policy.n_iter_ == len(policy.history_) == 2


def test_interrupted_in_a_callback_it_goes_on():
    whole = MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1000)
    watching = Watching(interrupt_after=2)
    policy = MAMLPolicy(warm_start=True, **SMALL).set_callbacks(watching)
    with pytest.raises(KeyboardInterrupt):
        policy.fit_meta(FAMILY, total_env_steps=1000)
    assert policy.n_iter_ == 2 and watching.events[-1] == "teardown"
    policy.set_callbacks().fit_meta(FAMILY, total_env_steps=1000)
    assert policy.n_iter_ == whole.n_iter_ and same(policy, whole)


def test_silent_by_default_and_a_bar_on_request(capsys):
    MAMLPolicy(**SMALL).fit_meta(FAMILY, total_env_steps=1)
    out = capsys.readouterr()
    assert not out.out and not out.err
    policy = MAMLPolicy(verbose=1, **SMALL).fit_meta(FAMILY, total_env_steps=1)
    out = capsys.readouterr()
    assert "MAMLPolicy - fit" in out.out + out.err
    assert not getattr(policy, "_skl_callbacks", [])
