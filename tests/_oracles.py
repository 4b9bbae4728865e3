"""Oracles: the same numbers by the most literal route, sharing no code with the package's engine.

:func:`unrolled` is textbook MAML: one task after another, plain autograd through every inner step, torch's own layers, no
padding. Slow and memory-hungry, and right.
"""

import torch
import torch.nn.functional as F
from torch import nn

from fewshot.adaptation import Adaptation
from fewshot.functional import FunctionalModule
from fewshot.losses import cross_entropy, squared_error
from fewshot.metagradient import MetaParameters
from fewshot.tasks import Rows

F64 = torch.float64


def squared(output, target):
    return ((output - target) ** 2).mean(-1)


def nll(output, target):
    return F.cross_entropy(output, target, reduction="none")


ROW_LOSSES = {"squared": (squared_error, squared), "nll": (cross_entropy, nll)}


def weighted_mean(values, weight):
    return (values * weight).sum() / weight.sum()


def kish(weight):
    return weight.sum() ** 2 / (weight**2).sum()


def leaf(tensor):
    return tensor.detach().clone().requires_grad_()


def literal_update(rule, p, g, scale, memory):
    """A parameter after one step of an inner optimiser, from its definition; `memory` is changed."""
    memory["t"] = memory.get("t", 0) + 1
    if rule == "momentum":
        memory["u"] = 0.9 * memory.get("u", 0.0) + g
        return p - scale * memory["u"]
    if rule == "adam":
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        memory["v"] = 0.999 * memory.get("v", 0.0) + 0.001 * g**2
        m, v = memory["m"] / (1 - 0.9 ** memory["t"]), memory["v"] / (1 - 0.999 ** memory["t"])
        return p - scale * m / torch.sqrt(v + 1e-12)
    return p - scale * g


def unrolled(
    forward,
    row_loss,
    parameters,
    tasks,
    *,
    log_c=True,
    first_order=False,
    rule=None,
    proximal=0.0,
    step_weights=None,
    share=None,
):
    """Query losses after adaptation and the gradient of their mean.

    ``forward(params, x, support_x)`` is the network, or a list of such, one for each inner step and one for the query; ``tasks`` a
    list of (list of (x, y, w), one per inner step; (x, y, w)).
    Returns (losses, {"moving/...": gradient, "shared/...": ..., "sizes/...": ...}).
    """
    moving = {k: leaf(v) for k, v in parameters.moving.items()}
    shared = {k: leaf(v) for k, v in parameters.shared.items()}
    sizes = {k: leaf(v) for k, v in parameters.sizes.items()}
    losses, objective = [], []

    def at(k):
        return forward[k] if isinstance(forward, list) else forward

    for supports, (query_x, query_y, query_w) in tasks:
        theta, memory = dict(moving), {name: {} for name in moving}

        def judged(theta, k, supports=supports, query_x=query_x, query_y=query_y, query_w=query_w):
            out = at(k)({**theta, **shared}, query_x, supports[-1][0] if supports else query_x)
            return weighted_mean(row_loss(out, query_y), query_w)

        weighted = 0.0
        for k, (x, y, w) in enumerate(supports):
            loss = weighted_mean(row_loss(at(k)({**theta, **shared}, x, x), y), w)
            found = torch.autograd.grad(loss, list(theta.values()), create_graph=not first_order, allow_unused=True)
            new = {}
            for (name, p), g in zip(theta.items(), found, strict=True):
                g = torch.zeros_like(p) if g is None else g
                alpha = torch.exp(sizes[f"log_alpha.{name}"][k])
                if f"log_c.{name}" in sizes and log_c:
                    n = kish(w)
                    alpha = alpha * n / (n + torch.exp(sizes[f"log_c.{name}"]))
                new[name] = literal_update(rule, p, g + proximal * (p - moving[name]), alpha, memory[name])
            theta = new
            if step_weights is not None:
                weighted = weighted + step_weights[k] * judged(theta, k + 1)
        losses.append(judged(theta, len(supports)))
        objective.append(losses[-1] if step_weights is None or not supports else weighted)
    leaves = {
        **{f"moving/{k}": v for k, v in moving.items()},
        **{f"shared/{k}": v for k, v in shared.items()},
        **{f"sizes/{k}": v for k, v in sizes.items()},
    }
    objective = torch.stack(objective)
    mean = objective.mean() if share is None else (objective * share).sum()
    gradients = torch.autograd.grad(mean, list(leaves.values()), allow_unused=True)
    gradients = {
        k: torch.zeros_like(v) if g is None else g for (k, v), g in zip(leaves.items(), gradients, strict=True)
    }
    return torch.stack(losses).detach(), gradients


def pad(parts, width=None, fill=7.5):
    """Ragged (x, y, w) triples as one batch of Rows; padded rows hold a value that would be noticed."""
    width = width or max(len(x) for x, _, _ in parts)

    def stack(tensors, value):
        padded = []
        for t in tensors:
            rest = t.new_full((width - len(t), *t.shape[1:]), value)
            padded.append(torch.cat([t, rest]))
        return torch.stack(padded)

    xs, ys, ws = zip(*parts, strict=True)
    return Rows(stack(xs, fill), stack(ys, fill if ys[0].is_floating_point() else 0), stack(ws, 0.0))


