"""One measurement of fewshot itself, in a process of its own; speed.py says which and collects the results.

python tests/benchmarks/_ours.py step --problem sine --steps 5 --gradient gradient.npy --mode vectorized
"""

import argparse
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import adapt
import numpy as np
import torch
from _problems import OUTER_LR, PROBLEMS, Batch, Problem, batches, initial_weights
from _timing import WARM_UP_STEPS, measure, report
from torch import nn

from fewshot import MAMLRegressor
from fewshot.adaptation import Adaptation
from fewshot.datasets import Sinusoids
from fewshot.engine import Engine
from fewshot.functional import FunctionalModule
from fewshot.losses import cross_entropy, squared_error
from fewshot.metagradient import MetaParameters
from fewshot.networks import mlp
from fewshot.tasks import Rows
from fewshot.training.outer import OuterOptimizer

SINE = PROBLEMS["sine"]
SINE_STEPS = 5
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
TASKS_AT_A_TIME = (16, 64, 160, 640)  # of the matrix products; the fastest counts


def network_of(problem: Problem) -> nn.Module:
    """Build the network of a problem with its starting weights."""
    if problem.kind == "images":
        channels, classes = problem.widths
        layers: list[nn.Module] = []
        for n_in in (1, channels, channels, channels):
            layers += [nn.Conv2d(n_in, channels, 3, stride=2, padding=1)]
            layers += [nn.BatchNorm2d(channels, track_running_stats=False), nn.ReLU()]
        network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    else:
        network = mlp(problem.widths[0], problem.widths[-1], hidden=problem.widths[1:-1])
    network.load_state_dict({name: torch.from_numpy(w) for name, w in initial_weights(problem).items()})
    return network


def rows_of(x: np.ndarray, y: np.ndarray) -> Rows:
    """Rows of weight 1."""
    return Rows(torch.from_numpy(x), torch.from_numpy(y), torch.ones(x.shape[:2]))


def meta_step(
    problem: Problem, steps: int, mode: Any, first: Batch
) -> tuple[Callable[[tuple[Rows, Rows]], float], Callable[[], np.ndarray]]:
    """Return one meta-step on the engine with the training loop's optimiser, and a function that reads its gradient."""
    row_loss = squared_error if problem.is_regression else cross_entropy
    functional = FunctionalModule(network_of(problem), row_loss, "all", problem.widths[-1])
    adaptation = Adaptation(inner_steps=steps, inner_lr=problem.inner_lr, learn_step_sizes=False)
    started = MetaParameters(functional.moving, functional.shared, adaptation.init(functional.moving))
    optimizer = OuterOptimizer(started, "adam", (OUTER_LR, OUTER_LR), None)
    engine = Engine(functional, adaptation, mode=mode)
    support, query = rows_of(*first[:2]), rows_of(*first[2:])
    engine.prepare(optimizer.parameters, [support] * steps, query, "exact")
    taken, latest = 0, None

    def step(episodes: tuple[Rows, Rows]) -> float:
        nonlocal taken, latest
        support, query = episodes
        found = engine.gradient(optimizer.parameters, [support] * steps, query, "exact", taken)
        latest = found
        optimizer.step(found.vector, 1.0)
        taken += 1
        return found.mean_loss()

    def gradient() -> np.ndarray:
        assert latest is not None
        found = latest.gradient.moving
        return np.concatenate([found[name].numpy().ravel() for name in initial_weights(problem)])

    return step, gradient


def time_step(args: argparse.Namespace) -> dict[str, Any]:
    """Time meta-steps on a problem; the first one includes choosing and checking the kernels."""
    problem = PROBLEMS[args.problem]
    arrays = batches(problem)
    began = time.perf_counter()
    step, gradient = meta_step(problem, args.steps, args.mode, arrays[0])
    prepared = time.perf_counter() - began
    data = [(rows_of(*batch[:2]), rows_of(*batch[2:])) for batch in arrays]
    result = measure(step, data, gradient, args.gradient, args.seconds, args.warm_up)
    return result | {"first_s": prepared + result["first_s"]}


