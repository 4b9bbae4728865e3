"""Fitting a stack: everything that is chosen is chosen on tasks that were left out of what is judged.

The tasks are divided into folds. Each fold's tasks are adapted to, from supports of several sizes, by members that were trained on
the other folds, and the weights of the mixture are those that lose least there (:mod:`.weights`). The base is part of the mixture:
where adapting does not help, it keeps its weight. After the first fold, members that got next to nothing are left out: to train
them four times more would change nothing. Then those that are left are trained once more, on all tasks.

A fit is a sequence of rounds (the base, one for each fold, the last training), each of which is done or not done, and each of which
has random numbers of its own. So it can be interrupted and goes on to the same result.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..episodes import Support
from ..tasks import TaskSet
from .base import PooledBase, candidate_models, task_codes
from .folds import draw_episodes, enough_judges, folds_of, support_sizes
from .members import Member
from .responses import Response, TaskLosses
from .stack import Stack, column_ranges
from .weights import ROWS_PER_TASK, bootstrap_weights, stacking_weights

__all__ = ["HeldOut", "StackFit"]

logger = logging.getLogger("fewshot")
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Judged(NamedTuple):
    """What all members say about query rows of held-out tasks."""

    predictions: Floats  # (rows, columns, outputs)
    y: npt.NDArray[Any]
    task: Ints
    row: Ints  # of the training table, as it was given


class HeldOut(NamedTuple):
    """What the stack says about training rows, by members that were not trained on their tasks.

    Parameters
    ----------
    row : ndarray of int, shape (rows,)
        Positions in the training table; a row that several episodes asked for stands here once.
    task : ndarray of int, shape (rows,)
        Positions of their tasks, in sorted order of the labels.
    prediction : ndarray of shape (rows, outputs)
        Values, or log-probabilities.
    """

    row: Ints
    task: Ints
    prediction: Floats


TINY = 1e-12  # spread of a column that is constant but for rounding
HELD_OUT_ROWS = 6000  # query rows that judge one support size, about
DROPPED_BELOW = 0.1  # of the weight, at every support size
FEWEST_JUDGES = 3  # held-out tasks before a member is dropped
LEAST_GAIN = 0.01  # of the loss, for a member on trial to stay
PRIOR_MASS = 1.0  # of all columns together


@dataclass
class StackFit:
    """The fit of a stack, as far as it got.

    Parameters
    ----------
    response : Response
        Values or classes.
    n_outputs : int
        Outputs, or classes.
    base : "auto", None or estimator
        The pooled model.
    members : list of Member
        Unfitted.
    pool : TaskSet
        The training tasks, in double precision; its inputs are standardised.
    seed : int
        Seed of everything random.
    support : {"random", "first"}, default="random"
        Which rows support a held-out task.
    """

    response: Response
    n_outputs: int
    base: object
    members: list[Member]
    pool: TaskSet
    seed: int
    support: Support = "random"
    centre: Floats = field(init=False)
    scale: Floats = field(init=False)
    folds: Ints = field(init=False)
    bases: dict[bool, PooledBase] = field(init=False)
    judged: list[dict[int, Judged]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    dropped: list[str] = field(default_factory=list)
    stack: Stack | None = None
    losses: dict[int, dict[str, float]] = field(default_factory=dict)
    held_out: dict[int, HeldOut] = field(default_factory=dict)

    def __post_init__(self) -> None:
        x, weight = self.pool.x.numpy(), self.pool.weight.numpy()
        self.centre = np.average(x, axis=0, weights=weight)
        spread = np.sqrt(np.average((x - self.centre) ** 2, axis=0, weights=weight))
        self.scale = np.where(spread > TINY * (1 + np.abs(self.centre)), spread, 1.0)
        self.pool = replace(self.pool, x=torch.from_numpy((x - self.centre) / self.scale))
        self.folds = folds_of(self.pool.n_tasks, self._rng(0))
        self.bases = {}

    @property
    def n_folds(self) -> int:
        """Number of folds; a single task cannot be held out."""
        return int(self.folds.max()) + 1 if self.pool.n_tasks > 1 else 0

    @property
    def n_rounds(self) -> int:
        """Number of rounds of the whole fit."""
        return self.n_folds + 2

    @property
    def n_done(self) -> int:
        """Number of rounds that are done."""
        return bool(self.bases) + len(self.judged) + (self.stack is not None)

    def run(self, after_round: Callable[[int], object] = lambda number: None) -> Stack:
        """Do the rounds that were not done yet.

        Parameters
        ----------
        after_round : callable, default=None
            Called with the number of each round that is done.

        Returns
        -------
        Stack
        """
        if not self.bases:
            self.bases = self._choose_bases()
            after_round(0)
        while len(self.judged) < self.n_folds:
            self.judged.append(self._judge(len(self.judged)))
            self._drop_members()
            after_round(len(self.judged))
        if self.stack is None:
            self.stack = self._finish()
            after_round(self.n_rounds - 1)
        return self.stack

    def base_alone(self) -> Stack | None:
        """Return what can be said before the fit is complete: the base, if there is one yet."""
        if not self.bases:
            return None
        return self._stack([], [], np.ones((0, 1)), self.centre, self.scale)

    # ---------------------------------------------------------------- rounds

    def _choose_bases(self) -> dict[bool, PooledBase]:
        began = time.perf_counter()
        bases = {}
        for kind, base in ((True, self.base), (False, None)):
            models = candidate_models(self.response, base, self.n_outputs, self.seed, self.pool.n_rows)
            bases[kind] = PooledBase.choose(
                self.response, self.n_outputs, models, self.pool, self.folds, self._rng(1, int(kind))
            )
        self._count("base", began)
        return bases

    def _judge(self, fold: int) -> dict[int, Judged]:
        """Train on the other folds and predict this one's tasks, for every support size."""
        held, rest = np.flatnonzero(self.folds == fold), np.flatnonzero(self.folds != fold)
        members = self._fit_members(rest, frozenset({fold}), 2 + fold)
        draws = int(np.clip(60 // self.pool.n_tasks, 3, 20))
        queries = int(np.clip(HELD_OUT_ROWS // (draws * self.pool.n_tasks), 5, 60))
        found = {}
        for k in support_sizes(self.pool.sizes):
            episodes = draw_episodes(self.pool, held, k, draws, queries, self._rng(20, fold, k), self.support)
            if len(episodes.query):
                out = self._predict(
                    members, episodes.support_set(self.pool), episodes.query, episodes.query_episode, fold
                )
                rows = episodes.query
                task = episodes.task[episodes.query_episode]
                found[k] = Judged(out, self.pool.y.numpy()[rows], task, self.pool.order[rows])
        return found

    def _drop_members(self) -> None:
        """Leave out members without weight, once enough tasks have judged."""
        seen = int((self.folds < len(self.judged)).sum())
        if seen < FEWEST_JUDGES or len(self.judged) == self.n_folds or not any(m.expensive for m in self.members):
            return
        most: dict[str, float] = {}
        for k in self._sizes(self.pool.n_tasks * len(self.judged) / self.n_folds):
            weights = self._weights(k, *self._losses(k))
            for name, columns in column_ranges(self.members).items():
                most[name] = max(most.get(name, 0.0), float(weights[columns].sum()))
        names = [m.name for m in self.members if m.expensive and most.get(m.name, 0.0) < DROPPED_BELOW]
        if not names:
            return
        logger.info("fit_meta: left out of the stack, for want of weight on held-out tasks: %s", ", ".join(names))
        self._leave_out(names)

    def _leave_out(self, names: list[str]) -> None:
        ranges = column_ranges(self.members)
        keep = np.ones(sum(s.stop - s.start for s in ranges.values()), dtype=bool)
        for name in names:
            keep[ranges[name]] = False
        members = [m for m in self.members if m.name not in names]
        judged = [{k: j._replace(predictions=j.predictions[:, keep]) for k, j in part.items()} for part in self.judged]
        self.members, self.judged, self.dropped = members, judged, self.dropped + names

    def _end_trials(self) -> None:
        """Leave out members on trial unless the mixture with them loses less on held-out tasks."""
        names = [m.name for m in self.members if m.on_trial]
        sizes = self._sizes(self.pool.n_tasks)
        if not names or not sizes:
            return
        before = self.members, self.judged, self.dropped
        with_them = [self._held_out_losses(*self._losses(k))["stack"] for k in sizes]
        self._leave_out(names)
        without = [self._held_out_losses(*self._losses(k))["stack"] for k in sizes]
        if np.mean(np.log(with_them) - np.log(without)) < np.log(1 - LEAST_GAIN):
            self.members, self.judged, self.dropped = before

    def _finish(self) -> Stack:
        """Learn the weights and train what is left on all tasks."""
        self._end_trials()
        sizes = self._sizes(self.pool.n_tasks)
        weights, losses = [], {}
        for k in sizes:
            table_of_losses, there = self._losses(k)
            weights.append(self._weights(k, table_of_losses, there))
            losses[k] = self._held_out_losses(table_of_losses, there)
            self.held_out[k] = self._held_out(k, weights[-1])
        n_columns = 1 + sum(len(m.variants) for m in self.members)
        table = np.array(weights).reshape(len(sizes), n_columns)
        useful = {n for n, c in column_ranges(self.members).items() if table[:, c].sum(1).max(initial=0.0) > 1e-3}
        keep = np.concatenate([[True], *(np.full(len(m.variants), m.name in useful) for m in self.members)])
        self.members = [m for m in self.members if m.name in useful]
        table = table[:, keep] / table[:, keep].sum(1, keepdims=True)
        members = self._fit_members(np.arange(self.pool.n_tasks), frozenset(), 1) if sizes else []
        self.losses = losses
        return self._stack(members, sizes, table, self.centre, self.scale)

    # ---------------------------------------------------------------- parts

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _count(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def _stack(
        self,
        members: list[Member],
        sizes: list[int],
        weights: Floats,
        centre: Floats,
        scale: Floats,
        excluded: frozenset[int] = frozenset(),
    ) -> Stack:
        """Put a stack together, with bases that did not see the excluded folds."""
        bases = {kind: base.without(self.pool, self.folds, excluded) for kind, base in self.bases.items()}
        return Stack(self.response, bases[True], bases[False], members, sizes, weights, centre, scale)

    def _fit_members(self, tasks: Ints, excluded: frozenset[int], key: int) -> list[Member]:
        began = time.perf_counter()
        rows = np.isin(task_codes(self.pool), tasks)
        offsets = {kind: b.out_of_fold(self.pool, self.folds, excluded)[rows] for kind, b in self.bases.items()}
        self._count("base", began)
        part, fitted = self.pool.select(tasks), []
        for number, member in enumerate(self.members):
            began = time.perf_counter()
            own = copy.copy(member)
            own.fit(part, offsets[member.from_base], self._rng(key, 100 + number))
            fitted.append(own)
            self._count(member.name, began)
        return fitted

    def _predict(self, members: list[Member], support: TaskSet, query: Ints, task: Ints, fold: int) -> Floats:
        x = self.pool.x.numpy()[query]
        as_it_is = np.zeros(x.shape[1]), np.ones(x.shape[1])  # the pool is standardised
        stack = self._stack(members, [], np.ones((0, 1)), *as_it_is, excluded=frozenset({fold}))
        return stack.columns(stack.adapt(support), x, task)

    def _sizes(self, n_tasks: float) -> list[int]:
        """Support sizes that were judged by enough of so many tasks."""
        every = sorted({k for part in self.judged for k in part})
        judges = {k: sum(len(np.unique(part[k].task)) for part in self.judged if k in part) for k in every}
        return [k for k in every if judges[k] >= enough_judges(n_tasks)]

    def _losses(self, k: int) -> tuple[TaskLosses, npt.NDArray[np.bool_]]:
        """Losses of mixtures at one support size, and which tasks were judged there."""
        all_of = self._all_judged(k)
        n_tasks = self.pool.n_tasks
        losses = self.response.losses(all_of.predictions, all_of.y, all_of.task, n_tasks)
        return losses, np.bincount(all_of.task, minlength=n_tasks) > 0

    def _all_judged(self, k: int) -> Judged:
        parts = [part[k] for part in self.judged if k in part]
        return Judged(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _held_out(self, k: int, weights: Floats) -> HeldOut:
        """Mix what was said about the rows of all tasks at one support size; of a row asked for twice the first answer counts."""
        all_of = self._all_judged(k)
        row, first = np.unique(all_of.row, return_index=True)
        predictions = all_of.predictions[first]
        mixed = self.response.mix(predictions, np.broadcast_to(weights, predictions.shape[:2]))
        return HeldOut(row, all_of.task[first], mixed)

    def _weights(self, k: int, table: TaskLosses, there: npt.NDArray[np.bool_]) -> Floats:
        """Weights of the columns at one support size."""
        likelihood = self.response.classifies
        return bootstrap_weights(table, there, self._prior(), self._rng(30, k), likelihood=likelihood)

    def _held_out_losses(self, table: TaskLosses, there: npt.NDArray[np.bool_]) -> dict[str, float]:
        """Mean losses of the columns, by name, and of the mixture under weights that a task had no part in."""
        prior, likelihood = self._prior(), self.response.classifies
        even = there / there.sum()
        each = np.array([even @ table.value_and_gradient(one)[0] for one in np.eye(len(prior))])
        losses = {name: float(each[columns].min()) for name, columns in column_ranges(self.members).items()}
        own = np.zeros(len(there))
        for fold in np.unique(self.folds[there]):
            others = there & (self.folds != fold)
            w = prior / prior.sum()
            if others.any():
                n = others.sum() * ROWS_PER_TASK
                w = stacking_weights(table, others / others.sum(), prior, n, likelihood=likelihood)
            mine = there & (self.folds == fold)
            own[mine] = table.value_and_gradient(w)[0][mine]
        return losses | {"stack": float(even @ own)}

    def _prior(self) -> Floats:
        """Prior mass of the columns: half for the base, the rest shared by the members, and by the variants of each."""
        share = 0.5 * PRIOR_MASS / max(len(self.members), 1)
        return np.concatenate(
            [[0.5 * PRIOR_MASS], *(np.full(len(m.variants), share / len(m.variants)) for m in self.members)]
        )
