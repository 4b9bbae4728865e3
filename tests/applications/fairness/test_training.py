"""An interrupted fit goes on to the same model, and costs nothing that was there."""

import numpy as np
import pytest

from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier

from ._people import GROUP, QUICK, TASK, TRAIN, X, Y

pytestmark = pytest.mark.usefixtures("short_curve")
COLUMNS = dict(tasks=TASK[TRAIN], sensitive_features=GROUP[TRAIN])


@pytest.fixture
def interrupt_second(monkeypatch):
    """Interrupt the second classifier once; returns the number of columns of each fit."""
    seen, fit_meta = [], MAMLClassifier.fit_meta

    def interrupted(self, x, y=None, **columns):
        seen.append(np.shape(x)[1])
        if len(seen) == 2:
            raise KeyboardInterrupt
        return fit_meta(self, x, y, **columns)

    monkeypatch.setattr(MAMLClassifier, "fit_meta", interrupted)
    return seen


def test_the_same_call_goes_on(interrupt_second):
    model = FairnessConstrainedClassifier(classifier=QUICK, warm_start=True, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X[TRAIN], Y[TRAIN], **COLUMNS)
    assert not model.__sklearn_is_fitted__()
    model.fit_meta(X[TRAIN], Y[TRAIN], **COLUMNS)
    width = X.shape[1]
    assert interrupt_second == [width, width + 2, width + 2]  # the first classifier was not fitted again
    assert model._training is None
    whole = FairnessConstrainedClassifier(classifier=QUICK, random_state=0).fit_meta(X[TRAIN], Y[TRAIN], **COLUMNS)
    np.testing.assert_array_equal(model.predict_proba(X), whole.predict_proba(X))
    told = {"sensitive_features": GROUP}
    np.testing.assert_array_equal(model.predict_proba(X, **told), whole.predict_proba(X, **told))


@pytest.mark.parametrize(("warm_start", "last"), [(False, TRAIN), (True, TASK < 7)])
def test_without_warm_start_or_with_other_rows_it_begins_anew(interrupt_second, warm_start, last):
    model = FairnessConstrainedClassifier(classifier=QUICK, warm_start=warm_start, random_state=0)
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X[TRAIN], Y[TRAIN], **COLUMNS)
    model.fit_meta(X[last], Y[last], tasks=TASK[last], sensitive_features=GROUP[last])
    assert len(interrupt_second) == 4


def test_a_fitted_model_survives_an_interruption(interrupt_second):
    model = FairnessConstrainedClassifier(classifier=QUICK, use_sensitive_at_predict=False, random_state=0)
    before = model.fit_meta(X[TRAIN], Y[TRAIN], **COLUMNS).predict_proba(X)
    with pytest.raises(KeyboardInterrupt):
        model.fit_meta(X[::-1], 1 - Y[::-1], tasks=TASK[::-1], sensitive_features=GROUP[::-1])
    np.testing.assert_array_equal(model.predict_proba(X), before)
