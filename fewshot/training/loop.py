"""The outer loop: sample episodes, take the meta-gradient, step the optimiser, validate, stop.

Training is cut into rounds; validation, history and callbacks happen between rounds. Everything that the next meta-step
depends on is in :class:`TrainingState`, so that an interrupted training goes on as if nothing had happened.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..engine import Engine
from ..errors import DivergenceError, InvalidParameterError
from ..metagradient import ORDERS, MetaParameters, Order
from ..tasks import Rows, TaskSampler
from .calibration import calibrated
from .minibatches import minibatches
from .outer import OPTIMIZERS, OuterOptimizer
from .running_statistics import first_statistics, moved_statistics
from .task_weights import equal, raised, shares, tasks_of_last_draw
from .validation import Validation

__all__ = ["TrainingSettings", "TrainingState", "meta_train"]

logger = logging.getLogger("fewshot")

ROUNDS = 50  # per training
FIRST_ORDER_PART = 1 / 3  # of an annealed training
MULTI_STEP_PART = 0.15  # of a training, in which the weights of the earlier steps fall
LEAST_STEP_WEIGHT = 0.03  # of an earlier step, as a part of an equal weight
MOST_SKIPPED_IN_A_ROW = 25  # meta-steps with a non-finite gradient before training stops with an error


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of the outer loop.

    Parameters
    ----------
    max_iter : int
        Number of meta-steps.
    tasks_per_batch : int
        Tasks of one meta-step.
    outer_lr : float
        Learning rate of the optimiser.
    optimizer : str or callable
        "adam", "adamw", "sgd", or ``(parameters, lr=...) -> torch.optim.Optimizer``.
    schedule : {"cosine", "constant"}
        How the learning rate falls: to zero along half a cosine, or not at all.
    max_grad_norm : float or None
        The meta-gradient is scaled down to this norm.
    step_size_lr : float, default=100.0
        Learning rate of the logarithms of step sizes, as a multiple of `outer_lr`.
    order : {"exact", "first", "annealed", "implicit", "reptile"}
        Order of the meta-gradient; "annealed": "first" for the first third of the meta-steps, which are cheaper so, then "exact"
        (Antoniou, Edwards, Storkey 2019, section 4).
    multi_step_loss : bool, default=False
        Judge the query after each inner step, see :meth:`step_weights`.
    worst_tasks : bool, default=False
        Weigh tasks towards those with the largest losses, see :mod:`.task_weights`; the sampler must tell which it draws.
    patience : int or None
        Stop after so many rounds without a better validation loss; None never stops early.
    """

    max_iter: int
    tasks_per_batch: int
    outer_lr: float
    optimizer: Any = "adam"
    schedule: Literal["cosine", "constant"] = "cosine"
    max_grad_norm: float | None = 10.0
    step_size_lr: float = 100.0
    order: Order | Literal["annealed"] = "exact"
    multi_step_loss: bool = False
    worst_tasks: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_iter", "tasks_per_batch"):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InvalidParameterError(f"{name}: got {value!r}; expected a whole number of 1 or more.")
        for name in ("outer_lr", "max_grad_norm"):
            value = getattr(self, name)
            if name == "max_grad_norm" and value is None:
                continue
            if not (isinstance(value, int | float | np.number) and 0 < value < math.inf):
                raise InvalidParameterError(f"{name}: got {value!r}; expected a positive number.")
        for name, allowed in (("schedule", ("cosine", "constant")), ("order", (*ORDERS, "annealed"))):
            value = getattr(self, name)
            if value not in allowed:
                raise InvalidParameterError(f"{name}: got {value!r}; expected one of {', '.join(map(repr, allowed))}.")
        if not callable(self.optimizer) and not (isinstance(self.optimizer, str) and self.optimizer in OPTIMIZERS):
            raise InvalidParameterError(
                f"optimizer: got {self.optimizer!r}; expected one of {', '.join(map(repr, OPTIMIZERS))}, or a callable "
                "(parameters, lr=...) -> torch.optim.Optimizer."
            )
        if not isinstance(self.multi_step_loss, bool | np.bool_):
            raise InvalidParameterError(f"multi_step_loss: got {self.multi_step_loss!r}; expected True or False.")

    def order_at(self, iteration: int) -> Order:
        """Order of the meta-gradient at a meta-step."""
        if self.order == "annealed":
            return "first" if iteration < self.max_iter * FIRST_ORDER_PART else "exact"
        return self.order

    def step_weights(self, iteration: int, steps: int) -> list[float] | None:
        """Weights of the query losses after each inner step at a meta-step; None: the last one alone.

        Equal at first; those of the earlier steps fall linearly to a few hundredths over the first part of the training, in favour
        of the last one.
        """
        if not self.multi_step_loss or steps < 2:
            return None
        fallen = min(1.0, iteration / (self.max_iter * MULTI_STEP_PART))
        others = max(1 - fallen, LEAST_STEP_WEIGHT) / steps
        return [others] * (steps - 1) + [1 - others * (steps - 1)]

    def rate(self, iteration: int) -> float:
        """Factor of the learning rate at a meta-step."""
        return 0.5 * (1 + math.cos(math.pi * iteration / self.max_iter)) if self.schedule == "cosine" else 1.0


