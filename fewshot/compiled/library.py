"""Calling a compiled program: pointers in, tensors out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..step_sizes import Tensors
from ..tasks import Rows
from .program import Program
from .tracing import columns

__all__ = ["Library"]


class _Arguments(ctypes.Structure):
    """As in driver.hpp."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("first", "last", "tasks", "steps", "size_steps", "constant_steps", "share_is_given")
    ] + [(name, ctypes.c_void_p) for name in ("inputs", "share", "loss", "losses", "out", "workspace", "step_weights")]


class _Inputs:
    """Pointers to what a program reads, and the tensors that they point into."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.addresses: list[int] = []

    def add(self, tensors: Sequence[Tensor]) -> list[int]:
        dense = [t if t.is_contiguous() else t.contiguous() for t in tensors]
        addresses = [t.data_ptr() for t in dense]
        self.tensors += dense
        self.addresses += addresses
        return addresses

    def array(self) -> Any:
        return (ctypes.c_void_p * len(self.addresses))(*self.addresses)


class Library:
    """A loaded program.

    Parameters
    ----------
    path : Path
        Shared library.
    program : Program
        What it was made from.

    Attributes
    ----------
    agrees : bool or None
        What came of comparing it with the kernels; None before that.
    """

    def __init__(self, path: Path, program: Program) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.workspace_bytes.argtypes = [ctypes.c_int64]
        self._library.workspace_bytes.restype = ctypes.c_int64
        self._names, self._rows, self._dtype = program.names, program.rows, program.dtype
        self._parameters = [(g, n) for g in ("moving", "shared", "constant", "sizes") for n in program.names[g]]
        self._sizes_per_step = next((n for n in program.names["sizes"] if n.startswith("log_alpha.")), None)
        self._constants_per_step = next(iter(program.per_step), None)
        self.agrees: bool | None = None
        self._size: int | None = None  # of a gradient
        self._workspaces: list[Tensor] = []  # at rest

    def meta_gradient(
        self,
        groups: dict[str, Tensors],
        supports: Sequence[Rows],
        query: Rows,
        steps: int,
        share: Tensor | None = None,
        step_weights: Sequence[float] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query losses after adaptation, and the derivatives of their mean.

        Parameters
        ----------
        groups : dict of str to dict of str to Tensor
            "moving", "shared", "constant" and "sizes" tensors, without a task axis.
        supports : sequence of Rows
            Support rows of each step.
        query : Rows
            Query rows.
        steps : int
            Inner steps.
        share : Tensor of shape (tasks,), default=None
            Weight of each task in the mean; None: equal for tasks with query rows.
        step_weights : sequence of float, default=None
            Weight of the query loss after each step in what is differentiated; None: after the last one alone.

        Returns
        -------
        loss, share : Tensor of shape (tasks,)
            Query losses, and their weights in the mean.
        vector : Tensor of shape (n,)
            Derivatives in moving and shared parameters and step sizes, one after another.
        """
        n_tasks = len(query.x)
        inputs = self._inputs(groups, supports, query, steps)
        loss = torch.empty(n_tasks, dtype=self._dtype)
        given = share is not None
        share = torch.empty(n_tasks, dtype=self._dtype) if share is None else share.to(self._dtype).contiguous()
        weights = None if step_weights is None else torch.tensor(step_weights, dtype=self._dtype)
        assert weights is None or len(weights) == steps
        if self._size is None:
            self._size = sum(groups[g][n].numel() for g, n in self._parameters if g != "constant")
        size = self._size
        common = self._common(inputs, groups, n_tasks, steps, share=share, loss=loss)

        def run(first: int, last: int, *read: object) -> Tensor:
            vector = torch.zeros(size, dtype=self._dtype)
            self._call(
                self._library.meta_gradient,
                steps,
                first=first,
                last=last,
                out=vector.data_ptr(),
                share_is_given=int(given),
                step_weights=None if weights is None else weights.data_ptr(),
                **common,
            )
            return vector

        vector, *others = _in_threads(run, n_tasks, inputs, loss, share, weights)
        for other in others:
            vector += other
        return loss, share, vector

    def adapt(
        self, groups: dict[str, Tensors], supports: Sequence[Rows], query: Rows | None, steps: int, *, keep: bool
    ) -> tuple[Tensors, Tensor, Tensor]:
        """Adapt to each task.

        Parameters
        ----------
        groups, supports, steps
            As in :meth:`meta_gradient`.
        query : Rows or None
            Rows to evaluate the adapted parameters on; None: the support.
        keep : bool
            Return the adapted parameters.

        Returns
        -------
        moving : dict of str to Tensor
            Adapted parameters with a leading task axis, if `keep`.
        losses : Tensor of shape (steps, tasks)
            Support losses before each step.
        loss : Tensor of shape (tasks,)
            Loss after adaptation.
        """
        n_tasks = len(supports[0].x)
        inputs = self._inputs(groups, supports, query, steps)
        loss, losses = torch.empty(n_tasks, dtype=self._dtype), torch.empty(steps, n_tasks, dtype=self._dtype)
        shapes = {n: groups["moving"][n].shape for n in self._names["moving"]} if keep else {}
        sizes = [n_tasks * shape.numel() for shape in shapes.values()]
        out = torch.empty(sum(sizes), dtype=self._dtype)
        common = self._common(inputs, groups, n_tasks, steps, losses=losses, loss=loss)

        def run(first: int, last: int, *read: object) -> None:
            kept = out.data_ptr() if keep else None
            # Only the parameters before and after a step are kept.
            self._call(self._library.adapt, 1, first=first, last=last, out=kept, **common)

        _in_threads(run, n_tasks, inputs, loss, losses, out)
        moving = {
            name: part.view(n_tasks, *shape)
            for (name, shape), part in zip(shapes.items(), out.split(sizes), strict=True)
        }
        if not steps:
            for name, value in moving.items():
                value.copy_(groups["moving"][name])
        return moving, losses, loss

    def _inputs(self, groups: dict[str, Tensors], supports: Sequence[Rows], query: Rows | None, steps: int) -> _Inputs:
        found = _Inputs()
        found.add([groups[group][name] for group, name in self._parameters])
        if query is not None:
            found.add(self._columns("query", query))
        first: list[int] = []
        for k in range(max(1, steps)):
            if k and supports[k] is supports[0]:
                found.addresses += first
            else:
                addresses = found.add(self._columns("support", supports[k]))
                first = first or addresses
        return found

    def _columns(self, part: str, rows: Rows) -> list[Tensor]:
        """Columns of rows in the program's order; it reads by their addresses, so they have to be what it was made for."""
        found, expected = columns(rows), self._rows[part]
        for name, (shape, dtype) in expected.items():
            t = found[name]
            if t.shape[1:] != shape or t.dtype != dtype:
                raise ValueError(
                    f"{part} {name}: {tuple(t.shape[1:])} of {t.dtype}; the program is for {shape} of {dtype}"
                )
        return [found[name] for name in self._names[part]]

    def _common(
        self, inputs: _Inputs, groups: dict[str, Tensors], n_tasks: int, steps: int, **outputs: Tensor
    ) -> dict[str, Any]:
        """Arguments that all threads share; valid as long as the tensors and the dict live."""
        array = inputs.array()
        return {
            "tasks": n_tasks,
            "steps": steps,
            "size_steps": 1 if self._sizes_per_step is None else len(groups["sizes"][self._sizes_per_step]),
            "constant_steps": 1
            if self._constants_per_step is None
            else len(groups["constant"][self._constants_per_step]),
            "inputs": ctypes.cast(array, ctypes.c_void_p),
            **{name: t.data_ptr() for name, t in outputs.items()},
        }

    def _call(self, function: Any, kept: int, **arguments: Any) -> None:
        """Call a function of the library in a workspace that keeps the parameters of so many steps."""
        size = self._library.workspace_bytes(kept)
        try:
            workspace = self._workspaces.pop()
        except IndexError:
            workspace = torch.empty(0)
        if workspace.nbytes < size:  # zeros, so that padding never holds numbers that are slow to compute with
            workspace = torch.zeros(size, dtype=torch.uint8)
        function(ctypes.byref(_Arguments(workspace=workspace.data_ptr(), **arguments)))
        self._workspaces.append(workspace)


def _in_threads(run: Callable[..., Any], n_tasks: int, *used: object) -> list[Any]:
    """Share the tasks among as many threads as torch uses; results in order, so that they do not depend on timing.

    What is `used` goes to every thread: if waiting for them is interrupted, their memory outlives the caller.
    """
    n = min(torch.get_num_threads(), n_tasks)
    if n <= 1:
        return [run(0, n_tasks, *used)]
    bounds = [n_tasks * k // n for k in range(n + 1)]
    with ThreadPoolExecutor(n) as pool:
        futures = [pool.submit(run, *span, *used) for span in pairwise(bounds)]
        return [future.result() for future in futures]
