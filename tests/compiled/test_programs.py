"""Compiled programs against plain autograd, task by task: the same losses and derivatives for every network and setting.

Float64 throughout, where only rounding may differ; some again in float32, whose elementary functions are others.
Forward passes are put together in groups, since a program costs a second to build.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.heads import WithHead
from fewshot.losses import (
    absolute_error,
    binary_cross_entropy,
    cross_entropy,
    huber,
    poisson,
    squared_error,
)
from fewshot.networks import conv4, mlp

from ._compare import F64, Net, Setting

pytestmark = pytest.mark.usefixtures("compiler")


def plain(width=5, n_out=1, n_in=6):
    return lambda: nn.Sequential(nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, n_out))


def joined(*functions):
    """What several functions of the features say, side by side."""
    return lambda self, h: torch.cat([f(self, h) if f.__code__.co_argcount == 2 else f(h) for f in functions], 1)


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("order", "settings"),
    [
        ("exact", {}),
        ("exact", {"half_trust": None}),
        ("exact", {"learn_step_sizes": "parameter"}),
        ("exact", {"learn_step_sizes": False}),
        ("exact", {"inner_steps": 0}),
        ("exact", {"inner_steps": 1}),
        ("exact", {"adapted": "head"}),
        ("exact", {"adapted": "body", "learn_step_sizes": "parameter", "half_trust": None}),
        ("first", {}),
        ("first", {"inner_steps": 0}),
        ("first", {"learn_step_sizes": False}),
        ("first", {"adapted": "body", "learn_step_sizes": "parameter"}),
        *((order, {"optimizer": rule}) for rule in ("momentum", "adam") for order in ("exact", "first")),
        ("exact", {"optimizer": "adam", "proximal": 0.7, "learn_step_sizes": False}),
        ("exact", {"proximal": 0.7, "adapted": "head"}),
    ],
    ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values())) or "as usual",
)
def test_every_setting_of_the_inner_loop(order, settings):
    adaptation = Adaptation(**{"inner_steps": 3, "inner_lr": 0.2, **settings})
    setting = Setting(plain(), adaptation, order=order, empty_query=True)
    expected = setting.check()
    assert expected.share[0] == 0, "a task without query rows was to be among them"
    assert adaptation.adapted == "all" or setting.meta.shared


@pytest.mark.parametrize("order", ["exact", "first"])
def test_the_objective_may_weigh_tasks_and_steps(order):
    objective = {"step_weights": (0.2, 0.0, 0.8), "share": torch.tensor([0.5, 0.0, 2.0], dtype=F64)}
    setting = Setting(plain(), Adaptation(3, 0.2, adapted="body"), order=order, objective=objective)
    weighed = setting.check()
    for name in objective:
        setting.objective = {k: v for k, v in objective.items() if k != name}
        assert not torch.allclose(setting.check().vector, weighed.vector)


def normalised():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


@pytest.mark.parametrize("strategy", ["episode", "global", "transductive", "per_step"])
def test_every_meaning_of_batch_statistics(strategy):
    setting = Setting(normalised, Adaptation(3, 0.1), batch_norm=strategy, objective={"step_weights": (0.2, 0.3, 0.5)})
    for name in setting.functional.running:
        value = setting.functional.constant[name]
        value += torch.rand(value.shape, generator=setting.g).to(F64)
    setting.check()
    setting.check_adapting()


@pytest.mark.parametrize(
    ("row_loss", "n_out", "target", "dtype"),
    [
        (squared_error, 3, "real", F64),
        (absolute_error, 2, "real", F64),
        (huber, 1, "real", F64),
        (poisson, 2, "count", F64),
        (cross_entropy, 3, 3, F64),
        (binary_cross_entropy, 1, 2, F64),
        (cross_entropy, 3, 3, torch.float32),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_every_loss(row_loss, n_out, target, dtype):
    Setting(plain(n_out=n_out), row_loss=row_loss, n_out=n_out, target=target, dtype=dtype).check()


def test_classes_that_an_episode_does_not_know_are_masked():
    def known(n_tasks, n):
        classes = torch.ones(n_tasks, n, 4, dtype=torch.bool)
        classes[1:, :, 2:] = False
        return {"classes": classes}

    setting = Setting(plain(n_out=4), row_loss=cross_entropy, n_out=4, target=2, extra=known)
    expected = setting.check()
    # The mask takes part: without it the same batch has another loss.
    for rows in (*setting.supports, setting.query):
        rows.extra["classes"][:] = True
    assert not torch.allclose(setting.check().loss[1:], expected.loss[1:])
    setting.check_adapting()


@pytest.mark.parametrize("steps", [1, 3])
def test_one_program_serves_any_number_of_tasks_and_its_answers_do_not_depend_on_earlier_calls(steps):
    setting = Setting(plain(), Adaptation(steps, 0.1))
    library, n = setting.library(), setting.adaptation.inner_steps
    first = library.meta_gradient(setting.groups, setting.supports, setting.query, n)
    for n_tasks in (1, 2, 7):
        setting.supports = [setting.draw(n_tasks, 4) for _ in range(n)]
        setting.query = setting.draw(n_tasks, 5)
        setting.check()
        assert setting.library() is library
    setting = Setting(plain(), Adaptation(steps, 0.1))
    again = library.meta_gradient(setting.groups, setting.supports, setting.query, n)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_tasks_are_shared_among_threads():
    setting = Setting(plain(), n_tasks=5)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            setting.check()
            setting.check_adapting()
    finally:
        torch.set_num_threads(before)


def test_rows_and_parameters_may_lie_in_memory_as_they_like():
    setting = Setting(plain())

    def apart(t):
        return torch.stack([t, t + 1], -1)[..., 0]

    moving = {k: apart(v) for k, v in setting.meta.moving.items()}
    setting.meta.moving.clear()
    setting.meta.moving.update(moving)
    setting.supports = [s._replace(x=apart(s.x), y=apart(s.y), weight=apart(s.weight)) for s in setting.supports]
    assert not setting.supports[0].x.is_contiguous()
    setting.check()


@pytest.mark.parametrize(("steps", "query"), [(0, "as it is"), (1, None), (2, "as it is"), (3, None)])
def test_adapting(steps, query):
    setting = Setting(plain(), Adaptation(steps, 0.2, adapted="body"))
    setting.check_adapting(query)


# ------------------------------------------------------------------------------------------------ widths and layers


@pytest.mark.parametrize(
    ("n_in", "hidden", "rows", "dtype"),
    [
        (1, (1,), (1, 1), F64),
        (3, (17, 2), (7, 9), F64),
        (33, (5, 18), (3, 17), F64),
        (7, (65,), (1, 2), F64),
        (3, (33, 2), (7, 17), torch.float32),
    ],
)
def test_odd_widths(n_in, hidden, rows, dtype):
    """Shapes around the widths of vector registers, where a loop has leftover elements and products have edges."""
    setting = Setting(
        lambda: mlp(n_in, 2, hidden=hidden, activation="tanh"), n_in=n_in, n_out=2, rows=rows, dtype=dtype
    )
    setting.check()


def test_a_single_row_of_a_single_task():
    Setting(plain(3), n_tasks=1, rows=(1, 1)).check()


ACTIVATIONS = {
    "piecewise": [nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6, nn.PReLU, nn.Softshrink, nn.Hardshrink],
    "exponential": [nn.ELU, nn.SELU, nn.CELU, nn.Softplus, nn.Sigmoid, nn.LogSigmoid],
    "smooth": [nn.GELU, lambda: nn.GELU("tanh"), nn.SiLU, nn.Tanh, nn.Mish, nn.Hardswish, nn.Softsign],
}


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [*((kind, F64) for kind in ACTIVATIONS), ("exponential", torch.float32), ("smooth", torch.float32)],
)
def test_activations(kind, dtype):
    def all_of_them(self, h):
        return torch.cat([a(h) for a in self.activations], 1)

    def make():
        return Net(all_of_them, activations=nn.ModuleList(a() for a in ACTIVATIONS[kind]))

    Setting(make, dtype=dtype).check()


def fused_norms(self, h):
    parts = F.layer_norm(h, (6,), self.weight), F.group_norm(h, 2), F.rms_norm(h, (6,)), F.normalize(h, dim=1)
    return torch.cat(parts, 1)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (lambda: Net(lambda self, h: self.norm(h), norm=nn.LayerNorm(6)), {}),
        (lambda: Net(lambda self, h: self.norm(h.tanh()), norm=nn.GroupNorm(2, 6)), {}),
        (lambda: Net(lambda self, h: self.norm(h).tanh(), norm=nn.BatchNorm1d(6)), {}),
        (lambda: Net(fused_norms, weight=nn.Parameter(torch.rand(6))), {}),
        (lambda: Net(lambda self, h: self.norm(h).tanh(), norm=nn.BatchNorm1d(6)), {"dtype": torch.float32}),
    ],
    ids=["layer", "group", "batch", "fused", "batch-float32"],
)
def test_normalisation(make, options):
    Setting(make, **options).check()


def test_batch_statistics_come_from_the_support_when_adapting_too():
    Setting(lambda: Net(lambda self, h: self.norm(h).tanh(), norm=nn.BatchNorm1d(6))).check_adapting()


def images(*layers, shape=(1, 6, 6)):
    """A network for flat rows that are images."""

    def make():
        body = nn.Sequential(nn.Unflatten(-1, shape), *(layer() for layer in layers), nn.Flatten())
        n_in = torch.Size(shape).numel()
        return nn.Sequential(body, nn.Linear(body.eval()(torch.zeros(2, n_in)).shape[1], 1))

    return make


IMAGES = {
    "padding-stride": (
        images(lambda: nn.Conv2d(1, 2, 3, padding=1), nn.Tanh, lambda: nn.Conv2d(2, 3, 3, stride=2), nn.Tanh),
        36,
    ),
    "dilation-groups": (
        images(
            lambda: nn.Conv2d(2, 4, (3, 2), dilation=(2, 1), groups=2, bias=False),
            nn.Tanh,
            lambda: nn.Conv2d(4, 4, 2, groups=4, padding=(1, 0)),
            shape=(2, 6, 3),
        ),
        36,
    ),
    "one-axis": (
        images(
            lambda: nn.Conv1d(3, 2, 3, stride=2, padding=1),
            nn.Tanh,
            lambda: nn.MaxPool1d(2),
            lambda: nn.Conv1d(2, 2, 2),
            shape=(3, 12),
        ),
        36,
    ),
    "transposed": (
        images(
            lambda: nn.ConvTranspose2d(1, 2, 3, stride=2, padding=1, output_padding=1),
            nn.Tanh,
            lambda: nn.ConvTranspose2d(2, 2, 2, groups=2, bias=False),
            nn.Tanh,
            lambda: nn.Flatten(2),
            lambda: nn.ConvTranspose1d(2, 1, 2, stride=3, dilation=2),
            shape=(1, 3, 4),
        ),
        12,
    ),
    "pools": (
        images(
            lambda: nn.Conv2d(1, 2, 1),
            lambda: nn.MaxPool2d(3, stride=1, padding=1),
            nn.Tanh,
            lambda: nn.AvgPool2d(2),
            nn.Tanh,
            lambda: nn.MaxPool2d(2, ceil_mode=True),
            lambda: nn.MaxPool2d(2, stride=1, padding=1, dilation=2),
            lambda: nn.AdaptiveAvgPool2d(1),
        ),
        36,
    ),
    "norms": (
        images(
            lambda: nn.Conv2d(1, 4, 2),
            lambda: nn.BatchNorm2d(4),
            nn.Tanh,
            lambda: nn.GroupNorm(2, 4),
            lambda: nn.InstanceNorm2d(4, affine=True),
            shape=(1, 3, 4),
        ),
        12,
    ),
    "padding-modes": (
        images(
            lambda: nn.Conv2d(1, 2, 2, padding=1, padding_mode="reflect"),
            nn.Tanh,
            lambda: nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular"),
            shape=(1, 3, 2),
        ),
        6,
    ),
}


@pytest.mark.parametrize("name", IMAGES)
def test_convolutions_and_pooling(name):
    make, n_in = IMAGES[name]
    Setting(make, n_in=n_in, rows=(3, 2)).check()


def test_the_built_in_network_for_images():
    options = {"n_in": 16, "n_out": 2, "rows": (3, 2), "order": "first"}
    Setting(lambda: conv4(16, 2, channels=2), Adaptation(1, 0.1), **options).check()


class Frozen(nn.Module):
    """Convolutions of which one is frozen: its weights have no derivative, but its input has."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 2, 2), nn.Conv2d(2, 2, 2), nn.Linear(4, 1)
        self.second.requires_grad_(False)

    def forward(self, x):
        return self.head(self.second(self.first(x.view(-1, 1, 3, 4)).tanh()).tanh().flatten(1))


