"""Adapting to 10,000 tasks in one call: 16 rows x 30 features each, network 30-64-64-2, five steps, one core.

python tests/benchmarks/adapt.py
"""

import statistics
import time

import numpy as np
import torch

from fewshot import MAMLClassifier

TASKS, ROWS, FEATURES = 10_000, 16, 30


def main() -> None:
    """Print the median time of three calls."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    X = rng.standard_normal((TASKS * ROWS, FEATURES))
    tasks = np.repeat(np.arange(TASKS), ROWS)
    weights = rng.standard_normal((TASKS, FEATURES))[tasks]
    y = ((X * weights).sum(1) > 0).astype(int)
    few = tasks < 100
    model = MAMLClassifier(hidden=(64, 64), max_iter=20, random_state=0).fit_meta(X[few], y[few], tasks=tasks[few])
    times = []
    for _ in range(3):
        began = time.perf_counter()
        model.adapt(X, y, tasks=tasks)
        times.append(time.perf_counter() - began)
    print(f"adapt of {TASKS} tasks: {statistics.median(times):.2f} s (median of {[round(t, 2) for t in times]})")


if __name__ == "__main__":
    main()
