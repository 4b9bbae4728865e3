"""Distances against exact solutions, and what rows of a task change."""

from dataclasses import replace

import numpy as np
import pytest

from fewshot.applications.fairness.curve import fit_curve
from fewshot.applications.fairness.distances import ascend
from fewshot.applications.fairness.gaps import pairs_of
from fewshot.applications.fairness.notions import NOTIONS
from fewshot.applications.fairness.scored import guessed, moves_of, weights_of

from ._rows import blind, part, rows


def test_the_bound_is_met_and_no_more_errors_are_made_than_by_the_best_pair_of_thresholds():
    data = rows(n=3000)
    found = fit_curve(data, blind(data), np.arange(data.n_tasks))[0].within(0.05, 0)
    decision = data.decisions(found.values)
    p, g, y = data.probability, data.group, data.favourable
    gap = abs(decision[g == 0].mean() - decision[g == 1].mean())
    assert gap == pytest.approx(0.05, abs=0.006) and found.gaps[0] == pytest.approx(0.05)
    best = 1.0  # over all pairs of thresholds on a grid that meet the bound
    for first in np.linspace(0.3, 0.8, 51):
        rate = (p[g == 0] > first).mean()
        for second in np.linspace(0.1, 0.6, 51):
            if abs(rate - (p[g == 1] > second).mean()) <= 0.05:
                best = min(best, ((p > np.where(g == 0, first, second)) != y).mean())
    assert (decision != y).mean() == pytest.approx(best, abs=0.004)


@pytest.mark.parametrize("name", list(NOTIONS))
def test_every_notion_is_met_where_tasks_are_alike(name):
    data = rows(n=4000, notion=NOTIONS[name])
    curve = fit_curve(data, blind(data), np.arange(data.n_tasks))[0]
    assert curve.points[0].gaps[0] > 0.1 and (curve.points[0].values == 0).all()
    assert curve.within(0.06, 0).gaps[0] == pytest.approx(0.06)
    errors = [point.errors[0] for point in curve.points]
    assert errors[-1] > errors[0] - 1e-3


def test_what_cannot_be_met_is_said():
    data = rows(spread=1.0, n=1000)
    curve = fit_curve(
        data, replace(blind(data), membership=np.full((2 * len(data.group), 2), 0.5)), np.arange(data.n_tasks)
    )[0]
    assert curve.within(0.02, 0) is None
    assert abs(curve.points[-1].mean.item()) < 0.05  # tasks differ both ways, which common thresholds cannot help
    compromise = curve.best_compromise(0)
    costs = [point.gaps[0] + point.errors[0] for point in curve.points]
    assert compromise.gaps[0] + compromise.errors[0] == min(costs)


def test_groups_that_are_guessed_cost_more():
    errors = [
        fit_curve(data, blind(data), np.arange(data.n_tasks))[0].within(0.05, 0).errors[0]
        for data in (rows(n=3000), rows(n=3000, known=False))
    ]
    assert errors[1] > errors[0]


def test_a_group_that_is_rare_in_a_task_does_not_change_how_many_are_favoured_there():
    common, rare = rows(n_tasks=1, n=20000, share=0.5), rows(n_tasks=1, n=20000, share=0.2, seed=1)
    values = np.array([[0.04]])
    moved = [abs(d.decisions(values).mean() - d.decisions(0 * values).mean()) for d in (common, rare)]
    # The same shift for either group, as if they were as many as in the other task, moves the rate.
    shift = 0.02 * np.where(rare.group == 0, 1, -1)
    evenly = abs((rare.probability > 0.5 + shift).mean() - (rare.probability > 0.5).mean())
    assert max(moved) < 0.5 * evenly


def gap(data, values):
    k, n = data.hard_counts(data.decisions(values))
    rates = k / n
    return np.sqrt(np.mean((rates[..., 0] - rates[..., 1]) ** 2))


def test_tasks_with_rows_of_their_own_have_smaller_gaps_and_those_without_keep_what_was_learned():
    data = rows(spread=0.6, n=1500, n_tasks=30)
    found = fit_curve(data, blind(data), np.arange(data.n_tasks))[0].at(5.0)
    new = rows(spread=0.6, n=800, n_tasks=30, seed=1)
    half = np.arange(800 * 30) % 800 < 400
    seen, rest = part(new, half), part(new, ~half)
    own = found.for_tasks(seen, None, None, 30)
    assert gap(rest, own) < 0.6 * gap(rest, found.values)
    batch = found.for_tasks(None, None, seen, 30)
    assert gap(seen, batch) < 0.02  # what decisions are made for is matched
    alone = part(new, new.group == 0)  # one group is missing
    np.testing.assert_array_equal(found.for_tasks(alone, None, None, 30), np.repeat(found.values[None], 30, axis=0))
    np.testing.assert_array_equal(found.for_tasks(None, None, None, 2), np.repeat(found.values[None], 2, axis=0))


