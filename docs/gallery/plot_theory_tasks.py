r"""
Theory: what a few rows of a task can tell
==========================================

Two more closed forms: a boundary that rotates from task to task, which no head on a frozen feature follows and one inner step
does; and batch norm, whose statistics are noisy if they come from the task's few rows, and biased if they come from all tasks.
The mathematics is on the page :doc:`/theory`; lines are closed forms of :mod:`fewshot.theory`, dots come from the package's
estimators.
"""

# %%
# A rotating boundary
# -------------------
#
# The label of a point in the plane says on which side of a line through 0 it lies; the line's angle is the task. One model has
# only ever seen vertical boundaries: its feature :math:`x_1` is frozen, and it gets a new head from 50 rows. The other two are
# meta-trained over all angles and take *one* step on the 50 rows.

import matplotlib.pyplot as plt
import numpy as np
import torch

from fewshot import MAMLClassifier, MAMLRegressor
from fewshot.datasets import RotatingBoundaries
from fewshot.theory import frozen_feature_accuracy, one_step_accuracy

VERTICAL = -np.pi / 2  # direction of a boundary whose normal is the first axis
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A7A7A"
plain = {
    "algorithm": "maml",
    "base": None,
    "learn_step_sizes": False,
    "early_stopping": False,
    "engine": "vectorized",
    "verify": False,
    "random_state": 0,
}


def first_input(n_in, n_out):
    """Return the feature x_1, frozen, and a head."""
    feature = torch.nn.Linear(n_in, 1, bias=False).requires_grad_(False)
    feature.weight.copy_(torch.tensor([[1.0, 0.0]]))
    return torch.nn.Sequential(feature, torch.nn.Linear(1, n_out))


def linear(n_in, n_out):
    """Return a linear classifier through 0."""
    return torch.nn.Linear(n_in, n_out, bias=False)


frozen = MAMLClassifier(
    first_input, adapted="head", inner_steps=10, inner_lr=2.0, max_iter=100, outer_lr=0.01, **plain
).fit_meta(RotatingBoundaries(50, 50, angles=(VERTICAL, VERTICAL)))
line = MAMLClassifier(linear, inner_steps=1, inner_lr=2.0, max_iter=200, outer_lr=0.05, **plain).fit_meta(
    RotatingBoundaries(50, 50)
)
network = MAMLClassifier(
    hidden=(32,), activation="tanh", inner_steps=1, inner_lr=2.0, max_iter=250, outer_lr=0.01, **plain
).fit_meta(RotatingBoundaries(50, 50))


def accuracy(model, angle, n_tasks=200):
    """Accuracy after adaptation, on fresh tasks of one angle."""
    turned = RotatingBoundaries(50, 100, angles=(VERTICAL + angle, VERTICAL + angle))
    support, query = turned.sample(n_tasks, np.random.default_rng(1))
    labels = np.arange(n_tasks)
    adapted = model.adapt(support.x.reshape(-1, 2).numpy(), support.y.ravel().numpy(), tasks=labels.repeat(50))
    predicted = adapted.predict(query.x.reshape(-1, 2).numpy(), tasks=labels.repeat(100))
    return (predicted == query.y.ravel().numpy()).mean()


# %%
# The further the boundary turns, the less the frozen feature knows. At right angles it knows nothing, and its head is at chance;
# for the meta-trained models all angles are alike. (The line is that of the best head; one from 50 rows is a little worse.)

angles = np.radians([0, 15, 30, 45, 60, 75, 90])
fine = np.radians(np.linspace(0, 90, 91))
fig, ax = plt.subplots(figsize=(5.8, 4.0), layout="constrained")
ax.axhline(0.5, color=GREY, linewidth=1, linestyle=(0, (1, 1.5)))
ax.text(0, 0.505, "chance", color=GREY)
ax.plot(np.degrees(fine), frozen_feature_accuracy(fine), color=ORANGE)
ax.axhline(one_step_accuracy(50), color=BLUE)
for model, marker, colour, label, outline in (
    (network, "^", GREEN, "MAML, tanh network: one step", {"markersize": 10, "markerfacecolor": "none"}),
    (line, "o", BLUE, "MAML, linear: one step", {"markersize": 4}),
    (frozen, "s", ORANGE, "frozen feature, new head: ten steps", {}),
):
    found = [accuracy(model, angle) for angle in angles]
    ax.plot(np.degrees(angles), found, marker, color=colour, label=label, **outline)
    print(f"{label}: {found[-1]:.3f} at right angles")
