"""The rule against what is optimal."""

import numpy as np
import pytest

from fewshot.applications.fairness.notions import NOTIONS
from fewshot.applications.fairness.rule import decide, soften, thresholds

PARITY = NOTIONS["demographic_parity"]


@pytest.mark.parametrize("name", list(NOTIONS))
def test_a_threshold_is_the_rule(name):
    notion, rng = NOTIONS[name], np.random.default_rng(0)
    mu = rng.uniform(-0.2, 0.2, (len(notion.events), 3))
    membership, p = rng.dirichlet(np.ones(3), 200), rng.random(200)
    of = {"all": np.ones(200), "positive": p, "negative": 1 - p}
    right = sum(of[e] * (membership @ m) for e, m in zip(notion.events, mu, strict=True))
    threshold = thresholds(notion, mu, membership)
    inside = (threshold > 0.01) & (threshold < 0.99)
    np.testing.assert_array_equal(decide(p, threshold)[inside], (p - 0.5 > right)[inside])
    np.testing.assert_allclose(soften(p, threshold, 1e-6)[inside], decide(p, threshold)[inside], atol=1e-3)


def test_without_multipliers_it_is_one_half():
    np.testing.assert_array_equal(thresholds(PARITY, np.zeros((1, 2)), np.eye(2)), 0.5)