@dataclass
class TrainingState:
    """Everything that the next meta-step depends on.

    Parameters
    ----------
    parameters : MetaParameters
        Current values.
    rng : numpy.random.Generator
        Source of episodes and seeds.
    warm : bool, default=False
        The parameters come from an earlier training, so their step sizes are kept as they are.
    """

    parameters: MetaParameters
    rng: np.random.Generator
    warm: bool = False
    iteration: int = 0
    optimizer: dict[str, Any] | None = None
    best_loss: float = math.inf
    best: dict[str, Tensor] | None = None
    best_statistics: dict[str, Tensor] = field(default_factory=dict)  # running ones of the network, with that state
    statistics: dict[str, Tensor] = field(default_factory=dict)  # the same where training was interrupted
    rounds_since_best: int = 0
    skipped: int = 0
    finished: bool = False
    task_weights: npt.NDArray[np.float64] | None = None  # of the sampler's tasks, if they are not equal
    programs: dict[Any, int] = field(default_factory=dict)  # when the compiled ones were begun
    round_losses: list[float] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)

    def result(self) -> MetaParameters:
        """Return the parameters to keep: those with the best validation loss, else the last ones."""
        return MetaParameters.from_flat(self.best) if self.best is not None else self.parameters.to()


def meta_train(
    engine: Engine,
    sampler: TaskSampler,
    settings: TrainingSettings,
    state: TrainingState,
    *,
    validation: Validation | None = None,
    on_round: Callable[[TrainingState, int], bool] | None = None,
    device: torch.device | str = "cpu",
) -> TrainingState:
    """Run meta-training from `state` to its end; on KeyboardInterrupt `state` can be handed in again.

    Parameters
    ----------
    engine : Engine
        Runs the kernels.
    sampler : TaskSampler
        Draws the episodes.
    settings : TrainingSettings
        How to train.
    state : TrainingState
        Where to start; changed in place.
    validation : Validation, default=None
        Judges each round; the best state is kept.
    on_round : callable, default=None
        Called with the state and the number of the round after each; returning True stops training.
    device : torch.device or str, default="cpu"
        Where episodes are moved to.

    Returns
    -------
    TrainingState

    Raises
    ------
    DivergenceError
        If the meta-gradient is not finite too many times in a row.
    """
    run = _Run(engine, sampler, settings, state, validation, device)
    try:
        run.prepare()
        while not state.finished:
            if run.round_is_due():
                run.end_round()
                if on_round is not None and on_round(state, len(state.history) - 1):
                    break
            elif run.is_tired() or state.iteration >= settings.max_iter:
                break
            else:
                run.meta_step()
    except KeyboardInterrupt:
        run.save()
        raise
    if state.skipped * 2 > state.iteration:
        raise DivergenceError(_diverged(f"{state.skipped} of {state.iteration} meta-steps"))
    run.keep_best_statistics()
    state.finished, state.optimizer = True, None
    if state.skipped:
        logger.warning("skipped %d of %d meta-steps whose gradient was not finite", state.skipped, state.iteration)
    return state