ax.set(
    xlabel="angle between the boundary and those of the frozen feature, degrees",
    ylabel="accuracy on new rows of the task",
    title="After adapting to 50 rows",
    xticks=np.degrees(angles),
    ylim=(0.45, 1.02),
)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.12))

# %%
# Batch norm: noise or bias
# -------------------------
#
# A network that is one batch norm sees inputs whose mean differs from task to task, and should give the input without that mean.
# With ``batch_norm="episode"`` it estimates mean and variance from the support: the error falls with the support size, whatever
# the shift. With ``"global"`` it has the statistics of all tasks: the error grows with the shift, whatever the support size.
# Where the lines cross is :func:`~fewshot.theory.crossover_support_size`. (The layer's weight is meta-trained here.)

from fewshot.theory import ShiftedInputs, crossover_support_size, episode_norm_error, global_norm_error


def batch_norm(n_in, n_out):
    """Return a network that is nothing but a batch norm."""
    return torch.nn.BatchNorm1d(1)


def norm_error(strategy, n, shift_ratio, n_tasks=2000):
    """Meta-train, then the mean squared error on fresh tasks, each with the batch statistics that it adapts to."""
    model = MAMLRegressor(
        batch_norm,
        batch_norm=strategy,
        inner_steps=0,
        inner_lr=0.1,
        outer_lr=0.02,
        max_iter=150,
        tasks_per_batch=128,
        **plain,
    ).fit_meta(ShiftedInputs(n, 20, shift_ratio))
    support, query = ShiftedInputs(n, 20, shift_ratio).sample(n_tasks, np.random.default_rng(1))
    labels = np.arange(n_tasks)
    adapted = model.adapt(support.x.reshape(-1, 1).numpy(), support.y.ravel().numpy(), tasks=labels.repeat(n))
    predicted = adapted.predict(query.x.reshape(-1, 1).numpy(), tasks=labels.repeat(20))
    return ((predicted - query.y.ravel().numpy()) ** 2).mean()


sizes, ratios = [5, 8, 16, 32, 64, 128], {0.02: PINK, 0.1: GREEN, 0.5: ORANGE}
many = np.arange(4, 161)
fig, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
ax.loglog(many, [episode_norm_error(n, learned_weight=True) for n in many], color=BLUE)
ax.loglog(sizes, [norm_error("episode", n, 0.1) for n in sizes], "o", color=BLUE)
ax.text(36, 0.055, '"episode", any shift', color=BLUE)
for ratio, colour in ratios.items():
    closed = global_norm_error(ratio, learned_weight=True)
    ax.loglog([4, 160], [closed, closed], color=colour)
    ax.loglog([8, 32], [norm_error("global", n, ratio) for n in (8, 32)], "s", color=colour)
    ax.text(175, closed, f'"global",\nshift {ratio:g}', color=colour, va="center")
    n = crossover_support_size(ratio, learned_weight=True)
    error = episode_norm_error(n, learned_weight=True)
    ax.plot(n, error, "o", markersize=10, markerfacecolor="none", markeredgecolor="black")
    ax.annotate(f"{n} rows", (n, error), xytext=(-7, -5), textcoords="offset points", ha="right", va="top")
ax.set(
    xlabel="support rows",
    ylabel="squared error of a normalised row",
    title="Batch norm: noisy statistics or biased ones\n(rings: from here on the episode's own are better)",
)
ax.set_xticks([4, 8, 16, 32, 64, 128], ["4", "8", "16", "32", "64", "128"])
ax.minorticks_off()
ax.set_yticks([0.01, 0.03, 0.1, 0.3], ["0.01", "0.03", "0.1", "0.3"])
ax.spines[["top", "right"]].set_visible(False)

# sphinx_gallery_thumbnail_number = 1
