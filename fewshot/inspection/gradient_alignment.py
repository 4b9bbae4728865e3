"""Whether first steps go the right way: their angle with the way to each task's optimum, before and after meta-training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ..kernels import Kernels
from ..metagradient import MetaParameters, expand
from ..step_sizes import Tensors
from ..tasks import Rows
from ._plotting import AFTER, BEFORE, axes_for, tidy
from ._reading import flat, inner_loop_of, random_start, read_episodes

__all__ = ["GradientAlignmentDisplay", "task_alignment"]


def task_alignment(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: int = 5,
    n_tasks: int | None = None,
    steps: int = 300,
    learning_rate: float = 0.01,
    random_state: int = 0,
) -> pd.DataFrame:
    """Cosine between minus the support's gradient and the way to the task's optimum.

    The optimum is where `steps` steps of Adam on all rows of the task end, beginning at the initialisation: a near one, not the
    only one.

    Parameters
    ----------
    estimator : MAMLRegressor or MAMLClassifier
        Meta-trained; it adapts by gradient steps.
    X, y, tasks
        A table of tasks, or a sampler alone.
    shots : int, default=5
        Support rows; a sampler has its own.
    n_tasks : int, default=None
        Episodes; None: one of each task, or 100 of a sampler.
    steps, learning_rate
        Of the search for the optimum.
    random_state : int, default=0
        Seed of the episodes and of the initialisation before training.

    Returns
    -------
    DataFrame
        Columns ``before`` (a random initialisation) and ``after`` (the learned one), a row for each episode.

    Raises
    ------
    NotFittedError, InvalidParameterError, InvalidDataError
        If the estimator or the data cannot be used.
    """
    inner = inner_loop_of(estimator, "task_alignment")
    rng = np.random.default_rng(random_state)
    support, query = read_episodes(estimator, X, y, tasks, shots=shots, n_tasks=n_tasks, rng=rng)
    starts = {"before": random_start(estimator, inner, random_state), "after": inner.parameters}
    with inner.evaluating():
        found = {name: _cosines(inner.kernels, p, support, query, steps, learning_rate) for name, p in starts.items()}
    return pd.DataFrame(found)


def _cosines(
    kernels: Kernels, parameters: MetaParameters, support: Rows, query: Rows, steps: int, learning_rate: float
) -> np.ndarray:
    theta = expand(parameters.moving, len(support.x))
    _, gradient = kernels.gradient(theta, parameters.shared, support, 0, 0)
    x, y, weight = (torch.cat(pair, 1) for pair in zip(support[:3], query[:3], strict=True))
    rows = Rows(x, y, weight, {name: torch.cat([value, query.extra[name]], 1) for name, value in support.extra.items()})
    optimum = _descend(kernels, theta, parameters.shared, rows, steps, learning_rate)
    way = flat(optimum) - flat(theta)
    down = -flat(gradient)
    cosine = (way * down).sum(1) / (way.norm(dim=1) * down.norm(dim=1))
    found: np.ndarray = cosine.numpy()
    return found


def _descend(
    kernels: Kernels, theta: Tensors, shared: Tensors, rows: Rows, steps: int, learning_rate: float
) -> Tensors:
    """Adam on each task's rows."""
    moving = {name: p.clone().requires_grad_() for name, p in theta.items()}
    optimizer = torch.optim.Adam(moving.values(), lr=learning_rate)
    for k in range(steps):
        _, gradient = kernels.gradient({n: p.detach() for n, p in moving.items()}, shared, rows, k, 0)
        for name, p in moving.items():
            p.grad = gradient[name]
        optimizer.step()
    return {name: p.detach() for name, p in moving.items()}


class GradientAlignmentDisplay:
    """Cosines of first steps with the way to the optimum, before and after meta-training: the share of tasks below each value.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    alignment : DataFrame
        As :func:`task_alignment` returns.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, alignment: pd.DataFrame) -> None:
        self.alignment = alignment

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, tasks: Any = None, *, ax: Any = None, **settings: Any
    ) -> GradientAlignmentDisplay:
        """Compute and draw; parameters as of :func:`task_alignment`."""
        return cls(alignment=task_alignment(estimator, X, y, tasks, **settings)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> GradientAlignmentDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        for name, label, style in (
            ("before", "random initialisation", BEFORE),
            ("after", "meta-learned", AFTER),
        ):
            self.ax_.ecdf(self.alignment[name].dropna(), label=label, **style)
        self.ax_.set(
            xlabel="cosine of the first step with the way to the optimum", ylabel="share of tasks below", xlim=(-1, 1)
        )
        self.ax_.set_xticks([-1, -0.5, 0, 0.5, 1])
        self.ax_.legend(frameon=False)
        tidy(self.ax_)
        return self
