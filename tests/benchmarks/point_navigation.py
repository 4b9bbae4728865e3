"""Point navigation (MAML paper, section 5.3): return before and after 1, 2 and 3 adaptation steps, beside controls.

    python tests/benchmarks/point_navigation.py [--seeds 5] [--seconds 55] [--tasks 40] [--full]

One thread. What is compared, and how, is said in _policies.py. "full length": the same policies in episodes that do not end at
the goal. "mean action": with the most likely actions.
"""

import argparse

import pandas as pd
from _policies import TEST, Study, run_seeds, scored, study_parser

from fewshot.applications.rl import MAMLPolicy, PointNavigation

STUDY = Study(PointNavigation(), inner_lrs=(0.03, 0.1, 0.3, 1.0), settings={"hidden": (32, 32)})


def other_scores(maml: MAMLPolicy, seed: int, args: argparse.Namespace) -> dict[str, pd.Series]:
    """MAML judged by other episodes."""
    endless = PointNavigation(tolerance=0.0)
    return {
        "MAML, exact: full length": scored(STUDY, maml, TEST + seed, args.tasks, score_family=endless),
        "MAML, exact: mean action": scored(STUDY, maml, TEST + seed, args.tasks, deterministic=True),
    }


if __name__ == "__main__":
    arguments = study_parser(__doc__ or "", seconds=55.0).parse_args()
    run_seeds(STUDY, arguments, lambda maml, seed: other_scores(maml, seed, arguments))
