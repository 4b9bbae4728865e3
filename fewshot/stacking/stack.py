"""A fitted stack: the pooled base and several ways to adapt it, mixed with weights that depend on the size of the support."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from ..tasks import TaskSet
from .base import PooledMixture
from .members import Member, State
from .responses import Response

__all__ = ["Stack", "StackState", "column_ranges"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass
class Stack:
    """The pooled base, fitted members, and the weights of the mixture.

    Parameters
    ----------
    response : Response
        Values or classes.
    base, constant : PooledMixture
        What members start from.
    members : list of Member
        Fitted.
    sizes : list of int
        Support sizes at which weights were learned, ascending.
    weights : ndarray of shape (sizes, 1 + variants)
        Weight of the base, and of every variant of every member, at each size.
    centre, scale : ndarray of shape (features,)
        By which inputs are standardised.
    """

    response: Response
    base: PooledMixture
    constant: PooledMixture
    members: list[Member]
    sizes: list[int]
    weights: Floats
    centre: Floats
    scale: Floats

    def standardised(self, x: Floats) -> Floats:
        """Return inputs as everything in a stack sees them."""
        return (x - self.centre) / self.scale

    def weights_for(self, rows: Ints) -> Floats:
        """Weights of the columns for supports of so many rows: between two sizes in proportion to the logarithm."""
        out = np.zeros((len(rows), 1 + sum(len(m.variants) for m in self.members)))
        if not self.sizes:
            out[:, 0] = 1.0
            return out
        at, known = np.log(np.maximum(rows, 1)), np.log(np.array(self.sizes, dtype=np.float64))
        for column in range(out.shape[1]):
            out[:, column] = np.interp(at, known, self.weights[:, column])
        out[rows == 0] = np.eye(1, out.shape[1])
        return out

    def adapt(self, support: TaskSet) -> StackState:
        """Adapt to every task of a task set, all rows being support."""
        x = self.standardised(support.x.numpy())
        support = replace(support, x=torch.from_numpy(x))
        offsets = {True: self.base.predict(x), False: self.constant.predict(x)}
        present = np.add.reduceat((support.weight.numpy() > 0).astype(np.int64), support.offsets[:-1])
        states = [member.adapt(support, offsets[member.from_base]) for member in self.members]
        return StackState(self.weights_for(present), states)

    def predict(self, state: StackState | None, x: Floats, task: Ints) -> Floats:
        """Predict rows of the tasks at these positions; without a state, from the base alone.

        Parameters
        ----------
        state : StackState or None
            What :meth:`adapt` returned.
        x : ndarray of shape (rows, features)
            Inputs.
        task : ndarray of int, shape (rows,)
            Position of each row's task among those adapted to.

        Returns
        -------
        ndarray of shape (rows, outputs)
            Values, or log-probabilities.
        """
        if state is None or not len(x):
            return self.base.predict(self.standardised(x))
        return self.response.mix(self.columns(state, x, task), state.weights[task])

    def columns(self, state: StackState, x: Floats, task: Ints) -> Floats:
        """Predict as the base and as every variant of every member, shape (rows, 1 + variants, outputs)."""
        x = self.standardised(x)
        base, constant = self.base.predict(x), self.constant.predict(x)
        columns = [base[:, None, :]]
        for member, own in zip(self.members, state.states, strict=True):
            columns.append(member.predict(own, x, task, base if member.from_base else constant))
        return np.concatenate(columns, axis=1)


@dataclass
class StackState:
    """What a stack took from the supports of some tasks.

    Parameters
    ----------
    weights : ndarray of shape (tasks, 1 + variants)
        Weights of the mixture.
    states : list of dict
        What each member took.
    """

    weights: Floats
    states: list[State]


def column_ranges(members: list[Member]) -> dict[str, slice]:
    """Return which columns of a mixture belong to the base and to each member."""
    ranges, start = {"base": slice(0, 1)}, 1
    for member in members:
        ranges[member.name] = slice(start, start + len(member.variants))
        start += len(member.variants)
    return ranges
