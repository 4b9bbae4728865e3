"""What batch statistics mean inside an episode: each strategy against networks written out, one task after another, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.errors import InvalidParameterError
from fewshot.functional import FunctionalModule
from fewshot.kernels import LoopKernels, VectorizedKernels
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, meta_gradient
from fewshot.tasks import Rows

from ._oracles import F64, N_IN, batch, draw_tasks, make, parts, relative_error, squared, unrolled

STEPS = 3


def normalised(before, over, column, statistics):
    """Normalised by the rows' own statistics; or by given ones, with the derivative of the former (Ioffe 2017, algorithm 1)."""
    mean, std = before.mean(over), torch.sqrt(before.var(over, unbiased=False) + 1e-5)
    own = (before - mean.reshape(column)) / std.reshape(column)
    if statistics is None:
        return own
    running_mean, running_std = statistics[0], torch.sqrt(statistics[1] + 1e-5)
    r, d = (std / running_std).detach().clamp(1 / 3, 3), ((mean - running_mean) / running_std).detach().clamp(-5, 5)
    return own * r.reshape(column) + d.reshape(column)


def flat(params, x, statistics):
    """``make("batch_norm")`` written out; `statistics` is a pair, or None for those of `x`."""
    before = x @ params["0.weight"].T + params["0.bias"]
    h = normalised(before, (0,), (1, -1), statistics) * params["1.weight"] + params["1.bias"]
    return torch.tanh(h) @ params["3.weight"].T + params["3.bias"]


def image_module():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Unflatten(1, (1, 2, 3)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(24, 1),
        ).to(F64)
        with torch.no_grad():
            for p in module[2].parameters():
                p.add_(0.3 * torch.randn_like(p))
    return module


def image(params, x, statistics):
    """The same for a convolutional network."""
    before = F.conv2d(x.reshape(-1, 1, 2, 3), params["1.weight"], params["1.bias"], padding=1)
    weight, bias = (params[name].reshape(1, -1, 1, 1) for name in ("2.weight", "2.bias"))
    h = torch.tanh(normalised(before, (0, 2, 3), (1, -1, 1, 1), statistics) * weight + bias)
    return h.flatten(1) @ params["5.weight"].T + params["5.bias"]


NETWORKS = {
    "flat": (lambda: make("batch_norm"), flat, 5, "1"),
    "image": (image_module, image, 4, "2"),
}


def with_strategy(network, strategy, adaptation):
    """The functional module with running statistics away from zero and one, its parameters, and the literal forward passes."""
    module, literal, width, layer = NETWORKS[network]
    module = module()
    sizes = parts(module, adaptation)[1].sizes
    functional = FunctionalModule(
        module, squared_error, adaptation.adapted, 1, batch_norm=strategy, inner_steps=adaptation.inner_steps
    )
    g = torch.Generator().manual_seed(5)
    steps = adaptation.inner_steps + 1
    means, variances = (
        torch.randn(steps, width, generator=g, dtype=F64),
        torch.rand(steps, width, generator=g, dtype=F64) + 0.5,
    )
    if strategy == "global":
        functional.constant |= {f"{layer}.episode_mean": means[0], f"{layer}.episode_var": variances[0]}
        forward = [lambda p, x, s: literal(p, x, (means[0], variances[0]))] * steps
    elif strategy == "per_step":
        assert functional.constant[f"{layer}.episode_mean"].shape == (steps, width)
        functional.constant |= {f"{layer}.episode_mean": means, f"{layer}.episode_var": variances}
        forward = [lambda p, x, s, k=k: literal(p, x, (means[k], variances[k])) for k in range(steps)]
    else:
        forward = [lambda p, x, s: literal(p, x, None)] * steps
    return functional, MetaParameters(functional.moving, functional.shared, sizes), forward


@pytest.mark.parametrize("kernels", [LoopKernels, VectorizedKernels])
@pytest.mark.parametrize("adapted", ["all", "head"])
@pytest.mark.parametrize("strategy", ["global", "transductive", "per_step"])
@pytest.mark.parametrize("network", list(NETWORKS))
def test_exact_to_second_order_with_ragged_tasks(network, strategy, adapted, kernels):
    adaptation = Adaptation(STEPS, 0.1, adapted=adapted)
    functional, meta, forward = with_strategy(network, strategy, adaptation)
    tasks = draw_tasks(N_IN, steps=STEPS)
    supports, query = batch(tasks, STEPS)
    weights = (0.2, 0.3, 0.5)
    loss, expected = unrolled(forward, squared, meta, tasks_with(tasks, STEPS), step_weights=weights)
    found = meta_gradient(kernels(functional), adaptation, meta, supports, query, step_weights=weights)
    torch.testing.assert_close(found.loss, loss, rtol=1e-10, atol=0)
    assert relative_error(found.gradient.flat(), expected) < 1e-10


