"""PPO of Stable-Baselines3 on the new environment, beside MAML: what fine-tuning brings with as many episodes.

    python tests/benchmarks/sb3_point_navigation.py [--seeds 1] [--seconds 60] [--tasks 5] [--cap 500]

Needs stable-baselines3: pip install 'fewshot[sb3]'. One thread. MAML and the domain-randomised PPO, whose environments have a new
goal in each episode, train for the given time each. In each test task PPO then learns, from random weights or from the
pre-trained ones, by one update after every 20 episodes' time (2000 time steps; an episode that reached the goal makes room for
another). Its learning rates are chosen on validation tasks. Returns are undiscounted means of 20 fresh episodes of sampled
actions. The last lines tell after how many episodes PPO first was as good as MAML after one step, task by task.

PPO gets MAML's network (64, 64) and initial standard deviation, actions in units in which the bounds are -1 and 1, positions in
units of the largest goal coordinate and a tenth of the rewards. (Running standardisation, VecNormalize, is misled by the equal
starts of all episodes: it cost the first hundred of them.) Its other settings are the defaults but for larger minibatches.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import numpy as np
import pandas as pd
import torch
from _policies import TEST, VALIDATION
from gymnasium.wrappers import RescaleAction, TransformObservation, TransformReward

try:
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv
except ImportError as error:
    raise SystemExit(f"{error}: this script needs stable-baselines3; pip install 'fewshot[sb3]'") from error

from fewshot.applications.rl import MAMLPolicy, PointNavigation, adaptation_curve

FAMILY, STEPS = PointNavigation(), 3
EPISODES = 20  # of an update: as many environments, each for the time of one episode
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2)
VALIDATION_TASKS = 3

Goal = tuple[float, float]


class AnyGoal(gymnasium.Env[Any, Any]):
    """The plane with a new goal in each episode."""

    observation_space, action_space = FAMILY.observation_space, FAMILY.action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Draw a goal."""
        super().reset(seed=seed)
        self.inner = FAMILY.make(FAMILY.sample(self.np_random))
        return self.inner.reset()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Move."""
        return self.inner.step(action)


class Deadline(BaseCallback):
    """Stops training after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.end = time.perf_counter() + seconds

    def _on_step(self) -> bool:
        return time.perf_counter() < self.end


def environments(goal: Goal | None, reward_unit: float = 10.0) -> DummyVecEnv:
    """20 environments with one goal, or with ever new ones."""

    def make() -> gymnasium.Env[Any, Any]:
        env: gymnasium.Env[Any, Any] = AnyGoal() if goal is None else FAMILY.make(goal)
        env = RescaleAction(env, np.float32([-1, -1]), np.float32([1, 1]))
        env = TransformObservation(env, lambda position: position / np.float32(FAMILY.goals[1]), env.observation_space)
        return TransformReward(env, lambda reward: reward / reward_unit)

    return DummyVecEnv([make] * EPISODES)


def ppo(env: DummyVecEnv, learning_rate: float, seed: int) -> PPO:
    """PPO with one update after each 20 episodes' time; what is not named is its default."""
    return PPO(
        "MlpPolicy",
        env,
        learning_rate=learning_rate,
        n_steps=FAMILY.horizon,
        batch_size=200,
        policy_kwargs={"log_std_init": -0.5},
        seed=seed,
        device="cpu",
    )


def fine_tuned(start: PPO | None, goal: Goal, learning_rate: float, seed: int) -> Callable[[bool], float]:
    """Give a function that updates, if told to, and returns what fresh episodes bring."""
    model = ppo(environments(goal), learning_rate, seed)
    if start is not None:
        model.policy.load_state_dict(start.policy.state_dict())
    fresh = environments(goal, reward_unit=1.0)
    fresh.seed(seed + 1)

    def go(update: bool) -> float:
        if update:
            model.learn(EPISODES * FAMILY.horizon, reset_num_timesteps=False)
        return float(evaluate_policy(model, fresh, EPISODES, deterministic=False, warn=False)[0])

    return go


