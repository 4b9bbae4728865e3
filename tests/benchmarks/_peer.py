"""One meta-step of exact second-order MAML in one other library, run by the interpreter of that library's environment.

    python tests/benchmarks/_peer.py --peer higher --problem sine --steps 5 --gradient gradient.npy
    python tests/benchmarks/_peer.py --versions

Each peer is written as its own documentation does it. ``loop`` is plain autograd, one task after another; ``func`` is
torch.func's vmap and grad as they are, ``func-fx`` the same traced with make_fx, ``func-inductor`` that trace
compiled and ``func-compile`` the whole step under torch.compile. Nothing here knows the project that is compared.
"""

import argparse
import importlib
import importlib.metadata
import platform
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from _problems import OUTER_LR, PROBLEMS, Batch, Problem, batches, initial_weights
from _timing import measure, report

Step = Callable[[Any], float]
LIBRARIES = ("numpy", "torch", "higher", "torchopt", "learn2learn", "jax", "optax")


def network_of(problem: Problem, support_statistics: bool = False) -> Any:
    """Build the torch network of a problem with its starting weights.

    Parameters
    ----------
    problem : Problem
        Whose network.
    support_statistics : bool, default=False
        Normalise all rows with the statistics of the support, which come first, in place of each batch with its own.
    """
    import torch
    from torch import nn

    class SupportBatchNorm(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            variance, mean = torch.var_mean(x[: problem.support], (0, 2, 3), correction=0, keepdim=True)
            column = (1, -1, 1, 1)
            return (x - mean) * (variance + 1e-5).rsqrt() * self.weight.view(column) + self.bias.view(column)

    layers: list[nn.Module] = []
    if problem.kind == "images":
        n_in, (channels, classes) = 1, problem.widths
        for _ in range(4):
            norm = nn.BatchNorm2d(channels, track_running_stats=False)
            layers += [nn.Conv2d(n_in, channels, 3, stride=2, padding=1)]
            layers += [SupportBatchNorm(channels) if support_statistics else norm, nn.ReLU()]
            n_in = channels
        layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]
    else:
        for n_in, n_out in pairwise(problem.widths):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        layers.pop()
    network = nn.Sequential(*layers)
    network.load_state_dict({name: torch.from_numpy(w) for name, w in initial_weights(problem).items()})
    return network


def higher_step(network: Any, loss: Any, problem: Problem, steps: int) -> Step:
    """Differentiable copies of the network, by higher."""
    import higher
    import torch

    optimizer = torch.optim.Adam(network.parameters(), OUTER_LR)
    inner = torch.optim.SGD(network.parameters(), lr=problem.inner_lr)

    def step(batch: Any) -> float:
        optimizer.zero_grad()
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            with higher.innerloop_ctx(network, inner, copy_initial_weights=False) as (copy, steps_of_copy):
                for _ in range(steps):
                    steps_of_copy.step(loss(copy(support_x), support_y))
                query_loss = loss(copy(query_x), query_y) / problem.tasks
                query_loss.backward()
                total += query_loss.item()
        optimizer.step()
        return total

    return step


def torchopt_step(network: Any, loss: Any, problem: Problem, steps: int) -> Step:
    """TorchOpt's differentiable optimiser, with the network's state put back after each task."""
    import torch
    import torchopt

    optimizer = torch.optim.Adam(network.parameters(), OUTER_LR)
    inner = torchopt.MetaSGD(network, lr=problem.inner_lr)

    def step(batch: Any) -> float:
        optimizer.zero_grad()
        total = 0.0
        weights = torchopt.extract_state_dict(network, by="reference")
        state = torchopt.extract_state_dict(inner, by="reference")
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            for _ in range(steps):
                inner.step(loss(network(support_x), support_y))
            query_loss = loss(network(query_x), query_y) / problem.tasks
            query_loss.backward()
            total += query_loss.item()
            torchopt.recover_state_dict(network, weights)
            torchopt.recover_state_dict(inner, state)
        optimizer.step()
        return total

    return step


