"""CartPole-goal: return before and after 1, 2 and 3 adaptation steps, beside controls, and its ratio to the joint policy's.

    python tests/benchmarks/cartpole_goal.py [--seeds 5] [--seconds 55] [--tasks 40] [--full]

One thread. What is compared, and how, is said in _policies.py.
"""

from _policies import Study, run_seeds, study_parser

from fewshot.applications.rl import CartPoleGoal

STUDY = Study(CartPoleGoal(), inner_lrs=(0.1, 0.3, 1.0, 3.0, 10.0), settings={"hidden": (32, 32)})

if __name__ == "__main__":
    found = run_seeds(STUDY, study_parser(__doc__ or "", seconds=55.0).parse_args())
    after = found[found["step"] == 1].pivot(index="seed", columns="method", values="return")
    ratio = after["MAML, exact"] / after["joint policy, fine-tuned"]
    print(f"after 1 step, MAML / joint policy: {ratio.mean():.2f} [{ratio.min():.2f}, {ratio.max():.2f}]")
