"""When an estimator is a stack, and which members it has."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from sklearn.base import clone, is_classifier, is_regressor

from ..algorithms import ALGORITHMS, STACKS
from ..errors import InvalidParameterError
from ..losses import absolute_error, cross_entropy, huber, squared_error
from ..stacking import (
    CLASSES,
    VALUES,
    FisherPrior,
    GaussianProcessMember,
    Member,
    MixedSlopes,
    NetworkMember,
    OnSubpopulations,
    Response,
    StackFit,
)
from ..tasks import TaskSet

__all__ = ["is_stacked", "start_fit"]

LOSSES = (squared_error, absolute_error, huber, cross_entropy)
ROWS_OF_A_PART = 40  # where all rows are one task, which is cut into parts
MOST_PARTS = 10
MOST_RANDOM_SLOPES = 60  # more take minutes to estimate
FEWEST_FOR_TRAINING = 3  # tasks: two train and one judges
FEWEST_FOR_NETWORKS = 5
FEW = 10  # with fewer, training on subpopulations of the tasks is tried too
ROWS_PER_META_STEP = 4
META_STEPS = (50, 400)  # of the Gaussian process, at least and at most


def is_stacked(estimator: Any, sampled: bool) -> bool:
    """Tell whether an estimator with these settings is a stack.

    Parameters
    ----------
    estimator : estimator
        Its settings are read.
    sampled : bool
        Whether tasks come from a sampler rather than a table.

    Raises
    ------
    InvalidParameterError
        If it is asked to be one and cannot.
    """
    algorithm, base = estimator.algorithm, estimator.base
    if isinstance(base, str) and base != "auto":
        raise InvalidParameterError(f"base: got {base!r}; expected 'auto', None or a scikit-learn estimator.")
    if base is not None and not isinstance(base, str):
        _check_base(estimator, base)
    if base is None and algorithm not in STACKS:
        return False
    reason = None
    if sampled:
        reason = "a sampler draws new tasks for ever, and a pooled model needs a table"
    elif getattr(estimator, "label_space", "shared") == "per_task":
        reason = "with label_space='per_task' labels mean something else in every task"
    elif estimator._row_loss() not in LOSSES:
        reason = f"loss={estimator.loss!r} is another scale than a pooled model's"
    if reason is None:
        return True
    if algorithm == "map" or base not in (None, "auto"):
        name, value = ("algorithm", algorithm) if algorithm == "map" else ("base", base)
        raise InvalidParameterError(f"{name}: got {value!r}, but {reason}; leave {name} out.")
    return False


def _check_base(estimator: Any, base: Any) -> None:
    wanted, is_right = ("classifier", is_classifier) if is_classifier(estimator) else ("regressor", is_regressor)
    if isinstance(base, type) or not hasattr(base, "fit") or not is_right(base):
        raise InvalidParameterError(f"base: got {base!r}; expected 'auto', None or a scikit-learn {wanted}.")
    if wanted == "classifier" and not hasattr(base, "predict_proba"):
        raise InvalidParameterError(
            f"base: got {base!r}, which has no predict_proba; use one that has, or wrap it in CalibratedClassifierCV."
        )


def start_fit(estimator: Any, task_set: TaskSet, n_outputs: int, seed: int) -> StackFit:
    """Return the fit of a stack, with nothing done yet.

    Parameters
    ----------
    estimator : estimator
        Its settings are read.
    task_set : TaskSet
        The training tasks, in double precision.
    n_outputs : int
        Outputs, or classes.
    seed : int
        Seed of everything random.
    """
    response = CLASSES if is_classifier(estimator) else VALUES
    members = _members(estimator, response, task_set.n_rows, task_set.n_tasks, task_set.x.shape[1])
    if task_set.n_tasks == 1:
        task_set = _in_parts(task_set, seed)
    return StackFit(response, n_outputs, estimator.base, members, task_set, seed, estimator.support)


def _in_parts(task_set: TaskSet, seed: int) -> TaskSet:
    """Cut one task at random into parts that stand for tasks, blocks staying together."""
    n = int(np.clip(task_set.n_rows // ROWS_OF_A_PART, 1, MOST_PARTS))
    rng = np.random.default_rng([seed, 1])
    if task_set.blocks is None:
        part = rng.permutation(np.arange(task_set.n_rows) * n // task_set.n_rows)
    else:
        part = rng.permutation(np.arange(task_set.blocks.max() + 1) % n)[task_set.blocks]
    return TaskSet.from_arrays(
        task_set.x.numpy(),
        task_set.y.numpy(),
        part,
        blocks=task_set.blocks,
        time=task_set.time,
        sample_weight=task_set.weight.numpy(),
        dtype=torch.float64,
    )


def _members(estimator: Any, response: Response, n_rows: int, n_tasks: int, n_features: int) -> list[Member]:
    """Members for the algorithm that was asked for; "auto" tries no more than the tasks can tell apart."""
    from_base = estimator.base is not None
    if estimator.algorithm not in STACKS:
        return [_network(estimator, response, estimator.algorithm, from_base)]
    both = (True, False) if from_base else (False,)
    members: list[Member] = [FisherPrior(response, kind) for kind in both]
    if estimator.algorithm == "map":
        return members[:1]
    if n_tasks < FEWEST_FOR_TRAINING:
        return members
    if not response.classifies and n_features <= MOST_RANDOM_SLOPES:
        members.append(MixedSlopes(response))
    low, high = META_STEPS
    steps = int(np.clip(n_rows // ROWS_PER_META_STEP, low, high))
    if estimator.max_iter is not None:
        steps = min(steps, int(estimator.max_iter))
    episodes = {name: getattr(estimator, name) for name in ("shots", "queries", "support")}
    members += [GaussianProcessMember(response, kind, episodes, steps) for kind in both]
    if n_tasks >= FEWEST_FOR_NETWORKS:
        for name, kind in (("ridge", False), ("maml", from_base)):
            members.append(_network(estimator, response, name, kind))
    if n_tasks < FEW:
        members.append(OnSubpopulations(GaussianProcessMember(response, from_base, episodes, steps)))
    return members


def _network(estimator: Any, response: Response, algorithm: str, from_base: bool) -> NetworkMember:
    settings: dict[str, Any] = {"algorithm": algorithm, "base": None, "warm_start": False, "verbose": 0}
    if estimator.algorithm != algorithm:  # settings that were given for another one
        settings |= dict.fromkeys(ALGORITHMS[algorithm].refuses)
    if not isinstance(estimator.validation_tasks, int | float | str | None):
        settings["validation_tasks"] = "auto"  # labels of tasks, which may be held out as a whole
    return NetworkMember(response, algorithm, clone(estimator).set_params(**settings), from_base)
