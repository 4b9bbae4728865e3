"""Sinusoids in the MAML paper's setting: mean squared error on 4,000 unseen tasks.

    python tests/benchmarks/sinusoid.py [--max-iter 70000] [--shots 10] [--algorithm maml]

Finn, Abbeel, Levine (2017), section 5.1: K shots, one training step of fixed size 0.01, 40-40 ReLU, 25 tasks a batch, 70,000
meta-steps with Adam. Beside MAML, the same network pre-trained on all tasks and fine-tuned alike. With "meta-sgd", one
step size per parameter is learned, which start at 0.01.
"""

import argparse
import time

import numpy as np

from fewshot import MAMLRegressor
from fewshot.datasets import Sinusoids

N_TASKS, QUERIES = 4000, 100


def errors(model: MAMLRegressor, shots: int, steps: int) -> np.ndarray:
    """Squared error of each unseen task after so many steps."""
    support, query = Sinusoids(shots=shots, queries=QUERIES).sample(N_TASKS, np.random.default_rng(2026))
    tasks, query_tasks = np.repeat(np.arange(N_TASKS), shots), np.repeat(np.arange(N_TASKS), QUERIES)
    adapted = model.adapt(support.x.reshape(-1, 1).numpy(), support.y.flatten().numpy(), tasks=tasks, steps=steps)
    predicted = adapted.predict(query.x.reshape(-1, 1).numpy(), tasks=query_tasks)
    return ((predicted - query.y.flatten().numpy()) ** 2).reshape(N_TASKS, QUERIES).mean(1)


def main() -> None:
    """Train both models and print one line per model and number of steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--max-iter", type=int, default=70_000)
    parser.add_argument("--shots", type=int, default=10)
    parser.add_argument("--algorithm", choices=("maml", "fomaml", "meta-sgd"), default="maml")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settings = dict(
        hidden=(40, 40),
        activation="relu",
        inner_lr=0.01,
        tasks_per_batch=25,
        max_iter=args.max_iter,
        outer_lr=0.001,
        optimizer="adam",
        schedule="cosine",
        max_grad_norm=10.0,
        early_stopping=False,
        random_state=args.seed,
    )
    learned = "parameter" if args.algorithm == "meta-sgd" else False
    methods = [(args.algorithm, dict(algorithm=args.algorithm, inner_steps=1, learn_step_sizes=learned))]
    if args.algorithm == "maml":
        methods.append(("pre-trained on all tasks", dict(inner_steps=0, learn_step_sizes=False)))
    for name, method in methods:
        model = MAMLRegressor(**method, **settings)
        began = time.perf_counter()
        model.fit_meta(Sinusoids(shots=args.shots, queries=args.shots))
        print(f"{name}: {args.max_iter} meta-steps in {time.perf_counter() - began:.0f} s", flush=True)
        for k in (0, 1, 10):
            error = errors(model, args.shots, k)
            interval = 1.96 * error.std(ddof=1) / np.sqrt(N_TASKS)
            print(f"{name}: {error.mean():.3f} +- {interval:.3f} after {k} step(s)", flush=True)


if __name__ == "__main__":
    main()
