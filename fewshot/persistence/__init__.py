"""Saving and loading estimators, adapted models and pipelines, without pickle: loading a file runs no code from it.

One file holds a JSON document and tensors (see :mod:`fewshot.serialization`). The document names classes only by what
:func:`register` knows, networks only by what :mod:`fewshot.networks` calls them, and types inside scikit-learn's transformers only
from a fixed list. A network of one's own is handed to :func:`load`. What else a model may hold and a file may not, such as a
loss function of one's own, is refused when saving.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline

from ..adaptation import Adaptation
from ..errors import FewShotError, SerializationError
from ..estimators import MAMLClassifier, MAMLRegressor
from ..estimators._adapted import AdaptedState
from ..inference import AdaptedTasks
from ..metagradient import MetaParameters
from ..pipeline import MetaPipeline
from ..serialization import Packer, Unpacker, describe, join, read, write
from ..stacking import (
    AdaptationReport,
    FisherPrior,
    GaussianProcessMember,
    MixedSlopes,
    NetworkMember,
    OnSubpopulations,
    Stack,
    StackState,
)
from ..stacking.base import PooledMixture
from ..stacking.responses import Classes, Values
from ._estimators import Builder, UsersModule, from_state, to_state
from ._registry import attributes_of, by_class, by_name, from_attributes, register
from ._sklearn import dump, is_sklearn
from ._sklearn import load as load_sklearn

__all__ = ["load", "register", "save"]

ADVICE = {
    "loss": "use one of the losses known by name",
    "optimizer": "use one of the optimisers known by name",
    "random_state": "use a whole number",
    "memory": "use None or the name of a folder",
    "module": "use a torch.nn.Module, a callable (n_in, n_out) -> torch.nn.Module, or None",
}


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a model to one file.

    An interrupted `fit_meta` cannot be continued from the file; ``warm_start`` starts from what was learned so far. Callbacks
    are not saved.

    Parameters
    ----------
    model : estimator
        A :class:`~fewshot.MAMLRegressor`, :class:`~fewshot.MAMLClassifier`, one of them before a pipeline of scikit-learn's
        transformers, or an object of another registered class; fitted, adapted or neither.
    path : str or path-like
        The file. An existing one is replaced, in one go: if saving fails it is left as it was.

    Raises
    ------
    SerializationError
        If the model has a part that a file cannot hold, which the message names, or the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> import fewshot
    >>> rng = np.random.default_rng(0)
    >>> X, tasks = rng.normal(size=(60, 2)), np.repeat(np.arange(6), 10)
    >>> model = fewshot.MAMLRegressor(max_iter=5, random_state=0).fit_meta(X, X[:, 0] * tasks, tasks=tasks)
    >>> adapted = model.adapt(X[:3], X[:3, 1])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fewshot.save(adapted, f"{folder}/patient")
    ...     loaded = fewshot.load(f"{folder}/patient")
    >>> bool((loaded.predict(X) == adapted.predict(X)).all())
    True
    """
    if type(model) not in by_class:
        raise SerializationError(
            f"model: got {describe(model)}, which cannot be saved; expected an object of one of: {', '.join(sorted(by_name))}."
        )
    packer = _ObjectPacker()
    try:
        packed = packer.pack(model, "")
    except RecursionError as error:
        raise SerializationError("model: is nested too deeply, or holds itself, and cannot be saved.") from error
    names = ("fewshot", "torch", "scikit-learn", "numpy", "pandas", "skops")
    write(path, {"versions": {name: _version(name) for name in names}, "model": packed}, packer.tensors)


