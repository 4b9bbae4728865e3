"""Pictures of estimators: the numbers behind them against other ways to the same, and what they refuse."""

import functools
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from sklearn.linear_model import Ridge
from torch import nn
from torch.func import functional_call, grad, jacrev

from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.baselines import SupportMean
from fewshot.datasets import Sinusoids
from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError
from fewshot.inspection import (
    AdaptationCurveDisplay,
    FirstOrderErrorDisplay,
    GeneralizationGapDisplay,
    GradientAlignmentDisplay,
    StepConditionDisplay,
    StepSizesDisplay,
    SupportSizeDisplay,
    first_order_error,
    step_eigenvalues,
    task_alignment,
)
from fewshot.model_selection import evaluate_few_shot, task_gap

mpl.use("Agg")
ROWS = 12


@pytest.fixture(autouse=True)
def no_figures_left():
    yield
    plt.close("all")


def lines(seed=0, n_tasks=10):
    rng = np.random.default_rng(seed)
    tasks = np.repeat(np.arange(n_tasks), ROWS)
    X = rng.normal(size=(n_tasks * ROWS, 2))
    return X, rng.normal(size=n_tasks)[tasks] * X[:, 0] + 0.5, tasks


@functools.cache
def fitted(**settings):
    settings = {
        "algorithm": "maml",
        "base": None,
        "hidden": (5,),
        "activation": "tanh",
        "max_iter": 60,
        "outer_lr": 0.01,
        "random_state": 0,
        **settings,
    }
    X, y, tasks = lines()
    return MAMLRegressor(**settings).fit_meta(X, y, tasks=tasks)


# ------------------------------------------------------------------------------------------------ first-order error


def test_first_order_error_is_that_of_gradients_by_finite_differences():
    """One step of fixed size on a linear model: the exact gradient is (I - alpha H) of the first-order one."""
    X, y, tasks = lines()
    model = MAMLRegressor(
        lambda a, b: nn.Linear(a, b, bias=False), inner_steps=1, inner_lr=0.2, learn_step_sizes=False, max_iter=3, dtype="float64",
        random_state=0, algorithm="maml", base=None
    ).fit_meta(X, y, tasks=tasks)  # fmt: skip
    found = first_order_error(model, X, y, tasks, shots=6, batch_size=4, random_state=3)
    assert len(found) == 3
    assert (found["hessian_term"] > 0.01).all() and (found["cosine"] < 1).all()
    fixed = first_order_error(model.set_params(inner_lr=0.2), X, y, tasks, shots=6, batch_size=10, random_state=3)
    small = MAMLRegressor(
        lambda a, b: nn.Linear(a, b, bias=False), inner_steps=1, inner_lr=1e-6, learn_step_sizes=False, max_iter=3, random_state=0,
        dtype="float64", algorithm="maml", base=None
    ).fit_meta(X, y, tasks=tasks)  # fmt: skip
    without = first_order_error(small, X, y, tasks, shots=6, batch_size=10, random_state=3)
    assert without["hessian_term"].item() < 1e-4 * fixed["hessian_term"].item()
    assert without["cosine"].item() == pytest.approx(1, abs=1e-9)


def test_first_order_display():
    X, y, tasks = lines(1)
    display = FirstOrderErrorDisplay.from_estimator(fitted(), X, y, tasks, batch_size=5)
    points = display.ax_.get_lines()[0]
    np.testing.assert_array_equal(points.get_xdata(), display.errors["hessian_term"])
    np.testing.assert_array_equal(points.get_ydata(), display.errors["cosine"])


# ------------------------------------------------------------------------------------------------ condition of a step


@pytest.mark.parametrize("engine", ["loop", "vectorized"])
def test_eigenvalues_are_those_of_the_dense_matrix(engine):
    X, y, tasks = lines()
    model = fitted(dtype="float64", engine=engine)
    found = step_eigenvalues(model, X, y, tasks, shots=ROWS - 1, random_state=0)
    assert len(found) == 10
    # Eleven of twelve rows, in an unknown order of tasks: the same set of values, found from the episodes themselves.
    from fewshot.inspection._reading import inner_loop_of, read_episodes

    inner = inner_loop_of(model, "test")
    support, _ = read_episodes(model, X, y, tasks, shots=ROWS - 1, n_tasks=None, rng=np.random.default_rng(0))
    moving, names = inner.parameters.moving, list(inner.parameters.moving)
    sizes = inner.adaptation.at(inner.parameters.sizes, 0)
    for t in range(10):

        def loss(v, t=t):
            parts = v.split([moving[n].numel() for n in names])
            p = {n: part.view(moving[n].shape) for n, part in zip(names, parts, strict=True)}
            error = functional_call(model.module_, p, (support.x[t],)) - support.y[t]
            return (error[:, 0] ** 2 * support.weight[t]).sum() / support.weight[t].sum()

        flat = torch.cat([moving[n].flatten() for n in names])
        h = jacrev(grad(loss))(flat)
        n = support.weight[t].sum()[None]
        root = torch.cat(
            [sizes.scale(k, n, moving[k][None]).expand(1, *moving[k].shape).flatten() for k in names]
        ).sqrt()
        values = torch.linalg.eigvalsh(root[:, None] * h * root)
        assert found["largest"][t] == pytest.approx(float(values[-1]), rel=1e-6)
        assert found["least"][t] == pytest.approx(float(values[0]), rel=1e-4, abs=1e-6)