def tasks_with(tasks, steps):
    return [(supports[:steps], query) for supports, query in tasks]


def test_strategies_differ():
    adaptation = Adaptation(STEPS, 0.1)
    supports, query = batch(draw_tasks(N_IN, steps=STEPS), STEPS)
    losses = []
    for strategy in ("episode", "global", "transductive", "per_step"):
        functional, meta, _ = with_strategy("flat", strategy, adaptation)
        losses.append(meta_gradient(LoopKernels(functional), adaptation, meta, supports, query).mean_loss())
    assert len({round(loss, 6) for loss in losses}) == 4


def test_more_steps_than_statistics_take_the_last_ones():
    functional, _, _ = with_strategy("flat", "per_step", Adaptation(2, 0.1))
    name = "1.episode_mean"
    kept = functional.constant[name]
    assert torch.equal(functional.constants(functional.constant, 1)[name], kept[1])
    assert torch.equal(functional.constants(functional.constant, 9)[name], kept[2])


def test_a_prediction_normalises_as_the_strategy_says():
    x = torch.randn(6, N_IN, generator=torch.Generator().manual_seed(3), dtype=F64)
    for strategy in ("global", "transductive"):
        functional, meta, _ = with_strategy("flat", strategy, Adaptation(1, 0.1))
        got = functional.prediction(meta.moving, meta.shared, functional.constant, x)
        p = meta.moving
        h = x @ p["0.weight"].T + p["0.bias"]
        mean, var = h.mean(0), h.var(0, unbiased=False)
        if strategy == "global":
            mean, var = functional.constant["1.episode_mean"], functional.constant["1.episode_var"]
        h = (h - mean) / torch.sqrt(var + 1e-5) * p["1.weight"] + p["1.bias"]
        torch.testing.assert_close(got, torch.tanh(h) @ p["3.weight"].T + p["3.bias"])


def test_moments_are_those_of_the_rows_with_weight():
    functional, meta, _ = with_strategy("flat", "global", Adaptation(1, 0.1))
    x = torch.randn(6, N_IN, generator=torch.Generator().manual_seed(3), dtype=F64)
    rows = Rows(x, x[:, :1], torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=F64))
    before = x[:3] @ meta.moving["0.weight"].T + meta.moving["0.bias"]
    for normalised in (True, False):
        found = functional.moments(meta.moving, meta.shared, functional.constant, rows, normalised=normalised)
        torch.testing.assert_close(found["1.episode_mean"], before.mean(0))
        torch.testing.assert_close(found["1.episode_var"], before.var(0, unbiased=False))


@pytest.mark.parametrize("strategy", ["global", "per_step"])
def test_no_derivative_makes_what_feeds_a_layer_grow(strategy):
    """The averages would undo it: scaling all that a layer sees has to have no first-order effect on the loss."""
    functional, meta, _ = with_strategy("flat", strategy, Adaptation(0, 0.1))
    supports, query = batch(draw_tasks(N_IN), 0)
    found = meta_gradient(VectorizedKernels(functional), Adaptation(0, 0.1), meta, supports, query).gradient.moving
    along = sum((found[n] * meta.moving[n]).sum() for n in ("0.weight", "0.bias"))
    size = sum((found[n].norm() * meta.moving[n].norm()) for n in ("0.weight", "0.bias"))
    assert abs(along) < 1e-3 * size  # but for eps
    assert abs(found["0.bias"]).max() < 1e-10  # nor shifting it


def test_averages_that_are_far_behind_are_followed_within_limits():
    functional, meta, _ = with_strategy("flat", "global", Adaptation(0, 0.1))
    supports, query = batch(draw_tasks(N_IN), 0)
    losses = []
    for behind in (1.0, 1e3, 1e6):
        functional.constant["1.episode_mean"] = torch.full((5,), behind, dtype=F64)
        losses.append(meta_gradient(LoopKernels(functional), Adaptation(0, 0.1), meta, supports, query).mean_loss())
    assert losses[0] != losses[1] == losses[2]


def test_unknown_strategy():
    with pytest.raises(InvalidParameterError, match=r"^batch_norm: got 'batch'; expected one of 'episode', 'global', "):
        FunctionalModule(make("batch_norm"), squared_error, "all", 1, batch_norm="batch")
