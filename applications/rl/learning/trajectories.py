"""Episodes of several tasks as tensors, and as the rows that surrogates are losses of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fewshot.tasks import Rows

from .surrogates import pack

__all__ = ["Trajectories"]


@dataclass(frozen=True)
class Trajectories:
    """Episodes of several tasks.

    What comes after the end of an episode is zero in all tensors.

    Parameters
    ----------
    observations : Tensor of shape (tasks, episodes, time, n_observed)
        What the policy saw before each action.
    actions : Tensor of shape (tasks, episodes, time, n_values)
        Raw actions.
    log_probs : Tensor of shape (tasks, episodes, time)
        Log-probability of each action under the policy that took it.
    rewards : Tensor of shape (tasks, episodes, time)
        After each action.
    mask : Tensor of shape (tasks, episodes, time)
        1 for steps of the episode, 0 after its end.
    terminated : Tensor of bool of shape (tasks, episodes)
        Whether the episode reached its end; False where it was cut off.
    last_observations : Tensor of shape (tasks, episodes, n_observed)
        After the last step.
    """

    observations: Tensor
    actions: Tensor
    log_probs: Tensor
    rewards: Tensor
    mask: Tensor
    terminated: Tensor
    last_observations: Tensor

    @property
    def n_steps(self) -> int:
        """Time steps of all episodes together."""
        return int(self.mask.sum())

    def returns(self) -> Tensor:
        """Undiscounted sum of the rewards of each episode; shape (tasks, episodes).

        Examples
        --------
        >>> one = torch.ones(1, 1, 3)
        >>> x = torch.zeros(1, 1, 3, 2)
        >>> Trajectories(x, x, one, one, one, torch.zeros(1, 1, dtype=torch.bool), x[:, :, 0]).returns()
        tensor([[3.]])
        """
        return self.rewards.sum(-1)

    def rows(self, advantage: Tensor) -> Rows:
        """Return a row for each time step: episodes one after another, padded ones of weight 0.

        Parameters
        ----------
        advantage : Tensor of shape (tasks, episodes, time)
            Of each action.
        """
        place = 2 * self.mask
        place[..., 0] = 1
        target = pack(self.actions, self.log_probs, advantage, place)
        return Rows(self.observations.flatten(1, 2), target.flatten(1, 2), self.mask.flatten(1))

    def task(self, t: int) -> Trajectories:
        """Take the episodes of one task; the task axis stays."""
        return Trajectories(*(value[t : t + 1] for value in vars(self).values()))

    @classmethod
    def join(cls, parts: list[Trajectories], axis: int = 0) -> Trajectories:
        """Put tasks (axis 0) or episodes of the same tasks (axis 1) of several batches into one."""
        return cls(*(torch.cat(values, axis) for values in zip(*(vars(p).values() for p in parts), strict=True)))

    def first(self, n_episodes: int) -> Trajectories:
        """Take the first episodes of every task."""
        return Trajectories(*(value[:, :n_episodes] for value in vars(self).values()))
