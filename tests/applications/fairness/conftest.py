"""Fixtures that tests of fair classifiers share."""

import pytest

from fewshot.applications.fairness import curve


@pytest.fixture
def short_curve(monkeypatch):
    """Few penalties, for tests of what goes around them."""
    monkeypatch.setattr(curve, "PENALTIES", (0.0, 0.1, 1.0))
