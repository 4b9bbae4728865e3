"""Boosting with random intercepts: variances against statsmodels, predictions against the closed form."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.model_selection import GroupKFold

from fewshot.baselines import BoostedMixedEffects, PooledModel
from fewshot.errors import InvalidDataError


def table(seed=0, n_tasks=30, rows=20):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rows)
    X = rng.normal(size=(n_tasks * rows, 2))
    return X, np.abs(X[:, 0]) + 2.0 * rng.normal(size=n_tasks)[tasks] + 0.3 * rng.normal(size=len(tasks)), tasks


def test_variances_are_those_of_statsmodels_on_the_same_residuals():
    sm = pytest.importorskip("statsmodels.regression.mixed_linear_model")
    X, y, tasks = table()
    model = BoostedMixedEffects(random_state=0).fit_meta(X, y, tasks=tasks)
    residual = y.copy()
    for train, test in GroupKFold(3).split(X, groups=tasks):
        residual[test] -= clone(model.estimator_).fit(X[train], y[train]).predict(X[test])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for more digits than it gets
        theirs = sm.MixedLM(residual, np.ones((len(y), 1)), groups=tasks).fit(reml=True, gtol=1e-8)
    assert model.noise_variance_ == pytest.approx(theirs.scale, rel=1e-3)
    assert model.random_variance_ == pytest.approx(float(np.asarray(theirs.cov_re)[0, 0]), rel=5e-3)


def test_adapting_shrinks_the_mean_residual():
    X, y, tasks = table()
    model = BoostedMixedEffects(random_state=0).fit_meta(X, y, tasks=tasks)
    X, y, tasks = table(1)
    support = pd.Series(tasks).groupby(tasks).cumcount().to_numpy() < 3
    adapted = model.adapt(X[support], y[support], tasks=tasks[support])
    shift = adapted.predict(X, tasks=tasks) - model.predict(X)
    residual = (y - model.predict(X))[support].reshape(-1, 3)
    share = 3 * model.random_variance_ / (3 * model.random_variance_ + model.noise_variance_)
    np.testing.assert_allclose(shift.reshape(30, -1)[:, 0], share * residual.mean(1))
    error = np.abs(adapted.predict(X, tasks=tasks) - y)[~support].mean()
    assert error < 0.4 * np.abs(PooledModel(model.estimator_).fit_meta(*table()[:2]).predict(X) - y)[~support].mean()


def test_one_target_a_row():
    X, y, tasks = table(n_tasks=4)
    with pytest.raises(InvalidDataError, match="^y: got shape"):
        BoostedMixedEffects().fit_meta(X, np.column_stack([y, y]), tasks=tasks)
