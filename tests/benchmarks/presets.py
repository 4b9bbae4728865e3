"""Ready-made families: return before and after one adaptation step, beside controls.

    python tests/benchmarks/presets.py [--seeds 3] [--env-steps 1000000] [--tasks 20] [--only cartpole pendulum]

One thread. What is compared, and how, is said in _policies.py.
"""

from collections.abc import Callable
from typing import Any

from _policies import Study, run_seeds, study_parser

from fewshot.applications.rl import acrobot, ant_direction, cartpole, mountain_car_continuous, pendulum

INNER_LRS = (0.1, 0.3, 1.0, 3.0)
SMALLER = {"episodes": 5, "max_kl": 0.03}  # batches: Gymnasium's environments are stepped one by one
FAMILIES: dict[str, Callable[[], Any]] = {
    "cartpole": lambda: cartpole(horizon=200),
    "pendulum": pendulum,
    "acrobot": lambda: acrobot(horizon=200),
    "mountain_car_continuous": lambda: mountain_car_continuous(horizon=200),
    "ant_direction": lambda: ant_direction(horizon=100, threads=1),
}

if __name__ == "__main__":
    parser = study_parser(__doc__ or "", seconds=600.0, env_steps=1_000_000, tasks=20, seeds=3)
    parser.add_argument("--only", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    arguments = parser.parse_args()
    for name in arguments.only:
        print(f"\n{name}", flush=True)
        run_seeds(Study(FAMILIES[name](), INNER_LRS, steps=1, settings=SMALLER), arguments)
