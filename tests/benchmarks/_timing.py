"""Timing of meta-steps inside one process, and what a process reports to the one that started it.

Every process takes the first step apart from the others (its loss and gradient are what the libraries are compared
by), then warms up, then counts. Needs numpy alone, since libraries of other environments use it too.
"""

import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

__all__ = ["measure", "peak_mib", "report"]

WARM_UP_STEPS = 4  # kernels that are traced or compiled when shapes recur have been by then
FEWEST_STEPS = 3

T = TypeVar("T")


def measure(
    step: Callable[[T], float],
    batches: Sequence[T],
    gradient: Callable[[], np.ndarray],
    save_gradient: Path,
    seconds: float,
    warm_up: float = 0.0,
) -> dict[str, Any]:
    """Take a first step and, unless `seconds` is 0, time further ones.

    Parameters
    ----------
    step : callable
        Takes one meta-step, the optimiser's included, and returns the loss.
    batches : sequence
        What `step` is called with, again and again.
    gradient : callable
        Returns the meta-gradient of the last step, flat.
    save_gradient : Path
        Where the first step's is written, in numpy's format.
    seconds : float
        How long to time.
    warm_up : float, default=0.0
        Least seconds of untimed steps.

    Returns
    -------
    dict
        ``loss`` of the first step and its ``first_s`` in seconds; ``ms`` and ``cpu_ms``, the medians of wall and CPU
        time of a step in milliseconds; ``steps`` counted; ``peak_mib``, the most memory that the process ever held.
    """
    began = time.perf_counter()
    result: dict[str, Any] = {"loss": step(batches[0]), "first_s": time.perf_counter() - began}
    np.save(save_gradient, gradient())
    if seconds > 0:
        taken, began = 0, time.perf_counter()
        while taken < WARM_UP_STEPS or time.perf_counter() - began < warm_up:
            taken += 1
            step(batches[taken % len(batches)])
        wall, cpu, began = [], [], time.perf_counter()
        while len(wall) < FEWEST_STEPS or time.perf_counter() - began < seconds:
            batch = batches[len(wall) % len(batches)]
            cpu_start, wall_start = time.process_time(), time.perf_counter()
            step(batch)
            wall.append(time.perf_counter() - wall_start)
            cpu.append(time.process_time() - cpu_start)
        result |= {"ms": 1e3 * statistics.median(wall), "cpu_ms": 1e3 * statistics.median(cpu), "steps": len(wall)}
    return result | {"peak_mib": peak_mib()}


def peak_mib() -> float:
    """Most memory that this process ever held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would begin with the peak of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)  # macOS counts bytes, other systems KiB


def report(result: dict[str, Any]) -> None:
    """Print a result as the last line of this process."""
    print(json.dumps(result), flush=True)
