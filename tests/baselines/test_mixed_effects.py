"""The mixed model against statsmodels, finite differences and the posterior it must equal."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from fewshot._reml import Moments, products_by_task, restricted_likelihood
from fewshot.baselines import MixedEffects
from fewshot.errors import InvalidDataError, InvalidParameterError

sm = pytest.importorskip("statsmodels.regression.mixed_linear_model")


def table(seed=0, n_tasks=25, slopes=(0.7, 0.0), sizes=(5, 20)):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rng.integers(*sizes, n_tasks))
    X = rng.normal(size=(len(tasks), 2)) * [2.0, 0.5] + [1.0, -3.0]
    level = 1.5 * rng.normal(size=n_tasks)
    slope = np.array(slopes) * rng.normal(size=(n_tasks, 2))
    y = 20 + level[tasks] + (X * (np.array([1.0, -2.0]) + slope[tasks])).sum(1) + 0.8 * rng.normal(size=len(tasks))
    return X, y, tasks


def design(X):
    return np.column_stack([np.ones(len(X)), (X - X.mean(0)) / X.std(0)])


def fitted_by_statsmodels(X, y, tasks, random):
    Z = design(X)[:, : 1 if random == "intercept" else None]
    model = sm.MixedLM(y, design(X), groups=tasks, exog_re=Z)
    free = sm.MixedLMParams.from_components(fe_params=np.ones(3), cov_re=np.eye(Z.shape[1]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a variance at its boundary is announced
        return model.fit(reml=True, free=free if random == "slopes" else None, gtol=1e-10)


@pytest.mark.parametrize(("random", "slopes"), [("intercept", (0.0, 0.0)), ("slopes", (0.7, 0.4))])
def test_estimates_and_predictions_equal_those_of_statsmodels(random, slopes):
    X, y, tasks = table(slopes=slopes)
    theirs = fitted_by_statsmodels(X, y, tasks, random)
    ours = MixedEffects(random).fit_meta(X, y, tasks=tasks)
    np.testing.assert_allclose(ours.fixed_effects_, theirs.fe_params, rtol=1e-4)
    np.testing.assert_allclose(ours.noise_variance_, theirs.scale, rtol=1e-3)
    np.testing.assert_allclose(ours.random_variances_, np.diag(theirs.cov_re), rtol=5e-3)
    effects = np.array([theirs.random_effects[t] for t in np.unique(tasks)])
    np.testing.assert_allclose(ours.adapt(X, y, tasks=tasks).random_effects_, effects, atol=5e-3)


def test_estimates_are_at_least_as_likely_as_those_of_statsmodels_when_a_variance_is_zero():
    X, y, tasks = table(seed=3, slopes=(0.7, 0.0), n_tasks=12)
    theirs = fitted_by_statsmodels(X, y, tasks, "slopes")
    ours = MixedEffects("slopes").fit_meta(X, y, tasks=tasks)
    m = moments(X, y, tasks)
    their_ratios = np.maximum(np.diag(theirs.cov_re) / theirs.scale, 1e-8)
    our_ratios = np.maximum(ours.random_variances_ / ours.noise_variance_, 1e-8)
    assert restricted_likelihood(m, our_ratios)[0] <= restricted_likelihood(m, their_ratios)[0] + 1e-4


def moments(X, y, tasks):
    x, y = design(X), y - y.mean()
    zz = products_by_task(x, x, tasks, tasks.max() + 1)
    zy = products_by_task(x, y[:, None], tasks, tasks.max() + 1)[:, :, 0]
    return Moments(len(y), y @ y, x.T @ y, x.T @ x, zz, zz, zy)


def test_likelihood_is_the_one_of_the_dense_covariance_and_so_is_its_gradient():
    X, y, tasks = table(n_tasks=6)
    m, ratios = moments(X, y, tasks), np.array([0.5, 0.1, 0.02])
    x, y = design(X), y - y.mean()
    V = np.eye(len(y)) + np.where(tasks[:, None] == tasks, (x * ratios) @ x.T, 0)
    Vi = np.linalg.inv(V)
    xvx = x.T @ Vi @ x
    e = y - x @ np.linalg.solve(xvx, x.T @ Vi @ y)
    freedom = len(y) - 3
    expected = freedom * np.log(e @ Vi @ e / freedom) + np.linalg.slogdet(V)[1] + np.linalg.slogdet(xvx)[1]
    value, gradient = restricted_likelihood(m, ratios)
    assert value == pytest.approx(expected, rel=1e-8)
    for j in range(3):
        up, down = ratios.copy(), ratios.copy()
        up[j], down[j] = ratios[j] * np.exp(1e-5), ratios[j] * np.exp(-1e-5)
        slope = (restricted_likelihood(m, up)[0] - restricted_likelihood(m, down)[0]) / 2e-5
        assert gradient[j] == pytest.approx(slope, rel=1e-5)


@pytest.mark.parametrize("random", ["intercept", "slopes"])
def test_adapting_gives_the_posterior_mean_of_a_gaussian_process(random):
    X, y, tasks = table()
    model = MixedEffects(random).fit_meta(X, y, tasks=tasks)
    rng = np.random.default_rng(1)
    Xs, ys, Xq = rng.normal(size=(4, 2)), rng.normal(size=4), rng.normal(size=(5, 2))
    scaled = [np.column_stack([np.ones(len(a)), (a - X.mean(0)) / X.std(0)]) for a in (Xs, Xq)]
    q = 1 if random == "intercept" else 3
    kernel = [(a[:, :q] * model.random_variances_) @ scaled[0][:, :q].T for a in scaled]
    inverse = np.linalg.inv(kernel[0] + model.noise_variance_ * np.eye(4))
    expected = scaled[1] @ model.fixed_effects_ + kernel[1] @ inverse @ (ys - scaled[0] @ model.fixed_effects_)
    np.testing.assert_allclose(model.adapt(Xs, ys).predict(Xq), expected, rtol=1e-6)


def test_a_row_of_weight_two_counts_as_two_rows():
    X, y, tasks = table(n_tasks=8)
    weight = np.where(np.arange(len(y)) % 3 == 0, 2.0, 1.0)
    twice = np.repeat(np.arange(len(y)), weight.astype(int))
    model = MixedEffects().fit_meta(X[twice], y[twice], tasks=tasks[twice])
    adapted = [
        model.adapt(X, y, tasks=tasks, sample_weight=weight),
        model.adapt(X[twice], y[twice], tasks=tasks[twice]),
    ]
    np.testing.assert_allclose(adapted[0].random_effects_, adapted[1].random_effects_, rtol=1e-8)


def test_collinear_constant_and_missing_columns_are_survived():
    X, y, tasks = table()
    holes = X[:, :1].copy()
    holes[::7] = np.nan
    wide = np.column_stack([X, X[:, :1] * 3, np.ones(len(y)), holes, np.full(len(y), np.nan)])
    adapted = MixedEffects("slopes").fit_meta(wide, y, tasks=tasks).adapt(wide, y, tasks=tasks)
    assert np.mean((adapted.predict(wide, tasks=tasks) - y) ** 2) < 1.0


def test_one_task_gives_least_squares_slopes():
    X, y, _ = table()
    coefficients = np.linalg.lstsq(design(X), y, rcond=None)[0]
    model = MixedEffects().fit_meta(X, y, tasks=np.zeros(len(y)))
    np.testing.assert_allclose(model.fixed_effects_[1:], coefficients[1:], rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"random": "slope"}, InvalidParameterError, "random: got 'slope'; expected 'intercept' or 'slopes'"),
        ({"rows": 3}, InvalidDataError, "X: got n_samples=3 for n_features=2"),
        ({"y": np.ones((40, 2))}, InvalidDataError, "y: got shape"),
        ({"y": np.full(40, np.nan)}, InvalidDataError, "y: Input y contains NaN"),
    ],
)
def test_errors_name_the_parameter(change, error, message):
    X, y, tasks = (a[:40] for a in table())
    rows = change.get("rows", 40)
    with pytest.raises(error, match=message):
        MixedEffects(change.get("random", "slopes")).fit_meta(X[:rows], change.get("y", y)[:rows], tasks=tasks[:rows])


def test_random_effects_exist_after_adapting_only():
    X, y, tasks = table(n_tasks=5)
    assert not hasattr(MixedEffects().fit_meta(X, y, tasks=tasks), "random_effects_")