def test_a_step_that_is_too_long_is_warned_of():
    X, y, tasks = lines()
    model = MAMLRegressor(
        nn.Linear(2, 1),
        inner_lr=0.1,
        learn_step_sizes=False,
        inner_steps=1,
        max_iter=2,
        random_state=0,
        algorithm="maml",
        base=None,
    )
    model.fit_meta(X, y, tasks=tasks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calm = step_eigenvalues(model, X, y, tasks)
    wild = MAMLRegressor(
        nn.Linear(2, 1),
        inner_lr=5.0,
        learn_step_sizes=False,
        inner_steps=1,
        max_iter=2,
        random_state=0,
        algorithm="maml",
        base=None,
    )
    wild.fit_meta(X, y, tasks=tasks)
    with pytest.warns(UserWarning, match=r"^inner_lr: the first step of 10 of 10 task\(s\) is unstable"):
        display = StepConditionDisplay.from_estimator(wild, X, y, tasks)
    assert display.eigenvalues["unstable"].all() and not calm["unstable"].any()
    np.testing.assert_allclose(display.eigenvalues["largest"], 50 * calm["largest"], rtol=1e-3)


# ------------------------------------------------------------------------------------------------ alignment


def test_alignment_of_a_linear_model_is_that_of_its_quadratic():
    X, y, tasks = lines()
    model = MAMLRegressor(
        lambda a, b: nn.Linear(a, b, bias=False),
        inner_steps=1,
        max_iter=100,
        dtype="float64",
        random_state=0,
        algorithm="maml",
        base=None,
    )
    model.fit_meta(X, y - 0.5, tasks=tasks)
    found = task_alignment(model, X, y - 0.5, tasks, shots=ROWS - 1, steps=3000, random_state=0)
    start = model.module_.weight.detach().numpy()[0]
    scale, mean = model._target_scale[0], model._target_mean[0]
    expected = []
    for t in np.unique(tasks):
        x, target = X[tasks == t], (y[tasks == t] - 0.5 - mean) / scale
        optimum = np.linalg.lstsq(x, target, rcond=None)[0]
        d = optimum - start
        step = -x.T @ (x @ start - target)
        expected.append(d @ step / np.linalg.norm(d) / np.linalg.norm(step))
    # The gradient is of eleven of the twelve rows.
    np.testing.assert_allclose(np.sort(found["after"]), np.sort(expected), atol=0.1)
    assert set(found) == {"before", "after"} and found.abs().max().max() <= 1 + 1e-9


def test_alignment_display():
    display = GradientAlignmentDisplay.from_estimator(fitted(), *lines(1), steps=50)
    assert [line.get_label() for line in display.ax_.get_lines()] == ["random initialisation", "meta-learned"]


# ------------------------------------------------------------------------------------------------ step sizes


@pytest.mark.parametrize("algorithm", ["maml", "meta-sgd"])
def test_step_sizes(algorithm):
    model = fitted(algorithm=algorithm)
    display = StepSizesDisplay.from_estimator(model)
    assert len(display.sizes) == 4 * 5 and len(display.ax_.get_lines()) == 4
    logs = model._parameters.sizes["log_alpha.0.weight"].detach().double().reshape(5, -1)
    part = display.sizes[display.sizes["tensor"] == "0.weight"]
    np.testing.assert_allclose(part["size"], logs.mean(1).exp())
    assert (part["low"] <= part["size"]).all() and ((part["high"] > part["low"]).all() == (algorithm == "meta-sgd"))
    with pytest.raises(InvalidParameterError, match="^estimator: its step sizes are fixed"):
        StepSizesDisplay.from_estimator(fitted(learn_step_sizes=False))


# ------------------------------------------------------------------------------------------------ curves


def test_adaptation_curve_is_that_of_adapting_with_so_many_steps():
    X, y, tasks = lines(1)
    model = fitted()
    display = AdaptationCurveDisplay.from_estimator(model, X, y, tasks, shots=4, steps=[0, 1, 5], random_state=2)
    curve = display.curves[display.curves["method"] == "meta-learned"].set_index("step")["mean"]
    usual = evaluate_few_shot(model, X, y, tasks, shots=[0, 4], cv="prefit", draws=1, random_state=2)
    scores = usual.groupby("shots")["value"].mean()
    assert curve[5] == pytest.approx(scores[4])  # as many steps as it was trained with
    # Without steps it predicts as it is, though from the support's draw.
    assert curve[0] == pytest.approx(scores[0], abs=0.1)
    random = display.curves[display.curves["method"] == "random initialisation"].set_index("step")["mean"]
    assert random[5] < curve[5]
    assert display.metric == "neg_mean_absolute_error" and display.trained_steps == 5
    with pytest.raises(InvalidParameterError, match="^steps: got 'many'; expected a number of steps"):
        AdaptationCurveDisplay.from_estimator(model, X, y, tasks, steps="many")


def test_adaptation_curve_of_a_classifier_with_labels_of_each_task():
    X, y, tasks = lines()
    labels = np.where(y > 0.5, "up", "down")
    model = MAMLClassifier(
        label_space="per_task", max_iter=5, inner_steps=2, random_state=0, algorithm="maml", base=None
    ).fit_meta(X, labels, tasks=tasks)
    display = AdaptationCurveDisplay.from_estimator(model, X, labels, tasks, shots=6)
    assert display.metric == "accuracy" and sorted(display.curves["step"].unique()) == [0, 1, 2, 3, 4]
    assert np.isfinite(first_order_error(model, X, labels, tasks)["cosine"]).all()


def test_support_sizes_are_those_of_the_evaluation():
    X, y, tasks = lines(1)
    models = {"ours": fitted(), "mean": SupportMean().fit_meta(X, y, tasks=tasks)}
    display = SupportSizeDisplay.from_estimator(models, X, y, tasks, shots=[1, 4], draws=2, random_state=0)
    frame = evaluate_few_shot(models, X, y, tasks, shots=[1, 4], cv="prefit", draws=2, random_state=0)
    for (method, shots), value in frame.groupby(["method", "shots"])["value"].mean().items():
        row = display.curve[(display.curve["method"] == method) & (display.curve["shots"] == shots)]
        assert row["mean"].item() == pytest.approx(value)
    one = SupportSizeDisplay.from_estimator(models, X, y, tasks, shots=4, draws=2)
    assert one.curve["shots"].eq(4).all()
    with pytest.raises(InvalidParameterError, match="^cv: the models are taken as they are fitted"):
        SupportSizeDisplay.from_estimator(models, X, y, tasks, cv=3)


def test_the_gap_is_task_gaps():
    X, y, tasks = lines()
    display = GeneralizationGapDisplay.from_estimator(Ridge(), X, y, tasks, shots=0, cv=5)
    expected = task_gap(Ridge(), X, y, tasks, shots=0, cv=5)
    assert display.gap.gap == pytest.approx(expected.gap)
    assert len(display.ax_.get_lines()[0].get_xdata()) == 10


# ------------------------------------------------------------------------------------------------ what all share


def test_samplers_and_given_axes():
    model = MAMLRegressor(max_iter=3, hidden=(4,), random_state=0, algorithm="maml", base=None).fit_meta(
        Sinusoids(shots=4, queries=4)
    )
    _, axes = plt.subplots(1, 4)
    sampler = Sinusoids(shots=4, queries=4)
    shown = [
        FirstOrderErrorDisplay.from_estimator(model, sampler, n_tasks=8, ax=axes[0]),
        StepConditionDisplay.from_estimator(model, sampler, n_tasks=8, ax=axes[1]),
        GradientAlignmentDisplay.from_estimator(model, sampler, n_tasks=8, steps=5, ax=axes[2]),
        AdaptationCurveDisplay.from_estimator(model, sampler, n_tasks=8, shots=4, steps=1, ax=axes[3]),
    ]
    assert [display.ax_ for display in shown] == list(axes)
    assert len(shown[1].eigenvalues) == 8


@pytest.mark.parametrize(
    "display", [FirstOrderErrorDisplay, StepConditionDisplay, GradientAlignmentDisplay, AdaptationCurveDisplay]
)
def test_what_does_not_adapt_by_gradient_steps_is_refused(display):
    X, y, tasks = lines()
    with pytest.raises(
        InvalidParameterError, match="^estimator: algorithm='ridge' with 0 inner steps takes no gradient steps"
    ):
        display.from_estimator(fitted(algorithm="ridge"), X, y, tasks)
    with pytest.raises(NotFittedError):
        display.from_estimator(MAMLRegressor(algorithm="maml", base=None), X, y, tasks)
    with pytest.raises(InvalidParameterError, match="^estimator: got Ridge; .* reads a MAMLRegressor"):
        display.from_estimator(Ridge(), X, y, tasks)


def test_other_refusals():
    X, y, tasks = lines()
    with pytest.raises(
        InvalidParameterError,
        match="^estimator: step_eigenvalues is about plain gradient descent; this one adapts by 'adam'",
    ):
        step_eigenvalues(fitted(algorithm="imaml", max_iter=2), X, y, tasks)
    with pytest.raises(InvalidParameterError, match="^tasks: got None"):
        first_order_error(fitted(), X, y)
    with pytest.raises(InvalidDataError, match="^shots: 12 support row"):
        first_order_error(fitted(), X, y, tasks, shots=12)
    with pytest.raises(InvalidParameterError, match="^ax: got str"):
        StepSizesDisplay.from_estimator(fitted(), ax="here")
