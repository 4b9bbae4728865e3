"""What adapting brings, over many unseen environments at once: return against adaptation step."""

from __future__ import annotations

import contextlib
import copy
import math
from typing import Any

import numpy as np
import pandas as pd
import torch

from fewshot.errors import DivergenceError, InvalidDataError
from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import MetaParameters, expand
from fewshot.step_sizes import Tensors
from fewshot.threads import threads_for

from .checks import check_count, check_positive
from .environments.sources import as_family
from .environments.spaces import differ
from .learning.actor import NotFiniteError, check_parameters
from .policy import MAMLPolicy

__all__ = ["adaptation_curve"]


def adaptation_curve(
    policy: MAMLPolicy,
    family: Any,
    *,
    n_tasks: int = 40,
    episodes: int = 20,
    steps: int = 1,
    inner_lr: float | None = None,
    deterministic: bool = False,
    score_family: Any = None,
    random_state: int | None = None,
) -> pd.DataFrame:
    """Adapt to unseen tasks of a family, all at once, and return what each step brought.

    Every step uses fresh episodes of the policy before it; these episodes are also what that policy is judged by, unless
    `deterministic` or `score_family` asks for others. No guard takes part: the figures are those of adapting itself.

    Parameters
    ----------
    policy : MAMLPolicy
        Meta-trained. An adapted one counts as the one that it was adapted from.
    family : Family or what :func:`~fewshot.applications.rl.as_family` takes
        Where tasks are drawn from.
    n_tasks, episodes : int, default=40, 20
        Tasks, and episodes of each for each step.
    steps : int, default=1
        Adaptation steps; 0 judges the initial policy alone.
    inner_lr : float, default=None
        One step size for all steps in place of the policy's own.
    deterministic : bool, default=False
        Judge policies by as many more episodes in which they take the most likely actions.
    score_family : Family or what :func:`~fewshot.applications.rl.as_family` takes, default=None
        Judge policies by as many more episodes in its environments of the same tasks: other rules, say, of when episodes end.
    random_state : int or None, default=None
        Seed of tasks and episodes: the same one gives different policies the same tasks.

    Returns
    -------
    pandas.DataFrame
        A row for each task and number of steps done: ``task``, ``step``, ``return`` (mean over episodes, undiscounted),
        ``length`` (time steps, mean over episodes).

    Raises
    ------
    NotFittedError
        If the policy is not meta-trained.
    InvalidParameterError
        If a number cannot be used.
    InvalidDataError
        If the spaces of `family` are not those that the policy was trained with; bounds of observations may differ.
    DivergenceError
        If a step ends in numbers that are not finite.

    Examples
    --------
    >>> from fewshot.applications.rl import MAMLPolicy, PointNavigation, adaptation_curve
    >>> family = PointNavigation(horizon=20)
    >>> policy = MAMLPolicy(tasks_per_batch=4, episodes=5, random_state=0).fit_meta(family, total_env_steps=2000)
    >>> curve = adaptation_curve(policy, family, n_tasks=3, episodes=4, random_state=0)
    >>> curve.groupby("step").size().tolist()
    [3, 3]
    """
    policy._check_fitted("adaptation_curve")
    n_tasks, episodes = check_count("n_tasks", n_tasks), check_count("episodes", episodes)
    steps = check_count("steps", steps, least=0)
    source, actor, meta = as_family(family), policy._actor, policy._meta
    name = differ((source.observation_space, source.action_space), (policy.observation_space_, policy.action_space_))
    if name is not None:
        raise InvalidDataError(
            f"family: got {name} {getattr(source, name)}; the policy was trained with {getattr(policy, f'{name}_')}."
        )
    if inner_lr is not None:
        size = math.log(check_positive("inner_lr", inner_lr))
        sizes = {name: torch.full_like(value, size) for name, value in meta.sizes.items()}
        meta = MetaParameters(meta.moving, meta.shared, sizes)
        actor = copy.copy(actor)
        actor.later_factor = 1.0
    rng = np.random.default_rng(random_state)
    score_rng = rng.spawn(1)[0]
    judge = source if score_family is None else as_family(score_family)
    apart = deterministic or score_family is not None
    tasks = [source.sample(rng) for _ in range(n_tasks)]
    kernels, theta = VectorizedKernels(actor.functional), expand(meta.moving, n_tasks)
    n = sum(p.numel() for p in meta.moving.values())
    parts = []
    with (
        contextlib.closing(source.batch(tasks, episodes)) as batch,
        contextlib.closing(judge.batch(tasks, episodes)) if apart else contextlib.nullcontext() as judged,
        threads_for(n, n_tasks * episodes * source.horizon),
    ):
        for step in range(steps + 1):
            found = actor.run(batch, theta, episodes, source.horizon, rng, tasks=tasks)
            scored = found
            if judged is not None:
                options = {"deterministic": deterministic, "tasks": tasks}
                scored = actor.run(judged, theta, episodes, judge.horizon, score_rng, **options)
            mean = {"return": scored.returns().mean(1).numpy(), "length": scored.mask.sum(-1).mean(1).numpy()}
            parts.append(pd.DataFrame({"task": range(n_tasks), "step": step} | mean))
            if step < steps:
                theta = actor.step(kernels, meta, theta, actor.rows(found), step)
                _check(theta, step)
    return pd.concat(parts, ignore_index=True)


def _check(theta: Tensors, step: int) -> None:
    """Refuse to go on with policies that cannot act."""
    try:
        check_parameters(theta)
    except NotFiniteError as error:
        raise DivergenceError(
            f"inner_lr: got policies of which {error} {step + 1}; expected finite ones; give a smaller step size"
        ) from error
