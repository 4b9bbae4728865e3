"""The minibatches that Reptile's inner steps take: each a part of all the rows of an episode, support and query alike.

Different rows in different steps are what makes the way from the initialisation informative beyond joint training (Nichol, Achiam,
Schulman 2018, On first-order meta-learning algorithms, section 5).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..tasks import Rows

__all__ = ["minibatches"]


def minibatches(support: Rows, query: Rows, n_steps: int, rng: np.random.Generator) -> list[Rows]:
    """Cut the rows of each task, in random order and as often as need be, into a batch of rows for each step.

    Parameters
    ----------
    support, query : Rows
        Rows of the tasks; those without weight are left out.
    n_steps : int
        Number of batches, each as wide as `support`.
    rng : numpy.random.Generator
        Source of the order.

    Examples
    --------
    >>> import torch
    >>> rows = Rows(torch.arange(4.0).reshape(1, 4, 1), torch.zeros(1, 4), torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    >>> sorted(x for b in minibatches(rows, rows, 3, np.random.default_rng(0)) for x in b.x.flatten().tolist())[:6]
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    """
    x, y, weight = (torch.cat(pair, 1) for pair in zip(support[:3], query[:3], strict=True))
    both = Rows(x, y, weight, {name: torch.cat([value, query.extra[name]], 1) for name, value in support.extra.items()})
    width, real = support.x.shape[1], (both.weight > 0).cpu().numpy()
    order = np.where(real, rng.random(real.shape), np.inf).argsort(1)  # rows with weight come first
    n_real = np.maximum(real.sum(1, keepdims=True), 1)
    batches = []
    for k in range(n_steps):
        position = np.arange(k * width, (k + 1) * width) % n_real
        taken = torch.from_numpy(np.take_along_axis(order, position, 1)).to(both.x.device)
        batches.append(_gather(both, taken))
    return batches


def _gather(rows: Rows, taken: Tensor) -> Rows:
    tasks = torch.arange(len(taken), device=taken.device)[:, None]
    return Rows(
        rows.x[tasks, taken],
        rows.y[tasks, taken],
        rows.weight[tasks, taken],
        {k: v[tasks, taken] for k, v in rows.extra.items()},
    )
