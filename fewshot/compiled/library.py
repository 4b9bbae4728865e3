"""Calling a compiled program: pointers in, tensors out."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adaptation import Tensors
from ..tasks import Rows
from .program import Program
from .tracing import columns

__all__ = ["Library"]


class _Arguments(ctypes.Structure):
    """As in driver.hpp."""

    _fields_ = [(name, ctypes.c_int64) for name in ("first", "last", "tasks", "steps", "size_steps")] + [
        (name, ctypes.c_void_p)
        for name in (
            *("moving", "shared", "constant", "support", "query", "sizes", "share"),
            *("loss", "losses", "of_moving", "of_shared", "of_sizes", "workspace"),
        )
    ]


class Library:
    """A loaded program.

    Parameters
    ----------
    path : Path
        Shared library.
    program : Program
        What it was made from.
    """

    def __init__(self, path: Path, program: Program) -> None:
        self._library = ctypes.CDLL(str(path))
        self._library.workspace_bytes.argtypes = [ctypes.c_int64]
        self._library.workspace_bytes.restype = ctypes.c_int64
        self._names, self._dtype = program.names, program.dtype
        self._workspaces: dict[tuple[int, int], Tensor] = {}

    def meta_gradient(
        self, groups: dict[str, Tensors], supports: Sequence[Rows], query: Rows, steps: int
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

        Returns
        -------
        loss, share : Tensor of shape (tasks,)
            Query losses, and their weights in the mean.
        vector : Tensor of shape (n,)
            Derivatives in moving and shared parameters and step sizes, one after another.
        """
        n_tasks = len(query.x)
        loss, share = torch.empty(2, n_tasks, dtype=self._dtype)
        call = _Call(self, groups, supports, query, steps)
        counts = {g: [groups[g][n].numel() for n in self._names[g]] for g in ("moving", "shared", "sizes")}
        size = sum(map(sum, counts.values()))

        def run(first: int, last: int, slot: int) -> Tensor:
            vector = torch.zeros(size, dtype=self._dtype)
            at, pointers = vector.data_ptr(), {}
            for group, sizes in counts.items():
                pointers[f"of_{group}"] = addresses = []
                for n in sizes:
                    addresses.append(at)
                    at += n * self._dtype.itemsize
            arguments = call.arguments(first, last, slot, pointers, share=share, loss=loss)
            self._library.meta_gradient(ctypes.byref(arguments))
            return vector

        vector, *others = _in_threads(run, n_tasks)
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
        loss, losses = torch.empty(n_tasks, dtype=self._dtype), torch.empty(steps, n_tasks, dtype=self._dtype)
        names = self._names["moving"] if keep else []
        out = {n: torch.empty(n_tasks, *groups["moving"][n].shape, dtype=self._dtype) for n in names}
        call = _Call(self, groups, supports, query, steps)

        def run(first: int, last: int, slot: int) -> None:
            pointers = {"of_moving": [t.data_ptr() for t in out.values()]} if keep else {}
            arguments = call.arguments(first, last, slot, pointers, loss=loss, losses=losses)
            self._library.adapt(ctypes.byref(arguments))

        _in_threads(run, n_tasks)
        if keep and not steps:
            out = {n: groups["moving"][n].expand(n_tasks, *groups["moving"][n].shape).contiguous() for n in names}
        return out, losses, loss

    def workspace(self, steps: int, slot: int) -> Tensor:
        """Memory of one thread; zeros at first, so that padding never holds numbers that are slow to compute with."""
        if (steps, slot) not in self._workspaces:
            size = self._library.workspace_bytes(steps)
            self._workspaces = {k: v for k, v in self._workspaces.items() if k[0] == steps}
            self._workspaces[steps, slot] = torch.zeros(size, dtype=torch.uint8)
        return self._workspaces[steps, slot]


class _Call:
    """The arguments that all threads of a call share."""

    def __init__(
        self, library: Library, groups: dict[str, Tensors], supports: Sequence[Rows], query: Rows | None, steps: int
    ) -> None:
        names = library._names
        self._library, self._steps, self._tasks = library, steps, len(supports[0].x)
        self._kept: list[Any] = []
        self._fields: dict[str, int] = {}
        for group in ("moving", "shared", "constant", "sizes"):
            self._fields[group] = self._pointers([groups[group][n] for n in names[group]])
        first = self._contiguous([columns(supports[0])[n] for n in names["support"]])
        rows = list(first)
        for k in range(1, steps):
            same = supports[k] is supports[0]
            rows += first if same else self._contiguous([columns(supports[k])[n] for n in names["support"]])
        self._fields["support"] = self._array(rows)
        if query is not None:
            of_query = columns(query)
            self._fields["query"] = self._pointers([of_query[n] for n in names["query"]])
        per_step = [t for n, t in groups["sizes"].items() if n.startswith("log_alpha.")]
        self._size_steps = len(per_step[0]) if per_step else 1

    def arguments(
        self, first: int, last: int, slot: int, pointers: dict[str, list[int]], **outputs: Tensor
    ) -> _Arguments:
        """Return the arguments for some of the tasks; they stay valid as long as this object and the outputs."""
        return _Arguments(
            first,
            last,
            self._tasks,
            self._steps,
            self._size_steps,
            **self._fields,
            **{name: self._array(addresses) for name, addresses in pointers.items()},
            **{name: t.data_ptr() for name, t in outputs.items()},
            workspace=self._library.workspace(self._steps, slot).data_ptr(),
        )

    def _contiguous(self, tensors: Sequence[Tensor]) -> list[int]:
        dense = [t if t.is_contiguous() else t.contiguous() for t in tensors]
        self._kept.append(dense)
        return [t.data_ptr() for t in dense]

    def _pointers(self, tensors: Sequence[Tensor]) -> int:
        return self._array(self._contiguous(tensors))

    def _array(self, addresses: list[int]) -> int:
        array = (ctypes.c_void_p * max(len(addresses), 1))(*addresses)
        self._kept.append(array)
        return ctypes.addressof(array)


def _in_threads(run: Callable[[int, int, int], Any], n_tasks: int) -> list[Any]:
    """Share the tasks among as many threads as torch uses; results in order, so that they do not depend on timing."""
    n = min(torch.get_num_threads(), n_tasks)
    if n <= 1:
        return [run(0, n_tasks, 0)]
    bounds = [n_tasks * k // n for k in range(n + 1)]
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(run, bounds[:-1], bounds[1:], range(n)))
