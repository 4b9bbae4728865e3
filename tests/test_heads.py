"""Networks whose last layer is solved in closed form: derivatives, statistics, and through the estimators."""

import functools

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler
from torch import nn

from fewshot import MAMLClassifier, MAMLRegressor, make_meta_pipeline
from fewshot.adaptation import Adaptation
from fewshot.errors import InvalidDataError, InvalidParameterError
from fewshot.heads import HeadedModule, WithHead
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.losses import cross_entropy, squared_error
from fewshot.metagradient import MetaParameters, meta_gradient
from fewshot.tasks import Rows

from ._oracles import F64, N_IN, batch, draw_tasks, make, relative_error

SOLVERS = ("ridge", "gaussian_process")


def functional_of(solver, objective, *, loss=squared_error, n_out=1, network="plain", **settings):
    module = WithHead(make(network, n_out), solver, objective)
    with torch.no_grad():
        for name, p in module.named_parameters(recurse=False):
            p.copy_(p + 0.02 * torch.arange(p.numel()).reshape(p.shape) + (0.01 if name else 0))
    return HeadedModule(module, loss, "head", n_out, **settings)


@pytest.mark.parametrize("classes", [False, True])
@pytest.mark.parametrize("objective", ["predictive", "marginal"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_meta_gradient_is_that_of_finite_differences_and_alike_in_both_kernels(solver, objective, classes):
    n_out, loss = (3, cross_entropy) if classes else (1, squared_error)
    functional = functional_of(solver, objective, loss=loss, n_out=n_out)
    adaptation = Adaptation(0, 0.1, False, adapted="head")
    supports, query = batch(draw_tasks(N_IN, n_out, classes=classes, weighted=True), 0)
    meta = MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))
    loop, vectorized = (
        meta_gradient(kind(functional), adaptation, meta, supports, query) for kind in (LoopKernels, VectorizedKernels)
    )
    assert relative_error(vectorized.gradient.flat(), loop.gradient.flat()) < 1e-9
    torch.testing.assert_close(loop.loss, vectorized.loss, rtol=1e-9, atol=1e-12)
    found = loop.gradient.flat()
    for key, value in meta.flat().items():
        if key.startswith("sizes/"):
            continue
        index = (0,) * value.ndim
        ends = []
        for h in (1e-5, -1e-5):
            moved = {k: v.clone() for k, v in meta.flat().items()}
            moved[key][index] += h
            changed = MetaParameters.from_flat(moved)
            ends.append(meta_gradient(LoopKernels(functional), adaptation, changed, supports, query).mean_loss())
        # Under "marginal" the scale of logits has no part in the objective.
        assert float(found[key][index]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=2e-4, abs=1e-8), key


