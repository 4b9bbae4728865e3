"""The outer step of meta-training a policy, in three kinds.

* ``"trpo"``: a natural-gradient step inside a trust region (Finn, Abbeel, Levine 2017, section 5.3), see :mod:`.trust_region`;
* ``"ppo"``: several Adam steps on the same episodes along the gradient of the clipped surrogate, as in ProMP (Rothfuss et al. 2019,
  section 6). ProMP holds the initial policy near the one that acted by a penalty; here the steps end before the initial or the
  adapted policies diverge by more than the bound, which needs no weight to be tuned. The first step is shortened until it is
  within, and the learning rate follows; what long trainings lose all the same is dealt with in :mod:`.decline`;
* ``"adam"``: one Adam step.

References
----------
Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML. Rothfuss et al. (2019), ProMP:
proximal meta-policy search, ICLR. Schulman et al. (2017), Proximal policy optimization algorithms, arXiv:1707.06347.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import MetaGradient, MetaParameters, expand, take_tasks, task_shares
from fewshot.step_sizes import Tensors
from fewshot.tasks import Rows
from fewshot.training.outer import OuterOptimizer

from .actor import Actor
from .surrogates import Surrogate
from .trust_region import AdaptedFisher, trust_region_step

__all__ = ["AdamStep", "Batch", "OuterStep", "ProximalSteps", "TrustRegionStep"]

RATE_CHANGE = 1.5  # of the learning rate, where the divergence is out of the range that is this factor wide
GOLDEN = (5**0.5 - 1) / 2
MOST_SHORTENED = 10  # times that the first step is
GradientAt = Callable[[MetaParameters], MetaGradient]
Outcome = tuple[OuterOptimizer, float, float]


@dataclass(frozen=True)
class Batch:
    """What an iteration collected.

    Parameters
    ----------
    path : list of dict of str to Tensor
        Parameters before the first inner step, after it, ...; each with a leading task axis.
    supports : list of Rows
        Of each inner step.
    query : Rows
        Of the adapted policies.
    """

    path: list[Tensors]
    supports: list[Rows]
    query: Rows

    def first(self, n_tasks: int) -> Batch:
        """Take the first tasks."""
        some = slice(0, n_tasks)
        return Batch(
            [{name: value[some] for name, value in theta.items()} for theta in self.path],
            [take_tasks(rows, some) for rows in self.supports],
            take_tasks(self.query, some),
        )

    def some_rows(self, n: int) -> Batch:
        """Take about `n` rows of all tasks together, spread over the time steps that were taken."""
        each = max(1, n // len(self.query.x))
        return Batch(self.path, [_spread(rows, each) for rows in self.supports], _spread(self.query, each))


class OuterStep(ABC):
    """What moves the initial parameters.

    Parameters
    ----------
    actor : Actor
        The policy.
    judged_tasks : int
        Tasks of a batch that changes are judged by.

    Attributes
    ----------
    epochs : int
        Most meta-gradients that a step takes.
    """

    epochs = 1

    def __init__(self, actor: Actor, judged_tasks: int) -> None:
        self.actor, self.judged_tasks = actor, judged_tasks
        self.kernels = VectorizedKernels(actor.functional)

    @abstractmethod
    def __call__(self, optimizer: OuterOptimizer, batch: Batch, gradient_at: GradientAt) -> Outcome:
        """Make the step.

        Parameters
        ----------
        optimizer : OuterOptimizer
            Holds the parameters; it stays as it is, so an interruption leaves all of a step or nothing.
        batch : Batch
            Episodes to learn from.
        gradient_at : callable
            Meta-gradient of the batch at some parameters.

        Returns
        -------
        optimizer : OuterOptimizer
            After the step.
        loss, divergence : float
            Surrogate loss before the step, and mean divergence of the adapted policies that it caused; nan if not known.
        """

    def judge(self, parameters: MetaParameters, batch: Batch, old: Tensor) -> tuple[float, float]:
        """Surrogate loss after adapting from some parameters, and divergence from the outputs `old` on the query."""
        actor, query = self.actor, batch.query
        theta = expand(parameters.moving, len(query.x))
        for k, support in enumerate(batch.supports):
            theta = actor.step(self.kernels, parameters, theta, support, k)
        new = self.outputs(theta, query)
        return _mean(actor.functional.query_row_loss(new, query.y), query), self.divergence(old, new, query)

    def divergence(self, old: Tensor, new: Tensor, rows: Rows) -> float:
        """Mean Kullback-Leibler divergence between outputs."""
        return _mean(self.actor.distribution.kl(old, new), rows)

    def outputs(self, theta: Tensors, rows: Rows) -> Tensor:
        """Apply the policies to the observations of some rows."""
        with torch.no_grad():
            return self.actor.forward.bind(theta, {}, self.actor.functional.constant, rows.x)(rows.x)


class AdamStep(OuterStep):
    """One step of Adam."""

    def __call__(self, optimizer: OuterOptimizer, batch: Batch, gradient_at: GradientAt) -> Outcome:
        """Make the step; see :class:`OuterStep`."""
        gradient, moved = gradient_at(optimizer.parameters), optimizer.copy()
        moved.step(gradient.vector, 1.0)
        return moved, gradient.mean_loss(), math.nan


class TrustRegionStep(OuterStep):
    """A natural-gradient step; the optimiser moves step sizes alone, which the trust region leaves as they are.

    Parameters
    ----------
    actor : Actor
        The policy.
    judged_tasks : int
        Tasks that the line search judges a step by.
    order : {"exact", "first"}
        Of the meta-gradient.
    max_kl : float
        Bound of the divergence.
    cg_iterations, cg_rows : int
        Products of conjugate gradients, and time steps (of all tasks together) that they are made with.
    """

    def __init__(
        self, actor: Actor, judged_tasks: int, *, order: str, max_kl: float, cg_iterations: int, cg_rows: int
    ) -> None:
        super().__init__(actor, judged_tasks)
        self.max_kl, self.cg_iterations, self.cg_rows = max_kl, cg_iterations, cg_rows
        distribution = actor.distribution
        functional = actor.functional
        if getattr(functional.row_loss, "kind", None) == "dice":
            # Its rows make sense by whole episodes only, of which a part of the rows holds hardly any.
            functional = functional.copy()
            functional.row_loss = Surrogate(distribution, "lvc")
        self.fisher = AdaptedFisher(
            functional, lambda output, target: distribution.kl(target, output), actor.adaptation, order
        )

    def __call__(self, optimizer: OuterOptimizer, batch: Batch, gradient_at: GradientAt) -> Outcome:
        """Make the step; see :class:`OuterStep`."""
        parameters = optimizer.parameters
        gradient = gradient_at(parameters)
        weights = sum(p.numel() for p in parameters.moving.values())
        part = batch.some_rows(self.cg_rows)
        with_outputs = part.query._replace(y=self.outputs(part.path[-1], part.query))
        judged = batch.first(self.judged_tasks)
        old = self.outputs(judged.path[-1], judged.query)
        change, _, kl = trust_region_step(
            gradient.vector[:weights],
            self.fisher.product(parameters, part.path, part.supports, with_outputs),
            lambda change: self.judge(_moved(parameters, change), judged, old),
            max_kl=self.max_kl,
            loss=float(torch.dot(gradient.loss[: self.judged_tasks], task_shares(judged.query))),
            iterations=self.cg_iterations,
        )
        only = gradient.vector.clone()
        only[:weights] = 0
        moved = optimizer.copy()
        moved.step(only, 1.0, also=change)
        return moved, gradient.mean_loss(), kl


class ProximalSteps(OuterStep):
    """Several steps of Adam on the same episodes, which end before the policies diverge too far.

    Parameters
    ----------
    actor : Actor
        The policy; its query loss is the clipped surrogate.
    judged_tasks : int
        Tasks that the divergence is measured on.
    max_kl : float
        Bound of the divergence of initial and of adapted policies.
    epochs : int
        Most steps.

    Attributes
    ----------
    rate : float
        Factor of the learning rate as it is now.
    """

    def __init__(self, actor: Actor, judged_tasks: int, *, max_kl: float, epochs: int) -> None:
        super().__init__(actor, judged_tasks)
        self.max_kl, self.epochs, self.rate = max_kl, epochs, 1.0

    def __call__(self, optimizer: OuterOptimizer, batch: Batch, gradient_at: GradientAt) -> Outcome:
        """Make the steps; see :class:`OuterStep`."""
        judged = batch.first(self.judged_tasks)
        # Without inner steps the initial policy is the one that the query was collected with.
        first = judged.supports[0] if judged.supports else judged.query
        initial, adapted = self.outputs(judged.path[0], first), self.outputs(judged.path[-1], judged.query)

        def divergence(parameters: MetaParameters) -> float:
            moved = self.outputs(expand(parameters.moving, len(judged.query.x)), first)
            return max(self.judge(parameters, judged, adapted)[1], self.divergence(initial, moved, first))

        loss, kl, rate, shortened = math.nan, 0.0, self.rate, 0
        for epoch in range(self.epochs):
            gradient = gradient_at(optimizer.parameters)
            if not epoch:
                loss = gradient.mean_loss()
            trial = optimizer.copy()
            trial.step(gradient.vector.clone(), rate)
            now = divergence(trial.parameters)
            while not now <= self.max_kl:
                rate, shortened = rate / RATE_CHANGE, shortened + 1
                if epoch or shortened > MOST_SHORTENED:  # something was learned, or nothing can be
                    break
                trial = optimizer.copy()
                trial.step(gradient.vector.clone(), rate)
                now = divergence(trial.parameters)
            if not now <= self.max_kl:
                break
            optimizer, kl = trial, now
        if not shortened and 0 < kl < self.max_kl / RATE_CHANGE:  # 0: there was nothing to learn from
            rate *= RATE_CHANGE
        self.rate = rate  # at the end, so that an interrupted iteration can be made again
        return optimizer, loss, kl


def _mean(values: Tensor, rows: Rows) -> float:
    """Mean over tasks of the weighted mean over rows."""
    per_task = (values * rows.weight).sum(1) / rows.weight.sum(1).clamp(min=1)
    return float(torch.dot(task_shares(rows), per_task))


def _moved(parameters: MetaParameters, change: Tensor) -> MetaParameters:
    moving, first = {}, 0
    for name, p in parameters.moving.items():
        moving[name] = p + change[first : first + p.numel()].view(p.shape)
        first += p.numel()
    return MetaParameters(moving, {}, parameters.sizes)


def _spread(rows: Rows, n: int) -> Rows:
    """Take `n` rows of each task from those that have weight.

    Steps of the golden ratio, modulo the number of rows, spread any number of them evenly; steps of a fixed stride might meet
    the same time step of each episode.
    """
    n = min(n, rows.x.shape[1])
    places = (torch.arange(n, dtype=torch.float64) * GOLDEN).remainder(1.0)
    counts = (rows.weight > 0).sum(1)
    order = (rows.weight > 0).to(torch.int8).argsort(dim=1, descending=True, stable=True)  # those with weight first
    chosen = order.gather(1, (places * counts[:, None].clamp(min=1)).long())
    return Rows(
        rows.x[torch.arange(len(chosen))[:, None], chosen],
        rows.y[torch.arange(len(chosen))[:, None], chosen],
        rows.weight.gather(1, chosen),
    )
