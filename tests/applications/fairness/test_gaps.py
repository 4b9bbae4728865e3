"""Gaps between groups: exact expectations by enumeration, coverage of intervals, fairlearn where it is right."""

from itertools import permutations

import numpy as np
import pytest
from fairlearn.metrics import MetricFrame, selection_rate
from scipy.stats import binom

from fewshot.applications.fairness.gaps import (
    count_by_group,
    debiased_squared_gap,
    gap_interval,
    permutation_floor,
    rates_of,
    root_mean_squared_gap,
    rows_to_tell,
    signed_gap,
)
from fewshot.applications.fairness.notions import NOTIONS, notion_of
from fewshot.errors import InvalidParameterError


def all_counts(n, p):
    """Every pair of counts of two groups, and its probability."""
    k = np.stack(np.meshgrid(*(np.arange(m + 1) for m in n), indexing="ij"), -1).reshape(-1, 2)
    return k, np.prod([binom.pmf(k[:, g], n[g], p[g]) for g in (0, 1)], axis=0)


@pytest.mark.parametrize(("n", "p"), [((2, 7), (0.3, 0.3)), ((5, 4), (0.9, 0.2)), ((3, 30), (0.5, 0.55))])
def test_the_debiased_squared_gap_is_without_bias(n, p):
    k, mass = all_counts(n, p)
    found = debiased_squared_gap(k, np.broadcast_to(n, k.shape))[:, 0]
    assert mass @ found == pytest.approx((p[0] - p[1]) ** 2, abs=1e-12)
    assert mass @ np.abs(signed_gap(k, np.broadcast_to(n, k.shape))[:, 0]) > abs(p[0] - p[1])


def test_the_floor_is_the_mean_over_all_permutations():
    decision, group = np.array([1, 1, 0, 0, 0, 1]), np.array([0, 0, 1, 1, 1, 1])
    gaps = [abs(decision[list(o)][:2].mean() - decision[list(o)][2:].mean()) for o in permutations(range(6))]
    k, n = count_by_group(decision == 1, np.ones((1, 6), dtype=bool), group, 2)
    assert permutation_floor(k, n).item() == pytest.approx(np.mean(gaps), rel=1e-12)


@pytest.mark.parametrize(
    ("n", "p"), [((8, 12), (0.5, 0.5)), ((20, 40), (0.3, 0.3)), ((30, 15), (0.7, 0.4)), ((60, 60), (0.1, 0.2))]
)
def test_intervals_cover(n, p):
    k, mass = all_counts(n, p)
    low, high = gap_interval(k, np.broadcast_to(n, k.shape))
    covered = mass @ ((low[:, 0] <= p[0] - p[1]) & (p[0] - p[1] <= high[:, 0]))
    assert 0.925 < covered <= 1.0


def test_counts_are_those_of_fairlearn():
    rng = np.random.default_rng(0)
    decision, y, s, t = (rng.integers(0, m, 300) for m in (2, 2, 3, 4))
    notion = NOTIONS["equalized_odds"]
    k, n = count_by_group(decision == 1, notion.among(y == 1), s, 3, t, 4)
    for task in range(4):
        for event, label in enumerate((1, 0)):
            mine = (t == task) & (y == label)
            frame = MetricFrame(
                metrics=selection_rate, y_true=y[mine], y_pred=decision[mine], sensitive_features=s[mine]
            )
            np.testing.assert_allclose(rates_of(k, n)[event, task], frame.by_group.to_numpy(dtype=float))


def test_empty_cells_have_no_rate_and_no_gap():
    k, n = np.array([[1, 0, 2]]), np.array([[2, 0, 2]])
    np.testing.assert_array_equal(rates_of(k, n), [[0.5, np.nan, 1.0]])
    for found in (signed_gap(k, n), permutation_floor(k, n), *gap_interval(k, n)):
        assert np.isfinite(found).tolist() == [[False, True, False]]
    assert np.isnan(root_mean_squared_gap([[[1, 0]]], [[[2, 0]]]))


def test_the_root_over_tasks_tends_to_the_true_gap_where_the_absolute_one_does_not():
    rng = np.random.default_rng(0)
    n = np.full((20_000, 2), 10)
    k = rng.binomial(n, [0.4, 0.5])
    assert root_mean_squared_gap(k[None], n[None]) == pytest.approx(0.1, abs=0.01)
    assert np.abs(signed_gap(k, n)).mean() > 0.17
    assert root_mean_squared_gap(rng.binomial(n, 0.4)[None], n[None]) < 0.03
    assert root_mean_squared_gap(k[None], n[None], debiased=False) > 0.2


def test_rows_to_tell_have_the_power_they_claim():
    rng = np.random.default_rng(0)
    n = rows_to_tell(0.2, rate=0.4)
    k = np.stack([rng.binomial(n, 0.3, 4000), rng.binomial(n, 0.5, 4000)], axis=1)
    low, high = gap_interval(k, np.full_like(k, n))
    assert ((low > 0) | (high < 0)).mean() == pytest.approx(0.8, abs=0.04)


def test_unknown_notions():
    with pytest.raises(InvalidParameterError, match="^constraint: got 'parity'; expected one of 'demographic_parity'"):
        notion_of("parity")
