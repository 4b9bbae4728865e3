"""Networks whose last layer is solved in closed form from the support: no inner steps, and a predictive variance.

:class:`WithHead` holds a network and a solver's hyperparameters. :class:`HeadedModule` makes the pure functions of one task from
it: features are what the network's last layer sees, the last layer itself is the mean of the prior (so a model that was not adapted
is the network), the solver fits the deviation from it, and the query loss is that of its predictions. Classes are fitted as targets
of 1 and -1, one against the rest, with outputs times a learned scale as logits (Bertinetto et al. 2019, section 3.2).
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .errors import InvalidParameterError
from .functional import FunctionalModule, differentiable_forward
from .losses import RowLoss, cross_entropy, squared_error, task_loss
from .normalization import episode_statistics
from .solvers import SOLVERS
from .solvers._solver import FASTER, Hyperparameters
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["OBJECTIVES", "HeadedModule", "WithHead", "check_head", "make_functional", "with_head"]

OBJECTIVES = ("predictive", "marginal")
HEAD = "~head."  # names of the tensors that a support gives


class WithHead(nn.Module):
    """A network and the hyperparameters of a solver for its last layer; its forward pass is the network's.

    Parameters
    ----------
    network : torch.nn.Module
        Ends in a :class:`torch.nn.Linear`.
    solver : {"ridge", "gaussian_process"}
        What solves for the last layer.
    objective : {"predictive", "marginal"}, default="predictive"
        What is learned over tasks: the density of the query given the support, or that of all rows together.

    Examples
    --------
    >>> net = WithHead(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), "ridge")
    >>> [name for name, _ in net.named_parameters()][:3]
    ['log_scale', 'log_precision', 'log_noise']
    """

    def __init__(
        self,
        network: nn.Module,
        solver: Literal["ridge", "gaussian_process"],
        objective: Literal["predictive", "marginal"] = "predictive",
    ) -> None:
        super().__init__()
        if objective not in OBJECTIVES:
            raise InvalidParameterError(
                f"head_objective: got {objective!r}; expected one of {', '.join(map(repr, OBJECTIVES))}."
            )
        self.solver, self.objective = solver, objective
        self.last = _last_layer(network)
        layer = network.get_submodule(self.last)
        assert isinstance(layer, nn.Linear)
        like = layer.weight
        self.log_scale = nn.Parameter(like.new_tensor(math.log(2.0) / FASTER))
        for name, value in SOLVERS[solver].hyperparameters(layer.in_features).items():
            self.register_parameter(name, nn.Parameter(value.to(like)))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Apply the network."""
        return self.network(x)


def with_head(network: nn.Module, solver: Any, objective: Any) -> nn.Module:
    """Return the network with a head; without a solver, as it is."""
    return network if solver is None else WithHead(network, solver, objective)


def make_functional(template: nn.Module, row_loss: RowLoss, *args: Any, **settings: Any) -> FunctionalModule:
    """Make the pure functions of a network, with a head or not; arguments as of :class:`FunctionalModule`."""
    if isinstance(template, WithHead):
        return HeadedModule(template, row_loss, *args, **settings)
    return FunctionalModule(template, row_loss, *args, **settings)


