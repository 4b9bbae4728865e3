r"""
Theory: what a step does
========================

Three closed forms that the package reproduces: the meta-gradient as a product of Hessians, the direction of the first step, and
a step as Bayes' rule. The mathematics is on the page :doc:`/theory`; here are the pictures. Lines are closed forms of
:mod:`fewshot.theory`, dots come from the package's own engine and estimators.
"""

# %%
# First-order MAML leaves out a product
# -------------------------------------
#
# The exact meta-gradient is the query gradient times one factor :math:`I - \alpha H` for each inner step, and the error of
# first-order MAML is what these factors take off. Three tasks, a network with 17 weights, and the Hessian of the support loss
# before every step, written out.

import numpy as np
import torch
from torch.func import functional_call, jacrev, vmap

from fewshot.adaptation import Adaptation
from fewshot.engine import Engine
from fewshot.functional import FunctionalModule
from fewshot.losses import squared_error
from fewshot.metagradient import MetaParameters, inner_loop
from fewshot.tasks import Rows
from fewshot.theory import first_order_error, meta_gradient_product

torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double()
functional = FunctionalModule(network, squared_error, "all", n_outputs=1)


def rows(n):
    """Draw three tasks of n rows."""
    x, y = torch.randn(3, n, 2, dtype=torch.float64), torch.randn(3, n, 1, dtype=torch.float64)
    return Rows(x, y, torch.ones(3, n, dtype=torch.float64))


support, query = rows(8), rows(8)


def flat(tensors):
    """One vector of all weights for each task."""
    return torch.cat([t.reshape(3, -1) for t in tensors.values()], dim=1)


def support_hessians(theta):
    """Second derivatives of each task's support loss in all weights."""

    def loss(vector, x, y):
        parts = vector.split([t[0].numel() for t in theta.values()])
        weights = {name: part.view_as(t[0]) for (name, t), part in zip(theta.items(), parts, strict=True)}
        return ((functional_call(network, weights, (x,)) - y) ** 2).mean()

    return vmap(jacrev(jacrev(loss)))(flat(theta), support.x, support.y).detach().numpy()


def relative_errors(steps, alpha):
    """Size of the first-order error beside the exact meta-gradient: by the engine, and by the closed form."""
    adaptation = Adaptation(steps, alpha, learn_step_sizes=False)
    parameters = MetaParameters(functional.moving, {}, adaptation.init(functional.moving))
    engine = Engine(functional, adaptation, mode="loop")
    exact, first = (
        engine.gradient(parameters, [support] * steps, query, order, seed=0).vector.numpy()
        for order in ("exact", "first")
    )
    path, _ = inner_loop(engine.kernels, adaptation, parameters, [support] * steps)
    of_query = flat(engine.kernels.query_gradient(path[-1], {}, support, query, 0)[1]).numpy()
    hessians = np.stack([support_hessians(theta) for theta in path[:-1]], axis=1)
    product = np.mean([meta_gradient_product(h, alpha, g) for h, g in zip(hessians, of_query, strict=True)], axis=0)
    error = np.mean([first_order_error(h, alpha, g) for h, g in zip(hessians, of_query, strict=True)], axis=0)
    norm = np.linalg.norm
    return norm(first - exact) / norm(exact), norm(error) / norm(product)


alphas = np.geomspace(0.003, 0.3, 7)
found = {steps: np.array([relative_errors(steps, alpha) for alpha in alphas]) for steps in (1, 3, 10)}

# %%
# With one step, or a few short ones, the error is about proportional to the step size times their number, and small. It is not
# small where adaptation goes far.

import matplotlib.pyplot as plt

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A7A7A"


