"""Bias of the meta-gradient under each surrogate, in a decision process whose every trajectory is enumerated.

    python tests/benchmarks/surrogate_bias.py [--seeds 3] [--batches 200] [--tasks 500] [--episodes 1 2 20]

Two objectives, J(theta) the expected discounted return of three time steps and alpha the step size 0.4:

* infinitely many episodes: J(theta + alpha grad J(theta)), where a task adapts by its true policy gradient;
* N episodes: the expectation of J(theta'(D)) over what N episodes D of the policy theta bring, theta'(D) = theta + alpha times the
  policy gradient estimated from them. Its derivative has a term grad log p(D) J(theta'(D)), since D depends on theta as well, that
  no surrogate of the support holds (E-MAML adds it: Stadie et al. 2018).

Biases are lengths of differences in per cent of the length of the exact derivative. "exact" columns sum over all trajectories, or
all sets of N of them, each with its probability. "sampled" columns are from the core's meta-gradient of sampled support and query
episodes: their mean's difference from the exact derivative, along the direction in which the exact bias lies (for none: along the
derivative), with its 95 % confidence interval. Beyond two episodes the sets are too many, and what is sampled stands against the
objective of infinitely many. Advantages are discounted returns, without a baseline or standardising.
"""

import argparse
import itertools

import numpy as np
import torch
from _tabular import ALPHA, F64, STATES, TIME, Process, derivatives, flat
from torch import Tensor

from fewshot.adaptation import Adaptation
from fewshot.applications.rl.learning.surrogates import SURROGATES
from fewshot.kernels import VectorizedKernels
from fewshot.metagradient import MetaParameters, inner_loop, meta_gradient
from fewshot.tasks import Rows

ENUMERATED = 2  # most episodes of which all sets are enumerated: 64^2
METHODS = ("first order", "reinforce", "lvc", "dice")
# Production's loss is a mean over time steps, the return a sum of them.
ADAPTATION = Adaptation(1, ALPHA * TIME, learn_step_sizes=False, half_trust=None)


class Estimator:
    """Production's meta-gradient of one method, in a process."""

    def __init__(self, process: Process, method: str) -> None:
        self.process = process
        self.order = "first" if method == "first order" else "exact"
        functional = process.functional("reinforce" if method == "first order" else method)
        self.kernels = VectorizedKernels(functional)
        self.parameters = MetaParameters(functional.moving, {}, ADAPTATION.init(functional.moving))

    def support(self, chosen: Tensor) -> Rows:
        """Trajectories of the initial policy; `chosen` has shape (tasks, episodes)."""
        acting = self.process.theta.expand(len(chosen), *self.process.theta.shape)
        return self.process.rows(chosen, torch.ones(chosen.shape, dtype=F64), acting)

    def adapted(self, support: Rows) -> Tensor:
        """Parameters after the step; shape (tasks, states, actions)."""
        path, _ = inner_loop(self.kernels, ADAPTATION, self.parameters, [support])
        return path[-1]["weight"].transpose(-1, -2)

    def gradient(self, support: Rows, query: Rows) -> Tensor:
        """Mean over tasks of the derivative of the return."""
        found = meta_gradient(self.kernels, ADAPTATION, self.parameters, [support], query, order=self.order)
        return -TIME * flat(found.gradient.moving["weight"])

    def expected(self, n: int) -> Tensor:
        """Expectation over all sets of n episodes."""
        process = self.process
        every = torch.arange(len(process.chance))
        chosen = torch.tensor(list(itertools.product(every.tolist(), repeat=n)))
        chance = process.weights(process.theta)[chosen].prod(1)
        support = self.support(chosen)
        acting = self.adapted(support)
        weight = torch.func.vmap(process.weights)(acting)
        query = process.rows(every.expand(len(chosen), -1), weight, acting)
        # The core weighs tasks equally. Losses are linear in advantages, which therefore carry the chance of a set.
        y = query.y.clone()
        y[..., -2] *= (len(chosen) * chance)[:, None]
        return self.gradient(support, query._replace(y=y))

    def sampled(self, n: int, n_tasks: int, generator: torch.Generator) -> Tensor:
        """One estimate, from n_tasks times n support and n query episodes."""
        process = self.process
        chances = process.weights(process.theta).expand(n_tasks, -1)
        support = self.support(torch.multinomial(chances, n, replacement=True, generator=generator))
        acting = self.adapted(support)
        chances = torch.func.vmap(process.weights)(acting)
        chosen = torch.multinomial(chances, n, replacement=True, generator=generator)
        return self.gradient(support, process.rows(chosen, torch.ones(chosen.shape, dtype=F64), acting))


