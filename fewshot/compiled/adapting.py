"""When adapting goes over to a compiled program.

A program costs a second or two and pays off over many tasks, in one call or in a row of calls. So the estimated time of all calls
so far decides, which makes the result of a sequence of calls reproducible.
"""

from __future__ import annotations

import weakref
from typing import Any

from ..functional import FunctionalModule
from .cache import Pending, Request, library_for, reason_against
from .library import Library

__all__ = ["adapting_library", "room_for"]

BEGIN = 0.5  # seconds of adapting, by estimate, after which the compiler is started
REPAYS = 1.5  # the same for the change
MOST_PAUSE = 1.0  # seconds that a call waits for the compiler

_SPENT: weakref.WeakKeyDictionary[FunctionalModule, dict[Any, float]] = weakref.WeakKeyDictionary()


def room_for(n_rows: int) -> int:
    """Return the number of rows that programs are made for, so that few serve all sizes: 4, 6, 8, 12, 16, 24, ..."""
    size = 4
    while size < n_rows:
        size = size // 2 * 3 if size & (size - 1) == 0 else size // 3 * 4
    return size


def adapting_library(request: Request, seconds: float, *, at_once: bool) -> Library | str | None:
    """Return the program that adapts, once it pays off.

    Parameters
    ----------
    request : Request
        What it is to do.
    seconds : float
        Estimated time of this call without a program.
    at_once : bool
        Make it in any case.

    Returns
    -------
    Library, str or None
        The program; or one line that says why there can be none; or None while there is not enough work for one.
    """
    against = reason_against(request.parameters, random=False)
    if against is not None:
        return against
    spent, key = _SPENT.setdefault(request.functional, {}), request.key()
    spent[key] = spent.get(key, 0.0) + seconds
    if not at_once and spent[key] < BEGIN:
        return None
    if at_once or spent[key] >= REPAYS:
        found = library_for(request, wait=None if at_once else MOST_PAUSE)
        return None if isinstance(found, Pending) else found
    found = library_for(request, wait=0.0)
    while isinstance(found, Pending) and found.build_seconds is None:
        found = library_for(request, wait=0.0)
    return found if isinstance(found, str) else None
