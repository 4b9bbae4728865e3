"""Collecting episodes: all tasks and episodes advance together, with one batched forward pass for each time step.

Every task acts by parameters of its own, which are stacked; the pass is recorded once, so a time step costs a few batched matrix
products whatever the number of tasks. Noise for whole episodes is drawn ahead, which makes a rollout a function of
its parameters, its tasks and its generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.utils._pytree import tree_leaves

from fewshot.errors import InvalidParameterError
from fewshot.functional import differentiable_forward
from fewshot.recording import Recorded
from fewshot.step_sizes import Tensors

from ..environments.failures import check_finite
from ..environments.protocols import EpisodeBatch
from ..environments.spaces import action_map, encode_observations, n_observed
from .distributions import Distribution
from .trajectories import Trajectories

__all__ = ["ActionFilter", "BatchedForward", "collect"]

MAX_RECORDS = 24  # of one network: the oldest makes room

ActionFilter = Callable[[npt.NDArray[Any], npt.NDArray[Any]], npt.NDArray[Any]]


class BatchedForward:
    """Forward passes of a network with parameters of each task.

    Parameters
    ----------
    network : torch.nn.Module
        Its structure; weights travel as arguments.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._recorded: dict[Any, tuple[Callable[..., Any], Callable[..., Any]] | None] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"network": self.network, "_recorded": {}}  # records are made again in no time

    def bind(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the pass for given parameters and inputs of the shape of `x`.

        Parameters
        ----------
        moving : dict of str to Tensor
            With a leading task axis.
        shared, constant : dict of str to Tensor
            The same for all tasks.
        x : Tensor of shape (tasks, rows, n_observed)
            An example.
        """
        arguments = dict(moving), dict(shared), dict(constant)
        key = tuple((t.shape, t.dtype) for t in (x, *tree_leaves(arguments)))
        if key not in self._recorded:
            if len(self._recorded) >= MAX_RECORDS:
                self._recorded.pop(next(iter(self._recorded)))
            try:
                with differentiable_forward():  # one thread at a time: another's weights would stay in the record
                    self._recorded[key] = Recorded(self._forward, (x, *arguments)).split(1)
            except RuntimeError:  # decides by numbers, which a record would repeat
                self._recorded[key] = None
        recorded = self._recorded[key]
        if recorded is None:
            return lambda x: self._forward(x, *arguments)
        before, after = recorded
        bound = before(*(t.contiguous() for t in tree_leaves(arguments)))
        return lambda x: after(x, *bound)[0]

    def _forward(self, x: Tensor, moving: Tensors, shared: Tensors, constant: Tensors) -> Tensor:
        with differentiable_forward():
            found: Tensor = vmap(self._one, (0, None, None, 0))(moving, shared, constant, x)
        return found

    def _one(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        out: Tensor = functional_call(self.network, (moving, shared, constant), (x,))
        return out


def _filtered(action_filter: ActionFilter, seen: npt.NDArray[Any], actions: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Let a user's filter replace actions."""
    if not callable(action_filter):
        raise InvalidParameterError(
            f"action_filter: got {type(action_filter).__name__}; expected a function (observations, actions) -> actions."
        )
    found = np.asarray(action_filter(seen, actions.copy()))
    if found.shape != actions.shape or not np.can_cast(found.dtype, actions.dtype, "same_kind"):
        raise InvalidParameterError(
            f"action_filter: returned {found.dtype} of shape {found.shape}; expected {actions.dtype} of shape {actions.shape}, an "
            "action for each that it was given."
        )
    return found


def collect(
    batch: EpisodeBatch,
    forward: BatchedForward,
    distribution: Distribution,
    parameters: tuple[Tensors, Tensors, Tensors],
    *,
    n_tasks: int,
    n_episodes: int,
    horizon: int,
    rng: np.random.Generator,
    deterministic: bool = False,
    action_filter: ActionFilter | None = None,
    tasks: Sequence[Any] | None = None,
) -> Trajectories:
    """Run one episode in every slot of a batch.

    Parameters
    ----------
    batch : EpisodeBatch
        Slots of all tasks.
    forward : BatchedForward
        The policy network.
    distribution : Distribution
        Of the actions.
    parameters : tuple of dict of str to Tensor
        Moving ones with a leading task axis, shared and constant ones without.
    n_tasks, n_episodes, horizon : int
        Size of the batch, and most time steps.
    rng : numpy.random.Generator
        Source of everything random.
    deterministic : bool, default=False
        Take the most likely actions.
    action_filter : callable, default=None
        ``(observations, actions) -> actions`` in the environment's spaces, just before a step: what is not safe is replaced.
    tasks : sequence, default=None
        Parameters of the tasks, to name one by.

    Returns
    -------
    Trajectories

    Raises
    ------
    EnvironmentFailedError
        If an environment gives a reward or an observation that is not finite; it names the task.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(2**63)))
    seen, to_actions = batch.observation_space, action_map(batch.action_space)
    slots = n_tasks, n_episodes
    now = encode_observations(seen, batch.reset(rng))
    observations = np.zeros((horizon, *slots, n_observed(seen)), np.float32)
    rewards, mask = np.zeros((horizon, *slots), np.float32), np.zeros((horizon, *slots), np.float32)
    actions: list[Tensor] = []
    outputs: list[Tensor] = []
    alive, ended = np.ones(slots, bool), np.zeros(slots, bool)
    last = now.copy()
    noise = None if deterministic else distribution.noise((horizon, *slots), generator)
    with torch.no_grad():
        run = forward.bind(*parameters, torch.from_numpy(now))
        for t in range(horizon):
            outputs.append(output := run(torch.from_numpy(now)))
            raw = distribution.mode(output) if noise is None else distribution.sample(output, noise[t])
            actions.append(raw)
            observations[t], mask[t] = now, alive
            taken = to_actions(raw.numpy())
            if action_filter is not None:
                taken = _filtered(action_filter, now, taken)
            after, rewards[t], terminated, truncated = batch.step(taken)
            now = encode_observations(seen, after)
            ends = (terminated | truncated) & alive
            if ends.any():
                ended |= terminated & alive
                last[ends] = now[ends]
                alive = alive & ~ends
                if not alive.any():
                    break
        last[alive] = now[alive]
        steps = t + 1
        seen_alive = mask[:steps] > 0
        check_finite(seen_alive, 0, tasks, observation=observations[:steps])
        check_finite(seen_alive, 1, tasks, reward=rewards[:steps])
        check_finite(np.ones((1, *slots), np.bool_), None, tasks, observation=last[None])
        acted = torch.stack(actions)
        log_probs = distribution.log_prob(torch.stack(outputs), acted)
    valid = torch.from_numpy(mask[:steps])

    def ordered(values: Tensor) -> Tensor:
        """From (time, tasks, episodes, ...) to (tasks, episodes, time, ...), zero after the end."""
        over = valid.reshape(*valid.shape, *(1,) * (values.ndim - 3)) == 0
        values = values.masked_fill(over, 0)  # whatever an environment says after the end
        return F.pad(values.movedim(0, 2), (0, 0) * (values.ndim - 3) + (0, horizon - steps)).contiguous()

    return Trajectories(
        ordered(torch.from_numpy(observations[:steps])),
        ordered(acted),
        ordered(log_probs),
        ordered(torch.from_numpy(rewards[:steps])),
        ordered(valid),
        torch.from_numpy(ended),
        torch.from_numpy(last),
    )