def tidy(ax, grid="both"):
    """Leave out what says nothing."""
    ax.grid(axis=grid, color="#E4E4E4", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
for (steps, errors), colour in zip(found.items(), (BLUE, ORANGE, GREEN), strict=True):
    ax.loglog(alphas, errors[:, 1], color=colour)
    ax.loglog(alphas, errors[:, 0], "o", color=colour, label=f"{steps} inner step{'s' * (steps > 1)}")
ax.set(
    xlabel="inner step size",
    ylabel="first-order error / exact meta-gradient",
    title="What first-order MAML leaves out\n(lines: product of Hessians; dots: the engine)",
)
ax.legend(frameon=False)
tidy(ax)

worst = max(abs(errors[:, 0] / errors[:, 1] - 1).max() for errors in found.values())
print(f"largest relative difference of dots and lines: {worst:.0e}")

# %%
# The first step turns towards the optima
# ---------------------------------------
#
# Tasks of two parameters, whose loss is nine times as curved in one direction as in the other, and whose optima differ along the
# flat one, and a little across it. Before meta-training the first step of every task leads away to the side. Meta-training moves
# the initialisation to where what is left to go is mostly the flat direction, and there steps go straight. Only tasks whose
# optimum is next to the initialisation by then, and which have nowhere to go, may stay behind.

from fewshot import MAMLRegressor
from fewshot.theory import FixedEpisodes, gradient_alignment, least_alignment, quadratic_rows

rng = np.random.default_rng(0)
hessian = np.diag([1.0, 9.0])
optima = np.array([1.0, 1.0]) + rng.normal(size=(12, 2)) * [1.0, 0.03]
tasks = quadratic_rows(np.tile(hessian, (12, 1, 1)), optima)
start = np.array([-2.0, 0.0])


def from_start(n_in, n_out):
    """Return a linear model whose weights are those that meta-training should start from."""
    layer = torch.nn.Linear(n_in, n_out, bias=False)
    layer.weight.data = torch.tensor(start).reshape(1, 2)
    return layer


plain = {
    "algorithm": "maml",
    "base": None,
    "learn_step_sizes": False,
    "optimizer": "sgd",
    "schedule": "constant",
    "max_grad_norm": None,
    "early_stopping": False,
    "engine": "vectorized",
    "verify": False,
    "dtype": "float64",
    "random_state": 0,
}
model = MAMLRegressor(from_start, inner_steps=1, inner_lr=0.05, outer_lr=0.3, max_iter=200, **plain)
landed = model.fit_meta(FixedEpisodes(tasks, tasks)).module_.weight.detach().numpy().ravel()

cosines = []
fig, (plane, pairs) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", width_ratios=(2, 1))
grid = np.stack(np.meshgrid(np.linspace(-2.6, 3.2, 90), np.linspace(-0.6, 2.0, 90)), axis=-1)
loss = np.einsum("...i,ij,...j->...", grid - [1.0, 1.0], hessian, grid - [1.0, 1.0]) / 2
plane.contour(grid[..., 0], grid[..., 1], loss, levels=[0.3, 1.2, 2.7, 4.8, 7.5], colors="#D0D0D0", linewidths=0.8)
for point, colour, when in ((start, ORANGE, "before"), (landed, BLUE, "after")):
    gradients = (point - optima) @ hessian
    cosines.append(gradient_alignment(gradients, optima, point))
    for end in point - 0.1 * gradients if when == "before" else point - 0.6 * gradients:
        arrow = {"arrowstyle": "->", "color": colour, "shrinkA": 0, "shrinkB": 0}
        plane.annotate("", end, point, arrowprops=arrow)
    plane.plot(
        *point, "s", color=colour, markersize=8, markeredgecolor="white", label=f"initialisation {when} meta-training"
    )
plane.plot(*optima.T, "o", color="black", markersize=4, label="optima of the tasks")
plane.set(xlabel="first parameter", ylabel="second parameter", title="First steps (not to scale)", aspect="equal")
pairs.plot([0, 1], cosines, color=GREY, linewidth=0.8, marker="")
pairs.plot(np.zeros(12), cosines[0], "o", color=ORANGE)
pairs.plot(np.ones(12), cosines[1], "o", color=BLUE)
pairs.axhline(least_alignment(hessian), color=GREY, linestyle=(0, (4, 1.5)), linewidth=1)
pairs.text(0.5, least_alignment(hessian) - 0.01, "least possible", color=GREY, ha="center", va="top")
pairs.set(
    xticks=[0, 1],
    xticklabels=["before", "after"],
    xlim=(-0.3, 1.3),
    ylim=(0.5, 1.02),
    title="Cosine with the way there",
)
for ax in (plane, pairs):
    ax.spines[["top", "right"]].set_visible(False)
fig.legend(frameon=False, ncols=3, loc="outside lower center")
print(f"median cosine: {np.median(cosines[0]):.2f} before meta-training, {np.median(cosines[1]):.2f} after")

# %%
# A step is Bayes' rule
# ---------------------
#
# For the mean of normal rows, one step on the summed negative log-likelihood is the estimate under a normal prior at the
# initialisation, whose variance follows from the step size. So a meta-trained estimator with the right step size adapts like the
# closed posterior. Here noise and prior have the variance 1: few rows move the estimate a little, many rows all the way.

from fewshot.theory import gaussian_posterior, step_of_prior

NOISE, PRIOR = 1.0, 1.0
mean_of_rows = 2.0
numbers = [1, 2, 4, 8, 16, 32]


def constant_model(n_in, n_out):
    """Return a model whose only weight, at an input of 1, is the mean."""
    return torch.nn.Linear(n_in, n_out, bias=False)


steps, posteriors = [], []
for n in numbers:

    def summed(output, target, n=n):
        """Negative log-likelihood of a row, times their number, since the package takes the mean over rows."""
        return n * (output - target).pow(2).squeeze(-1) / (2 * NOISE)

    centred = torch.tensor(rng.normal(size=(20, n)))
    episodes = Rows(torch.ones(20, n, 1).double(), centred - centred.mean(), torch.ones(20, n).double())
    alpha = step_of_prior(PRIOR, n, NOISE)
    rate = 0.5 / (n / NOISE * (1 - alpha * n / NOISE) ** 2)
    model = MAMLRegressor(
        constant_model, loss=summed, inner_steps=1, inner_lr=alpha, outer_lr=rate, max_iter=50, **plain
    ).fit_meta(FixedEpisodes(episodes, episodes))
    y = mean_of_rows + np.linspace(-1, 1, n) * (n > 1)
    steps.append(model.adapt(np.ones((n, 1)), y).predict([[1.0]])[0])
    posteriors.append(gaussian_posterior(y, 0.0, PRIOR, NOISE))

mean, variance = np.array(posteriors).T
fig, ax = plt.subplots(figsize=(5.6, 3.8), layout="constrained")
ax.axhline(mean_of_rows, color=GREY, linestyle=(0, (4, 1.5)), linewidth=1)
ax.axhline(0, color=GREY, linestyle=(0, (1, 1.5)), linewidth=1)
ax.text(1, mean_of_rows + 0.06, "mean of the rows", color=GREY)
ax.text(32, 0.06, "initialisation = prior mean", color=GREY, ha="right")
ax.fill_between(numbers, mean - variance**0.5, mean + variance**0.5, color=BLUE, alpha=0.15, linewidth=0)
ax.plot(numbers, mean, color=BLUE, label="posterior mean, ± one standard deviation")
ax.plot(numbers, steps, "o", color=ORANGE, label="after one step of the estimator")
ax.set_xscale("log", base=2)
ax.set_xticks(numbers, [str(n) for n in numbers])
ax.set(xlabel="support rows", ylabel="estimate of the mean", title="One step is Bayes' rule", ylim=(-0.2, 2.9))
ax.legend(frameon=False, loc="upper right")
tidy(ax, "y")

# sphinx_gallery_thumbnail_number = 2
