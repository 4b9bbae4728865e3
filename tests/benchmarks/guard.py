"""What adapting does to single unseen tasks, with the guard and without: does anyone end worse off?

    python tests/benchmarks/guard.py [--seconds 45] [--tasks 30] [--steps 3] [--judged 100]

Policies are adapted one task at a time, by `MAMLPolicy.adapt` with 20 episodes a step, and judged with `--judged` fresh episodes
before and after. A task counts as harmed if its return fell by more than three standard errors of that difference. The last two
problems are hard on adapting: a policy that hardly explores (log_std=-3), and one whose steps are ten times too long.
"""

import argparse
from typing import Any

import numpy as np
import torch
from _policies import SETTINGS, TEST

from fewshot.applications.rl import CartPoleGoal, MAMLPolicy, PointNavigation

PROBLEMS: dict[str, tuple[Any, dict[str, Any], float]] = {  # family, settings, factor of the step sizes
    "point navigation": (PointNavigation(), {}, 1.0),
    "CartPole-goal": (CartPoleGoal(), {}, 1.0),
    "point navigation, log_std=-3": (PointNavigation(), {"log_std": -3.0}, 1.0),
    "point navigation, steps x 10": (PointNavigation(), {}, 10.0),
}


def main() -> None:
    """Train, adapt and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=45.0, help="of meta-training")
    parser.add_argument("--tasks", type=int, default=30)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--judged", type=int, default=100)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name, (family, settings, factor) in PROBLEMS.items():
        policy = MAMLPolicy(**{**SETTINGS, **settings, "random_state": 0}).fit_meta(family, max_time=args.seconds)
        for value in policy._meta.sizes.values():
            value += np.log(factor)
        rng = np.random.default_rng(TEST)
        rows = []
        for task in [family.sample(rng) for _ in range(args.tasks)]:
            row = []
            for guard in (False, True):
                adapted = policy.adapt(family.make(task), steps=args.steps, guard=guard)
                before, after = (p.evaluate(family.make(task), args.judged) for p in (policy, adapted))
                error = np.sqrt((before.var(ddof=1) + after.var(ddof=1)) / args.judged)
                row.append((before.mean(), after.mean(), after.mean() - before.mean() < -3 * error))
            rows.append(row)
        found = np.array(rows, float)  # (tasks, guard, figures)
        for k, words in enumerate(("without guard", "with guard")):
            before, after, harmed = found[:, k].T
            worst = (after - before).min()
            print(
                f"{name:30s} {words:14s} {before.mean():7.1f} -> {after.mean():7.1f}; worst change {worst:7.1f}; "
                f"harmed {harmed.sum():.0f} of {args.tasks}",
                flush=True,
            )


if __name__ == "__main__":
    main()
