"""Pictures show what the frames say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from fewshot.applications.fairness import FrontierDisplay, GapDisplay, fairness_report
from fewshot.errors import InvalidDataError, InvalidParameterError

mpl.use("Agg")


def report(group=None, before=True):
    rng = np.random.default_rng(0)
    group = rng.choice(["a", "b"], 200) if group is None else group
    x = rng.normal(size=(200, 2)) - (group == "b")[:, None]
    y = (x[:, 0] + rng.normal(size=200) > -0.5).astype(int)
    models = [LogisticRegression(C=c).fit(x, y) for c in (1e-3, 1.0)]
    return fairness_report(models[1], x, y, sensitive_features=group, before=models[0] if before else None)


def test_gaps_before_and_after_with_their_intervals():
    found = report()
    display = GapDisplay.from_report(found)
    lines = {container.get_label(): container for container in display.ax_.containers if container.get_label()}
    for model in ("before", "after"):
        drawn = lines[model].lines[0].get_xdata().astype(float)
        np.testing.assert_allclose(drawn, found.gaps[found.gaps["model"] == model]["gap"])
    assert next(text.get_text() for text in display.ax_.get_yticklabels()) == "selection rate"
    assert display.ax_.get_legend() is not None
    assert GapDisplay.from_report(report(before=False)).ax_.get_legend() is None


def test_an_undefined_gap_is_said_to_be_so():
    rng = np.random.default_rng(0)
    group = np.array(["a"] * 198 + ["c"] * 2)
    x, y = rng.normal(size=(200, 1)), np.r_[rng.integers(2, size=198), 0, 0]
    found = fairness_report(LogisticRegression().fit(x, y), x, y, sensitive_features=group)
    texts = [text.get_text() for text in GapDisplay.from_report(found).ax_.texts]
    assert texts == ["undefined: a group has no such row"]


def test_frontiers_of_methods():
    row = {"shots": 5, "pair": "a - b", "floor": 0.05}
    rows = []
    for method, settings in (("ours", (0.0, 1.0)), ("pooled", (np.nan,))):
        for i, setting in enumerate(settings):
            rows += [
                row | {"method": method, "setting": setting, "metric": metric, "mean": mean}
                for metric, mean in (("accuracy", 0.8 - 0.05 * i), ("selection_rate_gap", 0.3 - 0.2 * i))
            ]
    summary = pd.DataFrame(rows)
    display = FrontierDisplay.from_summary(summary)
    assert [line.get_label() for line in display.ax_.lines[:2]] == ["ours", "pooled"]
    np.testing.assert_allclose(display.ax_.lines[0].get_xydata(), [[0.3, 0.8], [0.1, 0.75]])
    np.testing.assert_allclose(display.ax_.lines[1].get_xydata(), [[0.3, 0.8]])
    with pytest.raises(InvalidParameterError, match="^metric: got 'accuracy'"):
        FrontierDisplay.from_summary(summary, metric="accuracy")
    with pytest.raises(InvalidDataError, match="^summary: got 2 support sizes"):
        FrontierDisplay.from_summary(pd.concat([summary, summary.assign(shots=1)]))
    with pytest.raises(InvalidDataError, match="^summary: no column 'method'"):
        FrontierDisplay.from_summary(pd.DataFrame())
    with pytest.raises(InvalidParameterError, match="^report: got str"):
        GapDisplay.from_report("report")