def learn2learn_step(network: Any, loss: Any, problem: Problem, steps: int) -> Step:
    """learn2learn's clones."""
    import learn2learn
    import torch

    learner = learn2learn.algorithms.MAML(network, lr=problem.inner_lr, first_order=False)
    optimizer = torch.optim.Adam(learner.parameters(), OUTER_LR)

    def step(batch: Any) -> float:
        optimizer.zero_grad()
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            clone = learner.clone()
            for _ in range(steps):
                clone.adapt(loss(clone(support_x), support_y))
            query_loss = loss(clone(query_x), query_y) / problem.tasks
            query_loss.backward()
            total += query_loss.item()
        optimizer.step()
        return total

    return step


def loop_step(network: Any, loss: Any, problem: Problem, steps: int, support_statistics: bool = False) -> Step:
    """Plain autograd, one task after another: what the others are checked against."""
    import torch
    from torch.func import functional_call

    optimizer = torch.optim.Adam(network.parameters(), OUTER_LR)
    start = dict(network.named_parameters())

    def step(batch: Any) -> float:
        optimizer.zero_grad()
        total = 0.0
        for support_x, support_y, query_x, query_y in zip(*batch, strict=True):
            weights = start
            for _ in range(steps):
                support_loss = loss(functional_call(network, weights, (support_x,)), support_y)
                gradients = torch.autograd.grad(support_loss, list(weights.values()), create_graph=True)
                weights = {
                    name: w - problem.inner_lr * g for (name, w), g in zip(weights.items(), gradients, strict=True)
                }
            if support_statistics:
                together = torch.cat([support_x, query_x])
                output = functional_call(network, weights, (together,))[len(support_x) :]
            else:
                output = functional_call(network, weights, (query_x,))
            query_loss = loss(output, query_y) / problem.tasks
            query_loss.backward()
            total += query_loss.item()
        optimizer.step()
        return total

    return step


