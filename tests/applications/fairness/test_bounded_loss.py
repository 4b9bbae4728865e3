"""Bounds on the loss of each group: what weighting does, what cannot be done, what is refused."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss

from fewshot import MAMLClassifier
from fewshot.applications.fairness import FairnessConstrainedClassifier
from fewshot.errors import InvalidParameterError

QUICK = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0)


def table(n_tasks=12, n=100, seed=0):
    """A small group whose outcomes follow another column than those of the large one."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), n)
    group = (rng.random(len(task)) < 0.2).astype(int)
    x = rng.normal(size=(len(task), 2))
    y = (x[np.arange(len(x)), group] + 0.5 * rng.normal(size=len(x)) > 0).astype(int)
    return x, y, task, np.array(["large", "small"])[group]


X, Y, TASK, GROUP = table()


def fitted(bound, **settings):
    settings = {"use_sensitive_at_predict": False, "classifier": QUICK, "random_state": 0} | settings
    model = FairnessConstrainedClassifier("bounded_group_loss", bound=bound, **settings)
    return model.fit_meta(X, Y, tasks=TASK, sensitive_features=GROUP)


def worst_loss(model):
    x, y, task, group = table(n_tasks=8, seed=1)
    support = np.arange(len(x)) % 100 < 10
    adapted = model.adapt(x[support], y[support], tasks=task[support], sensitive_features=group[support])
    p = adapted.predict_proba(x[~support], tasks=task[~support])
    return max(log_loss(y[~support][group[~support] == g], p[group[~support] == g]) for g in ("large", "small"))


def test_the_worst_group_is_better_off_on_new_tasks_too():
    loose, tight = fitted(2.0), fitted(0.55)
    free = loose.constraint_report_.table
    assert free.loc["unconstrained", "loss"] == free.loc["group unknown", "loss"] > 0.7
    found = tight.constraint_report_.table.loc["group unknown"]
    assert found["loss"] < 0.85 * free.loc["unconstrained", "loss"]
    assert found["error"] > free.loc["unconstrained", "error"]
    assert worst_loss(tight) < 0.85 * worst_loss(loose)


def test_a_bound_that_no_weighting_meets_is_reported():
    impossible = fitted(0.1)
    assert not impossible.constraint_report_.table.loc["group unknown", "feasible"]
    assert "NOT within the bound, which no weighting that was tried meets" in str(impossible.constraint_report_)
    assert np.isfinite(impossible.predict_proba(X[:5])).all()


def test_told_the_group_it_needs_no_weights():
    model = fitted(0.65, use_sensitive_at_predict=True, classifier=MAMLClassifier(algorithm="map", random_state=0))
    table_ = model.constraint_report_.table["loss"]
    assert table_["group known"] < table_["unconstrained"]
    assert model.predict(X[:4], sensitive_features=GROUP[:4]).shape == (4,)


def test_mistakes():
    with pytest.raises(InvalidParameterError, match="^bound: got None; bounded_group_loss needs"):
        fitted(None)
    with pytest.raises(InvalidParameterError, match="^penalty: bounded_group_loss takes a bound"):
        fitted(None, penalty=1.0)
    model = fitted(2.0)
    with pytest.raises(InvalidParameterError, match="^with_bound: bounded_group_loss is fitted for one bound"):
        model.with_bound(0.5)
    assert len(model.operating_points()) == 1
