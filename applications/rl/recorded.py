"""Episodes that were recorded elsewhere, on a robot say, to adapt from without an environment at hand.

A policy gradient needs the log-probability that the acting policy gave each action: without it nobody can tell an action that was
likely anyway from one that was not, and the gradient would be that of another policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from gymnasium.spaces import Box, Discrete, Space

from fewshot.errors import InvalidDataError

from .environments.spaces import encode_observations, n_actions, to_actions, to_raw
from .learning.trajectories import Trajectories

__all__ = ["RecordedEpisodes"]


@dataclass(frozen=True)
class RecordedEpisodes:
    """Episodes of one environment.

    Parameters
    ----------
    observations : sequence of ndarray of shape (time + 1, *observation)
        Of each episode, before each action and after the last.
    actions : sequence of ndarray of shape (time, *action)
        In the environment's action space.
    rewards : sequence of ndarray of shape (time,)
        After each action.
    terminated : sequence of bool
        Whether each episode reached its end; False where it was cut off.
    log_probs : sequence of ndarray of shape (time,)
        Log-probability of each action under the policy that took it, as a density over actions in units in which the finite
        bounds of a Box are -1 and 1.
    raw_actions : sequence of ndarray of shape (time, n_values), default=None
        Actions in these units as they were drawn, before clipping; None takes those of `actions`.

    Raises
    ------
    InvalidDataError
        If there are no log-probabilities, or lengths do not agree.

    Examples
    --------
    >>> episodes = RecordedEpisodes(
    ...     observations=[np.zeros((3, 2))],
    ...     actions=[np.zeros((2, 1))],
    ...     rewards=[np.ones(2)],
    ...     terminated=[True],
    ...     log_probs=[np.full(2, -0.9)],
    ... )
    >>> len(episodes)
    1
    """

    observations: Sequence[npt.ArrayLike]
    actions: Sequence[npt.ArrayLike]
    rewards: Sequence[npt.ArrayLike]
    terminated: Sequence[bool]
    log_probs: Sequence[npt.ArrayLike] | None = None
    raw_actions: Sequence[npt.ArrayLike] | None = None

    def __post_init__(self) -> None:
        if self.log_probs is None:
            raise InvalidDataError(
                "log_probs: got None; expected the log-probability of every action under the policy that took it, without which "
                "the gradient would be off-policy; record them while acting, as MAMLPolicy.record does."
            )
        n = len(self.rewards)
        names = "observations", "actions", "terminated", "log_probs", "raw_actions"
        for name in (name for name in names if getattr(self, name) is not None):
            if len(getattr(self, name)) != n:
                raise InvalidDataError(
                    f"{name}: got {len(getattr(self, name))} episodes; expected {n}, as many as in rewards."
                )
        if not n:
            raise InvalidDataError("rewards: got no episode; expected at least one.")
        for e in range(n):
            steps = len(np.asarray(self.rewards[e]))
            columns = [("observations", steps + 1), ("actions", steps), ("rewards", steps), ("log_probs", steps)]
            if self.raw_actions is not None:
                columns.append(("raw_actions", steps))
            for name, expected in columns:
                got = len(np.asarray(getattr(self, name)[e]))
                if got != expected:
                    raise InvalidDataError(
                        f"{name}: episode {e} has {got} entries and {steps} rewards; expected {expected} "
                        "(observations: one more than rewards)."
                    )
                if not np.isfinite(np.asarray(getattr(self, name)[e], dtype=float)).all():
                    raise InvalidDataError(f"{name}: episode {e} holds values that are not finite; remove the episode.")
                if name in ("rewards", "log_probs") and np.ndim(getattr(self, name)[e]) != 1:
                    shape = np.shape(getattr(self, name)[e])
                    raise InvalidDataError(
                        f"{name}: episode {e} has shape {shape}; expected ({steps},), one number a time step."
                    )
            if not steps:
                raise InvalidDataError(f"rewards: episode {e} is empty; remove it.")

    @classmethod
    def of(cls, found: Trajectories, observation_space: Space[Any], action_space: Space[Any]) -> RecordedEpisodes:
        """Make them of the first task's trajectories."""
        lengths = found.mask[0].sum(-1).long().tolist()

        def parts(values: torch.Tensor) -> list[npt.NDArray[Any]]:
            return [value[:n].numpy() for value, n in zip(values[0], lengths, strict=True)]

        raw = parts(found.actions)
        last = found.last_observations[0].numpy()
        seen = [np.concatenate([x, after[None]]) for x, after in zip(parts(found.observations), last, strict=True)]
        return cls(
            [_decoded(observation_space, x) for x in seen],
            [to_actions(action_space, a) for a in raw],
            parts(found.rewards),
            found.terminated[0].tolist(),
            parts(found.log_probs),
            raw,
        )

    def __len__(self) -> int:
        return len(self.rewards)

    def trajectories(self, observation_space: Space[Any], action_space: Space[Any]) -> Trajectories:
        """Put the episodes into padded tensors, as those of one task.

        Parameters
        ----------
        observation_space, action_space : gymnasium.Space
            Of the environment.
        """
        assert self.log_probs is not None
        lengths = [len(np.asarray(r)) for r in self.rewards]
        n, horizon = len(lengths), max(lengths)
        seen = [torch.from_numpy(encode_observations(observation_space, o)) for o in self.observations]
        raw = self.raw_actions if self.raw_actions is not None else [to_raw(action_space, a) for a in self.actions]
        done = [torch.as_tensor(np.asarray(a, np.float32)) for a in raw]
        if done[0].shape[-1] != (n_actions(action_space) if isinstance(action_space, Box) else 1):
            raise InvalidDataError(f"actions: got {done[0].shape[-1]} values each; expected them in {action_space}.")
        observations = torch.zeros(1, n, horizon, seen[0].shape[-1])
        actions = torch.zeros(1, n, horizon, done[0].shape[-1])
        log_probs, rewards, mask = (torch.zeros(1, n, horizon) for _ in range(3))
        for e, steps in enumerate(lengths):
            observations[0, e, :steps], actions[0, e, :steps] = seen[e][:-1], done[e]
            log_probs[0, e, :steps] = torch.as_tensor(np.asarray(self.log_probs[e], np.float32))
            rewards[0, e, :steps] = torch.as_tensor(np.asarray(self.rewards[e], np.float32))
            mask[0, e, :steps] = 1
        ended = torch.tensor([[bool(t) for t in self.terminated]])
        return Trajectories(
            observations, actions, log_probs, rewards, mask, ended, torch.stack([o[-1] for o in seen])[None]
        )


def _decoded(space: Space[Any], encoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Undo :func:`~.spaces.encode_observations`."""
    if isinstance(space, Discrete):
        return encoded.argmax(-1) + space.start
    return encoded.reshape(len(encoded), *(space.shape or ()))
