"""What first-order MAML would leave out: the Hessian term of the meta-gradient, batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from ..metagradient import Order, meta_gradient, take_tasks
from ._plotting import COLOURS, axes_for, tidy
from ._reading import inner_loop_of, read_episodes

__all__ = ["FirstOrderErrorDisplay", "first_order_error"]


def first_order_error(
    estimator: Any,
    X: Any,
    y: Any = None,
    tasks: Any = None,
    *,
    shots: int = 5,
    n_tasks: int | None = None,
    batch_size: int = 16,
    random_state: int = 0,
) -> pd.DataFrame:
    """Compare first-order with exact meta-gradients in the initialisation.

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
    batch_size : int, default=16
        Tasks of a meta-gradient.
    random_state : int, default=0
        Seed of the episodes.

    Returns
    -------
    DataFrame
        A row for each batch: ``hessian_term``, the length of the difference relative to the exact gradient, and ``cosine``.

    Raises
    ------
    NotFittedError, InvalidParameterError, InvalidDataError
        If the estimator or the data cannot be used.

    References
    ----------
    Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML, section 5.2.
    """
    inner = inner_loop_of(estimator, "first_order_error")
    rng = np.random.default_rng(random_state)
    support, query = read_episodes(estimator, X, y, tasks, shots=shots, n_tasks=n_tasks, rng=rng)
    rows = []
    for first in range(0, len(query.x), batch_size):
        part = slice(first, first + batch_size)
        supports = [take_tasks(support, part)] * inner.adaptation.inner_steps
        orders: tuple[Order, Order] = ("exact", "first")
        with inner.evaluating():
            found = [
                meta_gradient(
                    inner.kernels, inner.adaptation, inner.parameters, supports, take_tasks(query, part), order=order
                ).gradient.moving.values()
                for order in orders
            ]
        exact, cheap = (torch.cat([t.double().flatten() for t in one]) for one in found)
        length = float(exact.norm())
        rows.append(
            {
                "hessian_term": float((exact - cheap).norm()) / length if length else np.nan,
                "cosine": float(torch.dot(exact, cheap) / (exact.norm() * cheap.norm())),
            }
        )
    return pd.DataFrame(rows)


class FirstOrderErrorDisplay:
    """Length of the Hessian term and cosine of first-order and exact gradient, a dot for each batch of tasks.

    Make one by :meth:`from_estimator`.

    Parameters
    ----------
    errors : DataFrame
        As :func:`first_order_error` returns.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, errors: pd.DataFrame) -> None:
        self.errors = errors

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any = None, tasks: Any = None, *, ax: Any = None, **settings: Any
    ) -> FirstOrderErrorDisplay:
        """Compute and draw; parameters as of :func:`first_order_error`."""
        return cls(errors=first_order_error(estimator, X, y, tasks, **settings)).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> FirstOrderErrorDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        self.ax_.plot(self.errors["hessian_term"], self.errors["cosine"], "o", color=COLOURS[0], alpha=0.7)
        self.ax_.axhline(1, color="#7A7A7A", linewidth=0.8)
        self.ax_.set(
            xlabel="Hessian term / exact gradient",
            ylabel="cosine to the exact gradient",
            title="First-order meta-gradients",
        )
        self.ax_.set_xlim(left=0)
        tidy(self.ax_)
        return self
