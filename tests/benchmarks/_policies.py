"""Policies that adapt beside the controls that a reader asks for, under the same number of environment steps.

MAML trains for a given time, or number of environment steps; the joint policy (trained on all tasks, no adaptation in training),
first-order MAML and the policy that is told the task then get as many environment steps (the last one, whose episodes may become
short, for no longer than MAML may).
What is fine-tuned (the joint policy, and a random initialisation) is so with the step size that is best on validation tasks,
chosen anew for each number of steps; MAML uses the sizes that it has learned. All are scored on the same test tasks by the mean
undiscounted return of 20 fresh episodes of sampled actions per task and step, without a guard. Training, validation and test
draw from generators of different seeds.
"""

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from _timing import report
from gymnasium.spaces import Box

from fewshot.applications.rl import MAMLPolicy, Told, adaptation_curve

__all__ = [
    "EPISODES",
    "SETTINGS",
    "TEST",
    "VALIDATION",
    "Study",
    "bare_rate",
    "fine_tuned",
    "run_seeds",
    "scored",
    "study_parser",
]

VALIDATION, TEST = 1_000_000, 2_000_000  # seeds of tasks; training draws others
EPISODES = 20
# Named here, so that figures in the documentation stay what they are when a default changes.
SETTINGS: dict[str, Any] = {
    "hidden": (64, 64),
    "log_std": -0.5,
    "inner_steps": 1,
    "inner_lr": None,
    "later_step_factor": 0.5,
    "surrogate": "lvc",
    "order": "exact",
    "outer": "trpo",
    "max_kl": 0.02,
    "outer_lr": 0.01,
    "tasks_per_batch": 20,
    "episodes": 20,
    "discount": 0.99,
    "gae_lambda": 0.97,
}


@dataclass(frozen=True)
class Study:
    """What is compared.

    Parameters
    ----------
    family : Family
        Environments.
    inner_lrs : sequence of float
        Step sizes to choose from where a policy is fine-tuned.
    steps : int, default=3
        Adaptation steps.
    settings : mapping, default={}
        Of all policies, where they are not those of SETTINGS.
    """

    family: Any
    inner_lrs: Sequence[float]
    steps: int = 3
    settings: Mapping[str, Any] = field(default_factory=dict)

    def train(
        self, seed: int, *, family: Any = None, budget: int | None = None, seconds: float | None = None, **more: Any
    ) -> MAMLPolicy:
        """Train a policy for some environment steps, or some seconds."""
        policy = MAMLPolicy(**{**SETTINGS, "random_state": seed, **self.settings, **more})
        return policy.fit_meta(self.family if family is None else family, total_env_steps=budget, max_time=seconds)


def scored(
    study: Study, policy: MAMLPolicy, seed: int, n_tasks: int, *, family: Any = None, **options: Any
) -> pd.Series:
    """Mean return on tasks of `seed` after each number of steps."""
    family = study.family if family is None else family
    curve = adaptation_curve(
        policy, family, n_tasks=n_tasks, episodes=EPISODES, steps=study.steps, random_state=seed, **options
    )
    return curve.groupby("step")["return"].mean()


def fine_tuned(study: Study, policy: MAMLPolicy, seed: int, n_tasks: int) -> pd.Series:
    """Test returns with the step size that is best on validation tasks, for each number of steps."""
    validation = {lr: scored(study, policy, VALIDATION + seed, n_tasks, inner_lr=lr) for lr in study.inner_lrs}
    best = pd.DataFrame(validation).idxmax(axis=1)
    test = {lr: scored(study, policy, TEST + seed, n_tasks, inner_lr=lr) for lr in set(best)}
    return pd.Series({step: test[lr][step] for step, lr in best.items()})


