"""How many threads torch, and other numerical libraries, use while fewshot computes.

The kernels of small networks take microseconds. Splitting these over threads gains nothing, and on a machine that is busy with
something else every kernel then waits for a descheduled thread: fits were seen to take 50 times as long. So small work runs on
one thread, and torch's setting is put back afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from threadpoolctl import ThreadpoolController

__all__ = ["one_thread", "threads_for"]

SMALL = 2e8  # floating-point operations of one gradient of all tasks: about 10 ms on one core


@contextmanager
def threads_for(n_parameters: int, n_rows: int) -> Iterator[None]:
    """Use one thread while the gradient of a batch is small work.

    Parameters
    ----------
    n_parameters : int
        Parameters of the network.
    n_rows : int
        Rows of all tasks that are computed at once.
    """
    before = torch.get_num_threads()
    if before == 1 or 6 * n_parameters * n_rows > SMALL:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread in torch, in BLAS and in OpenMP: for many small calls of several libraries."""
    with threads_for(0, 0), _pools().limit(limits=1):
        yield


@cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()  # it looks through all loaded libraries, which takes a few milliseconds
