"""The problems on which meta-steps are timed, as arrays: the same starting weights and batches for every library.

Needs numpy alone, since libraries of other environments read it too.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["OUTER_LR", "PROBLEMS", "WORK", "Batch", "Problem", "batches", "initial_weights"]

Floats = npt.NDArray[np.float32]
OUTER_LR = 1e-3  # of Adam


class Batch(NamedTuple):
    """Episodes of one meta-step.

    Parameters
    ----------
    support_x, query_x : ndarray of float32, shape (tasks, rows, *features)
        Inputs.
    support_y, query_y : ndarray, shape (tasks, rows, 1) of float32 or (tasks, rows) of int64
        Targets or class codes.
    """

    support_x: Floats
    support_y: npt.NDArray[np.generic]
    query_x: Floats
    query_y: npt.NDArray[np.generic]


@dataclass(frozen=True)
class Problem:
    """Sizes of one problem.

    Parameters
    ----------
    kind : {"sinusoids", "half-spaces", "images"}
        How rows are drawn; the first is regression, the others classification.
    widths : tuple of int
        Inputs, hidden layers and outputs of a ReLU network; for images (channels of the four convolutions, classes).
    tasks, support, query : int
        Tasks of a meta-step, and rows of each.
    inner_lr : float
        Size of an inner step.
    """

    kind: str
    widths: tuple[int, ...]
    tasks: int
    support: int
    query: int
    inner_lr: float

    @property
    def is_regression(self) -> bool:
        """Whether the loss is the squared error; otherwise it is the cross-entropy."""
        return self.kind == "sinusoids"

    def describe(self) -> str:
        """Sizes in one line."""
        network = "4 convolutions" if self.kind == "images" else "-".join(map(str, self.widths))
        return f"{network}, {self.tasks} tasks, {self.support} + {self.query} rows"


PROBLEMS = {
    "sine": Problem("sinusoids", (1, 40, 40, 1), tasks=25, support=10, query=10, inner_lr=0.01),
    "tab": Problem("half-spaces", (30, 64, 64, 2), tasks=32, support=16, query=16, inner_lr=0.05),
    "wide": Problem("half-spaces", (64, 256, 256, 2), tasks=64, support=32, query=32, inner_lr=0.05),
    "conv4": Problem("images", (32, 5), tasks=8, support=5, query=75, inner_lr=0.05),  # 5-way 1-shot, 28 x 28
}
# Problem and number of inner steps of each line of the table.
WORK = (("sine", 1), ("sine", 5), ("tab", 5), ("wide", 5), ("conv4", 5))


def initial_weights(problem: Problem) -> dict[str, Floats]:
    """Starting weights by the names they have in a ``torch.nn.Sequential``; the same on every call."""
    rng = np.random.default_rng(0)
    if problem.kind == "images":
        return _convolutional(*problem.widths, rng)
    weights = {}
    for layer, (n_in, n_out) in enumerate(pairwise(problem.widths)):
        normal = rng.standard_normal((n_out, n_in)).astype(np.float32)
        weights[f"{2 * layer}.weight"] = normal * np.float32((2 / n_in) ** 0.5)
        weights[f"{2 * layer}.bias"] = np.zeros(n_out, np.float32)
    return weights


def _convolutional(channels: int, classes: int, rng: np.random.Generator) -> dict[str, Floats]:
    """Uniform within one over the square root of the fan-in, as torch's own layers start."""

    def uniform(*shape: int, fan_in: int) -> Floats:
        return (rng.uniform(-1, 1, shape) / fan_in**0.5).astype(np.float32)

    weights, n_in = {}, 1
    for block in range(4):
        convolution, norm = 3 * block, 3 * block + 1
        weights[f"{convolution}.weight"] = uniform(channels, n_in, 3, 3, fan_in=9 * n_in)
        weights[f"{convolution}.bias"] = uniform(channels, fan_in=9 * n_in)
        weights[f"{norm}.weight"], weights[f"{norm}.bias"] = (
            np.ones(channels, np.float32),
            np.zeros(channels, np.float32),
        )
        n_in = channels
    weights["14.weight"], weights["14.bias"] = uniform(classes, n_in, fan_in=n_in), uniform(classes, fan_in=n_in)
    return weights


def batches(problem: Problem, n: int = 8) -> list[Batch]:
    """Draw `n` batches; the same on every call."""
    rng = np.random.default_rng(1)
    return [_batch(problem, rng) for _ in range(n)]


def _batch(problem: Problem, rng: np.random.Generator) -> Batch:
    tasks = problem.tasks

    def inputs(rows: int) -> Floats:
        if problem.kind == "images":
            return rng.standard_normal((tasks, rows, 1, 28, 28)).astype(np.float32)
        shape = (tasks, rows, problem.widths[0])
        drawn = rng.uniform(-5, 5, shape) if problem.kind == "sinusoids" else rng.standard_normal(shape)
        return drawn.astype(np.float32)

    support, query = inputs(problem.support), inputs(problem.query)
    if problem.kind == "sinusoids":
        amplitude, phase = rng.uniform(0.1, 5, (tasks, 1, 1)), rng.uniform(0, np.pi, (tasks, 1, 1))

        def target(x: Floats) -> npt.NDArray[np.generic]:
            return (amplitude * np.sin(x + phase)).astype(np.float32)

    elif problem.kind == "images":
        classes = problem.widths[-1]

        def target(x: Floats) -> npt.NDArray[np.generic]:
            return np.tile(np.arange(classes).repeat(x.shape[1] // classes), (tasks, 1)).astype(np.int64)

    else:
        normal = rng.standard_normal((tasks, problem.widths[0], 1))

        def target(x: Floats) -> npt.NDArray[np.generic]:
            return ((x @ normal)[..., 0] > 0).astype(np.int64)

    return Batch(support, target(support), query, target(query))
