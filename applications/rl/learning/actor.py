"""A policy at work: running episodes, and turning them into the rows and the step of the inner loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from fewshot.adaptation import Adaptation
from fewshot.functional import FunctionalModule
from fewshot.kernels import Kernels
from fewshot.metagradient import MetaParameters
from fewshot.step_sizes import Tensors, effective_rows
from fewshot.tasks import Rows

from ..environments.protocols import EpisodeBatch
from .advantages import advantages
from .distributions import Distribution
from .rollouts import BatchedForward, collect
from .trajectories import Trajectories

__all__ = ["Actor", "NotFiniteError", "check_parameters"]


class NotFiniteError(ArithmeticError):
    """Numbers that no policy can be made of."""


class Actor:
    """What meta-training and adapting do alike.

    Parameters
    ----------
    functional : FunctionalModule
        The policy network under its surrogate; all its parameters move.
    distribution : Distribution
        Of the actions.
    adaptation : Adaptation
        The inner loop.
    discount, trace : float
        Of generalised advantage estimation.
    later_factor : float, default=1.0
        Of the step sizes of steps past those of meta-training.
    """

    def __init__(
        self,
        functional: FunctionalModule,
        distribution: Distribution,
        adaptation: Adaptation,
        discount: float,
        trace: float,
        later_factor: float = 1.0,
    ) -> None:
        self.functional, self.distribution, self.adaptation = functional, distribution, adaptation
        self.discount, self.trace, self.later_factor = discount, trace, later_factor
        self.forward = BatchedForward(functional.skeleton)

    def run(
        self,
        batch: EpisodeBatch,
        theta: Tensors,
        n_episodes: int,
        horizon: int,
        rng: np.random.Generator,
        **options: Any,
    ) -> Trajectories:
        """Run one episode in every slot of a batch with parameters of each task; options as of :func:`.rollouts.collect`."""
        return collect(
            batch,
            self.forward,
            self.distribution,
            (theta, {}, self.functional.constant),
            n_tasks=len(next(iter(theta.values()))),
            n_episodes=n_episodes,
            horizon=horizon,
            rng=rng,
            **options,
        )

    def rows(self, found: Trajectories) -> Rows:
        """Time steps of some trajectories with their advantages."""
        return found.rows(advantages(found, discount=self.discount, trace=self.trace))

    def step(self, kernels: Kernels, parameters: MetaParameters, theta: Tensors, support: Rows, k: int) -> Tensors:
        """Take inner step `k` of each task."""
        gradients = kernels.gradient(theta, {}, support, 0)[1]
        sizes = self.adaptation.at(parameters.sizes, k)
        if k >= max(1, self.adaptation.inner_steps):
            sizes = sizes.times(self.later_factor)
        return self.adaptation.rule.step(theta, gradients, sizes, effective_rows(support.weight))


def check_parameters(theta: Tensors) -> None:
    """Refuse parameters by which nobody can act.

    Raises
    ------
    NotFiniteError
        If one is infinite or none.
    """
    for name, value in theta.items():
        if not value.isfinite().all():
            raise NotFiniteError(f"{name} is not finite after an inner step")