def func_step(network: Any, loss: Any, problem: Problem, steps: int, how: str, example: Any) -> Step:
    """torch.func: grad of vmap of a task's whole adaptation; `how` says what compiles it, if anything."""
    import torch
    from torch.func import functional_call, grad, grad_and_value, vmap
    from torch.fx.experimental.proxy_tensor import make_fx

    names, parameters = zip(*network.named_parameters(), strict=True)

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        return loss(functional_call(network, weights, (x,)), y)

    def adapted_loss(weights: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(steps):
            gradients = grad(loss_of)(weights, support_x, support_y)
            weights = {name: weights[name] - problem.inner_lr * gradients[name] for name in weights}
        return loss_of(weights, query_x, query_y)

    def mean_loss(weights: Any, *batch: Any) -> Any:
        return vmap(adapted_loss, (None, 0, 0, 0, 0))(weights, *batch).mean()

    def value_and_gradients(flat: Any, *batch: Any) -> Any:
        gradients, value = grad_and_value(mean_loss)(dict(zip(names, flat, strict=True)), *batch)
        return value, [gradients[name] for name in names]

    if how in ("func-fx", "func-inductor"):
        value_and_gradients = make_fx(value_and_gradients)([p.detach() for p in parameters], *example)
    if how in ("func-compile", "func-inductor"):
        value_and_gradients = torch.compile(value_and_gradients)
    optimizer = torch.optim.Adam(parameters, OUTER_LR, foreach=True)

    def step(batch: Any) -> float:
        with torch.no_grad():
            value, gradients = value_and_gradients([p.data for p in parameters], *batch)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimizer.step()
        return float(value)

    return step


PEERS: dict[str, Any] = {
    "loop": loop_step,
    "higher": higher_step,
    "torchopt": torchopt_step,
    "learn2learn": learn2learn_step,
    "func": func_step,
    "func-fx": func_step,
    "func-inductor": func_step,
    "func-compile": func_step,
    "jax": None,
}


def torch_run(peer: str, problem: Problem, steps: int, support_statistics: bool) -> tuple[Step, list[Any], Any]:
    """Return the step of a torch peer, its batches, and a function that reads its gradient."""
    import torch
    import torch.nn.functional as F

    torch.set_num_threads(1)
    network = network_of(problem, support_statistics)
    loss = F.mse_loss if problem.is_regression else F.cross_entropy
    data = [Batch(*map(torch.from_numpy, batch)) for batch in batches(problem)]
    options: tuple[Any, ...] = (support_statistics,) if peer == "loop" else ()
    if peer.startswith("func"):
        options = peer, data[0]
    step = PEERS[peer](network, loss, problem, steps, *options)
    return step, data, lambda: np.concatenate([p.grad.numpy().ravel() for p in network.parameters()])


def jax_run(problem: Problem, steps: int) -> tuple[Step, list[Any], Any]:
    """Return the step of JAX (jit of vmap of grad), its batches, and a function that reads its gradient."""
    import jax
    import jax.numpy as jnp
    import optax

    def network(weights: Any, x: Any) -> Any:
        layers = len(weights) // 2
        for layer in range(layers):
            x = x @ weights[f"{2 * layer}.weight"].T + weights[f"{2 * layer}.bias"]
            x = jax.nn.relu(x) if layer + 1 < layers else x
        return x

    def loss_of(weights: Any, x: Any, y: Any) -> Any:
        output = network(weights, x)
        if problem.is_regression:
            return ((output - y) ** 2).mean()
        return optax.softmax_cross_entropy_with_integer_labels(output, y).mean()

    def adapted_loss(weights: Any, support_x: Any, support_y: Any, query_x: Any, query_y: Any) -> Any:
        for _ in range(steps):
            gradients = jax.grad(loss_of)(weights, support_x, support_y)
            weights = jax.tree.map(lambda w, g: w - problem.inner_lr * g, weights, gradients)
        return loss_of(weights, query_x, query_y)

    def mean_loss(weights: Any, *batch: Any) -> Any:
        return jax.vmap(adapted_loss, (None, 0, 0, 0, 0))(weights, *batch).mean()

    optimizer = optax.adam(OUTER_LR)

    @jax.jit
    def update(weights: Any, state: Any, *batch: Any) -> Any:
        value, gradients = jax.value_and_grad(mean_loss)(weights, *batch)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(weights, updates), state, value, gradients

    weights = {name: jnp.asarray(w) for name, w in initial_weights(problem).items()}
    names, current = list(weights), {"weights": weights, "state": optimizer.init(weights), "gradients": weights}

    def step(batch: Any) -> float:
        current["weights"], current["state"], value, current["gradients"] = update(
            current["weights"], current["state"], *batch
        )
        return float(value)

    data = [Batch(*map(jnp.asarray, batch)) for batch in batches(problem)]
    return step, data, lambda: np.concatenate([np.asarray(current["gradients"][name]).ravel() for name in names])


def versions() -> dict[str, Any]:
    """Version of each library that imports, and why the others do not."""
    found: dict[str, str] = {"python": platform.python_version()}
    missing: dict[str, str] = {}
    for name in LIBRARIES:
        try:
            importlib.import_module(name)
            found[name] = importlib.metadata.version(name)
        except Exception as error:  # a library that is broken is as good as absent
            missing[name] = "not installed" if isinstance(error, ModuleNotFoundError) else f"does not import: {error}"
    return {"versions": found, "missing": missing}


def main() -> None:
    """Run one peer and print its result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--versions", action="store_true")
    parser.add_argument("--peer", choices=PEERS)
    parser.add_argument("--problem", choices=PROBLEMS)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.0)
    parser.add_argument("--gradient", type=Path)
    parser.add_argument("--support-statistics", action="store_true", help="batch norm by the support's rows; loop only")
    args = parser.parse_args()
    if args.versions:
        report(versions())
        return
    if not (args.peer and args.problem and args.gradient):
        parser.error("--peer, --problem and --gradient are needed")
    if args.support_statistics and args.peer != "loop":
        parser.error("--support-statistics is for the peer loop")
    problem = PROBLEMS[args.problem]
    if args.peer == "jax":
        if problem.kind == "images":
            parser.error("images are timed in the torch peers only")
        step, data, gradient = jax_run(problem, args.steps)
    else:
        step, data, gradient = torch_run(args.peer, problem, args.steps, args.support_statistics)
    report(measure(step, data, gradient, args.gradient, args.seconds, args.warm_up))


if __name__ == "__main__":
    main()
