"""Gaps on held-out tasks are judged by what the others say."""

import numpy as np
import pytest

from fewshot.applications.fairness.curve import fit_curve
from fewshot.applications.fairness.gaps import signed_gap

from ._rows import blind, rows


def true_gap(data, values):
    return np.sqrt(np.mean(signed_gap(*data.hard_counts(data.decisions(values))) ** 2))


def test_few_tasks_do_not_promise_a_gap_that_new_tasks_do_not_keep():
    promised, kept, fitted = [], [], []
    for seed in range(6):
        data = rows(n_tasks=6, n=1000, spread=0.6, seed=seed)
        point = fit_curve(data, blind(data), np.arange(6))[0].points[-1]
        promised.append(point.gaps[0])
        kept.append(true_gap(rows(n_tasks=60, n=1000, spread=0.6, seed=100 + seed), point.values))
        fitted.append(true_gap(data, point.values))
    assert np.mean(promised) == pytest.approx(np.mean(kept), rel=0.15)
    # On the tasks that the distances were found on gaps are smaller.
    assert np.mean(fitted) < 0.95 * np.mean(promised)


def test_numbers_of_tasks_do_not_matter():
    data = rows(n_tasks=5, n=400, spread=0.6)
    near, far = (fit_curve(data, blind(data), np.arange(5) * step)[0].points[-1] for step in (1, 5))
    np.testing.assert_array_equal(near.gaps, far.gaps)


def test_tasks_of_one_origin_are_judged_together():
    data = rows(n_tasks=6, n=1000, spread=0.6)
    alone = fit_curve(data, blind(data), np.arange(6))[0].points[-1]
    together = fit_curve(data, blind(data), np.zeros(6, dtype=int))[0].points[-1]
    np.testing.assert_allclose(together.values, alone.values)
    assert (
        together.gaps[0] == pytest.approx(true_gap(data, alone.values), abs=0.01) and together.gaps[0] < alone.gaps[0]
    )
