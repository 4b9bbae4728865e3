"""Point navigation (MAML paper, section 5.3): return before and after 1, 2 and 3 adaptation steps, beside controls.

    python tests/benchmarks/point_navigation.py [--seeds 5] [--seconds 60] [--tasks 40]

One thread. MAML trains for the given time; the joint policy, and the policy that is told the goal, then get as many environment
steps. Inner step sizes of the controls are chosen on validation tasks. All are scored on the same unseen goals, by the mean
undiscounted return of 20 fresh episodes of sampled actions per task and step.
"""

import argparse
import contextlib
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from _timing import report

from fewshot.applications.rl import MAMLPolicy, PointNavigation, Told, adaptation_curve

FAMILY = PointNavigation()
STEPS = 3
VALIDATION, TEST = 1_000_000, 2_000_000  # seeds of tasks; training draws others
INNER_LRS = (0.03, 0.1, 0.3, 1.0)


def scored(policy: MAMLPolicy, args: argparse.Namespace, seed: int, family: object = FAMILY) -> pd.Series:
    """Mean return at each step on test tasks."""
    curve = adaptation_curve(policy, family, n_tasks=args.tasks, steps=STEPS, random_state=TEST + seed)
    return curve.groupby("step")["return"].mean()


def best_step_size(policy: MAMLPolicy, args: argparse.Namespace, seed: int) -> pd.Series:
    """Fine-tune with the step size that is best after the last step on validation tasks."""
    options = {"n_tasks": args.tasks, "steps": STEPS}

    def after(inner_lr: float) -> float:
        curve = adaptation_curve(policy, FAMILY, inner_lr=inner_lr, random_state=VALIDATION + seed, **options)
        return float(curve.groupby("step")["return"].mean().iloc[-1])

    inner_lr = max(INNER_LRS, key=after)
    curve = adaptation_curve(policy, FAMILY, inner_lr=inner_lr, random_state=TEST + seed, **options)
    return curve.groupby("step")["return"].mean()


def bare_rate(rng: np.random.Generator, seconds: float = 1.0) -> float:
    """Environment steps a second with random actions and nothing else."""
    batch = FAMILY.batch([FAMILY.sample(rng) for _ in range(20)], 20)
    actions = rng.uniform(-0.1, 0.1, (FAMILY.horizon, 20, 20, 2))
    done, began = 0, time.perf_counter()
    with contextlib.closing(batch):
        while time.perf_counter() - began < seconds:
            batch.reset(rng)
            for action in actions:
                batch.step(action)
            done += actions[..., 0].size
    return done / (time.perf_counter() - began)


def run(seed: int, args: argparse.Namespace) -> tuple[dict[str, pd.Series], dict[str, float]]:
    """Train and score every method with one seed."""
    found: dict[str, pd.Series] = {}
    began = time.perf_counter()
    maml = MAMLPolicy(random_state=seed).fit_meta(FAMILY, max_time=args.seconds)
    seconds = time.perf_counter() - began
    found["MAML, exact"] = scored(maml, args, seed)
    budget = maml.n_env_steps_
    makers: dict[str, Callable[[], pd.Series]] = {
        "MAML, first order": lambda: scored(
            MAMLPolicy(order="first", random_state=seed).fit_meta(FAMILY, total_env_steps=budget), args, seed
        ),
        "joint policy, fine-tuned": lambda: best_step_size(
            MAMLPolicy(inner_steps=0, random_state=seed).fit_meta(FAMILY, total_env_steps=budget), args, seed
        ),
        "random initialisation, fine-tuned": lambda: best_step_size(
            MAMLPolicy(inner_steps=0, max_kl=1e-12, random_state=seed).fit_meta(FAMILY, total_env_steps=1), args, seed
        ),
        "told the goal": lambda: scored(
            MAMLPolicy(inner_steps=0, random_state=seed).fit_meta(Told(FAMILY), total_env_steps=budget),
            args,
            seed,
            Told(FAMILY),
        ),
    }
    for name, make in makers.items():
        found[name] = make()
    rate = budget / seconds
    figures = {"seconds": seconds, "iterations": maml.n_iter_, "steps_per_s": rate}
    figures["share_of_bare"] = rate / bare_rate(np.random.default_rng(seed))
    return found, figures


def main() -> None:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of meta-training")
    parser.add_argument("--tasks", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    results, figures = [], []
    for seed in range(args.seeds):
        found, numbers = run(seed, args)
        figures.append(numbers)
        for method, returns in found.items():
            results += [{"method": method, "seed": seed, "step": k, "return": v} for k, v in returns.items()]
            print(f"seed {seed}: {method:35s}", " ".join(f"{v:7.1f}" for v in returns), flush=True)
        print(f"seed {seed}:", ", ".join(f"{name} {value:.3g}" for name, value in numbers.items()), flush=True)
    table = pd.DataFrame(results).groupby(["method", "step"], sort=False)["return"].agg(["mean", "min", "max"])
    print("\nmean over seeds [worst, best] before and after 1, 2, 3 steps")
    for method, part in table.groupby("method", sort=False):
        cells = " | ".join(f"{r['mean']:.1f} [{r['min']:.1f}, {r['max']:.1f}]" for _, r in part.iterrows())
        print(f"{method:35s} {cells}")
    report(pd.DataFrame(figures).median().to_dict())


if __name__ == "__main__":
    main()