def test_guessed_groups_tell_of_a_task_as_far_as_guesses_were_right_before():
    data = rows(spread=0.6, n=1500, n_tasks=30, known=False)
    curve = fit_curve(data, blind(data), np.arange(data.n_tasks))[0]
    found, same = curve.at(5.0), rows(spread=0.6, n=800, n_tasks=30, seed=1, known=False)
    told = found.for_tasks(None, blind(same), None, 30)
    assert gap(same, told) < 0.8 * gap(same, found.values)
    deaf = replace(found, guessed=np.full_like(found.guessed, 1e-12), slope=np.zeros_like(found.slope))
    moved = np.abs(deaf.for_tasks(None, blind(same), None, 30) - found.values).max()
    assert moved < 0.1 * np.abs(told - found.values).max()


def test_a_better_ranking_by_the_pooled_model_is_taken_up_where_a_penalty_is_paid():
    data = rows(n=1500)
    noise = np.random.default_rng(0).normal(size=len(data.probability))
    worse = 1 / (1 + np.exp(-np.log(data.probability / (1 - data.probability)) - 1.5 * noise))
    bad = replace(data, probability=worse, others=data.probability[None])
    curve = fit_curve(
        bad, guessed(bad.notion, worse, bad.others, bad.membership, bad.task, bad.shares), np.arange(bad.n_tasks)
    )[0]
    assert curve.points[0].blend.tolist() == [1, 0] and all(p.blend.tolist() == [0, 1] for p in curve.points[1:])
    even = bad.blended(np.array([0.5, 0.5]), curve.points[0].trained)
    np.testing.assert_allclose(even.probability, (worse + data.probability) / 2)


def test_the_ascent_ends_where_a_multiplier_is_the_penalty_times_the_gap():
    weights = np.array([[0.25]])
    for penalty in (0.05, 1.0, 20.0):
        values = ascend(lambda at, t: 0.3 - at, np.zeros((1, 1)), penalty, weights)
        assert values.item() == pytest.approx(penalty * 0.3 / (0.25 + penalty), abs=2e-3)
    assert ascend(lambda at, t: 0.3 - at, np.ones((1, 1)), 0.0, weights).item() == 0


def test_a_distance_is_divided_so_that_as_many_are_refused_as_are_favoured():
    shares = np.array([[0.5, 0.3, 0.2]])
    moves = moves_of(shares)[0]  # (groups, pairs)
    np.testing.assert_allclose([moves[0, 0] - moves[1, 0], moves[0, 1] - moves[2, 1], moves[1, 2] - moves[2, 2]], 1)
    np.testing.assert_allclose(shares[0] @ moves, 0, atol=1e-15)
    # The multiplier of a distance moves each group by one over its share.
    np.testing.assert_allclose(weights_of(shares)[0, 0] / shares[0, :2], np.abs(moves[:2, 0]))


def test_what_was_learned_where_groups_are_even_is_of_use_where_one_is_rare():
    even, rare = rows(n=4000, share=0.5), rows(n=4000, share=0.05, seed=1)
    found = fit_curve(even, blind(even), np.arange(even.n_tasks))[0].within(0.05, 0)
    # The distance that closes the gap there closes it here, and nobody is refused or favoured whatever the model says.
    assert gap(rare, found.values) < 0.1 < gap(rare, 0 * found.values)
    favoured = rare.decisions(found.values)[rare.group == 1].mean()
    assert 0.2 < favoured < 0.8


def test_many_groups_settle_where_each_pair_would():
    """Gaps that fall in proportion to thresholds: with four groups all pairs move at once, and none overshoots."""
    slope, weights = 4.0, np.full((1, 6), 0.25)
    incidence = np.array([[1.0 if g == i else -1.0 if g == j else 0.0 for g in range(4)] for i, j in pairs_of(4)])
    start, base = np.zeros((1, 6)), incidence @ np.array([0.3, 0.1, -0.1, -0.3])

    def gaps(values, temperature):
        return base - slope * values @ incidence @ incidence.T / 2

    found = ascend(gaps, start, 100.0, weights)
    assert np.abs(gaps(found, 0.0)).max() < 0.01


def test_between_two_penalties_it_is_interpolated():
    data = rows(n=400)
    curve = fit_curve(data, blind(data), np.arange(data.n_tasks))[0]
    low, high = curve.points[4], curve.points[5]
    middle = curve.at((low.penalty + high.penalty) / 2)
    np.testing.assert_allclose(middle.values, (low.values + high.values) / 2)
    assert curve.at(1e9) is curve.points[-1] and curve.at(low.penalty).penalty == pytest.approx(low.penalty)
