"""Descriptions of the settings that estimators share, written once."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TypeVar

from ..algorithms import ALGORITHMS

__all__ = ["CLASSIFIER_PARAMETERS", "COMMON_PARAMETERS", "describe"]

T = TypeVar("T", bound=type)

COMMON_PARAMETERS = """
module : torch.nn.Module, callable or None, default=None
    The network: a module (copied with its weights; parameters with ``requires_grad=False`` stay frozen), a class or factory
    ``(n_in, n_out) -> module``, or None for a multi-layer perceptron.
hidden : sequence of int, default=(40, 40)
    Hidden widths of the built-in network.
activation : {"relu", "tanh", "gelu", "silu", "elu", "softplus"}, default="relu"
    Nonlinearity of the built-in network.
input_shape : sequence of int, default=None
    Shape in which `module` sees a row of X, for images and sequences.
loss : str, callable or None, default=None
    Regression: "squared_error" (None), "absolute_error", "huber", "poisson" (predicts rates; the network gives their log).
    Classification: "cross_entropy" (None), "binary_cross_entropy". Or ``(output, target) -> loss of each row``. Targets of
    the first three are standardised inside.
algorithm : str, default="auto"
    How it learns and adapts, by name: {algorithms}. "auto" mixes several: coefficients under the pooled model's Fisher information
    ("map"), Gaussian processes on the columns, a closed-form head on learned features ("ridge") and gradient steps ("maml"), each
    weighted by what it is worth, at the size of the support, on training tasks that were held out. What is said of the following
    settings is so for "maml"; an algorithm says what those are that are left at None. Where tasks come from a sampler, with
    ``label_space="per_task"`` and with other losses than squared, absolute, Huber's and cross-entropy, "auto" is "maml" with
    ``base=None``.
base : {"auto", None} or estimator, default="auto"
    The pooled model that adaptation starts from, and falls back to where adapting does not help: a mixture of linear and
    boosted models, whose settings and weights are chosen over held-out tasks; or a scikit-learn estimator. None: no pooled
    model, and an algorithm by name is just that.
inner_steps : int, default=None
    Gradient steps of an adaptation; None is 5.
inner_lr : float, default=None
    Step size, or its starting value where it is learned; None is 0.1.
learn_step_sizes : {None, "tensor", "parameter", False}, default=None
    None and "tensor": one step size per tensor and step is meta-learned, with a factor ``n / (n + c)`` of the support size
    n, c learned per tensor. "parameter": one per parameter (Meta-SGD). False: fixed, as in the paper.
inner_optimizer : {None, "gradient_descent", "momentum", "adam"}, default=None
    What a step does with the gradient; None is "gradient_descent". The meta-gradient goes through momentum and Adam's moments, too.
proximal : float, default=None
    Strength of a term ``proximal / 2 * ||theta - theta_0||^2`` in the support loss, which holds adapted parameters near the
    initialisation; None is 0.
adapted : {None, "all", "head", "body", "context"} or list of str, default=None
    Parameters that an adaptation moves: all (None), the last layer's (ANIL), all but those (BOIL), context parameters that the
    network gets beside its inputs (CAVIA), or name patterns.
n_context : int, default=None
    Number of context parameters with ``adapted="context"``; None is 32.
head_objective : {None, "predictive", "marginal"}, default=None
    What "ridge" and "dkt" learn over tasks: the density of the query given the support (None), or that of all rows together.
order : {None, "exact", "first", "annealed"}, default=None
    Order of the meta-gradient; None is "exact". "first" leaves out second derivatives; "annealed" does so for the first third of
    the meta-steps (MAML++).
multi_step_loss : bool, default=None
    Judge the query after every inner step, not the last one alone; weights of the earlier steps fall over the first part of the
    training (MAML++). None is False.
