"""When adapting goes over to a compiled program.

A program costs a second or two and pays off over many tasks, in one call or in a row of calls. So the estimated time of all calls
so far decides, against the estimated time of the compiler, which makes the result of a sequence of calls reproducible. The
compiler begins before that; what is left of its work is waited for.
"""

from __future__ import annotations

import logging
import weakref
from typing import Any

from ..functional import FunctionalModule
from .cache import Pending, Request, library_for, reason_against
from .library import Library

__all__ = ["adapting_library", "room_for"]

logger = logging.getLogger("fewshot")

BEGIN = 0.5  # seconds of adapting, by estimate, after which the compiler is started
REPAYS = 1.5  # the same for the change, or what the compiler takes where that is more
LONGEST_WAIT = 60.0  # seconds for a compiler that takes far longer than estimated: then the call goes on without it

_SPENT: weakref.WeakKeyDictionary[FunctionalModule, dict[Any, float]] = weakref.WeakKeyDictionary()
_DUE: weakref.WeakKeyDictionary[FunctionalModule, dict[Any, float]] = weakref.WeakKeyDictionary()


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
    if at_once:
        found = library_for(request, wait=None)
        assert not isinstance(found, Pending)
        return found
    if spent[key] < BEGIN:
        return None
    due = _DUE.setdefault(request.functional, {})
    if key not in due:
        found = library_for(request, wait=0.0)
        while isinstance(found, Pending) and found.build_seconds is None:
            found = library_for(request, wait=0.0)
        if not isinstance(found, Pending):  # none can be made; or training, say, has made the same
            return found
        due[key] = max(REPAYS, found.build_seconds or 0.0)
    if spent[key] < due[key]:
        return None
    found = library_for(request, wait=LONGEST_WAIT)
    if isinstance(found, Pending):
        logger.info("engine: the compiler takes long; adapting without its program for now")
        return None
    return found
