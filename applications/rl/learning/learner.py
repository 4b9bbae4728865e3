"""One iteration of meta-training a policy: act, adapt, act again, and move the initial parameters.

The rows of each inner step are trajectories collected with that step's parameters, so a batch of tasks is a *sequence* of
supports and a query, which the core's meta-gradient takes as it takes supervised ones.
"""

from __future__ import annotations

import contextlib
import logging
import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from fewshot.engine import Engine
from fewshot.errors import DivergenceError, InvalidParameterError
from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import MetaGradient, MetaParameters, expand
from fewshot.tasks import Rows
from fewshot.threads import threads_for
from fewshot.training.outer import OuterOptimizer

from ..checks import check_count
from ..environments.protocols import Family
from .actor import Actor, NotFiniteError, check_parameters
from .outer_steps import AdamStep, Batch, OuterStep, ProximalSteps, TrustRegionStep
from .trajectories import Trajectories

__all__ = ["Iteration", "Learner", "LearnerSettings"]

logger = logging.getLogger("fewshot")

LEAST_DEVIATION = 1e-6  # relative to the largest number seen
MOST_SKIPPED_IN_A_ROW = 25  # iterations
FIRST_KL = 0.01  # mean divergence by the first adaptation of the untrained policies, in nats
LEAST_KL, MOST_KL = 1e-12, 1e6  # below, there was no gradient but rounding; above, it is taken for this
CALIBRATIONS = 4
OUTER = ("trpo", "ppo", "adam")


