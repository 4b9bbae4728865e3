"""How much better an action was than expected: generalised advantage estimation with a linear baseline, all tasks at once.

The baseline predicts the discounted return from features of observation and time by ridge regression, anew for each task and
each batch of episodes (Duan et al. 2016, section 4); it needs no network of its own and no learning rate. Advantages follow
Schulman et al. (2016), equation 16; an episode that was cut off goes on with the baseline's value of its last observation, one
that reached its end does not. That value knows the time: it is of what comes within the longest episodes of the batch, beyond
which nobody has seen a reward.

Observations of more than 200 numbers, images say, would make a regression of thousands of features for each task: for these the
baseline knows the time alone.

References
----------
Duan et al. (2016), Benchmarking deep reinforcement learning for continuous control, ICML. Schulman et al. (2016),
High-dimensional continuous control using generalized advantage estimation, ICLR.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .trajectories import Trajectories

__all__ = ["advantages", "linear_baseline", "returns_to_go"]

RIDGE = 1e-5  # of each feature, relative to its square: units of observations and length of episodes do not matter
WIDEST = 200  # numbers of an observation that the baseline reads
FARTHEST = 10.0  # standard deviations from the mean at which an observation counts as no farther


def returns_to_go(rewards: Tensor, discount: float) -> Tensor:
    """Discounted sums of rewards from each step on; (..., time) -> (..., time).

    Examples
    --------
    >>> returns_to_go(torch.tensor([1.0, 1.0, 1.0]), 0.5)
    tensor([1.7500, 1.5000, 1.0000])
    """
    total = rewards.movedim(-1, 0).clone(memory_format=torch.contiguous_format)  # a time step is one piece of memory
    for t in reversed(range(len(total) - 1)):
        total[t] += discount * total[t + 1]
    return total.movedim(0, -1).contiguous()


def _features(x: Tensor, time: Tensor) -> Tensor:
    """Powers of observations and of the time, which goes from 0 to 1."""
    t = time.expand(x.shape[:-1]).unsqueeze(-1)
    if x.shape[-1] > WIDEST:
        x = x[..., :0]
    return torch.cat([x, x**2, t, t**2, t**3, torch.ones_like(t)], -1)


def _standardised(found: Trajectories) -> tuple[Tensor, Tensor]:
    """Observations of all time steps, and the last ones, in standard deviations from the mean of their task."""
    mask = found.mask.unsqueeze(-1)
    n = mask.sum((1, 2), keepdim=True).clamp(min=1)
    mean = (found.observations * mask).sum((1, 2), keepdim=True) / n
    deviation = (((found.observations - mean) ** 2 * mask).sum((1, 2), keepdim=True) / n).sqrt()
    scale = torch.where(deviation > 1e-6 * (1 + mean.abs()), 1 / deviation, torch.ones_like(deviation))
    now, last = (found.observations - mean) * scale, (found.last_observations - mean[:, 0]) * scale[:, 0]
    return now.clamp(-FARTHEST, FARTHEST), last.clamp(-FARTHEST, FARTHEST)


def linear_baseline(found: Trajectories, discount: float) -> tuple[Tensor, Tensor]:
    """Predict the return from every observation, fitted to the episodes of its task.

    Parameters
    ----------
    found : Trajectories
        Episodes.
    discount : float
        Discount of a time step.

    Returns
    -------
    values : Tensor of shape (tasks, episodes, time)
        0 where an episode is over.
    last : Tensor of shape (tasks, episodes)
        Value of the observation after the last step.
    """
    n_tasks, n_episodes, horizon = found.rewards.shape
    time = torch.arange(horizon, dtype=found.rewards.dtype) / horizon
    seen, last = _standardised(found)
    phi = _features(seen, time)
    weight = found.mask.unsqueeze(-1)
    flat = (phi * weight).reshape(n_tasks, -1, phi.shape[-1])
    target = (returns_to_go(found.rewards, discount) * found.mask).reshape(n_tasks, -1, 1)
    # Normal equations in double precision: the powers of time are nearly collinear.
    flat, target = flat.double(), target.double()
    gram = flat.mT @ flat
    damping = torch.diag_embed(RIDGE * gram.diagonal(dim1=-2, dim2=-1) + 1e-12)
    weights = torch.linalg.solve(gram + damping, flat.mT @ target)
    weights = weights.to(phi.dtype)
    values = (flat.to(phi.dtype) @ weights).reshape(n_tasks, n_episodes, horizon)
    after = _features(last, found.mask.sum(-1) / horizon)
    return values, (after @ weights).squeeze(-1)


def advantages(found: Trajectories, *, discount: float = 0.99, trace: float = 0.95, standardise: bool = True) -> Tensor:
    """Estimate the advantage of every action.

    Parameters
    ----------
    found : Trajectories
        Episodes of some tasks.
    discount : float, default=0.99
        Discount of a time step.
    trace : float, default=0.95
        Lambda: 0 trusts the baseline, 1 the returns.
    standardise : bool, default=True
        Give each task's advantages mean 0 and standard deviation 1.

    Returns
    -------
    Tensor of shape (tasks, episodes, time)
        0 where an episode is over.
    """
    values, last = linear_baseline(found, discount)
    lengths = found.mask.sum(-1, keepdim=True).long()
    after = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], -1)
    # Behind an episode's last step comes nothing if it reached its end, and the value of where it was cut off otherwise.
    follows = torch.where(found.terminated, torch.zeros_like(last), last).unsqueeze(-1)
    after = after.scatter(-1, (lengths - 1).clamp(min=0), follows)
    errors = (found.rewards + discount * after - values) * found.mask
    result = returns_to_go(errors, discount * trace) * found.mask
    if standardise:
        n = found.mask.sum((1, 2), keepdim=True).clamp(min=1)
        result = (result - result.sum((1, 2), keepdim=True) / n) * found.mask
        result = result / ((result**2).sum((1, 2), keepdim=True) / n).sqrt().clamp(min=1e-8)
    return result
