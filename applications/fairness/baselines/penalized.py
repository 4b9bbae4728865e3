r"""A network trained with a penalty on the gap of its soft decisions, adapted by gradient steps or not at all.

With steps this is the fair MAML of Slack, Friedler, Givental (2020): the loss of both loops is cross-entropy plus a weight times a
regulariser. Theirs is the mean probability of a favourable decision in the disadvantaged group; here it is the squared gap of
every pair of groups, which does not say who is disadvantaged. Without steps it is a pooled network.

Statistics of groups are sums under masks, so that they can be vectorised over tasks; an empty cell adds nothing to the loss, and
its gradient is zero.

References
----------
Slack, Friedler, Givental (2020), Fairness warnings and Fair-MAML: learning fairly with minimal data, FAT*, section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch import Tensor
from torch.func import functional_call, grad, vmap

from ..gaps import pairs_of
from ..groups import Groups
from ..notions import Notion, notion_of

__all__ = ["PenalizedNetwork", "group_penalty"]

WEIGHTS = (0.0, 0.5, 2.0, 8.0)


def group_penalty(favour: Tensor, among: Tensor, group: Tensor) -> Tensor:
    """Sum of the squared gaps of every event and pair of groups, of soft decisions.

    Parameters
    ----------
    favour : Tensor of shape (rows,)
        Probability of a favourable decision.
    among : Tensor of shape (events, rows)
        Weight of each row in each event; 0 for padding.
    group : Tensor of shape (rows, groups)
        Indicators of the groups; zeros where the group is not known.

    Returns
    -------
    Tensor of shape ()
    """
    held = torch.einsum("er,rg->eg", among, group)
    rates = torch.einsum("er,rg,r->eg", among, group, favour) / held.clamp(min=1.0)
    there = (held > 0).to(favour.dtype)
    total = favour.new_zeros(())
    for g, h in pairs_of(group.shape[1]):
        total = total + (there[:, g] * there[:, h] * (rates[:, g] - rates[:, h]) ** 2).sum()
    return total


class PenalizedNetwork(BaseEstimator):
    """A network with two hidden layers whose loss is cross-entropy plus a weight times the squared soft gap.

    Parameters
    ----------
    steps : int, default=0
        Inner gradient steps. 0: the network is trained on the query sets alone and is not adapted.
    constraint : str, default="demographic_parity"
        As for :class:`FairnessConstrainedClassifier`.
    weights : sequence of float, default=(0, 0.5, 2, 8)
        Weights of the penalty; one network is trained for each.
    shots : int, default=10
        Support rows of an episode.
    n_iter, tasks_per_batch, query_rows : int
        Meta-steps, tasks in each, query rows of each task.
    inner_step_size, step_size : float
        Step sizes of the inner loop and of Adam.
    random_state : int, RandomState or None, default=None
        Seed.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X, group, tasks = rng.normal(size=(300, 2)), rng.choice(["a", "b"], 300), np.repeat([0, 1, 2], 100)
    >>> y = (X[:, 0] + (group == "a") > 0.5).astype(int)
    >>> model = PenalizedNetwork(steps=1, n_iter=20, random_state=0)
    >>> model = model.fit_meta(X, y, tasks=tasks, sensitive_features=group)
    >>> model.adapt(X[:10], y[:10], sensitive_features=group[:10]).predict(X).shape
    (300,)
    """

    def __init__(
        self,
        steps: int = 0,
        *,
        constraint: str = "demographic_parity",
        weights: Sequence[float] = WEIGHTS,
        shots: int = 10,
        n_iter: int = 600,
        tasks_per_batch: int = 8,
        query_rows: int = 60,
        inner_step_size: float = 0.1,
        step_size: float = 0.003,
        random_state: Any = None,
    ) -> None:
        self.steps = steps
        self.constraint = constraint
        self.weights = weights
        self.shots = shots
        self.n_iter = n_iter
        self.tasks_per_batch = tasks_per_batch
        self.query_rows = query_rows
        self.inner_step_size = inner_step_size
        self.step_size = step_size
        self.random_state = random_state

    def fit_meta(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Train one network for each weight."""
        self._notion: Notion = notion_of(self.constraint)
        x = np.asarray(X, dtype=np.float64)
        self.classes_, target = np.unique(np.asarray(y), return_inverse=True)
        self.groups_ = Groups.learn(sensitive_features, len(x))
        self._mean, self._scale = x.mean(0), x.std(0) + 1e-9
        rows = self._rows(x, target, self.groups_.codes(sensitive_features, len(x)))
        task = pd.factorize(np.zeros(len(x)) if tasks is None else np.asarray(tasks))[0]
        seed = int(check_random_state(self.random_state).randint(2**31))
        self._parameters = {weight: self._train(rows, task, weight, seed) for weight in self.weights}
        self._weight = self.weights[0]
        return self

    def fit(self, X: Any, y: Any, *, tasks: Any = None, sensitive_features: Any = None) -> Self:
        """Do the same as :meth:`fit_meta`."""
        return self.fit_meta(X, y, tasks=tasks, sensitive_features=sensitive_features)

    def _rows(self, x: Any, target: Any, codes: Any) -> dict[str, Tensor]:
        favourable = np.asarray(target, dtype=bool)
        groups = np.zeros((len(x), len(self.groups_))) if codes is None else np.eye(len(self.groups_))[codes]
        values = {
            "x": (x - self._mean) / self._scale,
            "y": favourable,
            "among": self._notion.among(favourable).T,
            "group": groups,
        }
        return {name: torch.tensor(np.asarray(value), dtype=torch.float32) for name, value in values.items()}

    def _loss(self, parameters: dict[str, Tensor], rows: dict[str, Tensor], weight: float) -> Tensor:
        """Penalised loss of one task; `rows["used"]` is 0 for padding."""
        logit = functional_call(self._network, parameters, rows["x"]).squeeze(-1)
        used = rows["used"]
        row_loss = torch.nn.functional.binary_cross_entropy_with_logits(logit, rows["y"], reduction="none")
        loss = (used * row_loss).sum() / used.sum().clamp(min=1.0)
        return loss + weight * group_penalty(torch.sigmoid(logit), rows["among"].T * used, rows["group"])

    def _adapted(self, parameters: dict[str, Tensor], support: dict[str, Tensor], weight: float) -> dict[str, Tensor]:
        for _ in range(self.steps):
            gradient = grad(self._loss)(parameters, support, weight)
            parameters = {name: p - self.inner_step_size * gradient[name] for name, p in parameters.items()}
        return parameters

    def _train(self, rows: dict[str, Tensor], task: Any, weight: float, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        rng = np.random.default_rng(seed)
        sizes = (rows["x"].shape[1], 32, 32, 1)
        layers: list[torch.nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [torch.nn.Linear(before, after), torch.nn.Tanh()]
        self._network = torch.nn.Sequential(*layers[:-1])
        parameters = {
            name: (
                torch.randn(p.shape, generator=generator) / p.shape[-1] ** 0.5 if p.ndim > 1 else torch.zeros(p.shape)
            )
            for name, p in self._network.named_parameters()
        }
        for p in parameters.values():
            p.requires_grad_()
        optimizer = torch.optim.Adam(parameters.values(), lr=self.step_size)
        members = [np.flatnonzero(task == t) for t in np.unique(task)]

        def outer(parameters: dict[str, Tensor], support: dict[str, Tensor], query: dict[str, Tensor]) -> Tensor:
            return self._loss(self._adapted(parameters, support, weight), query, weight)

        for _ in range(self.n_iter):
            chosen = [rng.permutation(members[t]) for t in rng.integers(len(members), size=self.tasks_per_batch)]
            support = _padded(rows, [c[: min(self.shots, len(c) // 2)] for c in chosen], self.shots)
            query = _padded(
                rows, [c[min(self.shots, len(c) // 2) :][: self.query_rows] for c in chosen], self.query_rows
            )
            losses = vmap(outer, in_dims=(None, 0, 0))(parameters, support, query)
            optimizer.zero_grad()
            losses.mean().backward()
            optimizer.step()
        return {name: p.detach() for name, p in parameters.items()}

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        tasks: Any = None,
        sensitive_features: Any = None,
        X_unlabelled: Any = None,
        sensitive_unlabelled: Any = None,
        tasks_unlabelled: Any = None,
    ) -> Self:
        """Take the inner steps on the support; without its groups there is no penalty in them."""
        adapted = copy.copy(self)
        x = np.asarray(X, dtype=np.float64)
        codes = None if sensitive_features is None else self.groups_.codes(sensitive_features, len(x))
        rows = self._rows(x, np.asarray(y) == self.classes_[1], codes)
        task, adapted._labels = pd.factorize(np.zeros(len(x)) if tasks is None else np.asarray(tasks))
        members = [np.flatnonzero(task == t) for t in range(len(adapted._labels))]
        support = _padded(rows, members, max(map(len, members)))
        adapted._of_tasks = {
            weight: vmap(lambda part, p=p, w=weight: self._adapted(p, part, w))(support) if self.steps else None
            for weight, p in self._parameters.items()
        }
        return adapted

    def operating_points(self) -> dict[float, Self]:
        """Return the same model with each of its weights."""
        found = {}
        for weight in self.weights:
            other = copy.copy(self)
            other._weight = weight
            found[weight] = other
        return found

    def predict_proba(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[np.float64]:
        """Class probabilities."""
        x = torch.tensor((np.asarray(X, dtype=np.float64) - self._mean) / self._scale, dtype=torch.float32)
        own = getattr(self, "_of_tasks", {}).get(self._weight)
        if own is None:
            logit = functional_call(self._network, self._parameters[self._weight], x).squeeze(-1)
        else:
            task = (
                np.zeros(len(x), dtype=int)
                if tasks is None
                else pd.Index(self._labels).get_indexer(pd.Index(np.asarray(tasks)))
            )
            logit = torch.empty(len(x))
            for t in np.unique(task):
                mine = torch.tensor(task == t)
                parameters = {name: p[t] for name, p in own.items()}
                logit[mine] = functional_call(self._network, parameters, x[mine]).squeeze(-1)
        p = torch.sigmoid(logit.detach()).double().numpy()
        return np.column_stack([1 - p, p])

    def predict(self, X: Any, *, tasks: Any = None, sensitive_features: Any = None) -> npt.NDArray[Any]:
        """Decide for the more probable class."""
        return self.classes_[self.predict_proba(X, tasks=tasks).argmax(1)]


def _padded(rows: dict[str, Tensor], members: list[Any], size: int) -> dict[str, Tensor]:
    """Rows of some tasks with a leading axis, padded; `used` says which rows are there."""
    at = torch.zeros((len(members), size), dtype=torch.long)
    used = torch.zeros((len(members), size))
    for i, member in enumerate(members):
        at[i, : len(member)] = torch.as_tensor(member)
        used[i, : len(member)] = 1.0
    return {name: value[at] for name, value in rows.items()} | {"used": used}
