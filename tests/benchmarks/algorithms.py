"""Every algorithm on four problems: what is left of the error, time of a meta-step, memory.

    python tests/benchmarks/algorithms.py [--algorithms maml anil ...] [--problems sinusoid digits-1 digits-5 parkinsons]

* sinusoid: mean squared error on 4,000 unseen tasks, 10 shots; 10,000 meta-steps of 25 tasks, 40-40 ReLU.
* digits-1, digits-5: accuracy on 600 unseen 5-way tasks of the digits 5 to 9, 1 and 5 shots; trained on 0 to 4 in eight
  orientations, 1,500 meta-steps of 4 tasks; conv4 with 16 channels.
* parkinsons: mean absolute error in points of motor UPDRS after 5 recordings of a new patient, six folds of patients.

All settings that an algorithm says something about are its defaults; the learning rate of the outer loop is the same for all on a
problem. Every pair runs in a process of its own, on one thread. Intervals are over tasks (patients). Memory is what training
added to the most that the process held.
"""

import argparse
import functools
import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from _processes import ChildFailed, run
from sklearn.model_selection import KFold
from sklearn.preprocessing import StandardScaler

from fewshot import MAMLClassifier, MAMLRegressor, make_meta_pipeline
from fewshot.algorithms import ALGORITHMS, STACKS
from fewshot.datasets import Digits, Sinusoids, fetch_parkinsons_telemonitoring
from fewshot.model_selection import evaluate_few_shot
from fewshot.networks import conv4

Errors = np.ndarray
NETWORKS = [name for name in ALGORITHMS if name not in STACKS]


class Training:
    """Seconds that training took, and what it added to the most memory that the process has held."""

    def __init__(self) -> None:
        self.seconds, self.before = 0.0, peak_mib()

    def __enter__(self) -> "Training":
        self.began = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self.began
        self.mib = peak_mib() - self.before


def peak_mib() -> float:
    """Most memory that this process has held, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def sinusoid(algorithm: str) -> tuple[Errors, Training, int]:
    """Squared error of each unseen task; training; meta-steps."""
    model = MAMLRegressor(
        algorithm=algorithm,
        tasks_per_batch=25,
        max_iter=10_000,
        outer_lr=0.001,
        early_stopping=False,
        random_state=0,
        base=None,
    )
    with Training() as training:
        model.fit_meta(Sinusoids(shots=10, queries=10))
    n, queries = 4000, 100
    support, query = Sinusoids(shots=10, queries=queries).sample(n, np.random.default_rng(2026))
    adapted = model.adapt(support.x.reshape(-1, 1).numpy(), support.y.flatten().numpy(), tasks=np.arange(n).repeat(10))
    predicted = adapted.predict(query.x.reshape(-1, 1).numpy(), tasks=np.arange(n).repeat(queries))
    return ((predicted - query.y.flatten().numpy()) ** 2).reshape(n, -1).mean(1), training, 10_000


def digits(algorithm: str, shots: int) -> tuple[Errors, Training, int]:
    """Accuracy on each unseen task; training; meta-steps."""
    model = MAMLClassifier(
        functools.partial(conv4, channels=16),
        algorithm=algorithm,
        tasks_per_batch=4,
        max_iter=1500,
        outer_lr=0.002,
        early_stopping=False,
        random_state=0,
        base=None,
    )
    with Training() as training:
        model.fit_meta(Digits(shots=shots))
    n, queries = 600, 5
    test = Digits(shots=shots, queries=queries, digits=(5, 6, 7, 8, 9), orientations=1)
    support, query = test.sample(n, np.random.default_rng(2026))
    adapted = model.adapt(
        support.x.reshape(-1, 64).numpy(), support.y.flatten().numpy(), tasks=np.arange(n).repeat(5 * shots)
    )
    predicted = adapted.predict(query.x.reshape(-1, 64).numpy(), tasks=np.arange(n).repeat(5 * queries))
    return (predicted == query.y.flatten().numpy()).reshape(n, -1).mean(1), training, 1500


def parkinsons(algorithm: str) -> tuple[Errors, Training, int]:
    """Absolute error of each patient; training; meta-steps."""
    data = fetch_parkinsons_telemonitoring()
    patients = np.unique(data.tasks)
    errors, training, steps = [], Training(), 0
    for fold, (train, test) in enumerate(KFold(6, shuffle=True, random_state=0).split(patients)):
        mine, theirs = (np.isin(data.tasks, patients[part]) for part in (train, test))
        model = make_meta_pipeline(StandardScaler(), MAMLRegressor(algorithm=algorithm, random_state=fold, base=None))
        with training:
            model.fit_meta(data.data[mine], data.target[mine], tasks=data.tasks[mine], blocks=data.blocks[mine])
        steps += model[-1].n_iter_
        scores = evaluate_few_shot(
            {algorithm: model},
            data.data[theirs],
            data.target[theirs],
            data.tasks[theirs],
            shots=[5],
            draws=5,
            cv="prefit",
            blocks=data.blocks[theirs],
            scoring="neg_mean_absolute_error",
            random_state=fold,
        )
        errors.append(-scores.groupby("task")["value"].mean().to_numpy())
    return np.concatenate(errors), training, steps


PROBLEMS: dict[str, Callable[[str], tuple[Errors, Training, int]]] = {
    "sinusoid": sinusoid,
    "digits-1": functools.partial(digits, shots=1),
    "digits-5": functools.partial(digits, shots=5),
    "parkinsons": parkinsons,
}


def measure(problem: str, algorithm: str) -> dict[str, Any]:
    """One cell of the table."""
    errors, training, steps = PROBLEMS[problem](algorithm)
    return {
        "mean": float(errors.mean()),
        "half": float(1.96 * errors.std(ddof=1) / np.sqrt(len(errors))),
        "ms": 1e3 * training.seconds / steps,
        "mib": training.mib,
    }


def main() -> None:
    """Print a table, a line for each algorithm as it comes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--algorithms", nargs="+", default=NETWORKS, choices=NETWORKS)
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=list(PROBLEMS))
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(*args.cell)))
        return
    print("| algorithm | " + " | ".join(args.problems) + " |")
    print("|---" * (len(args.problems) + 1) + "|")
    for algorithm in args.algorithms:
        cells = []
        for problem in args.problems:
            try:
                c = run(sys.executable, "algorithms.py", "--cell", problem, algorithm)
                cells.append(f"{c['mean']:.3f} ± {c['half']:.3f}; {c['ms']:.1f} ms, {c['mib']:.0f} MiB")
            except ChildFailed as error:
                cells.append(str(error)[:60] if problem != "sinusoid" or algorithm != "tr-maml" else "needs a table")
        print(f"| {algorithm} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
