"""Baselines against their definitions, and all of them with the same calls."""

import numpy as np
import pytest
import torch
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.linear_model import LogisticRegression
from torch.func import grad, vmap

from fewshot.applications.fairness import evaluate_fairness
from fewshot.applications.fairness.baselines import (
    FairlearnClassifier,
    PenalizedNetwork,
    PlainClassifier,
    RateMatching,
)
from fewshot.applications.fairness.baselines.penalized import group_penalty
from fewshot.errors import InvalidParameterError


def table(seed=0, n_tasks=6, n=60):
    rng = np.random.default_rng(seed)
    task, group = np.repeat(np.arange(n_tasks), n), rng.choice(["a", "b"], n_tasks * n)
    x = rng.normal(size=(len(task), 2)) - 0.7 * (group == "b")[:, None]
    return x, (x.sum(1) + rng.normal(size=len(task)) > -0.7).astype(int), task, group


X, Y, TASK, GROUP = table()
METHODS = {
    "pooled": PlainClassifier(LogisticRegression()),
    "matching": RateMatching(LogisticRegression()),
    "exponentiated gradient": FairlearnClassifier(
        "exponentiated_gradient", LogisticRegression(), values=[0.02], random_state=0
    ),
    "grid search": FairlearnClassifier("grid_search", LogisticRegression(), values=[0.9]),
    "threshold optimizer": FairlearnClassifier("threshold_optimizer", LogisticRegression(), random_state=0),
    "penalized network": PenalizedNetwork(weights=(0.0, 8.0), n_iter=150, random_state=0),
    "fair MAML": PenalizedNetwork(1, weights=(0.0, 8.0), n_iter=150, random_state=0),
}


@pytest.fixture(scope="module")
def scores():
    frame = evaluate_fairness(
        METHODS, X, Y, TASK, sensitive_features=GROUP, shots=10, draws=2, cv=2, frontier=True, random_state=0
    )
    return frame.groupby(["method", "setting", "metric"], dropna=False)["value"].mean()


def test_all_of_them_have_the_same_calls_and_predict_something(scores):
    assert set(scores.index.get_level_values(0)) == set(METHODS)
    accuracy = scores.xs("accuracy", level="metric")
    assert (accuracy > 0.5).all() and np.isfinite(accuracy).all()


def test_constraints_make_gaps_smaller(scores):
    gaps = scores.xs("selection_rate_gap", level="metric")
    free = gaps["pooled"].iloc[0]
    assert free > 0.3
    for name in ("exponentiated gradient", "grid search", "threshold optimizer"):
        assert gaps[name].iloc[0] < 0.75 * free, name
    for name in ("penalized network", "fair MAML"):
        assert gaps[name][8.0] < 0.75 * gaps[name][0.0], name
    assert gaps["matching"][1.0] < 0.03 and gaps["matching"][0.0] == pytest.approx(free)


def test_the_threshold_optimizer_is_fairlearns():
    ours = METHODS["threshold optimizer"].fit_meta(X, Y, sensitive_features=GROUP)
    theirs = ThresholdOptimizer(
        estimator=LogisticRegression(), constraints="demographic_parity", predict_method="predict_proba"
    ).fit(X, Y, sensitive_features=GROUP)
    np.testing.assert_array_equal(
        ours.predict(X, sensitive_features=GROUP), theirs.predict(X, sensitive_features=GROUP, random_state=0)
    )
    with pytest.raises(InvalidParameterError, match="^method: got 'magic'"):
        FairlearnClassifier("magic", LogisticRegression()).fit_meta(X, Y, sensitive_features=GROUP)


def test_the_penalty_is_the_squared_gap_and_an_empty_cell_adds_nothing():
    favour = torch.tensor([0.9, 0.5, 0.2, 0.4], dtype=torch.float64)
    group = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=torch.float64)
    everyone = torch.ones(1, 4, dtype=torch.float64)
    assert group_penalty(favour, everyone, group).item() == pytest.approx((0.7 - 0.3) ** 2)
    only_first = group * torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert group_penalty(favour, everyone, only_first).item() == 0
    slope = grad(group_penalty)(favour, everyone, only_first)
    assert torch.equal(slope, torch.zeros_like(slope))
    assert torch.autograd.gradcheck(lambda f: group_penalty(f, everyone, group), favour.requires_grad_())
    # Vectorised over tasks of which one has a group only.
    both = vmap(group_penalty)(favour.detach().repeat(2, 1), everyone.repeat(2, 1, 1), torch.stack([group, only_first]))
    assert both.tolist() == pytest.approx([0.16, 0.0])


def test_padding_changes_nothing():
    net = PenalizedNetwork(1, weights=(2.0,), n_iter=5, random_state=0).fit_meta(
        X, Y, tasks=TASK, sensitive_features=GROUP
    )
    few, more = np.arange(8), np.arange(60, 80)
    rows = np.concatenate([few, more])
    together = net.adapt(X[rows], Y[rows], tasks=TASK[rows], sensitive_features=GROUP[rows])
    alone = net.adapt(X[few], Y[few], sensitive_features=GROUP[few])
    np.testing.assert_allclose(
        together.predict_proba(X[:30], tasks=np.zeros(30, dtype=int)), alone.predict_proba(X[:30]), atol=1e-5
    )
