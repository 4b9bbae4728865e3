"""One iteration of meta-training a policy: act, adapt, act again, and move the initial parameters.

The rows of each inner step are trajectories collected with that step's parameters, so a batch of tasks is a *sequence* of
supports and a query, which the core's meta-gradient takes as it takes supervised ones.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fewshot.adaptation import Tensors
from fewshot.engine import Engine
from fewshot.errors import InvalidParameterError
from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import MetaGradient, MetaParameters, expand, take_tasks, task_shares
from fewshot.tasks import Rows
from fewshot.training.outer import OuterOptimizer

from ._native import check_count
from .actor import Actor
from .protocols import Family
from .trust_region import AdaptedFisher, trust_region_step

__all__ = ["Iteration", "Learner", "LearnerSettings"]

LEAST_DEVIATION = 1e-6
OUTER = ("trpo", "adam")


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of meta-training.

    Parameters
    ----------
    tasks_per_batch, episodes : int
        Tasks of an iteration, and episodes of each task for each inner step and for the query.
    outer : {"trpo", "adam"}
        What moves the initial parameters.
    order : {"exact", "first"}
        Of the meta-gradient.
    max_kl : float
        Bound of the trust region.
    cg_iterations, cg_rows : int
        Products of conjugate gradients, and time steps (of all tasks together) that they are made with.
    search_tasks : int
        Tasks that the line search judges a step by.
    outer_lr : float
        Of Adam; with "trpo" of the step sizes alone.
    """

    tasks_per_batch: int = 20
    episodes: int = 20
    outer: Literal["trpo", "adam"] = "trpo"
    order: Literal["exact", "first"] = "exact"
    max_kl: float = 0.01
    cg_iterations: int = 8
    cg_rows: int = 1500
    search_tasks: int = 5
    outer_lr: float = 1e-2

    def __post_init__(self) -> None:
        for name in ("tasks_per_batch", "episodes"):
            check_count(name, getattr(self, name))
        for name in ("max_kl", "outer_lr"):
            value = getattr(self, name)
            if not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
                raise InvalidParameterError(f"{name}: got {value!r}; expected a positive number.")
        for name, allowed in (("outer", OUTER), ("order", ("exact", "first"))):
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidParameterError(f"{name}: got {value!r}; expected one of {', '.join(map(repr, allowed))}.")


@dataclass(frozen=True)
class Iteration:
    """What an iteration saw.

    Parameters
    ----------
    returns : list of float
        Mean undiscounted return before adaptation, after one step, ...
    env_steps : int
        Time steps taken.
    loss, kl : float
        Surrogate loss before the outer step, and divergence of the adapted policies caused by it.
    """

    returns: list[float]
    env_steps: int
    loss: float
    kl: float