def test_a_frozen_convolution():
    setting = Setting(Frozen, n_in=12)
    assert "second.weight" in setting.functional.constant
    setting.check()


# ------------------------------------------------------------------------------------------------ forward passes


class Tied(nn.Module):
    """One matrix in two places."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 1)
        self.second.weight = self.first.weight
        self.temperature = nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        h = torch.tanh(self.first(x) * self.temperature)
        return self.head(h + torch.tanh(self.second(h)))


class Embedded(nn.Module):
    """Rows that hold positions in tables, one of which has a padding row."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Embedding(5, 3, padding_idx=0), nn.Embedding(4, 2)
        self.mix, self.head = nn.Linear(9, 5), nn.Linear(5, 1)

    def forward(self, x):
        a, b = (x[:, :2].abs() * 2).long().clamp(0, 4), (x[:, 2].abs() * 2).long().clamp(max=3)
        return self.head(torch.tanh(self.mix(torch.cat([self.first(a).flatten(1), self.second(b), x[:, 3:4]], 1))))


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 1)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x):
        z = self.embed(x.view(-1, 3, 2))
        return self.head(self.norm(z + self.attention(z, z, z, need_weights=False)[0]).mean(1))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(2, 3), nn.Linear(3, 1)

    def forward(self, x):
        h = x.new_zeros(len(x), 3)
        for t in range(3):
            h = self.cell(x[:, 2 * t : 2 * t + 2], h)
        return self.head(h)


