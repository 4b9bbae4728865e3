"""Watching code run: what is dispatched to torch, which calls Python makes, and interruptions at each place they may come.

Times depend on the machine and on what else runs there; numbers of operations and calls do not.
"""

import gc
import sys
from collections import Counter
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def operations(function, *arguments):
    """Operations that a call dispatches to torch, by name; below vmap and autograd, where they do their work."""
    with _Operations() as watched:
        function(*arguments)
    return watched.counts


def calls(function, *arguments):
    """Calls of Python and of C functions that a call makes, by name and in this thread."""
    counts = Counter()

    def note(frame, event, what):
        if event == "call":
            # The code of traced kernels is numbered: <eval_with_key>.7
            file = frame.f_code.co_filename.partition(">.")[0]
            counts[f"{file}:{frame.f_code.co_qualname}"] += 1
        elif event == "c_call":
            counts[f"C {getattr(what, '__qualname__', what)}"] += 1

    before, collects = sys.getprofile(), gc.isenabled()
    gc.disable()  # what a collection calls is nobody's doing here
    sys.setprofile(note)
    try:
        function(*arguments)
    finally:
        sys.setprofile(before)
        if collects:
            gc.enable()
    counts[f"C {sys.setprofile.__qualname__}"] -= 1  # our own, which ends the watching
    return counts


def work(function, *arguments):
    """What :func:`operations` and :func:`calls` count, in two calls."""
    return operations(function, *arguments) + calls(function, *arguments)


@contextmanager
def interrupted(at, is_watched):
    """Raise KeyboardInterrupt at the `at`-th place, counted from 1, where CPython would deliver one.

    That is on entering a Python function and after returning from a C function, and not between any two lines. Only
    frames for which ``is_watched(frame)`` count. Yields a list to which the place is added when it is reached.
    """
    places, left = [], [at]

    def step(frame, event, what):
        if event not in ("call", "c_return") or not is_watched(frame):
            return
        left[0] -= 1
        if not left[0]:
            after = "" if event == "call" else f", after {getattr(what, '__name__', what)}"
            places.append(f"{frame.f_code.co_qualname}, line {frame.f_lineno}{after}")
            raise KeyboardInterrupt

    before = sys.getprofile()
    sys.setprofile(step)
    try:
        yield places
    finally:
        sys.setprofile(before)


def growth(count, few, many):
    """What `count` counts more often in a call of `many` than of `few`; empty if it does not grow."""
    a, b = count(few), count(many)
    assert a.total() > 0
    return {name: (a[name], b[name]) for name in a | b if a[name] != b[name]}


@contextmanager
def one_thread():
    """Let torch, and programs that keep to its number of threads, use one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