def curve(go: Callable[[bool], float]) -> list[float]:
    """Return before and after 1, 2, 3 updates."""
    return [go(k > 0) for k in range(STEPS + 1)]


def best_rate(start: PPO | None, seed: int) -> float:
    """Learning rate that is best after the last update on validation tasks."""
    rng = np.random.default_rng(VALIDATION + seed)
    goals = [FAMILY.sample(rng) for _ in range(VALIDATION_TASKS)]
    return max(
        LEARNING_RATES, key=lambda rate: float(np.mean([curve(fine_tuned(start, g, rate, seed))[-1] for g in goals]))
    )


def episodes_until(returns: Sequence[float], go: Callable[[bool], float], wanted: float, cap: int) -> float:
    """Episodes until a return is reached, going on after those that were already seen; infinity if the cap is not enough."""
    seen = list(returns)
    while seen[-1] < wanted and EPISODES * len(seen) <= cap:
        seen.append(go(True))
    first = np.nonzero(np.array(seen) >= wanted)[0]
    return float(EPISODES * first[0]) if len(first) else np.inf


def run(seed: int, args: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Train and score every method with one seed."""
    began = time.perf_counter()
    maml = MAMLPolicy(random_state=seed).fit_meta(FAMILY, max_time=args.seconds)
    print(f"seed {seed}: MAML trained {maml.n_env_steps_:,} steps in {time.perf_counter() - began:.0f} s", flush=True)
    found = adaptation_curve(maml, FAMILY, n_tasks=args.tasks, steps=STEPS, random_state=TEST + seed)
    results = [found.assign(method="MAML")[["method", "task", "step", "return"]]]
    wanted = found[found["step"] == 1].set_index("task")["return"]

    pretrained = ppo(environments(None), 3e-4, seed)
    pretrained.learn(10**9, callback=Deadline(args.seconds))
    print(f"seed {seed}: PPO on all goals trained {pretrained.num_timesteps:,} steps", flush=True)
    rng = np.random.default_rng(TEST + seed)
    goals = [FAMILY.sample(rng) for _ in range(args.tasks)]  # those of the curve
    needed = []
    for method, start in (("PPO from scratch", None), ("PPO pre-trained on all goals", pretrained)):
        rate = best_rate(start, seed)
        print(f"seed {seed}: {method}, learning rate {rate:g}", flush=True)
        for task, goal in enumerate(goals):
            go = fine_tuned(start, goal, rate, seed)
            returns = curve(go)
            rows = {"method": method, "task": task, "step": range(STEPS + 1), "return": returns}
            results.append(pd.DataFrame(rows))
            count = episodes_until(returns, go, wanted[task], args.cap)
            needed.append({"method": method, "task": task, "episodes": count})
    return pd.concat(results).assign(seed=seed), pd.DataFrame(needed)


def main() -> None:
    """Run all seeds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0, help="of training, for MAML and for PPO on all goals")
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--cap", type=int, default=500, help="most episodes of PPO in one task")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results, needed = (pd.concat(parts) for parts in zip(*(run(s, args) for s in range(args.seeds)), strict=True))
    print(f"\nmean return over {args.tasks} test tasks and {args.seeds} seeds after 0, 20, 40, 60 episodes")
    for method, part in results.groupby("method", sort=False):
        print(f"{method:30s}", " ".join(f"{v:7.1f}" for v in part.groupby("step")["return"].mean()))
    print(f"\nepisodes until PPO has what MAML has after 20 (at most {args.cap})")
    for method, part in needed.groupby("method", sort=False):
        counts = part["episodes"]
        reached = int(np.isfinite(counts).sum())
        print(f"{method:30s} median {counts.median():.0f}; reached in {reached} of {len(counts)}")


if __name__ == "__main__":
    main()
