"""Meta-World's ML1 or ML10: success and return on test tasks before and after one step of 10 episodes, beside controls.

    python tests/benchmarks/meta_world.py [--task reach-v3] [--seconds 600] [--horizon 500] [--tasks 20] [--workers 2]
    python tests/benchmarks/meta_world.py --ml10 ...

Needs metaworld, in an environment of its own: pip install 'fewshot[metaworld]'; without it the script says so and ends. The joint
policy (trained on all tasks, no adaptation) and the one that is told the task get MAML's number of environment steps. The joint
policy and a random initialisation are fine-tuned with the step size that brings most return on training tasks; MAML has learned
its own. An episode counts as success if the task was solved at any time in it. Returns are undiscounted sums of Meta-World's shaped
reward, in other episodes than those that successes are counted in. Actions are sampled; no guard takes part.
"""

import argparse
import importlib.util
import sys
import time
from typing import Any

import pandas as pd
import torch
from _policies import TEST, VALIDATION, Study
from scipy import stats

from fewshot.applications.rl import MAMLPolicy, Told, adaptation_curve
from fewshot.applications.rl.environments.metaworld_families import MetaWorldFamily, metaworld_ml1, metaworld_ml10

EPISODES = 10  # to adapt from, and to be judged by
# Simulation takes nearly all the time, so small batches that are learned from several times.
SETTINGS: dict[str, Any] = {
    "outer": "ppo",
    "max_kl": 0.03,
    "tasks_per_batch": 10,
    "episodes": EPISODES,
}
INNER_LRS = (0.03, 0.1, 0.3, 1.0)


def family_of(args: argparse.Namespace, split: str, **options: Any) -> MetaWorldFamily:
    """One part of the benchmark that was asked for."""
    options |= {"horizon": args.horizon, "workers": args.workers}
    return metaworld_ml10(split, **options) if args.ml10 else metaworld_ml1(args.task, split, **options)


def scored(policy: MAMLPolicy, family: Any, seed: int, args: argparse.Namespace, **options: Any) -> pd.DataFrame:
    """Means over the episodes of each task, before and after a step: a row for each task, a column for each number of steps."""
    curve = adaptation_curve(
        policy, family, n_tasks=args.tasks, episodes=EPISODES, steps=1, random_state=seed, **options
    )
    return curve.pivot(index="task", columns="step", values="return")


def columns(of_tasks: pd.DataFrame, digits: int) -> str:
    """Means before and after a step, and of the gain with its 95 % interval over tasks."""
    gain = of_tasks[1] - of_tasks[0]
    half = stats.t.ppf(0.975, len(gain) - 1) * stats.sem(gain)
    means = "".join(f"{of_tasks[k].mean():9.{digits}f}" for k in (0, 1))
    return f"{means}  {gain.mean():+.{digits}f} ± {half:.{digits}f}".ljust(36)


def row(name: str, policy: MAMLPolicy, args: argparse.Namespace, inner_lr: float | None = None) -> None:
    """Print success and return on the test tasks, as a row of the table."""
    test, judge = family_of(args, "test"), family_of(args, "test", reward="success")
    solved = scored(policy, test, TEST + args.seed, args, inner_lr=inner_lr, score_family=judge)
    returns = scored(policy, test, TEST + args.seed, args, inner_lr=inner_lr)
    print(f"{name:24s}{columns(solved, 2)}{columns(returns, 1)}".rstrip(), flush=True)


def fine_tuned_row(name: str, policy: MAMLPolicy, study: Study, args: argparse.Namespace) -> None:
    """Print the row of a policy that is fine-tuned with the step size that brings most return on training tasks."""
    brought = {
        lr: scored(policy, study.family, VALIDATION + args.seed, args, inner_lr=lr)[1].mean() for lr in study.inner_lrs
    }
    best = max(brought, key=lambda lr: brought[lr])
    row(name, policy, args, best)
    print(f"{'':24s}step size {best}")


def told_row(policy: MAMLPolicy, args: argparse.Namespace) -> None:
    """Print the row of a policy that is told the task, and has nothing to adapt to."""
    means = [
        scored(policy, Told(family_of(args, "test", reward=reward)), TEST + args.seed, args)[0].mean()
        for reward in ("success", "shaped")
    ]
    print(f"{'told the task':24s}{means[0]:9.2f}{means[1]:36.1f}")


def main(args: argparse.Namespace) -> None:
    """Train all policies, and print the table."""
    torch.set_num_threads(1)
    study = Study(family_of(args, "train"), INNER_LRS, steps=1, settings=SETTINGS)
    began = time.perf_counter()
    maml = study.train(args.seed, budget=args.env_steps, seconds=args.seconds)
    seconds, budget = time.perf_counter() - began, maml.n_env_steps_
    print(
        f"{study.family}: {budget:,} environment steps in {maml.n_iter_} iterations and {seconds:.0f} s, "
        f"{budget / seconds:.0f} a second",
        flush=True,
    )
    titles = (f"{name} before    after  gain".ljust(36) for name in ("success:", "return:"))
    print((" " * 24 + "".join(titles)).rstrip())
    row("MAML", maml, args)
    fine_tuned_row("joint policy", study.train(args.seed, budget=budget, inner_steps=0), study, args)
    untrained = study.train(args.seed, budget=1, inner_steps=0, max_kl=1e-12)
    fine_tuned_row("random initialisation", untrained, study, args)
    told_row(study.train(args.seed, family=Told(study.family), budget=budget, inner_steps=0), args)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--task", default="reach-v3", help="manipulation of ML1")
    parser.add_argument("--ml10", action="store_true", help="ML10 in place of ML1")
    parser.add_argument("--seconds", type=float, default=600.0, help="of meta-training MAML")
    parser.add_argument("--env-steps", type=int, help="of meta-training MAML, where these end it earlier")
    parser.add_argument("--horizon", type=int, default=500, help="time steps of an episode; 500 in the literature")
    parser.add_argument("--tasks", type=int, default=20, help="that step sizes are chosen on, and test tasks")
    parser.add_argument("--workers", type=int, help="processes that simulate; by default none but this")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if importlib.util.find_spec("metaworld") is None:
        print("skipped: needs metaworld, in an environment of its own; pip install 'fewshot[metaworld]'")
        sys.exit()
    main(arguments)
