"""Settings are tuned over tasks: what is right for rows of seen tasks must lose."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fewshot.baselines import PooledModel, RefittedModel, SupportModel
from fewshot.baselines._table import Table
from fewshot.baselines._tuning import draw_episodes
from fewshot.errors import InvalidParameterError

RNG = np.random.default_rng(0)
TASKS = np.repeat(np.arange(12), 12)
X = np.column_stack([TASKS, RNG.normal(size=144)]).astype(float)
Y = RNG.normal(size=12)[TASKS] * 3 + X[:, 1] + 0.1 * RNG.normal(size=144)
ALPHAS = [1e-3, 1.0, 1e3]


def test_pooled_tuning_picks_what_grouped_search_picks():
    pipeline = make_pipeline(StandardScaler(), Ridge())
    grid = {"ridge__alpha": [1e-2, 1.0, 1e2, 1e4]}
    model = PooledModel(pipeline, param_grid=grid).fit_meta(X, Y, tasks=TASKS)
    search = GridSearchCV(pipeline, grid, cv=GroupKFold(3), scoring="neg_mean_absolute_error").fit(X, Y, groups=TASKS)
    assert model.best_params_ == search.best_params_


def test_tuning_over_tasks_disagrees_with_tuning_over_rows_where_features_name_the_task():
    naming = np.random.default_rng(3).normal(size=(12, 11))[
        TASKS
    ]  # enough to tell the tasks, and says nothing of new ones
    over_rows = GridSearchCV(Ridge(), {"alpha": ALPHAS}, cv=KFold(3, shuffle=True, random_state=0)).fit(naming, Y)
    over_tasks = PooledModel(Ridge(), param_grid={"alpha": ALPHAS}).fit_meta(naming, Y, tasks=TASKS)
    assert over_rows.best_params_ == {"alpha": 1e-3}
    assert over_tasks.best_params_ == {"alpha": 1e3}


def test_support_tuning_finds_the_penalty_that_new_tasks_like():
    slopes = np.random.default_rng(1).normal(size=(12, 2))
    y = (X[:, 1:] * slopes[TASKS, :1])[:, 0] + slopes[TASKS, 1]
    model = SupportModel(Ridge(), param_grid={"alpha": [1e-3, 1e5]}, random_state=0)
    assert model.fit_meta(X[:, 1:], y, tasks=TASKS).best_params_ == {"alpha": 1e-3}
    noise = np.random.default_rng(2).normal(size=len(y))
    assert model.fit_meta(X[:, 1:], noise, tasks=TASKS).best_params_ == {"alpha": 1e5}


def test_refitted_tuning_trusts_the_support_where_tasks_differ_and_not_where_they_are_alike():
    model = RefittedModel(make_pipeline(StandardScaler(), Ridge()), [0.001, 1000.0], random_state=0)
    assert model.fit_meta(X[:, 1:], Y, tasks=TASKS).support_weight_ == 1000.0
    alike = X[:, 1] + np.random.default_rng(2).normal(size=len(Y))
    assert model.fit_meta(X[:, 1:], alike, tasks=TASKS).support_weight_ == 0.001


def test_classifiers_are_tuned_by_likelihood():
    y = (RNG.uniform(size=144) < 0.5).astype(int)
    grid = {"C": [1e-4, 1e4]}
    assert PooledModel(LogisticRegression(), param_grid=grid).fit_meta(X, y, tasks=TASKS).best_params_ == {"C": 1e-4}


def test_one_task_leaves_the_first_setting():
    model = PooledModel(Ridge(), param_grid={"alpha": ALPHAS}).fit_meta(X, Y)
    assert model.best_params_ == {"alpha": 1e-3}


def test_a_grid_that_is_none_is_an_error():
    with pytest.raises(InvalidParameterError, match="param_grid: got 'alpha'; expected names and lists of values"):
        PooledModel(Ridge(), param_grid="alpha").fit_meta(X, Y, tasks=TASKS)


def test_episodes_keep_blocks_on_one_side_and_give_every_adapted_task_a_support():
    blocks = np.tile(np.repeat([0, 1, 2, 3], 3), 12)
    table = Table.read(X, Y, np.append(TASKS[:-1], 99), blocks=blocks)
    for k, support, query in draw_episodes(table, [0, 1, 5], 100, np.random.default_rng(0)):
        assert len(support) == 0 if k == 0 else set(table.codes[query]) <= set(table.codes[support])
        side = {(t, b) for t, b in zip(TASKS[support], blocks[support], strict=True)}
        assert not side & {(t, b) for t, b in zip(TASKS[query], blocks[query], strict=True) if t != 11}


def test_models_that_do_not_adapt_are_judged_on_all_tasks_and_the_same_way_every_time():
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(150), 3)  # more than are adapted to
    X = rng.normal(size=(450, 2))
    table = Table.read(X, X[:, 0] + rng.normal(size=450), tasks)
    (episode,) = draw_episodes(table, (0,), 100, rng)
    assert len(episode[1]) == 0 and len(episode[2]) == 450
    grid = {"alpha": [1.0, 1.1, 1.2, 1.3]}
    chosen = [PooledModel(Ridge(), param_grid=grid).fit_meta(X, table.y, tasks=tasks).best_params_ for _ in range(4)]
    assert all(params == chosen[0] for params in chosen)