@pytest.mark.parametrize("make", [Tied, Embedded, Attention, Recurrent])
def test_modules(make):
    Setting(make, rows=(3, 4)).check()


def assigned(h):
    h = h.clone()
    h[:, 0] = 0.5
    h[:, 1:3] = h[:, 3:5] * 2
    return h.mul_(2.0) * h.detach().clone()


def gram(net):
    """Symmetric and positive definite."""
    w = net.body.weight
    return w @ w.T + 2 * torch.eye(6, dtype=w.dtype)


FORWARD = {
    "parts": joined(
        lambda h: torch.cat([h[:, :3], 2 * h[:, 3:].tanh()], 1),
        lambda h: torch.stack([h, h.sin()], 1).flatten(1),
        lambda h: F.pad(h, (1, -2), value=0.3) * 1.5,
        lambda h: torch.cat(h.chunk(2, 1)[::-1], 1) * h.flip(1),
        lambda h: h.roll(1, 1) * h,
        lambda h: h.unfold(1, 3, 2).sum(2) ** 2,
        lambda h: h[:, ::2] * h[:, 1::2],
        lambda h: h.repeat(1, 2)[:, 2:9] ** 2,
        lambda h: torch.cat([h, h[:, :0]], 1),
        lambda h: torch.stack(h.unbind(1)[1:], 1) * h[:, 0:1],
        assigned,
    ),
    "choices": joined(
        lambda h: h.clamp(-0.5, 0.5) * h,
        lambda h: torch.where(h > 0, h.sin(), h * h),
        lambda h: torch.maximum(h, h.cos()),
        lambda h: torch.minimum(h, h[:, :1]),
        lambda h: h * h.max(1, keepdim=True).values,
        lambda h: h * h.min(1).values[:, None],
        lambda h: h * h.amax(1, keepdim=True),
        lambda h: h.masked_fill(h < 0, 0.3) * h,
        lambda h: h * ((h > 1) | (h < 0)) * (~(h < -1)),
        lambda h: h * h.argmax(1, keepdim=True),
        lambda h: torch.nan_to_num(h) * torch.isinf(h).logical_not(),
    ),
    "statistics": joined(
        lambda h: h - h.mean(1, keepdim=True),
        lambda h: h / (h.var(1, keepdim=True) + 1).sqrt(),
        lambda h: h / h.std(1, keepdim=True, correction=0),
        lambda h: h - h.logsumexp(1, keepdim=True),
        lambda h: h.softmax(1) * h,
        lambda h: h.cumsum(1) * h,
        lambda h: h / h.norm(dim=1, keepdim=True),
        lambda h: h * F.cosine_similarity(h, h * 2 + 1, dim=1)[:, None],
        lambda h: h.log_softmax(1),
    ),
    "functions": joined(
        lambda h: h.atan() + h.erf() + h.asinh(),
        lambda h: (h.abs() + 1).log2() * (h.abs() + 2).log10(),
        lambda h: (h.abs() + 1) ** 0.5 + 2.0 ** h.tanh(),
        lambda h: (h.abs() + 0.1) ** h.sigmoid(),
        lambda h: torch.atan2(h, h * h + 1) + (0.3 * h).tan(),
        lambda h: h.tanh().mul(0.5).acos() + (h.sinh() - h.cosh()).tanh(),
        lambda h: h.square().log1p() + h.tanh().expm1() + (h.square() + 1).rsqrt(),
        lambda h: torch.lerp(h, h * h, 0.3) + torch.addcmul(h, h, h, value=0.03),
        lambda h: torch.logaddexp(h, -h) + 1 / (h.square() + 1),
        lambda h: h * h.detach().round() + h * h.detach().ceil() * h.detach().floor() - h * h.detach().trunc(),
        lambda h: h * (h.detach() % 0.7) + h * torch.fmod(h.detach(), -0.7) + h * (-h.detach()).sign(),
    ),
    "products": joined(
        lambda h: torch.einsum("ri,rj->rij", h, h).sum(2),
        lambda h: (h.view(-1, 2, 3) @ h.view(-1, 3, 2)).flatten(1),
        lambda self, h: h * (h @ self.body.bias)[:, None],
        lambda self, h: h * torch.dot(self.body.bias, self.body.bias) + self.body.weight.trace(),
        lambda self, h: torch.addmm(self.body.bias, h, self.body.weight, beta=0.5, alpha=2.0),
        lambda self, h: h @ torch.diag(self.body.bias) @ self.body.weight.tril(),
        lambda self, h: h @ self.body.weight.T @ torch.eye(6, dtype=h.dtype),
        lambda self, h: F.bilinear(h, h, self.tensor),
        lambda h: (h[:, :, None] * h[:, None, :2]).reshape(len(h), -1),
        lambda self, h: h * self.buffer + self.counts,
    ),
    "indices": joined(
        lambda h: h[:, [0, 2, 4, 1, 1]] ** 2,
        lambda h: h.view(-1, 2, 3)[:, torch.tensor([0, 1, -1]), torch.tensor([2, 0, -3])] ** 2,
        lambda h: h.view(-1, 2, 3)[:, torch.tensor([[0], [1]]), :, None][..., torch.tensor([1, 0, 1]), 0].flatten(1),
        lambda h: h.index_select(1, torch.tensor([5, 0, 0])) ** 2,
        lambda h: h.gather(1, torch.arange(5, -1, -1).expand(len(h), 6)) * h,
        lambda h: h * torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0, 6.0], dtype=h.dtype) * torch.arange(6),
        lambda h: h.repeat_interleave(2, 1) ** 2,
        lambda h: torch.diag_embed(h).sum(1) ** 2,
        lambda h: torch.zeros_like(h).scatter_add(1, (h.detach().abs() * 2).long().clamp(max=5), h * h),
        lambda h: h.new_ones(6) * h,
    ),
    "triangles": joined(
        lambda self, h: h @ torch.linalg.cholesky_ex(gram(self))[0],
        lambda self, h: h @ torch.linalg.cholesky_ex(gram(self), upper=True)[0],
        lambda self, h: h * torch.linalg.cholesky_ex(gram(self) - 50 * torch.eye(6, dtype=h.dtype)[3].diag())[1],
        lambda self, h: torch.linalg.solve_triangular(torch.linalg.cholesky_ex(gram(self))[0], h.T, upper=False).T,
        lambda self, h: torch.linalg.solve_triangular(gram(self), h, upper=False, left=False),
        lambda self, h: torch.linalg.solve_triangular(gram(self).T, h, upper=True, left=False),
        lambda self, h: torch.linalg.solve_triangular(0.1 * gram(self), h.T, upper=True, unitriangular=True).T,
    ),
    "types": joined(
        lambda h: h * (-(h.detach() * 3).long().abs() - 1).amax(1, keepdim=True),
        lambda h: h * ((h > 0).to(torch.uint8) - (h < 0.5).to(torch.uint8)).to(h.dtype) / 255,
        lambda h: h * torch.where(h > 0, (h * 3).int(), 1).clamp(0, 2),
        lambda h: h * ((h.detach() * 5).long() % 3 - torch.fmod((h.detach() * 5).long(), 3)),
        lambda h: h * (h > 0).any(1, keepdim=True) * (h < 9).all(1, keepdim=True),
        lambda h: h * (h > 0).sum(1, keepdim=True) * (h.long() == 0),
    ),
}


