"""Meta-learned estimators: the network is rebuilt from the parameters, and only its tensors are stored.

A network of one's own travels as its tensors too, and its code stays with its author: whoever loads the file hands it over.
That it is the right one is checked by names and shapes, and by its outputs for four made-up rows.
"""

from __future__ import annotations

import copy
import functools
import glob
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import SerializationError
from ..estimators._base import MetaEstimator
from ..heads import make_functional
from ..inference import predict
from ..metagradient import expand
from ..networks import BUILDERS
from ..normalization import batch_norm_layers
from ._registry import estimator_from_state, estimator_state

__all__ = ["Builder", "UsersModule", "describe_module", "from_state", "to_state"]

REBUILT = ("_template", "_functional", "module_")
LEFT_BEHIND = ("_held_out",)  # about training rows, which a file does not hold
PROBE_ROWS = 4
TOLERANCE = 1e-3  # of the outputs for these rows, relative to the largest: another machine, not another network


@dataclass(frozen=True)
class Builder:
    """A built-in network by name, with the settings that a partial call fixed (None: not a partial call)."""

    name: str
    settings: dict[str, Any] | None

    def get(self) -> Any:
        """Return what the constructor of an estimator takes."""
        builder = BUILDERS[self.name]
        return builder if self.settings is None else functools.partial(builder, **self.settings)


@dataclass(frozen=True)
class UsersModule:
    """Stands for a network that the file does not describe."""

    name: str


def describe_module(module: Any) -> Builder | UsersModule | None:
    """Return what stands for the `module` setting of an estimator in a file."""
    if module is None:
        return None
    function, settings = module, None
    if type(module) is functools.partial and not module.args:
        function, settings = module.func, dict(module.keywords)
    for name, builder in BUILDERS.items():
        if function is builder:
            return Builder(name, settings)
    return UsersModule(getattr(module, "__qualname__", None) or type(module).__qualname__)


def to_state(model: MetaEstimator) -> dict[str, dict[str, Any]]:
    """Take a model apart.

    Raises
    ------
    SerializationError
        If its settings no longer describe its network.
    """
    state = estimator_state(model)
    state["parameters"] = {**state["parameters"], "module": describe_module(model.module)}
    for name in (*REBUILT, *LEFT_BEHIND):
        state["fitted"].pop(name, None)
    if not hasattr(model, "_parameters"):
        return state
    f, template = model._functional, model._template
    state["network"] = {
        "n_outputs": f.n_outputs,
        "frozen": {n: p for n, p in template.named_parameters() if n not in {**f.moving, **f.shared}},
        "buffers": dict(model.module_.named_buffers()),
        "constant": f.constant,
        "batch_norm": f.batch_norm,
        "over_rows_only": [layer.name for layer in batch_norm_layers(f.skeleton) if layer.over_rows_only],
        "probe": None,
    }
    if isinstance(state["parameters"]["module"], UsersModule):
        state["network"]["probe"] = _probe(model)
    else:
        _template(model, state["network"])
    return state


def from_state(cls: type, state: Mapping[str, Mapping[str, Any]]) -> MetaEstimator:
    """Put a model together.

    Raises
    ------
    SerializationError
        If the network that was handed over is another one.
    """
    model: MetaEstimator = estimator_from_state(cls, state)
    if "base" not in state["parameters"]:  # an older file, from when an algorithm was just that
        model.base = None
    if "network" not in state:
        if hasattr(model, "_stack"):
            model._show_network()
        return model
    network, p = state["network"], model._parameters
    template = _template(model, network)
    stored = {**p.moving, **p.shared, **network["frozen"], **network["buffers"]}
    if next(template.parameters()).is_meta:
        template.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in template.named_parameters():
            parameter.copy_(stored[name])
            parameter.requires_grad_(name not in network["frozen"])
        for name, buffer in template.named_buffers():
            buffer.copy_(stored[name])
    # Which parameters move is what it was, whatever the setting `adapted` has become since.
    names = [glob.escape(name) for name in p.moving]
    functional = make_functional(
        template,
        model._row_loss(),
        names,
        network["n_outputs"],
        batch_norm=network.get("batch_norm", "episode"),  # older files do not say so
        inner_steps=model._fitted_adaptation.inner_steps,
    )
    for kind, built, own in (
        ("moving parameter", functional.moving, p.moving),
        ("shared parameter", functional.shared, p.shared),
        ("constant", functional.constant, network["constant"]),
    ):
        _compare(kind, built, own)
    functional.constant = dict(network["constant"])
    for layer in batch_norm_layers(functional.skeleton):
        layer.over_rows_only = layer.name in network["over_rows_only"]
    model._template, model._functional = template, functional
    model.module_ = copy.deepcopy(template).eval()
    if network["probe"] is not None:
        _compare_outputs(_probe(model), network["probe"])
    return model


def _template(model: Any, network: Mapping[str, Any]) -> nn.Module:
    """Build the network that the parameters of `model` describe, a built-in one without memory; check names and shapes."""
    p = model._parameters
    own = isinstance(describe_module(model.module), UsersModule)
    with nullcontext() if own else torch.device("meta"):
        template = model._network(network["n_outputs"])
    template = template.to("cpu" if own else "meta", next(iter(p.moving.values())).dtype)
    _compare("parameter", dict(template.named_parameters()), {**p.moving, **p.shared, **network["frozen"]})
    _compare("buffer", dict(template.named_buffers()), network["buffers"])
    return template


def _compare(kind: str, built: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> None:
    advice = "use the network, and the settings, that the model was trained with"
    for name in {**stored, **built}:
        if name not in built or name not in stored:
            where = "the file" if name not in built else "the network"
            raise SerializationError(f"module: only {where} has a {kind} {name!r}; {advice}.")
        of_network, of_file = ((tuple(t[name].shape), t[name].dtype) for t in (built, stored))
        if of_network != of_file:
            got, expected = (f"{shape} of {dtype}" for shape, dtype in (of_network, of_file))
            raise SerializationError(f"module: {kind} {name!r} has shape {got}, learned was {expected}; {advice}.")


def _probe(model: Any) -> Tensor | None:
    """Compute the initialisation's outputs for made-up rows in [0, 1); None if the network does not take such rows."""
    p = model._parameters
    n = PROBE_ROWS * int(model.n_features_in_)
    x = (torch.arange(n, dtype=torch.float64) * 0.37 % 1).reshape(PROBE_ROWS, -1)
    try:
        return predict(
            model._functional, expand(p.moving, 1), p.shared, {}, [x.to(next(iter(p.moving.values())).dtype)]
        )[0]
    except Exception:  # of code that is not ours
        return None


def _compare_outputs(found: Tensor | None, expected: Tensor) -> None:
    if found is not None and found.shape == expected.shape:
        scale = float(expected.nan_to_num(0.0, 0.0, 0.0).abs().max()) + 1e-6
        if torch.allclose(found, expected, rtol=0.0, atol=TOLERANCE * scale, equal_nan=True):
            return
    raise SerializationError(
        "module: has the parameters of the network that the model was trained with, but gives other outputs; hand over the "
        "same network."
    )