@dataclass(frozen=True)
class LearnerSettings:
    """Settings of meta-training.

    Parameters
    ----------
    tasks_per_batch, episodes : int
        Tasks of an iteration, and episodes of each task for each inner step and for the query.
    outer : {"trpo", "ppo", "adam"}
        What moves the initial parameters, see :mod:`.outer_steps`.
    order : {"exact", "first"}
        Of the meta-gradient.
    max_kl : float
        With "trpo" and "ppo": bound of the divergence in an iteration.
    judged_tasks : int
        Tasks of an iteration that it is measured on.
    cg_iterations, cg_rows : int
        Of "trpo": products of conjugate gradients, and time steps (of all tasks together) that they are made with.
    epochs : int
        Of "ppo": most steps of an iteration.
    outer_lr : float
        Of Adam; with "trpo" of the step sizes alone.
    engine : str
        What takes meta-gradients.
    """

    tasks_per_batch: int = 20
    episodes: int = 20
    outer: Literal["trpo", "ppo", "adam"] = "trpo"
    order: Literal["exact", "first"] = "exact"
    max_kl: float = 0.02
    cg_iterations: int = 5
    cg_rows: int = 1500
    judged_tasks: int = 5
    epochs: int = 5
    outer_lr: float = 1e-2
    engine: Any = "auto"

    def __post_init__(self) -> None:
        for name in ("tasks_per_batch", "episodes", "epochs"):
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
    planned : int, default=0
        Iterations that will follow; many repay compiling.
    calibrate : bool, default=False
        Choose the inner step size by what it does to the untrained policies.
    start : MetaParameters, default=None
        Initial parameters and step sizes to begin with; None: those of the actor.
    done : int, default=0
        Iterations that led there.

    Attributes
    ----------
    optimizer : OuterOptimizer
        Holds the initial parameters and step sizes.
    done : int
        Iterations.
    last : Iteration
        What the last one saw.
    """

    def __init__(
        self,
        actor: Actor,
        family: Family,
        settings: LearnerSettings,
        *,
        planned: int = 0,
        calibrate: bool = False,
        start: MetaParameters | None = None,
        done: int = 0,
    ) -> None:
        functional, adaptation = actor.functional, actor.adaptation
        self.actor, self.family, self.settings, self.planned = actor, family, settings, planned
        self.calibrate = calibrate
        start = start or MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
        self.optimizer = OuterOptimizer(start, "adam", (settings.outer_lr, settings.outer_lr), None)
        self.engine = Engine(functional, adaptation, mode=settings.engine)
        self.kernels = VectorizedKernels(functional)
        self.outer = _outer_step(actor, settings)
        self.done, self._n_gradients, self._skipped, self._is_prepared = done, 0, 0, False
        self.last = Iteration([], 0, math.nan, math.nan)

    @property
    def parameters(self) -> MetaParameters:
        """Initial parameters and step sizes as they are now."""
        return self.optimizer.parameters

    def go_on(self, family: Family, settings: LearnerSettings) -> None:
        """Go on in other environments, or with other settings."""
        for name in ("outer", "order", "engine"):
            got, began = getattr(settings, name), getattr(self.settings, name)
            if got != began:
                raise InvalidParameterError(
                    f"{name}: got {got!r} to go on with a training that began with {began!r}; pass that, or warm_start=False to "
                    "begin anew."
                )
        if settings != self.settings:
            rates, state = (settings.outer_lr, settings.outer_lr), self.optimizer.state_dict()
            self.optimizer = OuterOptimizer(self.parameters, "adam", rates, None, state)
            self.outer = _outer_step(self.actor, settings)
        self.family, self.settings = family, settings

    def iterate(self, rng: np.random.Generator) -> None:
        """Draw tasks and make one outer step; `last` says what it saw.

        Raises
        ------
        DivergenceError
            If numbers that are not finite leave nothing to learn from in too many iterations in a row.
        """
        found: list[Trajectories] = []
        moved, loss, kl, skipped = self.optimizer, math.nan, math.nan, 0
        calibrate, n_gradients = self.calibrate, self._n_gradients
        try:
            batch, calibrate = self._collect(rng, found)
            supports = batch.supports or [batch.query]  # without inner steps: a policy trained on all tasks
            order = self.settings.order
            if not self._is_prepared:
                planned = self.planned * self.outer.epochs
                self.engine.prepare(self.parameters, supports, batch.query, order, planned=planned)
                self._is_prepared = True

            def gradient_at(parameters: MetaParameters) -> MetaGradient:
                nonlocal n_gradients
                n_gradients += 1
                gradient = self.engine.gradient(parameters, supports, batch.query, order, 0, n_gradients - 1)
                if not gradient.vector.isfinite().all():
                    raise NotFiniteError("the meta-gradient is not finite")
                return gradient

            moved, loss, kl = self.outer(self.optimizer, batch, gradient_at)
        except NotFiniteError as error:
            skipped = self._skipped + 1
            self._complain(skipped, error)
        returns = [float(f.returns().mean()) for f in found]
        returns += [math.nan] * (self.actor.adaptation.inner_steps + 1 - len(found))
        last = Iteration(returns, sum(f.n_steps for f in found), loss, kl)
        # Together, with no call in between at which it could be interrupted.
        self.optimizer, self._n_gradients, self.calibrate, self._skipped, self.last, self.done = (
            moved,
            n_gradients,
            calibrate,
            skipped,
            last,
            self.done + 1,
        )

    def _collect(self, rng: np.random.Generator, found: list[Trajectories]) -> tuple[Batch, bool]:
        """Run episodes before and after each inner step, which `found` gets one after another; say if calibration is still due."""
        s, actor, parameters, calibrate = self.settings, self.actor, self.parameters, self.calibrate
        tasks = [self.family.sample(rng) for _ in range(s.tasks_per_batch)]
        path, supports = [expand(parameters.moving, len(tasks))], []
        with contextlib.closing(self.family.batch(tasks, s.episodes)) as batch:
            for k in range(actor.adaptation.inner_steps):
                found.append(actor.run(batch, path[-1], s.episodes, self.family.horizon, rng, tasks=tasks))
                supports.append(actor.rows(found[-1]))
                if calibrate and not k:
                    calibrate = not self._calibrate(supports[0])
                path.append(actor.step(self.kernels, parameters, path[-1], supports[-1], k))
                check_parameters(path[-1])
            found.append(actor.run(batch, path[-1], s.episodes, self.family.horizon, rng, tasks=tasks))
        query = actor.rows(found[-1])
        if calibrate and not supports:
            calibrate = not self._calibrate(query)
        return Batch(path, supports, query), calibrate

    def _complain(self, skipped: int, error: NotFiniteError) -> None:
        """Say that an iteration is skipped; give up after too many."""
        if skipped > MOST_SKIPPED_IN_A_ROW:
            raise DivergenceError(
                f"inner_lr, outer_lr: {error} in {skipped} iterations in a row; lower inner_lr (or inner_steps) or outer_lr, or "
                "have rewards and observations of moderate size."
            ) from error
        if skipped == 1:
            logger.warning("iteration %d is skipped: %s", self.done + 1, error)

    def _calibrate(self, support: Rows) -> bool:
        """Set step sizes such that the first step moves the untrained policies by a small, fixed divergence, if any does.

        Where no episode has been rewarded yet nothing is to be learned, neither this.

        What one step size does depends on the noise of the actions, their number and the network; where a step of it ends in
        policies that are worse, no gradient leads back, and where it is far too small none leads on.
        """
        begin = self.actor.adaptation.init(
            self.parameters.moving
        )  # also after an interruption, which may have come after this
        for name, value in self.parameters.sizes.items():
            value.copy_(begin[name])
        start = expand(self.parameters.moving, len(support.x))
        old = self.outer.outputs(start, support)
        for _ in range(CALIBRATIONS):
            after = self.actor.step(self.kernels, self.parameters, start, support, 0)
            kl = self.outer.divergence(old, self.outer.outputs(after, support), support)
            # For small steps the divergence grows with the square of the size.
            if not kl >= LEAST_KL:
                return False
            change = 0.5 * math.log(FIRST_KL / min(kl, MOST_KL))
            for value in self.parameters.sizes.values():
                value += change
        return True

    def measure_observations(self, rng: np.random.Generator) -> int:
        """Set the units of observations to those that the untrained policy meets; returns the time steps that took.

        They stay as they are from then on: units that moved while tasks adapt would move the policy with them.
        """
        s = self.settings
        tasks = [self.family.sample(rng) for _ in range(s.tasks_per_batch)]
        with contextlib.closing(self.family.batch(tasks, s.episodes)) as batch:
            theta = expand(self.parameters.moving, len(tasks))
            size = sum(p.numel() for p in self.parameters.moving.values())
            with threads_for(size, s.tasks_per_batch * s.episodes * self.family.horizon):
                found = self.actor.run(batch, theta, s.episodes, self.family.horizon, rng, tasks=tasks)
        seen = found.observations[found.mask > 0].double()
        deviation = seen.std(0, unbiased=False)
        constant = self.actor.functional.constant
        constant["mean"] = seen.mean(0).to(constant["mean"].dtype)
        # What hardly varies is left as it is, rather than blown up.
        least = LEAST_DEVIATION * seen.abs().amax(0).clamp(min=1e-300)
        scale = torch.where(deviation > least, 1 / deviation, torch.ones_like(deviation))
        constant["scale"] = scale.to(constant["scale"].dtype)
        return found.n_steps


def _outer_step(actor: Actor, s: LearnerSettings) -> OuterStep:
    if s.outer == "adam":
        return AdamStep(actor, s.judged_tasks)
    if s.outer == "ppo":
        return ProximalSteps(actor, s.judged_tasks, max_kl=s.max_kl, epochs=s.epochs)
    return TrustRegionStep(
        actor, s.judged_tasks, order=s.order, max_kl=s.max_kl, cg_iterations=s.cg_iterations, cg_rows=s.cg_rows
    )
