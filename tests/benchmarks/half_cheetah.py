"""HalfCheetah with a hidden goal: return before and after an adaptation step, beside controls.

    python tests/benchmarks/half_cheetah.py [--goal velocity] [--horizon 100] [--seeds 5] [--env-steps 2500000] [--threads 2]
    python tests/benchmarks/half_cheetah.py --goal direction ...
    python tests/benchmarks/half_cheetah.py --quick

Needs mujoco: pip install 'fewshot[mujoco]'. What is compared, and how, is said in _policies.py. Test velocities are unseen. Of
directions there are two, both seen in training, and returns after each number of steps are also given for either. `--quick` ends
in two minutes on two cores, and fails unless adapting to unseen velocities brought more than nothing: the lower end of the 95 %
interval over tasks of the gain is above 0.
"""

import argparse
import sys

import numpy as np
import pandas as pd
from _policies import EPISODES, TEST, Study, run_seeds, study_parser
from scipy import stats

from fewshot.applications.rl import MAMLPolicy, adaptation_curve, half_cheetah_direction, half_cheetah_velocity

# Simulation takes nearly all the time, so small batches that are learned from several times.
SETTINGS = {"outer": "ppo", "max_kl": 0.03, "tasks_per_batch": 20, "episodes": 5}
INNER_LRS = (0.03, 0.1, 0.3, 1.0)


def by_direction(study: Study, maml: MAMLPolicy, seed: int, n_tasks: int) -> dict[str, pd.Series]:
    """MAML's returns in either direction."""
    curve = adaptation_curve(
        maml, study.family, n_tasks=n_tasks, episodes=EPISODES, steps=study.steps, random_state=TEST + seed
    )
    rng = np.random.default_rng(TEST + seed)
    names = ["backwards" if study.family.sample(rng)["direction"] < 0 else "forwards" for _ in range(n_tasks)]
    means = curve.groupby([curve["task"].map(dict(enumerate(names))), "step"])["return"].mean()
    return {f"MAML, exact: {name}": means[name] for name in sorted(set(names))}


def quick(args: argparse.Namespace) -> None:
    """Train for most of two minutes, and exit with an error unless adapting helped."""
    family = half_cheetah_velocity(horizon=args.horizon, threads=args.threads)
    policy = MAMLPolicy(**SETTINGS, random_state=0).fit_meta(family, max_time=90)
    curve = adaptation_curve(policy, family, n_tasks=20, episodes=EPISODES, steps=1, random_state=TEST)
    before, after = (curve[curve["step"] == k]["return"].to_numpy() for k in (0, 1))
    gain = after - before
    low, high = stats.t.interval(0.95, len(gain) - 1, gain.mean(), stats.sem(gain))
    print(
        f"{policy.n_env_steps_:,} environment steps: return {before.mean():.1f} before and {after.mean():.1f} after one step, "
        f"gain {gain.mean():.1f} (95 % interval {low:.1f} to {high:.1f})"
    )
    sys.exit(0 if low > 0 else "adapting did not help")


if __name__ == "__main__":
    parser = study_parser(__doc__ or "", seconds=600.0, env_steps=2_500_000, tasks=20)
    parser.add_argument("--goal", choices=["velocity", "direction"], default="velocity")
    parser.add_argument("--horizon", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="a check of two minutes")
    arguments = parser.parse_args()
    if arguments.quick:
        quick(arguments)
    if arguments.goal == "velocity":
        study = Study(
            half_cheetah_velocity(horizon=arguments.horizon, threads=arguments.threads), INNER_LRS, 1, SETTINGS
        )
        run_seeds(study, arguments)
    else:
        study = Study(
            half_cheetah_direction(horizon=arguments.horizon, threads=arguments.threads), INNER_LRS, 1, SETTINGS
        )
        run_seeds(study, arguments, lambda maml, seed: by_direction(study, maml, seed, arguments.tasks))