@pytest.mark.parametrize("solver", SOLVERS)
def test_predictions_are_those_that_the_query_loss_judges(solver):
    functional = functional_of(solver, "predictive")
    (((x, y, w),), (qx, qy, qw)), *_ = draw_tasks(N_IN, 1)
    support, query = Rows(x, y, w), Rows(qx, qy, qw)
    f = functional
    head = f.support_statistics(f.moving, f.shared, f.constant, support)
    mean = f.prediction(f.moving, f.shared, {**f.constant, **head}, qx)
    std = f.deviation(f.moving, f.shared, {**f.constant, **head}, qx)
    expected = torch.distributions.Normal(mean, std).log_prob(qy).mean()
    loss = f.query_loss(f.moving, f.shared, f.constant, support, query)
    torch.testing.assert_close(loss, -expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("strategy", ["episode", "transductive", "global", "per_step"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_batch_statistics_of_a_prediction_are_those_of_the_query_loss(solver, strategy):
    functional = functional_of(solver, "predictive", network="batch_norm", batch_norm=strategy)
    (((x, y, w),), (qx, qy, qw)), *_ = draw_tasks(N_IN, 1)
    f = functional
    constant = f.constants(f.constant, 0)
    head = f.support_statistics(f.moving, f.shared, constant, Rows(x, y, w))
    mean, std = (of(f.moving, f.shared, {**constant, **head}, qx) for of in (f.prediction, f.deviation))
    expected = torch.distributions.Normal(mean, std).log_prob(qy).mean()
    loss = f.query_loss(f.moving, f.shared, constant, Rows(x, y, w), Rows(qx, qy, qw))
    torch.testing.assert_close(loss, -expected, rtol=1e-8, atol=0)


def test_without_a_support_a_model_is_its_network():
    functional = functional_of("ridge", "predictive")
    x = torch.randn(5, N_IN, dtype=F64)
    f = functional
    torch.testing.assert_close(f.prediction(f.moving, f.shared, f.constant, x), make("plain")(x))


# ------------------------------------------------------------------------------------------------ estimators


@functools.cache
def sines(seed=0, n_tasks=40, rows=20):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), rows)
    X = rng.uniform(-3, 3, size=(len(tasks), 1))
    shift, noise = rng.uniform(0, 3, n_tasks)[tasks], 0.2 * rng.normal(size=len(tasks))
    return X, 2.0 + np.sin(X[:, 0] + shift) + noise, tasks


@functools.cache
def fitted(algorithm, **settings):
    X, y, tasks = sines()
    return MAMLRegressor(
        algorithm=algorithm, max_iter=600, outer_lr=0.003, random_state=0, base=None, **settings
    ).fit_meta(X, y, tasks=tasks)


@pytest.mark.parametrize("algorithm", ["ridge", "dkt"])
def test_intervals_hold_as_many_new_observations_as_they_say(algorithm):
    X, y, tasks = sines(1)
    support = np.tile(np.arange(20) < 10, 40)
    adapted = fitted(algorithm).adapt(X[support], y[support], tasks=tasks[support])
    mean, std = adapted.predict(X[~support], tasks=tasks[~support], return_std=True)
    assert mean.shape == std.shape == (400,)
    inside = np.mean(np.abs(y[~support] - mean) < 1.2816 * std)
    assert 0.7 < inside < 0.9  # 80 % intervals, of 40 tasks that share much within
    assert np.sqrt(np.mean((mean - y[~support]) ** 2)) < 0.45  # noise alone: 0.2; the spread of y: 0.7


@pytest.mark.parametrize("algorithm", ["ridge", "dkt"])
def test_uncertainty_falls_with_the_support(algorithm):
    X, y, _ = sines(1)
    model = fitted(algorithm)
    spread = [model.adapt(X[:k], y[:k]).predict(X[:20], return_std=True)[1].mean() for k in (1, 5, 20)]
    without = model.predict(X[:20], return_std=True)[1].mean()
    assert without > spread[0] > spread[1] > spread[2] > 0.1


@pytest.mark.parametrize("algorithm", ["ridge", "dkt"])
def test_many_tasks_of_many_sizes_are_as_one_after_another(algorithm):
    X, y, tasks = sines(1)
    rng = np.random.default_rng(0)
    keep = rng.random(len(X)) < np.repeat(rng.uniform(0.1, 1.0, 40), 20)
    keep[::20] = True
    model = fitted(algorithm)
    together = model.adapt(X[keep], y[keep], tasks=tasks[keep])
    for t in (0, 7, 39):
        mine = keep & (tasks == t)
        alone = model.adapt(X[mine], y[mine])
        for a, b in zip(
            together.predict(X[tasks == t], tasks=tasks[tasks == t], return_std=True),
            alone.predict(X[tasks == t], return_std=True),
            strict=True,
        ):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("objective", ["predictive", "marginal"])
@pytest.mark.parametrize("algorithm", ["ridge", "dkt"])
@pytest.mark.parametrize("label_space", ["shared", "per_task"])
def test_classes(algorithm, label_space, objective):
    rng = np.random.default_rng(0)
    tasks = np.repeat(np.arange(30), 20)
    X = rng.normal(size=(600, 2))
    sign = np.where(rng.random(30) < 0.5, -1, 1)[tasks]
    y = np.where(X[:, 0] * sign > 0, "yes", "no")
    settings = dict(
        algorithm=algorithm,
        base=None,
        max_iter=150,
        outer_lr=0.01,
        shots=(6, 10),
        head_objective=objective,
        random_state=0,
    )
    model = MAMLClassifier(label_space=label_space, **settings).fit_meta(X, y, tasks=tasks)
    train = np.tile(np.arange(20) < 8, 30)
    adapted = model.adapt(X[train], y[train], tasks=tasks[train])
    assert adapted.score(X[~train], y[~train], tasks=tasks[~train]) > 0.85
    p = adapted.predict_proba(X[~train], tasks=tasks[~train])
    np.testing.assert_allclose(p.sum(1), 1.0, atol=1e-6)


def test_a_pipeline_hands_on_standard_deviations():
    X, y, tasks = sines()
    model = make_meta_pipeline(
        StandardScaler(), MAMLRegressor(algorithm="ridge", max_iter=20, random_state=0, base=None)
    )
    adapted = model.fit_meta(X, y, tasks=tasks).adapt(X[:9], y[:9])
    mean, std = adapted.predict(X[:4], return_std=True)
    np.testing.assert_array_equal(mean, adapted.predict(X[:4]))
    assert std.shape == (4,) and (std > 0).all()


def test_several_outputs():
    X, y, tasks = sines()
    both = np.column_stack([y, 10 * y])
    model = MAMLRegressor(algorithm="ridge", max_iter=100, random_state=0, base=None).fit_meta(X, both, tasks=tasks)
    mean, std = model.adapt(X[:9], both[:9]).predict(X[:4], return_std=True)
    assert mean.shape == std.shape == (4, 2)
    np.testing.assert_allclose(std[:, 1], 10 * std[:, 0], rtol=1e-6)


class Squashed(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return torch.tanh(self.layer(x)) + 0.3


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        (
            {"inner_steps": 3},
            "^inner_steps: got 3, which algorithm='ridge' cannot take, since it solves the last layer",
        ),
        ({"inner_lr": 0.1}, "^inner_lr: got 0.1, which algorithm='ridge' cannot take"),
        ({"order": "first"}, "^order: got 'first', which algorithm='ridge' cannot take"),
        ({"loss": "huber"}, "^loss: a head in closed form needs 'squared_error'"),
        ({"head_objective": "both"}, "^head_objective: got 'both'; expected one of 'predictive', 'marginal'"),
        ({"module": Squashed()}, "^module: its outputs are not those of its last linear layer"),
        ({"module": nn.Sequential(nn.Linear(1, 2), nn.Bilinear(2, 2, 1))}, "^module: its last layer '1' is a Bilinear"),
    ],
)
def test_what_has_no_head_in_closed_form_is_refused(settings, match):
    X, y, tasks = sines()
    with pytest.raises(InvalidParameterError, match=match):
        MAMLRegressor(algorithm="ridge", base=None, **settings).fit_meta(X, y, tasks=tasks)


def test_wrong_calls():
    X, y, tasks = sines()
    model = MAMLRegressor(algorithm="ridge", max_iter=1, random_state=0, base=None).fit_meta(X, y, tasks=tasks)
    with pytest.raises(
        InvalidParameterError, match="^steps: got 2; algorithm='ridge' solves the last layer in closed form"
    ):
        model.adapt(X[:3], y[:3], steps=2)
    plain = MAMLRegressor(max_iter=1, random_state=0, algorithm="maml", base=None).fit_meta(X, y, tasks=tasks)
    with pytest.raises(InvalidParameterError, match="^return_std: algorithm='maml' gives no predictive variance; use"):
        plain.predict(X, return_std=True)
    normed = functools.partial(
        MAMLRegressor, lambda a, b: nn.Sequential(nn.Linear(a, 4), nn.BatchNorm1d(4), nn.Linear(4, b))
    )
    model = normed(algorithm="ridge", base=None, max_iter=1, random_state=0).fit_meta(X, y, tasks=tasks)
    with pytest.raises(
        InvalidDataError, match="^X: a support of one row has no batch statistics for layer 'network.1'"
    ):
        model.adapt(X[:1], y[:1])
