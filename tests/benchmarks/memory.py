"""Memory of a meta-gradient against the number of inner steps: exact MAML keeps the path, implicit MAML its end only.

    python tests/benchmarks/memory.py [--engine vectorized]

Network 64-256-256-2, 64 tasks of 32 + 32 rows; each number is the most that a process of its own held while it took three
meta-gradients, less what it held before. "one set" is one set of parameters of the tasks in flight: 12 of them by default in the
vectorised kernels (``max_memory`` lowers that), one in a compiled program.
"""

import argparse
import json
import resource
import sys

import torch
from _processes import run

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.functional import FunctionalModule
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters
from fewshot.networks import mlp
from fewshot.tasks import Rows

STEPS = (5, 20, 100)


def measure(order: str, steps: int, mode: str) -> dict[str, float]:
    """Most memory of three meta-gradients, in MiB, and the size of one set of parameters."""
    torch.manual_seed(0)
    implicit = order == "implicit"
    adaptation = Adaptation(steps, 0.001, False, proximal=0.3 if implicit else 0.0)
    functional = FunctionalModule(mlp(64, 2, hidden=(256, 256)), squared_error, "all", 2)
    meta = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    support, query = (Rows(torch.randn(64, 32, 64), torch.randn(64, 32, 2), torch.ones(64, 32)) for _ in range(2))
    engine = Engine(functional, adaptation, mode=mode, verify=False)
    few = [Rows(r.x[:2], r.y[:2], r.weight[:2]) for r in (support, query)]
    engine.prepare(
        meta, [few[0]] * steps, few[1], order
    )  # two tasks: what is imported and traced belongs to the libraries
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for k in range(3):
        engine.gradient(meta, [support] * steps, query, order, 0, k)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    flight = engine._chunk(meta, 64) or 64
    one = sum(p.numel() for p in functional.moving.values()) * 4 * (1 if mode == "compiled" else flight) / 2**20
    return {"mib": (after - before) / 2**10, "one": one, "total": after / 2**10}


def main() -> None:
    """Print a line for each algorithm."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", default="vectorized", choices=("vectorized", "compiled"))
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(measure(args.cell[0], int(args.cell[1]), args.engine)))
        return
    for order, name in (("exact", "exact MAML"), ("implicit", "implicit MAML")):
        found = [run(sys.executable, "memory.py", "--cell", order, k, "--engine", args.engine) for k in STEPS]
        one = found[0]["one"]
        cells = ", ".join(
            f"{k} steps {f['mib']:.0f} MiB ({f['total']:.0f} in all)" for k, f in zip(STEPS, found, strict=True)
        )
        grown = (found[-1]["mib"] - found[0]["mib"]) / (STEPS[-1] - STEPS[0]) / one
        print(f"{name}: {cells}; {grown:.2f} sets of {one:.1f} MiB for each added step", flush=True)


if __name__ == "__main__":
    main()
