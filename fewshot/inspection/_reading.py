"""What pictures read of an estimator: its kernels and parameters, and episodes of a user's tasks in its own encoding."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..adaptation import Adaptation
from ..episodes import EpisodeSampler
from ..errors import InvalidParameterError, NotFittedError
from ..estimators._base import MetaEstimator, _FlatTargets
from ..estimators._inputs import check_features, check_target_length
from ..functional import FunctionalModule
from ..heads import HeadedModule
from ..kernels import Kernels, LoopKernels, VectorizedKernels
from ..metagradient import MetaParameters
from ..tasks import Rows, TaskSet, is_sampler

__all__ = ["Inner", "flat", "inner_loop_of", "random_start", "read_episodes"]


@dataclass(frozen=True)
class Inner:
    """The inner loop of a fitted estimator.

    Parameters
    ----------
    kernels : Kernels
        How its derivatives are made.
    adaptation : Adaptation
        Its settings.
    parameters : MetaParameters
        Where it starts, and its step sizes.
    functional : FunctionalModule
        The network.
    """

    kernels: Kernels
    adaptation: Adaptation
    parameters: MetaParameters
    functional: FunctionalModule

    def evaluating(self) -> AbstractContextManager[None]:
        """Switch dropout and the like off, as for adapting."""
        return self.functional.mode(training=False)


def inner_loop_of(estimator: Any, what: str, *, plain: bool = False) -> Inner:
    """Return the inner loop of a fitted estimator that adapts by gradient steps.

    Parameters
    ----------
    estimator : estimator
        Meta-trained.
    what : str
        Who asks, for the message.
    plain : bool, default=False
        Whether steps have to be plain descent.

    Raises
    ------
    NotFittedError
        Before ``fit_meta``.
    InvalidParameterError
        If it is another kind of estimator, or adapts otherwise.
    """
    if not isinstance(estimator, MetaEstimator):
        raise InvalidParameterError(
            f"estimator: got {type(estimator).__name__}; {what} reads a MAMLRegressor or MAMLClassifier; of a pipeline hand over "
            "the last step, and X as the others transform it."
        )
    if hasattr(estimator, "_stack"):
        raise InvalidParameterError(
            f"estimator: got one that mixes several ways to adapt (adaptation_report_), and {what} reads one inner loop; "
            "meta-train with base=None and an algorithm by name."
        )
    if not hasattr(estimator, "_parameters"):
        raise NotFittedError(
            f"{what}: this {type(estimator).__name__} is not fitted yet; call fit_meta(X, y, tasks=...) first."
        )
    functional, adaptation, parameters = estimator._functional, estimator._fitted_adaptation, estimator._parameters
    if isinstance(functional, HeadedModule) or not adaptation.inner_steps:
        raise InvalidParameterError(
            f"estimator: algorithm={estimator.algorithm!r} with {adaptation.inner_steps} inner steps takes no gradient steps, "
            f"which {what} is about; use one that does."
        )
    if plain and not adaptation.rule.is_plain:
        raise InvalidParameterError(
            f"estimator: {what} is about plain gradient descent; this one adapts by {adaptation.optimizer!r} with "
            f"proximal={adaptation.proximal}."
        )
    if not adaptation.learns:
        parameters = replace(parameters, sizes=adaptation.init(parameters.moving))
    kernels: Kernels = LoopKernels(functional)
    if estimator._vectorized:
        kernels = VectorizedKernels(functional, trace=False)
    return Inner(kernels, adaptation, parameters, functional)


def random_start(estimator: MetaEstimator, inner: Inner, seed: int) -> MetaParameters:
    """Return what the network looks like before any training, with the step sizes that were learned."""
    fresh = estimator._network(estimator._n_outputs(), seed)
    named = {n: p.detach().to(next(iter(inner.parameters.moving.values())).dtype) for n, p in fresh.named_parameters()}
    groups = inner.parameters
    return replace(groups, moving={n: named[n] for n in groups.moving}, shared={n: named[n] for n in groups.shared})


def read_episodes(
    estimator: MetaEstimator,
    X: Any,
    y: Any,
    tasks: Any,
    *,
    shots: Any,
    n_tasks: int | None,
    rng: np.random.Generator,
) -> tuple[Rows, Rows]:
    """Draw an episode of each task (or of `n_tasks`), encoded as the estimator's own; the query is all other rows.

    Parameters
    ----------
    estimator : estimator
        Meta-trained.
    X, y, tasks
        A table of tasks, or a sampler alone.
    shots : int
        Support rows; a sampler has its own.
    n_tasks : int or None
        Episodes; None: one of each task of a table, 100 of a sampler.
    rng : numpy.random.Generator
        Source of every random choice.
    """
    model = copy.copy(estimator)  # encoding labels of each task sets attributes
    if is_sampler(X):
        sampler: Any = X
    else:
        array = check_features(model, X, reset=False)
        check_target_length(array, y)
        if tasks is None:
            raise InvalidParameterError("tasks: got None; expected the task label of each row.")
        dtype = next(iter(model._parameters.moving.values())).dtype
        task_set = TaskSet.from_arrays(array, model._encode_adapt(y), tasks, dtype=dtype)
        sampler = EpisodeSampler(task_set, shots, None)
        n_tasks = sampler.n_tasks if n_tasks is None else n_tasks
    wrapped = model._wrap_sampler(_FlatTargets(sampler, model._n_outputs()))
    support, query = wrapped.sample(100 if n_tasks is None else n_tasks, rng)
    return support, query


def flat(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """Lay the tensors of each task one after another; shape (tasks, parameters), double precision."""
    return torch.cat([t.detach().double().flatten(1) for t in tensors.values()], 1)