def batch(tasks, n_steps, same=True):
    """The supports (one Rows a step) and the query of a list of tasks, padded."""
    if same:
        support = pad([supports[0] for supports, _ in tasks])
        supports = [support] * max(n_steps, 1)
    else:
        supports = [pad([supports[k] for supports, _ in tasks]) for k in range(n_steps)]
    return supports, pad([query for _, query in tasks])


def draw_tasks(
    n_in=3,
    n_out=1,
    sizes=((5, 4), (2, 6), (7, 3)),
    steps=1,
    seed=0,
    dtype=F64,
    classes=False,
    weighted=False,
    same=True,
):
    """Ragged random tasks; with ``same=False`` every inner step has rows of its own."""
    g = torch.Generator().manual_seed(seed)

    def rows(n):
        x = torch.randn(n, n_in, generator=g, dtype=dtype)
        y = torch.randint(0, n_out, (n,), generator=g) if classes else torch.randn(n, n_out, generator=g, dtype=dtype)
        w = torch.rand(n, generator=g, dtype=dtype) + 0.5 if weighted else torch.ones(n, dtype=dtype)
        return x, y, w

    tasks = []
    for n_support, n_query in sizes:
        first = rows(n_support)
        supports = [first if same or k == 0 else rows(n_support + k % 2) for k in range(max(steps, 1))]
        tasks.append((supports, rows(n_query)))
    return tasks


# ------------------------------------------------------------------------------------------------ networks

N_IN = 6


class Tied(nn.Module):
    """One matrix used as encoder and, transposed through a shared layer, twice."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.first = nn.Linear(n_in, n_in)
        self.second = nn.Linear(n_in, n_in)
        self.second.weight = self.first.weight
        self.head = nn.Linear(n_in, n_out)

    def forward(self, x):
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Scalar(nn.Module):
    """A parameter without axes."""

    def __init__(self, n_in, n_out):
        super().__init__()
        self.temperature = nn.Parameter(torch.tensor(0.7))
        self.body = nn.Linear(n_in, 4)
        self.head = nn.Linear(4, n_out)

    def forward(self, x):
        return self.head(torch.tanh(self.body(x) * self.temperature))


def plain(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 5), nn.Tanh(), nn.Linear(5, n_out))


def layer_norm(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, n_out))


def group_norm(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 6), nn.GroupNorm(2, 6), nn.Tanh(), nn.Linear(6, n_out))


def instance_norm(n_in, n_out):
    return nn.Sequential(
        nn.Unflatten(-1, (2, n_in // 2)),
        nn.Conv1d(2, 3, 2, padding=1),
        nn.InstanceNorm1d(3, affine=True),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(3 * (n_in // 2 + 1), n_out),
    )


def batch_norm(n_in, n_out):
    return nn.Sequential(nn.Linear(n_in, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, n_out))


def batch_norm_literal(params, x, support_x):
    """:func:`batch_norm` written out: the support's mean and biased variance normalise whatever comes."""
    before = support_x @ params["0.weight"].T + params["0.bias"]
    mean = before.mean(0)
    var = ((before - mean) ** 2).mean(0)
    h = x @ params["0.weight"].T + params["0.bias"]
    h = (h - mean) / torch.sqrt(var + 1e-5) * params["1.weight"] + params["1.bias"]
    return torch.tanh(h) @ params["3.weight"].T + params["3.bias"]


NETWORKS = {
    "plain": plain,
    "layer_norm": layer_norm,
    "group_norm": group_norm,
    "instance_norm": instance_norm,
    "batch_norm": batch_norm,
    "tied": Tied,
    "scalar": Scalar,
}


def make(network, n_out=1, seed=0, dtype=F64, n_in=N_IN):
    """A network with affine norm weights away from one and zero, so that a mistake in them shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = NETWORKS[network](n_in, n_out).to(dtype)
        with torch.no_grad():
            for p in module.parameters():
                if p.ndim == 1:
                    p.add_(0.3 * torch.randn_like(p))
    return module


def forward_of(network, module):
    """The network as ``(params, x, support_x) -> output``, by torch's own layers or written out."""
    if network == "batch_norm":
        return batch_norm_literal
    module = module.train()
    return lambda params, x, support_x: torch.func.functional_call(module, params, (x,))


def parts(module, adaptation: Adaptation, row_loss=squared_error, n_out=1, seed=1):
    """The functional module and meta-parameters whose step sizes differ from tensor to tensor and step to step."""
    functional = FunctionalModule(module, row_loss, adaptation.adapted, n_out)
    g = torch.Generator().manual_seed(seed)
    sizes = {
        k: v + 0.3 * torch.randn(v.shape, generator=g, dtype=v.dtype)
        for k, v in adaptation.init(functional.moving).items()
    }
    return functional, MetaParameters(functional.moving, functional.shared, sizes)


def relative_error(got, expected):
    """Largest error of a dict of gradients, relative to the whole gradient's largest entry."""
    assert list(sorted(got)) == list(sorted(expected))
    scale = max(float(v.abs().max()) for v in expected.values())
    return max(float((got[k] - expected[k]).abs().max()) for k in expected) / scale