def load(path: str | os.PathLike[str], module: Any = None) -> Any:
    """Read a model that :func:`save` wrote.

    Parameters
    ----------
    path : str or path-like
        The file.
    module : torch.nn.Module or callable, default=None
        The network, if the model was trained with one that is not built in: a module, class or factory as the estimator takes
        it. Its parameters are replaced by those in the file, and must have the same names and shapes.

    Returns
    -------
    estimator
        As it was saved: predictions are the same to the last bit (on the same machine, with the same versions).

    Raises
    ------
    SerializationError
        If there is no such file, or it is damaged, of another kind, of a newer version or unsafe; or if `module` is missing,
        not needed or another network.
    """
    document, tensors = read(path)
    unpacker = _ObjectUnpacker(tensors, module)
    try:
        versions, packed = document["versions"], document["model"]
        model = unpacker.unpack(packed)
    except (FewShotError, Warning):
        raise
    except Exception as error:
        saved, here = (v if isinstance(v, str) else "?" for v in (_saved_version(document), _version("fewshot")))
        reason = (str(error).splitlines() or [""])[0][:200]
        raise SerializationError(
            f"path: {os.fspath(path)!r}, saved by fewshot {saved}, cannot be read by fewshot {here} "
            f"({type(error).__name__}: {reason})."
        ) from error
    del versions
    if module is not None and not unpacker.module_used:
        raise SerializationError(f"module: {os.fspath(path)!r} holds no network of your own; leave module out.")
    return model


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _saved_version(document: Any) -> Any:
    versions = document.get("versions") if isinstance(document, dict) else None
    return versions.get("fewshot") if isinstance(versions, dict) else None


class _ObjectPacker(Packer):
    """Knows registered classes, networks and scikit-learn's transformers beside plain values."""

    def other(self, value: Any, where: str) -> Any:
        if isinstance(value, Builder):
            return {"$": "network", "name": value.name, "settings": self.pack(value.settings, where)}
        if isinstance(value, UsersModule):
            return {"$": "module", "name": value.name}
        found = by_class.get(type(value))
        if found is not None:
            state = {
                group: [[name, self.pack(part, join(where, name))] for name, part in parts.items()]
                for group, parts in found.to_state(value).items()
            }
            return {"$": "object", "class": found.name, "state": state}
        if is_sklearn(value):
            data, routing = dump(value, where)
            name = self.add(torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy()), where)
            return {"$": "sklearn", "name": name, "routing": self.pack(routing, where)}
        advice = ADVICE.get(
            where.rpartition(".")[2], "only plain values, arrays and objects of registered classes can be"
        )
        raise SerializationError(f"{where}: got {describe(value)}, which cannot be saved; {advice}.")


class _ObjectUnpacker(Unpacker):
    def __init__(self, tensors: dict[str, torch.Tensor], module: Any) -> None:
        super().__init__(tensors)
        self.module, self.module_used = module, False
        self.readers |= {
            "network": lambda node: Builder(node["name"], self.unpack(node["settings"])).get(),
            "module": self._module,
            "object": self._object,
            "sklearn": self._sklearn,
        }

    def _module(self, node: dict[str, Any]) -> Any:
        if self.module is None:
            raise SerializationError(
                f"module: the model was trained with a network of your own, {node['name']!r}; hand it over, "
                "load(path, module=...)."
            )
        self.module_used = True
        return self.module

    def _object(self, node: dict[str, Any]) -> Any:
        found = by_name.get(node["class"])
        if found is None:
            raise SerializationError(
                f"path: the file holds a {node['class']!r}, which nothing imported so far has registered; import the module "
                "that defines it first."
            )
        state = {group: {name: self.unpack(part) for name, part in parts} for group, parts in node["state"].items()}
        return found.from_state(found.cls, state)

    def _sklearn(self, node: dict[str, Any]) -> Any:
        return load_sklearn(self.tensors[node["name"]].numpy().tobytes(), self.unpack(node["routing"]))


for _cls in (Adaptation, AdaptedState, AdaptedTasks, MetaParameters, MetaPipeline, Pipeline):
    register(_cls, _cls.__name__)
for _cls in (AdaptationReport, Classes, PooledMixture, Stack, StackState, Values):
    register(_cls, _cls.__name__)
for _cls in (FisherPrior, GaussianProcessMember, MixedSlopes, NetworkMember, OnSubpopulations):
    register(_cls, _cls.__name__, to_state=attributes_of, from_state=from_attributes)
for _cls in (MAMLClassifier, MAMLRegressor):
    register(_cls, _cls.__name__, to_state=to_state, from_state=from_state)