class _Run:
    """One call of :func:`meta_train`: the state, and what is rebuilt from it."""

    def __init__(
        self,
        engine: Engine,
        sampler: TaskSampler,
        settings: TrainingSettings,
        state: TrainingState,
        validation: Validation | None,
        device: torch.device | str,
    ) -> None:
        self.engine, self.sampler, self.settings, self.state = engine, sampler, settings, state
        self.validation, self.device = validation, torch.device(device)
        rates = settings.outer_lr, settings.outer_lr * settings.step_size_lr
        self.optimizer = OuterOptimizer(
            state.parameters, settings.optimizer, rates, settings.max_grad_norm, state.optimizer, device
        )
        state.parameters = self.optimizer.parameters
        self.order: Order = "exact"
        self.statistics: dict[str, Tensor] = {}  # running ones after the meta-step that is being made
        self.task_weights = state.task_weights  # after the meta-step that is being made
        self.before_step: Any = None  # random state to go back to if a meta-step is interrupted
        self.pending: tuple[float, int] | None = (
            None  # loss of the meta-step being made, and steps of the optimiser before
        )
        self.first: tuple[list[Rows], Rows] | None = None  # episodes drawn ahead of the first meta-step
        self.began, self.in_a_row = time.perf_counter(), 0

    def episodes(self) -> tuple[list[Rows], Rows]:
        support, query = self.sampler.sample(self.settings.tasks_per_batch, self.state.rng)
        if self.settings.worst_tasks:
            self.drawn = tasks_of_last_draw(self.sampler)
        support, query, steps = support.to(self.device), query.to(self.device), self.engine.adaptation.inner_steps
        if self.settings.order == "reptile":
            return minibatches(support, query, steps, self.state.rng), query
        return [support] * max(1, steps), query

    def prepare(self) -> None:
        """Choose kernels and first step sizes on the batch that the first meta-step will see."""
        state = self.state
        self.before_step = state.rng.bit_generator.state
        supports, query = self.first = self.episodes()
        first_step = state.iteration == 0

        def calibrate(parameters: MetaParameters) -> MetaParameters:
            if first_step and not state.warm:
                for name, value in calibrated(self.engine, parameters, supports).sizes.items():
                    state.parameters.sizes[name].copy_(value)
            return state.parameters

        if self.settings.worst_tasks:
            start = equal(self.sampler)
            # A training that goes on with other tasks begins to weigh them anew.
            if state.task_weights is None or len(state.task_weights) != len(start):
                state.task_weights = start
        constant, settings = self.engine.functional.constant, self.settings
        if first_step and not state.warm:
            constant.update(first_statistics(self.engine, state.parameters, supports))
        constant.update(state.statistics)
        self.order = settings.order_at(state.iteration)
        highest = settings.order_at(settings.max_iter)
        self.engine.prepare(
            state.parameters, supports, query, highest, calibrate, settings.max_iter, state.programs, self.order
        )
        if first_step and self.validation is not None and state.best is None:
            # Training must beat its own starting point.
            judged, copied = _judged(self.engine, self.validation, state)
            state.best, state.best_loss, state.best_statistics = copied, judged, self.running_statistics()

    def running_statistics(self) -> dict[str, Tensor]:
        functional = self.engine.functional
        return {name: functional.constant[name] for name in functional.running}

    def meta_step(self) -> None:
        state, settings = self.state, self.settings
        if self.first is None:
            self.before_step = state.rng.bit_generator.state
        supports, query = self.first or self.episodes()
        self.first = None
        seed = int(state.rng.integers(2**31))
        order = settings.order_at(state.iteration)
        if order != self.order:
            self.engine.change_order(order, settings.max_iter, state.programs)
            self.order = order
        weights = settings.step_weights(state.iteration, self.engine.adaptation.inner_steps)
        share = None if state.task_weights is None else shares(state.task_weights, self.drawn, query)
        found = self.engine.gradient(
            state.parameters, supports, query, order, seed, state.iteration, step_weights=weights, share=share
        )
        if state.task_weights is not None:
            rate = settings.rate(state.iteration)
            self.task_weights = raised(state.task_weights, self.drawn, found.loss, query, rate)
        self.statistics = moved_statistics(self.engine, state.parameters, supports, query, state.iteration)
        self.pending = found.mean_loss(), self.optimizer.steps
        norm = self.optimizer.step(found.vector, settings.rate(state.iteration))
        self.count_step()
        if math.isfinite(norm):
            self.in_a_row = 0
            return
        self.in_a_row += 1
        if self.in_a_row >= MOST_SKIPPED_IN_A_ROW:
            raise DivergenceError(_diverged(f"{self.in_a_row} meta-steps in a row (at step {state.iteration - 1})"))

    def count_step(self) -> None:
        """Book the meta-step that was just made: in one go, with no call in between at which it could be interrupted."""
        state = self.state
        assert self.pending is not None
        functional = self.engine.functional
        loss, steps = self.pending
        done = self.optimizer.steps > steps
        state.round_losses += [loss] * done
        state.skipped += not done
        state.iteration += 1
        if done:
            functional.constant |= self.statistics
            state.task_weights = self.task_weights
        self.pending = self.before_step = None

    def round_is_due(self) -> bool:
        state, per_round = self.state, max(1, self.settings.max_iter // ROUNDS)
        at_end = state.iteration % per_round == 0 or state.iteration >= self.settings.max_iter
        done = state.history[-1]["iteration"] if state.history else 0
        return at_end and state.iteration > done

    def end_round(self) -> None:
        state = self.state
        judged, copied = math.nan, None
        if self.validation is not None:
            judged, copied = _judged(self.engine, self.validation, state)
        row = {
            "iteration": state.iteration,
            "loss": float(np.mean(state.round_losses)) if state.round_losses else math.nan,
            "validation_loss": judged,
            "skipped": state.skipped,
            "seconds": time.perf_counter() - self.began,
        }
        logger.debug("meta-step %d of %d: %s", state.iteration, self.settings.max_iter, row)
        # In one go again.
        state.history += [row]
        state.round_losses = []
        if copied is not None:
            state.best, state.best_loss, state.rounds_since_best = copied, judged, 0
            state.best_statistics = self.running_statistics()
        elif self.validation is not None:
            state.rounds_since_best += 1

    def is_tired(self) -> bool:
        patience = self.settings.patience
        return self.validation is not None and patience is not None and self.state.rounds_since_best >= patience

    def keep_best_statistics(self) -> None:
        """Leave the network with the statistics that belong to what :meth:`TrainingState.result` gives."""
        self.engine.functional.constant.update(self.state.best_statistics)

    def save(self) -> None:
        if self.pending is not None and self.optimizer.steps > self.pending[1]:
            self.count_step()
        if self.before_step is not None:
            self.state.rng.bit_generator.state = self.before_step  # the unfinished meta-step is drawn again
        self.state.optimizer = copy.deepcopy(self.optimizer.state_dict())
        self.state.statistics = self.running_statistics()
        self.keep_best_statistics()


def _diverged(when: str) -> str:
    return (
        f"inner_lr, outer_lr: the meta-gradient was not finite in {when}; lower inner_lr (or inner_steps), or outer_lr, or "
        "standardise the features."
    )


def _judged(engine: Engine, validation: Validation, state: TrainingState) -> tuple[float, dict[str, Tensor] | None]:
    """Return the validation loss, and a copy of the parameters if it is the best so far."""
    loss = validation.loss(engine, state.parameters)
    better = loss < state.best_loss or state.best is None
    return loss, {k: v.clone() for k, v in state.parameters.flat().items()} if better else None