def bare_rate(family: Any, seconds: float = 1.0) -> float:
    """Environment steps a second of 20 x 20 episodes with random actions and nothing else."""
    rng = np.random.default_rng(0)
    shape, space = (family.horizon, 20, 20), family.action_space
    if isinstance(space, Box):
        actions = rng.uniform(space.low, space.high, (*shape, *space.shape)).astype(np.float32)
    else:
        actions = rng.integers(space.n, size=shape)
    done, began = 0, time.perf_counter()
    with contextlib.closing(family.batch([family.sample(rng) for _ in range(20)], 20)) as batch:
        while time.perf_counter() - began < seconds:
            batch.reset(rng)
            alive = np.ones((20, 20), bool)
            for action in actions:
                done += int(alive.sum())
                *_, terminated, truncated = batch.step(action)
                alive &= ~(terminated | truncated)
    return done / (time.perf_counter() - began)


def compare(
    study: Study, seed: int, args: argparse.Namespace
) -> tuple[dict[str, pd.Series], MAMLPolicy, dict[str, float]]:
    """Train and score every method with one seed."""
    n, test = args.tasks, TEST + seed
    began = time.perf_counter()
    maml = study.train(seed, budget=args.env_steps, seconds=args.seconds)
    seconds, budget = time.perf_counter() - began, maml.n_env_steps_
    found = {"MAML, exact": scored(study, maml, test, n)}
    for name, method in (
        ("MAML, first order", {"order": "first"}),
        ("ProMP", {"outer": "ppo"}),
        ("joint policy, fine-tuned", {"inner_steps": 0}),
        ("random initialisation, fine-tuned", {"inner_steps": 0, "max_kl": 1e-12}),
    ):
        if method.get("inner_steps") is None:
            if args.full:
                found[name] = scored(study, study.train(seed, budget=budget, **method), test, n)
        else:
            steps = 1 if "max_kl" in method else budget
            found[name] = fine_tuned(study, study.train(seed, budget=steps, **method), seed, n)
    told = Told(study.family)
    # Its episodes may soon be short, and a budget of time steps would then take for ever.
    knowing = study.train(seed, family=told, budget=budget, seconds=args.seconds, inner_steps=0)
    found["told the task"] = scored(study, knowing, test, n, family=told).iloc[:1]  # it has nothing to adapt to
    rate, bare = budget / seconds, bare_rate(study.family)
    figures = {"seconds": seconds, "iterations": maml.n_iter_, "env_steps": budget, "steps_per_s": rate}
    return found, maml, figures | {"bare_steps_per_s": bare, "share_of_bare": rate / bare}


def study_parser(
    description: str, *, seconds: float, env_steps: int | None = None, tasks: int = 40, seeds: int = 5
) -> argparse.ArgumentParser:
    """Options of all such scripts."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=seconds, help="of meta-training MAML")
    parser.add_argument(
        "--env-steps", type=int, default=env_steps, help="of meta-training MAML, where these end it earlier"
    )
    parser.add_argument("--tasks", type=int, default=tasks, help="validation tasks, and test tasks")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="first-order MAML and ProMP as well")
    return parser


def run_seeds(study: Study, args: argparse.Namespace, more: Any = None) -> pd.DataFrame:
    """Run all seeds, print a table and return it; `more(maml, seed)` gives further rows for the table."""
    torch.set_num_threads(args.threads)
    rows, figures = [], []
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        found, maml, numbers = compare(study, seed, args)
        found |= more(maml, seed) if more else {}
        figures.append(numbers)
        for method, returns in found.items():
            rows += [{"method": method, "seed": seed, "step": k, "return": v} for k, v in returns.items()]
            print(f"seed {seed}: {method:36s}", " ".join(f"{v:8.1f}" for v in returns), flush=True)
        print(f"seed {seed}:", ", ".join(f"{name} {value:.4g}" for name, value in numbers.items()), flush=True)
    table = pd.DataFrame(rows).groupby(["method", "step"], sort=False)["return"].agg(["mean", "min", "max"])
    print(f"\nmean over seeds [worst, best] before and after 1 to {study.steps} steps")
    for method, part in table.groupby("method", sort=False):
        cells = " | ".join(f"{r['mean']:.1f} [{r['min']:.1f}, {r['max']:.1f}]" for _, r in part.iterrows())
        print(f"{method:36s} {cells}")
    report(pd.DataFrame(figures).median().to_dict())
    return pd.DataFrame(rows)