def time_bare_steps(args: argparse.Namespace) -> dict[str, Any]:
    """Time many meta-steps of the engine one after another, after a warm-up."""
    arrays = batches(SINE)
    step, _ = meta_step(SINE, SINE_STEPS, args.mode, arrays[0])
    data = [(rows_of(*batch[:2]), rows_of(*batch[2:])) for batch in arrays]
    taken, began = 0, time.perf_counter()
    while taken < WARM_UP_STEPS or time.perf_counter() - began < args.warm_up:
        step(data[taken % len(data)])
        taken += 1
    clock = CLOCKS[args.clock]
    began = clock()
    for k in range(args.meta_steps):
        step(data[k % len(data)])
    return {"seconds": clock() - began}


def time_fit(args: argparse.Namespace) -> dict[str, Any]:
    """Time a whole fit on sinusoids, from the call to the fitted estimator: sampling, validation and all."""
    model = MAMLRegressor(
        hidden=SINE.widths[1:-1],
        inner_steps=SINE_STEPS,
        inner_lr=SINE.inner_lr,
        learn_step_sizes=False,
        tasks_per_batch=SINE.tasks,
        max_iter=args.meta_steps,
        outer_lr=OUTER_LR,
        engine=args.mode,
        random_state=0,
        algorithm="maml",
        base=None,
    )
    sampler = Sinusoids(shots=SINE.support, queries=SINE.query)
    clock = CLOCKS[args.clock]
    began = clock()
    model.fit_meta(sampler)
    seconds = clock() - began
    if model.n_iter_ != args.meta_steps:
        raise SystemExit(f"training stopped early, after {model.n_iter_} of {args.meta_steps} meta-steps")
    return {"seconds": seconds}


def gradient_products(n_tasks: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """List the matrix products of one gradient of the network of adapt.py, with room for each result."""
    widths = (adapt.FEATURES, *adapt.HIDDEN, adapt.CLASSES)
    products = []
    for layer, (n_in, n_out) in enumerate(pairwise(widths)):
        x, w = torch.randn(n_tasks, adapt.ROWS, n_in), torch.randn(n_tasks, n_in, n_out)
        of_output = torch.randn(n_tasks, adapt.ROWS, n_out)
        pairs = [(x, w), (x.mT, of_output)]
        if layer:  # no one asks for the gradient in the features
            pairs.append((of_output, w.mT))
        products += [(a, b, torch.empty(n_tasks, a.shape[1], b.shape[2])) for a, b in pairs]
    return products


def product_rate(clock: Callable[[], float], seconds: float = 0.5) -> float:
    """Floating-point operations a second that batched matrix products of these shapes reach on this machine."""
    rates = []
    for n_tasks in TASKS_AT_A_TIME:
        products, times = gradient_products(n_tasks), []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            start = clock()
            for a, b, out in products:
                torch.bmm(a, b, out=out)
            times.append(clock() - start)
        rates.append(operations(products) / statistics.median(times))
    return max(rates)


def operations(products: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> int:
    """Additions and multiplications of batched matrix products."""
    return sum(2 * out.numel() * a.shape[2] for a, _, out in products)


def time_adapt(args: argparse.Namespace) -> dict[str, Any]:
    """Time adapting to many tasks, beside the rate of bare matrix products of the same shapes."""
    clock, work = CLOCKS[args.clock], operations(gradient_products(1)) * adapt.TASKS * adapt.STEPS
    return {
        "seconds": statistics.median(adapt.times_of_adapt(engine=args.mode, clock=clock)),
        "gflop": work / 1e9,
        "product_gflop_s": product_rate(clock) / 1e9,
    }


MEASUREMENTS = {"step": time_step, "bare": time_bare_steps, "fit": time_fit, "adapt": time_adapt}


def main() -> None:
    """Make one measurement and print its result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("measurement", choices=MEASUREMENTS)
    parser.add_argument("--mode", default="compiled", help="the engine's kernels")
    parser.add_argument("--problem", choices=PROBLEMS, default="sine")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.0)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="of all but the measurement step, which has both"
    )
    parser.add_argument("--meta-steps", type=int, default=10_000)
    parser.add_argument("--gradient", type=Path)
    args = parser.parse_args()
    if args.measurement == "step" and args.gradient is None:
        parser.error("--gradient is needed")
    torch.set_num_threads(1)
    report(MEASUREMENTS[args.measurement](args))


if __name__ == "__main__":
    main()
