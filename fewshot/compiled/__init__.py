"""Compiled programs: the whole meta-gradient of a task as one piece of C++.

torch records what one task computes (:mod:`~fewshot.compiled.tracing`); the recorded operations become loops over arrays whose
shapes are constants (:mod:`~fewshot.compiled.lowering`), put into the loops over tasks and inner steps
(``driver.hpp``) and handed to the machine's C++ compiler (:mod:`~fewshot.compiled.build`), which takes one to three seconds and
runs beside training. One task is finished before the next begins, so parameters, activations and cotangents of a task
stay in the cache, no Python runs between inner steps, and memory does not grow with the number of tasks.

Operations that no code is generated for, random numbers, and anything but a CPU are left to the other engines.
"""

from .adapting import adapting_library, room_for
from .cache import Request, library_for, reason_against
from .library import Library
from .switch import Switch, seconds_of_step, with_rows

__all__ = [
    "Library",
    "Request",
    "Switch",
    "adapting_library",
    "library_for",
    "reason_against",
    "room_for",
    "seconds_of_step",
    "with_rows",
]