batch_norm : {None, "episode", "global", "transductive", "per_step"}, default=None
    What the batch statistics of a module's BatchNorm layers mean; None is "episode": those of a task's support normalise its
    support and its query. "global": running averages over meta-training; stable for few rows, off for a task whose inputs are
    shifted. "transductive": each batch has its own, the rows to predict too, so that predictions depend on which rows are
    predicted together. "per_step": running averages for each inner step.
shots : int or (int, int), default=(1, 20)
    Support rows of a training episode, in all; a range is drawn from for each.
shots_per_class : int or (int, int), default=None
    Support rows per class, in place of `shots`; classification only.
queries : int or None, default=20
    Query rows of a training episode at most; None takes all.
support : {"random", "first"}, default="random"
    Which rows of a task support it: any, or the first in the `time` given to `fit_meta`.
tasks_per_batch : int, default=16
    Tasks of one meta-step.
max_iter : int, default=None
    Meta-steps at most. None: one per training row, between 150 and 2,000; 3,000 with a sampler.
outer_lr : float, default=0.001
    Learning rate of the outer optimiser.
optimizer : str or callable, default="adam"
    "adam", "adamw", "sgd", or ``(parameters, lr=...) -> torch.optim.Optimizer``.
schedule : {"cosine", "constant"}, default="cosine"
    How the learning rate falls over the meta-steps.
max_grad_norm : float or None, default=10.0
    The meta-gradient is scaled down to this norm.
validation_tasks : int, float, sequence of task labels, "auto" or None, default="auto"
    Tasks held out to judge training, so many, as a fraction or by label. "auto" holds out a tenth from 50 tasks on: fewer are too
    noisy a judge, and worth more as training tasks. A sampler draws fresh ones.
early_stopping : bool, default=True
    Keep the state with the best validation loss, and stop when it no longer improves.
warm_start : bool, default=False
    Start from what an earlier call of `fit_meta` learned, for new tasks, or go on after an interruption.
engine : {"auto", "loop", "vectorized", "compiled"}, default="auto"
    What runs the network. "auto" begins with all tasks at once, or with one after another where that is impossible, and goes
    over to a compiled C++ program where the work repays the one or two seconds that a compiler needs beside it (the
    environment variable FEWSHOT_CACHE names the folder where programs are kept). "compiled" waits for the program at the
    start, and raises where there can be none. Gradients differ by rounding, which a training in single precision magnifies;
    with "auto" the change is at the same step each time, unless the machine is too busy to compile in time (the log says so).
verify : {"auto", True, False}, default="auto"
    Compare the vectorised meta-gradient with the plain loop's once, before training, and a compiled program's with that
    before its first use.
max_memory : float, default=None
    MiB for the parameters of the tasks in flight; smaller values take the tasks in smaller chunks. A compiled program has one
    task in flight per thread.
device : str, default="cpu"
    Where meta-training runs; adapting and predicting run on the CPU.
dtype : {"float32", "float64"}, default="float32"
    Precision of training and adaptation.
random_state : int, RandomState or None, default=None
    Source of all randomness.
verbose : int, default=0
    1 shows a progress bar.
""".replace("{algorithms}", ", ".join(f'"{name}"' for name in ALGORITHMS))

CLASSIFIER_PARAMETERS = """
label_space : {"shared", "per_task"}, default="shared"
    "shared": a label means the same in all tasks. "per_task": each task has classes of its own, and an adapted model knows
    those of its support.
class_weight : dict, "balanced" or None, default=None
    Weights of the classes, multiplied into the row weights.
"""


def describe(parameters: str) -> Callable[[T], T]:
    """Put the parameters section into a class's docstring, at ``{parameters}``."""

    def decorate(cls: T) -> T:
        section = "Parameters\n----------\n" + parameters.replace("\n\n", "\n").strip("\n")
        cls.__doc__ = (cls.__doc__ or "").replace("{parameters}", textwrap.indent(section, "    ").lstrip())
        return cls

    return decorate
