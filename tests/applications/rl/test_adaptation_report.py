"""Reports against Welch's interval written out, and which of several steps they keep."""

import numpy as np
import pytest
from scipy import stats

from fewshot.applications.rl import AdaptationReport

LOW, MIDDLE, HIGH = (np.array([0.0, 1.0, 2.0, 3.0]) + shift for shift in (0.0, 2.0, 5.0))


def test_the_interval_is_welchs():
    before, after = np.array([1.0, 4.0, 2.0]), np.array([5.0, 9.0, 6.0, 8.0])
    report = AdaptationReport.compare([before], after)
    parts = before.var(ddof=1) / 3, after.var(ddof=1) / 4
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 2 + parts[1] ** 2 / 3)
    half = stats.t.ppf(0.975, freedom) * sum(parts) ** 0.5
    assert report.gain == pytest.approx(7 - 7 / 3)
    assert report.interval == pytest.approx((report.gain - half, report.gain + half))
    assert (report.step, report.steps, report.episodes) == (1, 1, 7)


@pytest.mark.parametrize(
    ("stages", "after", "step", "gain"),
    [
        ([LOW, MIDDLE], HIGH, 2, 5.0),
        ([LOW, HIGH], MIDDLE, 1, 5.0),
        ([MIDDLE, HIGH, MIDDLE], LOW, 1, 3.0),
        ([HIGH, LOW], MIDDLE, 0, -3.0),
        ([LOW], LOW, 0, 0.0),
    ],
)
def test_the_best_step_is_kept_and_none_where_none_is_better(stages, after, step, gain):
    report = AdaptationReport.compare(stages, after)
    assert (report.step, report.gain, report.kept) == (step, pytest.approx(gain), step > 0)
    assert report.interval[0] < report.gain < report.interval[1]


def test_words():
    compare = AdaptationReport.compare
    assert str(compare([LOW, HIGH], MIDDLE)).endswith("; kept is the policy after 1 of 2 steps")
    assert str(compare([LOW], LOW)).endswith("; the unadapted policy is kept")
    assert str(compare([LOW], None)) == "return 1.50 before adapting; not judged after"
    assert str(AdaptationReport.of_recorded(3)) == "adapted from 3 recorded episodes; nothing was judged"
    assert str(compare([np.ones(1)], np.ones(1) + 1)) == "return 1.00 before and 2.00 after adapting: gain 1.00"


def test_equal_returns_have_an_interval_of_no_width():
    assert AdaptationReport.compare([np.ones(3)], np.full(3, 2.0)).interval == (1.0, 1.0)


def test_unjudged_steps_are_all_kept():
    report = AdaptationReport.compare([HIGH, LOW], None)
    assert (report.step, report.steps, report.gain, report.interval) == (2, 2, None, None)
