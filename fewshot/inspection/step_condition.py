r"""Whether a task's first step converges: eigenvalues of the step size times the Hessian.

A gradient step changes the distance to a task's optimum by the factor :math:`I - A H`, A the diagonal of the step sizes. It has
the eigenvalues of :math:`I - A^{1/2} H A^{1/2}`, which is symmetric. Where one of :math:`A^{1/2} H A^{1/2}` is above 2, a step
overshoots by more than it corrects; below 0 the loss is curved downwards, and a step moves away along that direction, as it should.

Both ends of the spectrum are found by Lanczos iterations with the kernels' Hessian products, reorthogonalised in full: exact for as
many parameters as iterations, and for more of them from the inside.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..kernels import Kernels
from ..metagradient import expand
from ..step_sizes import Tensors, effective_rows
from ..tasks import Rows
from ._plotting import COLOURS, axes_for, tidy
from ._reading import Inner, flat, inner_loop_of, read_episodes

__all__ = ["StepConditionDisplay", "step_eigenvalues"]

ITERATIONS = 40
UNSTABLE = 2.0


def step_eigenvalues(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: int = 5,
    n_tasks: int | None = None,
    random_state: int = 0,
) -> pd.DataFrame:
    """Extreme eigenvalues of step size times Hessian, at the initialisation, for each task.

    Parameters
    ----------
    estimator : MAMLRegressor or MAMLClassifier
        Meta-trained; it adapts by plain gradient descent.
    X, y, tasks
        A table of tasks, or a sampler alone.
    shots : int, default=5
        Support rows; a sampler has its own.
    n_tasks : int, default=None
        Episodes; None: one of each task, or 100 of a sampler.
    random_state : int, default=0
        Seed of the episodes.

    Returns
    -------
    DataFrame
        Columns ``least``, ``largest`` and ``unstable`` (largest above 2), a row for each episode.

    Warns
    -----
    UserWarning
        If a task's step is unstable.

    Raises
    ------
    NotFittedError, InvalidParameterError, InvalidDataError
        If the estimator or the data cannot be used.
    """
    inner = inner_loop_of(estimator, "step_eigenvalues", plain=True)
    rng = np.random.default_rng(random_state)
    support, _ = read_episodes(estimator, X, y, tasks, shots=shots, n_tasks=n_tasks, rng=rng)
    with inner.evaluating():
        least, largest = _extremes(inner, support, random_state)
    frame = pd.DataFrame({"least": least, "largest": largest, "unstable": largest > UNSTABLE})
    n = int(frame["unstable"].sum())
    if n:
        warnings.warn(
            f"inner_lr: the first step of {n} of {len(frame)} task(s) is unstable: step size times curvature is up to "
            f"{largest.max():.3g}, and above 2 a step overshoots by more than it corrects; use a smaller inner_lr, or learned "
            "step sizes.",
            UserWarning,
            stacklevel=2,
        )
    return frame


def _extremes(inner: Inner, support: Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
    kernels: Kernels = inner.kernels
    n_tasks, shared = len(support.x), inner.parameters.shared
    theta = expand(inner.parameters.moving, n_tasks)
    sizes, n = inner.adaptation.at(inner.parameters.sizes, 0), effective_rows(support.weight)
    root = {name: sizes.scale(name, n, p).expand(p.shape).sqrt() for name, p in theta.items()}

    def apply(v: torch.Tensor) -> torch.Tensor:
        _, product, _ = kernels.curvature(theta, shared, support, _times(root, _unflat(v, theta)), 0, 0)
        return flat(_times(root, product))

    size = sum(p[0].numel() for p in theta.values())
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(n_tasks, size, generator=generator, dtype=torch.float64)
    basis, diagonal, beside = [v / v.norm(dim=1, keepdim=True)], [], []
    for k in range(min(ITERATIONS, size)):
        w = apply(basis[-1])
        diagonal.append((w * basis[-1]).sum(1))
        for _ in range(2):  # once is not enough in floating point
            for b in basis:
                w = w - (w * b).sum(1, keepdim=True) * b
        length = w.norm(dim=1)
        if k + 1 == min(ITERATIONS, size) or bool((length < 1e-12).all()):
            break
        beside.append(length)
        # An invariant subspace: any other direction will do, with no link to those before.
        fresh = torch.randn(n_tasks, size, generator=generator, dtype=torch.float64)
        for b in basis:
            fresh = fresh - (fresh * b).sum(1, keepdim=True) * b
        stuck = length < 1e-12
        beside[-1] = torch.where(stuck, 0.0, length)
        w = torch.where(stuck[:, None], fresh, w)
        basis.append(w / w.norm(dim=1, keepdim=True))
    matrix = torch.diag_embed(torch.stack(diagonal, 1))
    if beside:
        off = torch.stack(beside[: len(diagonal) - 1], 1)
        matrix = matrix + torch.diag_embed(off, 1) + torch.diag_embed(off, -1)
    values = torch.linalg.eigvalsh(matrix)
    return values[:, 0].numpy(), values[:, -1].numpy()


def _times(a: Tensors, b: Tensors) -> Tensors:
    return {name: a[name] * b[name] for name in a}


def _unflat(v: torch.Tensor, like: Tensors) -> Tensors:
    parts = v.split([p[0].numel() for p in like.values()], 1)
    return {name: part.reshape(p.shape).to(p.dtype) for (name, p), part in zip(like.items(), parts, strict=True)}


class StepConditionDisplay:
    """Range of step size times curvature for each task, and where steps become unstable.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    eigenvalues : DataFrame
        As :func:`step_eigenvalues` returns.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, eigenvalues: pd.DataFrame) -> None:
        self.eigenvalues = eigenvalues

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, tasks: Any = None, *, ax: Any = None, **settings: Any
    ) -> StepConditionDisplay:
        """Compute and draw; parameters as of :func:`step_eigenvalues`."""
        return cls(eigenvalues=step_eigenvalues(estimator, X, y, tasks, **settings)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> StepConditionDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        ordered = self.eigenvalues.sort_values("largest").reset_index(drop=True)
        colour = np.where(ordered["unstable"], COLOURS[1], COLOURS[0])
        self.ax_.vlines(ordered.index, ordered["least"], ordered["largest"], colors=list(colour))
        self.ax_.axhline(UNSTABLE, color="#7A7A7A", linestyle=(0, (4, 1.5)), linewidth=1)
        self.ax_.annotate("unstable above", (0, UNSTABLE), xytext=(0, 3), textcoords="offset points", color="#7A7A7A")
        self.ax_.set(
            xlabel="tasks, by their largest", ylabel="step size x curvature", title="First step at the initialisation"
        )
        tidy(self.ax_)
        return self
