"""Synthetic tasks whose truth is known: does the stack adapt as strongly as it should, and with the right member?

    python tests/benchmarks/synthetic.py [--families identical unrelated intercept slopes shape sinusoid] [--seeds 0 1]

Forty tasks of forty rows train, sixty others are judged: squared error on noisy targets (noise of standard deviation 1, but for the
sinusoids, which have none). The oracle knows the family: for "identical" the coefficients, for "unrelated" that they are
independent N(0, I), of which it gives the posterior mean from the support. Seeds 0 to 19 are for development.
"""

import argparse
import time

import numpy as np

from fewshot import MAMLRegressor

SHOTS = (1, 2, 5, 10, 20)
ROWS, TRAINING, JUDGED, QUERIES = 40, 40, 60, 40
SHARED = np.array([1.0, -0.7, 0.4, 0.0, 0.0])
ORACLES = ("identical", "unrelated")  # of the others the truth is shown, which nobody can reach
FAMILIES = ("identical", "unrelated", "intercept", "slopes", "shape", "sinusoid")


def task(family: str, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw inputs of one new task, and its true function at them."""
    if family == "sinusoid":
        x = rng.uniform(-5, 5, (rows, 1))
        return x, rng.uniform(0.1, 5) * np.sin(x[:, 0] + rng.uniform(0, np.pi))
    x = rng.normal(size=(rows, len(SHARED)))
    if family == "identical":
        return x, x @ SHARED
    if family == "unrelated":
        return x, x @ rng.normal(size=len(SHARED))
    if family == "intercept":
        return x, x @ SHARED + 1.5 * rng.normal()
    if family == "slopes":
        return x, x @ (SHARED + 0.7 * rng.normal(size=len(SHARED)))
    return x, x @ SHARED + 2 * np.sin(1.5 * x[:, 0] + rng.uniform(0, 2 * np.pi))


def table(family: str, n_tasks: int, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return inputs, truth, targets and task of each row."""
    x, truth = (np.concatenate(part) for part in zip(*(task(family, rows, rng) for _ in range(n_tasks)), strict=True))
    noise = 0.0 if family == "sinusoid" else 1.0
    return x, truth, truth + noise * rng.normal(size=len(truth)), np.repeat(np.arange(n_tasks), rows)


def oracle(family: str, x: np.ndarray, y: np.ndarray, asked: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Predict as well as anybody can who knows the family, where that has a closed form."""
    if family == "unrelated":
        return asked @ np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ y)
    return truth


def run(family: str, seed: int) -> None:
    """Fit, judge and print one line for each support size."""
    rng = np.random.default_rng(seed)
    x, _, y, tasks = table(family, TRAINING, ROWS, rng)
    began = time.perf_counter()
    models = {"fewshot": MAMLRegressor(random_state=seed).fit_meta(x, y, tasks=tasks)}
    seconds = time.perf_counter() - began
    if family == "sinusoid":
        models["maml alone"] = MAMLRegressor(algorithm="maml", base=None, random_state=seed).fit_meta(x, y, tasks=tasks)
    x, truth, y, tasks = table(family, JUDGED, max(SHOTS) + QUERIES, rng)
    place = np.tile(np.arange(max(SHOTS) + QUERIES), JUDGED)
    query = place >= max(SHOTS)
    weights = models["fewshot"].adaptation_report_.weights
    print(f"{family}, seed {seed}: fitted in {seconds:.0f} s")
    for k in SHOTS:
        support = place < k
        errors = {}
        for name, model in models.items():
            adapted = model.adapt(x[support], y[support], tasks=tasks[support])
            errors[name] = np.mean((adapted.predict(x[query], tasks=tasks[query]) - y[query]) ** 2)
        known = [
            oracle(family, x[support & mine], y[support & mine], x[query & mine], truth[query & mine])
            for mine in (tasks == t for t in range(JUDGED))
        ]
        errors["oracle" if family in ORACLES else "truth"] = np.mean((np.concatenate(known) - y[query]) ** 2)
        carries = weights.loc[k].sort_values(ascending=False).head(3)
        said = ", ".join(f"{name} {weight:.0%}" for name, weight in carries.items())
        print(f"  K = {k:2d}: " + ", ".join(f"{name} {e:.3f}" for name, e in errors.items()) + f" | {said}", flush=True)


def main() -> None:
    """Run the families asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--families", nargs="+", default=FAMILIES, choices=FAMILIES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    args = parser.parse_args()
    for family in args.families:
        for seed in args.seeds:
            run(family, seed)


if __name__ == "__main__":
    main()
