"""A training of a policy: iterations with their history, which can be interrupted and goes on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from gymnasium.spaces import Space

from fewshot.errors import InvalidParameterError
from fewshot.metagradient import MetaParameters

from ..environments.protocols import Family
from ..environments.spaces import differ
from .budget import Budget
from .decline import Decline
from .learner import Learner, LearnerSettings
from .networks import PolicyNetwork
from .policy_settings import PolicySettings

__all__ = ["Training"]

logger = logging.getLogger("fewshot")


@dataclass
class Training:
    """Everything that the next iteration depends on, and what the earlier ones saw.

    Parameters
    ----------
    settings : PolicySettings
        Of the policy.
    learner : Learner
        Makes iterations.
    network : PolicyNetwork
        Structure of the policy.
    rng : numpy.random.Generator
        Source of tasks, episodes and actions.
    measured : int
        Time steps before the first iteration.
    history : list of dict
        A row for each iteration.
    decline : Decline
        What to go back to if training loses what it has learned.
    """

    settings: PolicySettings
    learner: Learner
    network: PolicyNetwork
    rng: np.random.Generator
    measured: int
    history: list[dict[str, float]] = field(default_factory=list)
    decline: Decline = field(default_factory=Decline)

    @classmethod
    def begin(
        cls, settings: PolicySettings, family: Family, how: LearnerSettings, budget: Budget, rng: np.random.Generator
    ) -> Training:
        """Begin with a new policy: build it, and measure observations."""
        network, actor = settings.build(family.observation_space, family.action_space, int(rng.integers(2**31)))
        learner = Learner(
            actor, family, how, planned=_planned(settings, family, how, budget), calibrate=settings.calibrates
        )
        measures = settings.standardises(family.observation_space)
        return cls(settings, learner, network, rng, learner.measure_observations(rng) if measures else 0)

    @classmethod
    def resume(
        cls,
        policy: Any,
        settings: PolicySettings,
        family: Family,
        how: LearnerSettings,
        budget: Budget,
        rng: np.random.Generator,
    ) -> Training:
        """Begin with a trained policy, of which only the result is left: one from a file, a copy or an adapted one.

        Parameters
        ----------
        policy : MAMLPolicy
            With the attributes of :meth:`fitted_attributes`.
        settings, family, how, budget, rng
            As of :meth:`begin`; `rng` should not repeat the tasks of the training that made the policy.

        Raises
        ------
        InvalidParameterError
            If the spaces, or settings of the policy, are others.
        """
        settings.check_same(policy._settings)
        _check_spaces(family, policy.observation_space_, policy.action_space_)
        settings, actor = policy._settings, policy._actor
        # What calibration would have moved is where it was: no episode brought a reward.
        sizes = actor.adaptation.init(actor.functional.moving)
        untouched = all(bool((sizes[name] == value).all()) for name, value in policy._meta.sizes.items())
        learner = Learner(
            actor,
            family,
            how,
            planned=_planned(settings, family, how, budget),
            calibrate=settings.calibrates and untouched,
            start=policy._meta,
            done=policy.n_iter_,
        )
        history: list[dict[str, float]] = policy.history_.to_dict("records")
        measured = policy.n_env_steps_ - int(sum(row["env_steps"] for row in history))
        return cls(settings, learner, policy._network, rng, measured, history)

    def go_on(self, family: Family, settings: PolicySettings, how: LearnerSettings) -> None:
        """Go on in other environments of the same spaces, or with other settings of meta-training.

        Raises
        ------
        InvalidParameterError
            If the spaces, or settings of the policy, are others.
        """
        settings.check_same(self.settings)
        _check_spaces(family, self.learner.family.observation_space, self.learner.family.action_space)
        if family is not self.learner.family:
            self.decline = Decline()  # returns elsewhere are no measure
        self.learner.go_on(family, how)

    @property
    def env_steps(self) -> int:
        """Time steps so far."""
        return self.measured + int(sum(row["env_steps"] for row in self.history))

    def iterate(self) -> None:
        """Make an iteration; an interruption leaves all of it or nothing."""
        learner = self.learner
        before, done, began = self.rng.bit_generator.state, learner.done, time.perf_counter()
        parameters = _copy(learner.parameters)
        try:
            learner.iterate(self.rng)
        finally:
            if learner.done == done:
                self.rng.bit_generator.state = before  # the unfinished iteration is drawn again
            else:  # done, though an interruption may have come right after
                found = learner.last
                row: dict[str, float] = {"iteration": learner.done, "env_steps": found.env_steps}
                row |= {f"return_{k}": value for k, value in enumerate(found.returns)}
                row |= {"loss": found.loss, "kl": found.kl, "seconds": time.perf_counter() - began}
                self.history.append(row)
                self.decline.update(found.returns[-1], parameters, learner.done)
        logger.debug(self._line())

    def _line(self) -> str:
        row = self.history[-1]
        returns = ", ".join(f"{value:.1f}" for name, value in row.items() if name.startswith("return_"))
        return f"iteration {row['iteration']:.0f}, {self.env_steps:,} steps: return {returns}"

    def fitted_attributes(self) -> dict[str, Any]:
        """Return what a policy that was trained so far consists of."""
        learner = self.learner
        family = learner.family
        kept = self.decline.parameters if self.decline.has_come() else None
        meta = _copy(learner.parameters if kept is None else kept)  # a copy, since training goes on in place
        return {
            "observation_space_": family.observation_space,
            "action_space_": family.action_space,
            "horizon_": family.horizon,
            "history_": pd.DataFrame(self.history),
            "n_iter_": learner.done,
            "n_env_steps_": self.env_steps,
            "_settings": self.settings,
            "_meta": meta,
            "_theta": meta.moving,
            "_network": self.network,
            "_actor": learner.actor,
        }


def _check_spaces(family: Family, *expected: Space[Any]) -> None:
    name = differ((family.observation_space, family.action_space), (expected[0], expected[1]))
    if name is not None:
        known = expected[name == "action_space"]
        raise InvalidParameterError(
            f"family: its {name} is {getattr(family, name)}; the training to go on with has {known}; pass warm_start=False to "
            "begin anew."
        )


def _planned(settings: PolicySettings, family: Family, how: LearnerSettings, budget: Budget) -> int:
    """About how many iterations the budget allows."""
    return budget.iterations(how.tasks_per_batch * how.episodes * family.horizon * (settings.inner_steps + 1))


def _copy(parameters: MetaParameters) -> MetaParameters:
    return MetaParameters.from_flat({name: value.clone() for name, value in parameters.to().flat().items()})
