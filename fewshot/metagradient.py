"""The derivative of the query loss after adaptation in what the adaptation started from.

With ``theta_{k+1} = U_k(theta_k; S_k)``, ``v_K = grad L_Q(theta_K)`` is pulled back through the steps, ``v_k = (dU_k /
dtheta)^T v_{k+1}``; for a gradient step that is ``v_{k+1} - H_S(theta_k) (s alpha v_{k+1})``. Only the parameters at each
step are kept, no graph of activations, so memory hardly grows with the number of steps (Finn, Abbeel, Levine 2017, section 3,
has the product; the pull-back form is reverse accumulation with recomputation). The same pull-back gives the derivative in
learned step sizes. First-order MAML (their section 5.2) drops the Hessian products. Two algorithms need the end of the path
only: implicit MAML (:mod:`.implicit`), and Reptile, whose ``theta_0 - theta_K`` is no gradient at all. With a multi-step loss
(Antoniou, Edwards, Storkey 2019, section 4) the query is also judged on the way, ``v_k += w_k grad L_Q(theta_k)``. Every
function takes a *sequence* of support rows, one per step: in supervised learning the same object each time, in reinforcement
learning fresh trajectories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from .adaptation import Adaptation
from .errors import InvalidParameterError
from .implicit import implicit_pull_back
from .inner_optimizers import is_memory
from .kernels import Kernels
from .step_sizes import Tensors, by_name, effective_rows
from .tasks import Rows

__all__ = [
    "MetaGradient",
    "MetaParameters",
    "check_order",
    "expand",
    "from_adapted",
    "inner_loop",
    "meta_gradient",
    "of_network",
    "take_tasks",
    "task_shares",
]

Order = Literal["exact", "first", "implicit", "reptile"]
ORDERS: tuple[Order, ...] = get_args(Order)
NEED_THE_END = ("implicit", "reptile")  # of the path only
SEED_STRIDE = 1_000_003  # between the random draws of two steps; larger than any number of tasks in a batch


def check_order(order: object, adaptation: Adaptation) -> None:
    """Refuse settings of the inner loop that an order of the meta-gradient cannot do with."""
    if order not in NEED_THE_END:
        return
    if not adaptation.inner_steps:
        raise InvalidParameterError(f"inner_steps: got 0; order={order!r} needs at least one step.")
    if adaptation.learns:
        raise InvalidParameterError(
            f"learn_step_sizes: got {adaptation.learn_step_sizes!r}; order={order!r} says nothing about step sizes; use False."
        )
    if order == "implicit" and not adaptation.proximal:
        raise InvalidParameterError(
            "proximal: got 0; order='implicit' solves a proximal inner problem; use a positive number."
        )


@dataclass
class MetaParameters:
    """What meta-training learns.

    Parameters
    ----------
    moving : dict of str to Tensor
        Initial values of the parameters that the inner loop moves.
    shared : dict of str to Tensor
        Parameters that it does not move.
    sizes : dict of str to Tensor
        What the step sizes are made of, see :meth:`fewshot.adaptation.Adaptation.init`.
    """

    moving: Tensors
    shared: Tensors = field(default_factory=dict)
    sizes: Tensors = field(default_factory=dict)

    def flat(self) -> Tensors:
        """All tensors in one dict, names prefixed by group."""
        groups = {"moving": self.moving, "shared": self.shared, "sizes": self.sizes}
        return {f"{group}/{name}": t for group, tensors in groups.items() for name, t in tensors.items()}

    @classmethod
    def from_flat(cls, flat: Tensors) -> MetaParameters:
        """Inverse of :meth:`flat`."""
        groups: dict[str, Tensors] = {"moving": {}, "shared": {}, "sizes": {}}
        for key, tensor in flat.items():
            group, _, name = key.partition("/")
            groups[group][name] = tensor
        return cls(**groups)

    def to(self, *args: torch.dtype | torch.device) -> MetaParameters:
        """Copy with every tensor on another device or of another type."""
        return MetaParameters.from_flat({k: v.detach().to(*args) for k, v in self.flat().items()})  # type: ignore[call-overload]


@dataclass
class MetaGradient:
    """Query losses and the gradient of their mean.

    Parameters
    ----------
    loss : Tensor of shape (tasks,)
        Query loss of each task after adaptation.
    share : Tensor of shape (tasks,)
        Weight of each task in the mean: equal, but zero for tasks without query rows of non-zero weight.
    vector : Tensor of shape (n,)
        Gradient of the weighted mean of `loss`, in the order of ``MetaParameters.flat()``; without step sizes where these
        are not learned.
    parameters : MetaParameters
        Where it was taken.
    """

    loss: Tensor
    share: Tensor
    vector: Tensor
    parameters: MetaParameters

    @property
    def gradient(self) -> MetaParameters:
        """Gradient by name: views of `vector`."""
        found, first = {}, 0
        for name, value in self.parameters.flat().items():
            if first < len(self.vector):
                found[name] = self.vector[first : first + value.numel()].view(value.shape)
                first += value.numel()
        return MetaParameters.from_flat(found)

    def mean_loss(self) -> float:
        """Mean query loss over the tasks that have query rows."""
        return float(torch.dot(self.loss, self.share))


def expand(moving: Tensors, n_tasks: int) -> Tensors:
    """View the parameters once per task; the task axis comes first."""
    return {k: v.expand(n_tasks, *v.shape) for k, v in moving.items()}


def take_tasks(rows: Rows, tasks: slice | Tensor) -> Rows:
    """Take some of the tasks of a batch."""
    return Rows(rows.x[tasks], rows.y[tasks], rows.weight[tasks], {k: v[tasks] for k, v in rows.extra.items()})


def task_shares(query: Rows) -> Tensor:
    """Weight of each task in the mean query loss: equal, but zero for tasks without query rows; shape (tasks,)."""
    valid = (query.weight.sum(1) > 0).to(query.weight.dtype)
    return valid / valid.sum().clamp(min=1)


def of_network(theta: Tensors) -> Tensors:
    """Leave out what the inner optimiser remembers."""
    return {name: value for name, value in theta.items() if not is_memory(name)}


def inner_loop(
    kernels: Kernels,
    adaptation: Adaptation,
    parameters: MetaParameters,
    supports: Sequence[Rows],
    seed: int = 0,
    start: Tensors | None = None,
    *,
    whole_path: bool = True,
) -> tuple[list[Tensors], list[Tensor]]:
    """Adapt to each task.

    Parameters
    ----------
    kernels : Kernels
        How gradients are made.
    adaptation : Adaptation
        Settings of the inner loop.
    parameters : MetaParameters
        Where it starts and how far it goes.
    supports : sequence of Rows
        Support rows of each step.
    seed : int, default=0
        Seed of random draws inside the network.
    start : dict of str to Tensor, default=None
        Starting values with a task axis, those of the inner optimiser's memory included; None expands `parameters.moving`.
    whole_path : bool, default=True
        Keep all parameters on the way, not the last ones only.

    Returns
    -------
    path : list of dict of str to Tensor
        Moving parameters before the first step, after it, ..., with what the inner optimiser remembers; each with a leading task
        axis.
    losses : list of Tensor of shape (tasks,)
        Support loss at each step, before it is taken.
    """
    if start is None:
        start = expand(adaptation.rule.begin(parameters.moving), len(supports[0].x) if supports else 0)
    path: list[Tensors] = [start]
    losses = []
    for k, support in enumerate(supports):
        theta = path[-1] if whole_path else path.pop()
        loss, gradients = kernels.gradient(of_network(theta), parameters.shared, support, seed + k * SEED_STRIDE, k)
        sizes = adaptation.at(parameters.sizes, k)
        path.append(adaptation.rule.step(theta, gradients, sizes, effective_rows(support.weight)))
        losses.append(loss)
    return path, losses


def meta_gradient(
    kernels: Kernels,
    adaptation: Adaptation,
    parameters: MetaParameters,
    supports: Sequence[Rows],
    query: Rows,
    *,
    order: Order = "exact",
    seed: int = 0,
    chunk: int | None = None,
    step_weights: Sequence[float] | None = None,
    share: Tensor | None = None,
) -> MetaGradient:
    """Query losses after adaptation, and the gradient of their mean over tasks.

    Parameters
    ----------
    kernels : Kernels
        How derivatives of single tasks are made.
    adaptation : Adaptation
        Settings of the inner loop.
    parameters : MetaParameters
        Where to take the gradient.
    supports : sequence of Rows
        Support rows of each inner step; with no steps, one entry for batch statistics.
    query : Rows
        Query rows.
    order : {"exact", "first", "implicit", "reptile"}, default="exact"
        "first" leaves out second derivatives. "implicit" is exact for solutions of the proximal inner problem. "reptile" takes the
        way from the adapted parameters back to the initial ones for the gradient; losses are then those of the last support.
    seed : int, default=0
        Seed of random draws inside the network.
    chunk : int, default=None
        Most tasks held in memory at a time; None is all.
    step_weights : sequence of float, default=None
        Weight of the query loss after each inner step, in the objective that is differentiated; None judges after the last one
        alone. The losses that are returned are those after the last step in any case.
    share : Tensor of shape (tasks,), default=None
        Weight of each task; None: equal, see :func:`task_shares`.

    Returns
    -------
    MetaGradient

    References
    ----------
    Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML. Antoniou, Edwards, Storkey
    (2019), How to train your MAML, ICLR, section 4. Rajeswaran, Finn, Kakade, Levine (2019), Meta-learning with implicit gradients,
    NeurIPS. Nichol, Achiam, Schulman (2018), On first-order meta-learning algorithms, arXiv:1803.02999.
    """
    n_tasks = len(query.x)
    share = task_shares(query) if share is None else share
    losses, total = [], None
    for first in range(0, n_tasks, chunk or n_tasks):
        part = slice(first, first + (chunk or n_tasks))
        loss, gradient = _chunk_gradient(
            kernels,
            adaptation,
            parameters,
            [take_tasks(s, part) for s in supports] if chunk else supports,
            take_tasks(query, part) if chunk else query,
            share[part],
            order,
            seed + first,
            step_weights,
        )
        losses.append(loss)
        total = gradient if total is None else {k: v + gradient[k] for k, v in total.items()}
    assert total is not None
    return MetaGradient(torch.cat(losses), share, torch.cat([t.reshape(-1) for t in total.values()]), parameters)


def from_adapted(
    kernels: Kernels,
    adaptation: Adaptation,
    parameters: MetaParameters,
    adapted: Tensors,
    losses: Sequence[Tensor],
    support: Rows,
    query: Rows,
    share: Tensor,
    order: Order,
    seed: int = 0,
) -> tuple[Tensor, Tensors]:
    """Losses and the meta-gradient of an algorithm that needs only where adaptation ends.

    Parameters
    ----------
    kernels, adaptation, parameters, query, share, order, seed
        As of :func:`meta_gradient`.
    adapted : dict of str to Tensor
        Adapted parameters with a leading task axis.
    losses : sequence of Tensor of shape (tasks,)
        Support losses before each step.
    support : Rows
        Support rows of the last step.

    Returns
    -------
    loss : Tensor of shape (tasks,)
    gradient : dict of str to Tensor
        As ``MetaParameters.flat()``, without step sizes.
    """
    steps, shared = adaptation.inner_steps, parameters.shared
    if order == "reptile":
        back = {
            name: share.sum() * p - torch.tensordot(share, adapted[name], 1) for name, p in parameters.moving.items()
        }
        still = {name: torch.zeros_like(p) for name, p in shared.items()}
        return losses[-1], MetaParameters(back, still).flat()
    loss, v, of_shared = kernels.query_gradient(adapted, shared, support, query, seed + steps * SEED_STRIDE, steps)
    last = max(0, steps - 1)
    u, through = implicit_pull_back(
        kernels, adapted, shared, support, v, adaptation.proximal, seed=seed + last * SEED_STRIDE, step=last
    )
    total = {name: torch.tensordot(share, t + through[name], 1) for name, t in of_shared.items()}
    return loss, MetaParameters({name: torch.tensordot(share, t, 1) for name, t in u.items()}, total).flat()


def _chunk_gradient(
    kernels: Kernels,
    adaptation: Adaptation,
    parameters: MetaParameters,
    supports: Sequence[Rows],
    query: Rows,
    share: Tensor,
    order: Order,
    seed: int,
    step_weights: Sequence[float] | None,
) -> tuple[Tensor, Tensors]:
    steps, rule = adaptation.inner_steps, adaptation.rule
    shared, start = parameters.shared, expand(rule.begin(parameters.moving), len(query.x))
    ends = order in NEED_THE_END
    path, support_losses = inner_loop(
        kernels, adaptation, parameters, supports[:steps], seed, start, whole_path=not ends
    )
    if ends:
        adapted = of_network(path[-1])
        return from_adapted(
            kernels, adaptation, parameters, adapted, support_losses, supports[-1], query, share, order, seed
        )
    total_shared = {name: torch.zeros_like(value) for name, value in shared.items()}

    def judge(k: int, weight: float) -> tuple[Tensor, Tensors]:
        """Query losses after `k` steps and their weighted gradients; those in shared parameters are added up."""
        theta = of_network(path[k])
        loss, of_moving, of_shared = kernels.query_gradient(
            theta, shared, supports[-1], query, seed + steps * SEED_STRIDE, k
        )
        weights = share * weight
        for name, t in of_shared.items():
            total_shared[name] += torch.tensordot(weights, t, 1)
        return loss, {name: t * weights.reshape(-1, *(1,) * (t.ndim - 1)) for name, t in of_moving.items()}

    final = 1.0 if step_weights is None or not steps else float(step_weights[-1])
    loss, v = judge(steps, final)
    v |= {name: torch.zeros_like(value) for name, value in path[steps].items() if is_memory(name)}
    per_step = []
    for k in reversed(range(steps)):
        if step_weights is not None and k + 1 < steps and step_weights[k]:
            on_the_way = judge(k + 1, float(step_weights[k]))[1]
            v = {name: t + on_the_way[name] if name in on_the_way else t for name, t in v.items()}
        support, theta, seed_of_step = supports[k], path[k], seed + k * SEED_STRIDE
        sizes, n = adaptation.at(parameters.sizes, k), effective_rows(support.weight)
        if order == "exact" and rule.is_plain:
            # The gradients are not needed before their cotangent is known: one kernel gives both.
            u = sizes.direction(v, n)
            g, hv, hs = kernels.curvature(theta, shared, support, u, seed_of_step, k)
            if adaptation.learns:
                per_step.append(by_name(*sizes.derivative(v, g, n)))
            v = {name: t - hv[name] for name, t in v.items()}
            total_shared = {name: t - hs[name].sum(0) for name, t in total_shared.items()}
        elif order == "exact" or adaptation.learns or not rule.is_plain:
            g = kernels.gradient(of_network(theta), shared, support, seed_of_step, k)[1]
            v, u, of_sizes = rule.pull_back(theta, g, sizes, n, v)
            if adaptation.learns:
                per_step.append(of_sizes)
            if order == "exact":
                _, hv, hs = kernels.curvature(of_network(theta), shared, support, u, seed_of_step, k)
                v = {name: t + hv[name] if name in hv else t for name, t in v.items()}
                total_shared = {name: t + hs[name].sum(0) for name, t in total_shared.items()}
        del path[k + 1 :]
    collected = adaptation.collect(per_step[::-1], parameters.sizes) if adaptation.learns else {}
    gradient = MetaParameters(rule.of_start({name: t.sum(0) for name, t in v.items()}), total_shared, collected)
    return loss, gradient.flat()