class Learner:
    """A policy, the family that it learns on, and what one iteration does.

    Parameters
    ----------
    actor : Actor
        The policy.
    family : Family
        Where tasks come from.
    settings : LearnerSettings
        How to train.
    engine : str, default="auto"
        Mode of the engine.
    planned : int, default=0
        Iterations that will follow; many repay compiling.

    Attributes
    ----------
    parameters : MetaParameters
        Initial parameters and step sizes as they are now.
    done : int
        Iterations.
    """

    def __init__(
        self, actor: Actor, family: Family, settings: LearnerSettings, *, engine: Any = "auto", planned: int = 0
    ) -> None:
        functional, adaptation, distribution = actor.functional, actor.adaptation, actor.distribution
        self.actor, self.family, self.settings, self.planned = actor, family, settings, planned
        start = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
        self.optimizer = OuterOptimizer(start, "adam", (settings.outer_lr, settings.outer_lr), None)
        self.parameters = self.optimizer.parameters
        self.engine = Engine(functional, adaptation, mode=engine)
        self.kernels = VectorizedKernels(functional)
        self.fisher = AdaptedFisher(
            functional, lambda output, target: distribution.kl(target, output), adaptation, settings.order
        )
        self.done = 0

    def iterate(self, rng: np.random.Generator) -> Iteration:
        """Draw tasks and make one outer step."""
        s, actor = self.settings, self.actor
        tasks = [self.family.sample(rng) for _ in range(s.tasks_per_batch)]
        with contextlib.closing(self.family.batch(tasks, s.episodes)) as batch:
            found, path, supports = [], [expand(self.parameters.moving, len(tasks))], []
            for k in range(actor.adaptation.inner_steps):
                found.append(actor.run(batch, path[-1], s.episodes, self.family.horizon, rng))
                supports.append(actor.rows(found[-1]))
                path.append(actor.step(self.kernels, self.parameters, path[-1], supports[-1], k))
            found.append(actor.run(batch, path[-1], s.episodes, self.family.horizon, rng))
        query = actor.rows(found[-1])
        given = supports or [query]  # without inner steps: a policy trained on all tasks
        if not self.done:
            self.engine.prepare(self.parameters, given, query, s.order, planned=self.planned)
        gradient = self.engine.gradient(self.parameters, given, query, s.order, 0, self.done)
        loss, kl = gradient.mean_loss(), math.nan
        if s.outer == "adam":
            self.optimizer.step(gradient.vector, 1.0)
        else:
            kl = self._trust_region(gradient, path, supports, query)
        self.done += 1
        returns = [float(f.returns().mean()) for f in found]
        return Iteration(returns, sum(f.n_steps for f in found), loss, kl)

    def measure_observations(self, rng: np.random.Generator) -> int:
        """Set the units of observations to those that the untrained policy meets; returns the time steps that took.

        They stay as they are from then on: units that moved while tasks adapt would move the policy with them.
        """
        s = self.settings
        tasks = [self.family.sample(rng) for _ in range(s.tasks_per_batch)]
        with contextlib.closing(self.family.batch(tasks, s.episodes)) as batch:
            theta = expand(self.parameters.moving, len(tasks))
            found = self.actor.run(batch, theta, s.episodes, self.family.horizon, rng)
        seen = found.observations[found.mask > 0].double()
        deviation = seen.std(0, unbiased=False)
        constant = self.actor.functional.constant
        constant["mean"] = seen.mean(0).to(constant["mean"].dtype)
        # What hardly varies is left as it is, rather than blown up.
        scale = torch.where(deviation > LEAST_DEVIATION, 1 / deviation, torch.ones_like(deviation))
        constant["scale"] = scale.to(constant["scale"].dtype)
        return found.n_steps

    def _trust_region(
        self, gradient: MetaGradient, path: list[Tensors], supports: Sequence[Rows], query: Rows
    ) -> float:
        """Move within the trust region; returns the divergence of the adapted policies."""
        parameters, settings = self.parameters, self.settings
        weights = sum(p.numel() for p in parameters.moving.values())
        fisher = self.fisher.product(parameters, path, *self._for_products(path[-1], supports, query))
        tasks = slice(0, settings.search_tasks)
        judged = [take_tasks(rows, tasks) for rows in supports], take_tasks(query, tasks)
        old = self._outputs({name: value[tasks] for name, value in path[-1].items()}, judged[1])
        share = task_shares(judged[1])

        def evaluate(change: Tensor) -> tuple[float, float]:
            return self._loss_and_divergence(self._moved(change), *judged, old)

        change, _, kl = trust_region_step(
            gradient.vector[:weights],
            fisher,
            evaluate,
            max_kl=settings.max_kl,
            loss=float(torch.dot(gradient.loss[tasks], share)),
            iterations=settings.cg_iterations,
        )
        only = gradient.vector.clone()
        only[:weights] = 0  # the optimiser moves step sizes alone, which the trust region leaves as they are
        self.optimizer.step(only, 1.0, also=change)
        return kl

    def _for_products(self, theta: Tensors, supports: Sequence[Rows], query: Rows) -> tuple[list[Rows], Rows]:
        """Take a part of the rows, with the adapted policies' outputs as targets of the query."""
        stride = max(1, query.weight.numel() // self.settings.cg_rows)
        part = _every(query, stride)
        return [_every(rows, stride) for rows in supports], part._replace(y=self._outputs(theta, part))

    def _loss_and_divergence(
        self, parameters: MetaParameters, supports: Sequence[Rows], query: Rows, old: Tensor
    ) -> tuple[float, float]:
        """Surrogate loss of the query after adapting from some parameters, and divergence from the outputs `old`."""
        actor, theta = self.actor, expand(parameters.moving, len(query.x))
        for k, support in enumerate(supports):
            theta = actor.step(self.kernels, parameters, theta, support, k)
        new, share = self._outputs(theta, query), task_shares(query)
        rows = actor.functional.row_loss(new, query.y), actor.distribution.kl(old, new)
        loss, kl = (torch.dot(share, (r * query.weight).sum(1) / query.weight.sum(1).clamp(min=1)) for r in rows)
        return float(loss), float(kl)

    def _moved(self, change: Tensor) -> MetaParameters:
        moving, first = {}, 0
        for name, p in self.parameters.moving.items():
            moving[name] = p + change[first : first + p.numel()].view(p.shape)
            first += p.numel()
        return MetaParameters(moving, {}, self.parameters.sizes)

    def _outputs(self, theta: Tensors, rows: Rows) -> Tensor:
        with torch.no_grad():
            return self.actor.forward.bind(theta, {}, self.actor.functional.constant, rows.x)(rows.x)


def _every(rows: Rows, stride: int) -> Rows:
    """Take every `stride`-th row."""
    return Rows(
        rows.x[:, ::stride].contiguous(), rows.y[:, ::stride].contiguous(), rows.weight[:, ::stride].contiguous()
    )
