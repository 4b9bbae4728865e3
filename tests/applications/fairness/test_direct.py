"""Decisions that are learned: what is regressed, that it is the best rule, and that it is taken up where it is better."""

from dataclasses import replace

import numpy as np
import pytest

from fewshot.applications.fairness.curve import fit_curve
from fewshot.applications.fairness.direct import DirectLearner
from fewshot.applications.fairness.notions import NOTIONS
from fewshot.applications.fairness.rule import decide, thresholds
from fewshot.applications.fairness.scored import blend, shifts_of, weights_of

from ._rows import blind, rows

PARITY = NOTIONS["demographic_parity"]


def table(n_tasks=6, n=400, seed=0):
    """Outcomes and groups whose probabilities are known functions of two features."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_tasks * n, 2))
    outcome, member = 1 / (1 + np.exp(-x[:, 0])), 1 / (1 + np.exp(-2 * x[:, 1] - x[:, 0]))
    group, favourable = (rng.random(len(x)) < member).astype(int), rng.random(len(x)) < outcome
    return x, group, np.repeat(np.arange(n_tasks), n), favourable, outcome, member


def learner(notion=PARITY, **columns):
    x, group, task, favourable, *_ = table(**columns)
    return DirectLearner(notion, x, group, task, favourable, 2, 0)


@pytest.mark.parametrize("name", list(NOTIONS))
def test_the_mean_gain_of_a_decision_is_its_accuracy_less_multipliers_times_gaps(name):
    notion = NOTIONS[name]
    found = learner(notion, n_tasks=1, n=4000)
    values = np.array([[0.3], [-0.2]])[: len(notion.events)]
    decision = np.random.default_rng(1).random(4000) < 0.2 + 0.5 * (found.x[:, 1] > 0)
    among = notion.among(found.favourable)
    n = np.array([[(e & (found.group == g)).sum() for g in (0, 1)] for e in among])
    rates = np.array([[decision[e & (found.group == g)].mean() for g in (0, 1)] for e in among])
    weights = weights_of(n / n.sum(1, keepdims=True))[:, 0]  # within each event
    price = (n.sum(1) / 4000 * weights * values[:, 0] * (rates[:, 0] - rates[:, 1])).sum()
    gained = (decision * (found.favourable - 0.5)).mean() - (decision * found.gains(values)).mean()
    assert gained == pytest.approx(price, abs=2e-3)  # the shares of all tasks together weigh a little


def test_what_is_learned_is_the_best_rule_where_the_group_is_not_told():
    found = learner(n_tasks=10, n=3000)
    outcome, member = table(n_tasks=10, n=3000)[4:]
    values = np.array([[-0.5]])
    model, held_out = found.fit(values)
    share = np.bincount(found.group) / len(found.group)
    shifts = shifts_of(values, share[None, None])[0, 0]
    exact = outcome - 0.5 - np.column_stack([1 - member, member]) @ shifts
    clear = np.abs(exact) > 0.05
    for score in (model.predict(found.x), held_out):
        assert ((score > 0) == (exact > 0))[clear].mean() > 0.97


def test_held_out_scores_do_not_know_the_outcomes_of_their_task():
    found = learner()
    mine = found.task == 2
    turned = replace(found, favourable=np.where(mine, ~found.favourable, found.favourable))
    values = np.array([[0.4]])
    np.testing.assert_array_equal(found.fit(values)[1][mine], turned.fit(values)[1][mine])
    assert (found.fit(values)[1][~mine] != turned.fit(values)[1][~mine]).any()


@pytest.mark.parametrize("name", list(NOTIONS))
def test_at_the_distances_it_was_learned_for_the_score_decides_and_elsewhere_the_rule_moves_on(name):
    notion, rng = NOTIONS[name], np.random.default_rng(0)
    trained = np.full((1, len(notion.events), 1), 0.2)
    shares = np.tile(rng.dirichlet([3, 3], 4)[:, None], (1, len(notion.events), 1))
    task, membership = rng.integers(4, size=300), rng.dirichlet([1, 1], 300)
    scores = np.stack([rng.random(300), rng.random(300), rng.normal(size=300)])
    p = blend(notion, scores, np.array([0.0, 0.0, 1.0]), trained, shares, membership, task)
    at = thresholds(notion, shifts_of(trained[0], shares)[task], membership)
    np.testing.assert_array_equal(decide(p, at), scores[2] > 0)
    further = thresholds(notion, shifts_of(2 * trained[0], shares)[task], membership)
    np.testing.assert_allclose(p - further, (p - at) - (further - at))
    half = blend(notion, scores, np.tile([0.5, 0.25, 0.25], (300, 1)), trained, shares, membership, task)
    np.testing.assert_allclose(half, 0.5 * scores[0] + 0.25 * scores[1] + 0.25 * p)


def test_it_is_taken_up_where_it_makes_fewer_errors_at_the_same_gap_and_not_where_it_does_not():
    data = rows(n=1500, known=False)
    rng = np.random.default_rng(0)
    noisy = 1 / (1 + np.exp(-np.log(data.probability / (1 - data.probability)) - rng.normal(size=len(data.task))))
    data = replace(data, probability=noisy, others=noisy[None])
    calls = []

    def learn(values, worth):
        calls.append(values)
        shifts = shifts_of(values, data.shares)[data.task]
        gain = data.favourable - 0.5 - shifts[np.arange(len(data.task)), 0, data.group]
        return len(calls), worth * gain + rng.normal(size=len(gain))

    curve, models = fit_curve(data, blind(data), np.arange(data.n_tasks), lambda values: learn(values, 3.0))
    assert models == list(range(1, len(calls) + 1)) and curve.points[-1].blend[2:].any()
    assert curve.points[0].blend.tolist() == [1.0, *np.zeros(len(models) + 1)]
    assert curve.points[0].trained.shape == (len(models), 1, 1)
    plain = fit_curve(data, blind(data), np.arange(data.n_tasks))[0]
    assert curve.at(1.0).errors[0] < plain.at(1.0).errors[0]
    same, models = fit_curve(data, blind(data), np.arange(data.n_tasks), lambda values: learn(values, 0.0))
    assert not models and same.at(1.0).errors[0] == plain.at(1.0).errors[0]
