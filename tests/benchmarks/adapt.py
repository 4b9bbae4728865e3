"""Adapting to 10,000 tasks in one call: 16 rows x 30 features each, network 30-64-64-2, five steps, one core.

python tests/benchmarks/adapt.py
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from fewshot import MAMLClassifier

TASKS, ROWS, FEATURES, HIDDEN, CLASSES, STEPS = 10_000, 16, 30, (64, 64), 2, 5


def times_of_adapt(calls: int = 3, engine: str = "auto", clock: Callable[[], float] = time.perf_counter) -> list[float]:
    """Seconds of each of some calls, by a clock of the module time."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((TASKS * ROWS, FEATURES))
    tasks = np.repeat(np.arange(TASKS), ROWS)
    weights = rng.standard_normal((TASKS, FEATURES))[tasks]
    y = ((X * weights).sum(1) > 0).astype(int)
    few = tasks < 100
    model = MAMLClassifier(
        hidden=HIDDEN, inner_steps=STEPS, max_iter=20, engine=engine, random_state=0, algorithm="maml", base=None
    )
    model.fit_meta(X[few], y[few], tasks=tasks[few])
    times = []
    for _ in range(calls):
        began = clock()
        model.adapt(X, y, tasks=tasks)
        times.append(clock() - began)
    return times


def main() -> None:
    """Print the median time of three calls."""
    torch.set_num_threads(1)
    times = times_of_adapt()
    print(f"adapt of {TASKS} tasks: {statistics.median(times):.2f} s (median of {[round(t, 2) for t in times]})")


if __name__ == "__main__":
    main()