class HeadedModule(FunctionalModule):
    """Pure functions of a network with a head; parameters as of :class:`FunctionalModule`, `module` being a :class:`WithHead`."""

    def __init__(self, module: WithHead, row_loss: RowLoss, *args: Any, **settings: Any) -> None:
        if row_loss not in (squared_error, cross_entropy):
            raise InvalidParameterError(
                "loss: a head in closed form needs 'squared_error' in regression and 'cross_entropy' in classification; leave "
                "loss at None, or choose an algorithm that takes gradient steps."
            )
        super().__init__(module, row_loss, *args, **settings)
        self.solver, self.objective = SOLVERS[module.solver], module.objective
        self.classifies = row_loss is cross_entropy
        self._layer = f"network.{module.last}" if module.last else "network"
        names = [n for n, _ in module.named_parameters(recurse=False)]
        self._hyper = [n for n in names if n != "log_scale"]
        layer = self.skeleton.get_submodule(self._layer)
        _replace(self.skeleton, self._layer, _Tap(layer))
        self.captures_support = True

    def output(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Return the prior's mean for the rows `x` of one task: the network as it is."""
        features = self._features(moving, shared, constant, x)
        return self._prior(self._all(moving, shared, constant), features)

    def query_loss(self, moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, query: Rows) -> Tensor:
        """Loss of the query rows of one task, predicted from its support."""
        everything = self._all(moving, shared, constant)
        seen, asked = self._both(moving, shared, constant, support, query)
        if self.objective == "marginal":
            return self._negative_evidence(everything, seen, asked, support, query)
        head = self._fit(everything, seen, support)
        mean, variance = self._predict(everything, head, asked)
        if self.classifies:
            return task_loss(cross_entropy, mean, query)
        target = self._targets(query)
        density = 0.5 * ((target - mean) ** 2 / variance[:, None] + (2 * math.pi * variance[:, None]).log())
        return task_loss(lambda row, _: row.mean(-1), density, Rows(query.x, query.y, query.weight))

    def support_statistics(self, moving: Tensors, shared: Tensors, constant: Tensors, rows: Rows) -> Tensors:
        """Return the head that the support rows of one task give, and batch statistics, to be merged into `constant`."""
        captured = super().support_statistics(moving, shared, constant, rows)
        with episode_statistics(rows.weight) if self.normalises_by_rows else nullcontext():
            features = self._features(moving, shared, constant, rows.x)
        head = self._fit(self._all(moving, shared, constant), features, rows)
        return {**captured, **{HEAD + name: value for name, value in head.items()}}

    def prediction(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Output for rows to predict, with the head in `constant` if there is one."""
        return self._posterior(moving, shared, constant, x)[0]

    def deviation(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Return the standard deviation of new observations at the rows `x`, shape (rows, n_outputs)."""
        variance = self._posterior(moving, shared, constant, x)[1]
        return variance.sqrt()[:, None].expand(-1, self.n_outputs)

    # ---------------------------------------------------------------- parts

    def _posterior(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
        head = {name.removeprefix(HEAD): value for name, value in constant.items() if name.startswith(HEAD)}
        transductive = self.batch_norm == "transductive"
        with episode_statistics(torch.ones(len(x), dtype=x.dtype)) if transductive else nullcontext():
            features = self._features(moving, shared, constant, x)
        return self._predict(self._all(moving, shared, constant), head or None, features)

    def _all(self, moving: Tensors, shared: Tensors, constant: Tensors) -> Tensors:
        return {**constant, **moving, **shared}

    def _features(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Return what the last layer sees, shape (rows, features)."""
        stored = {name: value for name, value in constant.items() if not name.startswith(HEAD)}
        features: Tensor = functional_call(self.skeleton, (moving, shared, stored), (x,))
        return features

    def _both(
        self, moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, query: Rows
    ) -> tuple[Tensor, Tensor]:
        """Features of support and query rows."""
        if self.batch_norm == "transductive":
            parts = []
            for rows in (support, query):
                with episode_statistics(rows.weight):
                    parts.append(self._features(moving, shared, constant, rows.x))
            return parts[0], parts[1]
        mask = torch.cat([support.weight, torch.zeros_like(query.weight)])
        with episode_statistics(mask) if self.uses_batch_statistics else nullcontext():
            features = self._features(moving, shared, constant, torch.cat([support.x, query.x]))
        return features[: len(support.x)], features[len(support.x) :]

    def _prior(self, everything: Tensors, features: Tensor) -> Tensor:
        weight, bias = (everything.get(f"{self._layer}.{part}") for part in ("weight", "bias"))
        assert weight is not None
        return F.linear(features, weight, bias)

    def _targets(self, rows: Rows) -> Tensor:
        if not self.classifies:
            return rows.y
        mine = rows.y[:, None] == torch.arange(self.n_outputs, device=rows.y.device)
        return 2 * mine.to(rows.weight.dtype) - 1

    def _hyperparameters(self, everything: Tensors) -> Hyperparameters:
        return {name: everything[name] for name in self._hyper}

    def _fit(self, everything: Tensors, features: Tensor, rows: Rows) -> Tensors:
        residual = self._targets(rows) - self._prior(everything, features)
        return self.solver.fit(self._hyperparameters(everything), features, residual, rows.weight)

    def _predict(self, everything: Tensors, head: Tensors | None, features: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = self.solver.predict(self._hyperparameters(everything), head, features)
        mean = mean + self._prior(everything, features)
        if self.classifies:
            mean = mean * (FASTER * everything["log_scale"]).exp()
        return mean, variance

    def _negative_evidence(
        self, everything: Tensors, seen: Tensor, asked: Tensor, support: Rows, query: Rows
    ) -> Tensor:
        """Negative log density of all rows together, for each row."""
        features, weight = torch.cat([seen, asked]), torch.cat([support.weight, query.weight])
        target = torch.cat([self._targets(support), self._targets(query)])
        residual = target - self._prior(everything, features)
        evidence = self.solver.evidence(self._hyperparameters(everything), features, residual, weight)
        known = torch.ones_like(evidence)
        if "classes" in support.extra:
            known = support.extra["classes"][0].to(evidence.dtype)
        rows = (weight > 0).sum().clamp(min=1)
        mean = (evidence * known).sum() / known.sum().clamp(min=1)
        return torch.where((query.weight > 0).any(), -mean / rows, 0.0)


class _Tap(nn.Module):
    """Stands where the last layer was, with its parameters, and hands on what that would have seen."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        for name, parameter in layer.named_parameters(recurse=False):
            self.register_parameter(name, parameter)

    def forward(self, x: Tensor) -> Tensor:
        return x


def _replace(module: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _last_layer(network: nn.Module) -> str:
    """Name of the last layer, which has to be linear; "" if it is the whole network."""
    last = [n for n, _ in network.named_parameters()][-1].rpartition(".")[0]
    layer = network.get_submodule(last)
    if not isinstance(layer, nn.Linear):
        raise InvalidParameterError(
            f"module: its last layer {last!r} is a {type(layer).__name__}; a head in closed form needs a torch.nn.Linear there, or "
            "choose an algorithm that takes gradient steps."
        )
    return last


def check_head(template: nn.Module, functional: FunctionalModule, x: Tensor) -> None:
    """Refuse a network that does something after its last layer.

    Parameters
    ----------
    template : torch.nn.Module
        The network.
    functional : FunctionalModule
        Its functions.
    x : Tensor of shape (rows, features)
        Rows to try it with.
    """
    if not isinstance(functional, HeadedModule):
        return
    with torch.no_grad(), differentiable_forward(), functional.mode(training=False):
        constant = functional.constants(functional.constant, 0)
        training = template.training
        expected = template.eval()(x)
        template.train(training)
        try:
            same = torch.allclose(
                functional.output(functional.moving, functional.shared, constant, x), expected, atol=1e-4
            )
        except RuntimeError:  # what follows the last layer does not take its inputs
            same = False
    if not same:
        raise InvalidParameterError(
            "module: its outputs are not those of its last linear layer; a head in closed form replaces that layer, so nothing may "
            "follow it."
        )
