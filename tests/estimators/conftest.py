"""Small tables of many tasks."""

import numpy as np
import pandas as pd
import pytest


@pytest.fixture
def lines():
    """Twenty tasks of ten rows, each with a slope of its own: X, y, tasks."""
    rng = np.random.default_rng(0)
    tasks = np.repeat([f"t{i:02d}" for i in range(20)], 10)
    X = rng.normal(size=(200, 2))
    return X, np.repeat(rng.normal(size=20), 10) * X[:, 0] + 3.0, tasks


@pytest.fixture
def halves():
    """Twelve tasks of twenty rows with three classes of text labels: frame, y, tasks."""
    rng = np.random.default_rng(1)
    tasks = np.repeat(np.arange(12), 20)
    X = pd.DataFrame(rng.normal(size=(240, 3)), columns=["age", "dose", "time"])
    shift = rng.normal(size=12)[tasks]
    y = np.array(["low", "mid", "high"])[np.digitize(X["age"] + shift, [-0.5, 0.5])]
    return X, y, tasks