def exact_infinite(process: Process) -> Tensor:
    """Derivative of the objective of infinitely many episodes."""

    def objective(theta: Tensor) -> Tensor:
        return process.value(theta + ALPHA * torch.func.grad(process.value)(theta))

    return torch.func.grad(objective)(process.theta).reshape(-1)


def exact_finite(process: Process, n: int) -> Tensor:
    """Derivative of the objective of n episodes."""
    chosen = torch.tensor(list(itertools.product(range(len(process.chance)), repeat=n)))

    def objective(theta: Tensor) -> Tensor:
        scores = torch.func.jacrev(lambda t: (process.log_probs(t) * process.advantages).sum(-1))(theta)
        adapted = theta + ALPHA * scores[chosen].mean(1)
        return (process.weights(theta)[chosen].prod(1) * torch.func.vmap(process.value)(adapted)).sum()

    return torch.func.grad(objective)(process.theta).reshape(-1)


def expected_infinite(process: Process, method: str) -> tuple[Tensor, float]:
    """Meta-gradient where a task adapts by infinitely many episodes, and the relative error of the expected Hessian."""
    kind = "reinforce" if method == "first order" else method
    gradient, hessian = derivatives(process, kind, process.weights(process.theta))
    hessian = 0 * hessian if method == "first order" else -hessian
    adapted = (process.theta.reshape(-1) - ALPHA * gradient).reshape(STATES, -1)
    outer = torch.func.grad(process.value)(adapted).reshape(-1)
    exact = torch.func.jacrev(torch.func.grad(process.value))(process.theta).reshape(len(hessian), -1)
    return outer + ALPHA * (hessian @ outer), float((hessian - exact).norm() / exact.norm())


def run(seed: int, args: argparse.Namespace) -> None:
    """Print the table of one process."""
    process, generator = Process(seed), torch.Generator().manual_seed(seed)
    infinite = exact_infinite(process)
    references = {n: exact_finite(process, n) if n <= ENUMERATED else infinite for n in args.episodes}
    print(f"\nprocess {seed}: error of the expected Hessian; bias of the meta-gradient, %")
    heads = [f"{n}, exact | sampled" if n <= ENUMERATED else f"{n}, sampled against infinite" for n in args.episodes]
    print(f"{'':12s} {'Hessian':>8s} {'infinite':>9s}", *(f"{head:>29s}" for head in heads))
    for method in METHODS:
        estimator = Estimator(process, method)
        of_infinite, error = expected_infinite(process, method)
        cells = [f"{error:8.3f}", f"{100 * float((of_infinite - infinite).norm() / infinite.norm()):9.3f}"]
        for n, exact in references.items():
            bias = (estimator.expected(n) if n <= ENUMERATED else of_infinite) - exact
            along = bias if bias.norm() > 1e-9 * exact.norm() else exact
            unit = along / along.norm()
            draws = torch.stack([estimator.sampled(n, args.tasks, generator) for _ in range(args.batches)])
            values = 100 * ((draws - exact) @ unit / exact.norm()).numpy()
            half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
            text = f"{values.mean():6.2f} ± {half:.2f}"
            cells.append(
                f"{f'{100 * float(bias.norm() / exact.norm()):6.2f} | {text}' if n <= ENUMERATED else text:>29s}"
            )
        print(f"{method:12s}", *cells, flush=True)


def main() -> None:
    """Run all processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="of processes")
    parser.add_argument("--batches", type=int, default=200, help="estimates of each mean")
    parser.add_argument(
        "--tasks", type=int, default=500, help="of each estimate, each with N support and N query episodes"
    )
    parser.add_argument("--episodes", type=int, nargs="+", default=[1, 2, 20])
    args = parser.parse_args()
    assert set(METHODS) - {"first order"} == set(SURROGATES)
    torch.set_num_threads(1)
    for seed in range(args.seeds):
        run(seed, args)


if __name__ == "__main__":
    main()