@pytest.mark.parametrize("name", FORWARD)
def test_forward_passes(name):
    """Rows at which a comparison is a tie, or a power is of zero, would have derivatives that are a matter of taste."""

    def make():
        members = {"buffer": torch.arange(6.0) - 2, "counts": torch.arange(6)}
        return Net(FORWARD[name], tensor=nn.Parameter(0.3 * torch.randn(2, 6, 6)), **members)

    Setting(make, Adaptation(2, 0.02)).check()


def test_forward_passes_in_single_precision():
    Setting(lambda: Net(FORWARD["choices"]), Adaptation(2, 0.02), dtype=torch.float32).check()


@pytest.mark.parametrize("dtype", [F64, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("solver", "objective", "row_loss", "options"),
    [
        ("ridge", "predictive", squared_error, {"n_out": 2}),
        ("ridge", "marginal", squared_error, {}),
        ("ridge", "predictive", cross_entropy, {"n_out": 3, "target": 3}),
        ("gaussian_process", "predictive", squared_error, {"n_out": 2}),
        ("gaussian_process", "marginal", cross_entropy, {"n_out": 3, "target": 3}),
    ],
)
def test_heads_in_closed_form(solver, objective, row_loss, options, dtype):
    def make():
        return WithHead(plain(n_out=options.get("n_out", 1))(), solver, objective)

    Setting(make, Adaptation(0, 0.1, adapted="head"), row_loss=row_loss, dtype=dtype, **options).check()


def test_a_large_expression_is_written_in_pieces():
    def long(self, h):
        for k in range(40):
            h = (h + 0.01 * k).sin() * 1.1 + h * 0.1
        return h

    Setting(lambda: Net(long), Adaptation(1, 0.05)).check()


# ------------------------------------------------------------------------------------------------ safety


def test_an_index_outside_gives_no_number_and_reads_nothing_that_is_not_its_own():
    """torch raises there; a program has no way to, and must not look at other memory or write to it."""
    setting = Setting(plain(n_out=3), row_loss=cross_entropy, n_out=3, target=3)
    library = setting.library()
    for wrong in (3, -1, 2**40, -(2**40)):
        rows = setting.query._replace(y=setting.query.y.clone())
        rows.y[2, 0] = wrong
        loss, _, vector = library.meta_gradient(setting.groups, setting.supports, rows, 2)
        assert loss[2].isnan() and loss[:2].isfinite().all()
        assert len(vector)

    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Embedding(4, 3), nn.Linear(3, 1)

        def forward(self, x):
            return self.head(self.table(x[:, 0].abs().long()).tanh())

    setting = Setting(Lookup)
    for rows in (*setting.supports, setting.query):
        rows.x.clamp_(-3, 3)
    setting.check()
    setting.query.x[0, 0, 0] = 1e12
    loss, *_ = setting.library().meta_gradient(setting.groups, setting.supports, setting.query, 2)
    assert loss[0].isnan() and loss[1:].isfinite().all()


def test_what_is_not_a_number_stays_so():
    """Training stops at a loss that is not finite, so a program may not hide one."""
    kinds = [(nn.ReLU(), F64), (nn.Tanh(), torch.float32), (nn.ELU(), torch.float32)]
    for activation, dtype in kinds:
        setting = Setting(lambda a=activation: nn.Sequential(nn.Linear(6, 3), a, nn.Linear(3, 1)), dtype=dtype)
        setting.query.x[1, 0, 0] = torch.nan
        loss, *_ = setting.library().meta_gradient(setting.groups, setting.supports, setting.query, 2)
        assert loss[1].isnan() and loss[[0, 2]].isfinite().all()


def test_nothing_is_written_into_the_arguments():
    setting = Setting(plain())
    tensors = [t for g in setting.groups.values() for t in g.values()]
    tensors += [t for r in (*setting.supports, setting.query) for t in (r.x, r.y, r.weight)]
    before = [t.clone() for t in tensors]
    setting.check()
    setting.check_adapting()
    assert all(torch.equal(a, b) for a, b in zip(before, tensors, strict=True))
