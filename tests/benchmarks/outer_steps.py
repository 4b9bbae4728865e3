"""Whether training goes on getting better, or degrades: returns along a long training, for each outer step.

    python tests/benchmarks/outer_steps.py [--env-steps 2e7] [--outer trpo ppo adam] [--seed 0]

Point navigation and CartPole-goal. Figures are mean undiscounted returns after one adaptation step in the training episodes of
each tenth of the iterations; behind them, how far the last tenth is below the best one, and the return after one step on 40
test tasks of the policy that training gives back: that of an earlier iteration where returns have fallen.
"""

import argparse

import torch
from _policies import SETTINGS, TEST

from fewshot.applications.rl import CartPoleGoal, MAMLPolicy, PointNavigation, adaptation_curve

SMALLER = {"tasks_per_batch": 20, "episodes": 10}
FAMILIES = {"point navigation": PointNavigation(), "CartPole-goal": CartPoleGoal()}


def main() -> None:
    """Train and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--env-steps", type=float, default=2e7, help="of each training")
    parser.add_argument("--outer", nargs="+", default=["trpo", "ppo", "adam"])
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)

    for name, family in FAMILIES.items():
        for outer in args.outer:
            policy = MAMLPolicy(**{**SETTINGS, **SMALLER, "outer": outer, "random_state": args.seed})
            policy.fit_meta(family, total_env_steps=int(args.env_steps))
            history = policy.history_
            tenth = (history["iteration"] - 1) * 10 // len(history)
            means = history.groupby(tenth)["return_1"].mean()
            figures = " ".join(f"{value:7.1f}" for value in means)
            curve = adaptation_curve(policy, family, n_tasks=40, episodes=20, steps=1, random_state=TEST)
            tested = curve[curve["step"] == 1]["return"].mean()
            print(f"{name:18s} {outer:5s} {figures} | {means.iloc[-1] - means.max():5.1f} | {tested:6.1f}", flush=True)


if __name__ == "__main__":
    main()
