r"""
Theory: where meta-training lands
=================================

Where every loss is quadratic, the best initialisation has a closed form. Three pictures show meta-training going there: linear
regression, what a task's weight in the initialisation is, and what an initialisation learned from few tasks is worth. The
mathematics is on the page :doc:`/theory`; lines and stars are closed forms of :mod:`fewshot.theory`, dots come from the
package's estimator.
"""

# %%
# Linear regression
# -----------------
#
# Six tasks with two coefficients each. Their inputs have covariances of their own, so that one inner step takes some of them
# further than others, and in some directions further than in others. Meta-training ends where the closed form says, at a mean of
# the optima with *matrix* weights; that is neither their plain mean nor the pooled regression.
# (:class:`~fewshot.theory.FixedEpisodes` hands out the same rows at every meta-step, so that nothing is left to chance.)

import matplotlib.pyplot as plt
import numpy as np
import torch

from fewshot import MAMLRegressor
from fewshot.tasks import Rows
from fewshot.theory import FixedEpisodes, adapted_linear, linear_initialization, squared_error_moments

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A7A7A"
ALPHA = 0.3

rng = np.random.default_rng(1)
coefficients = rng.uniform([-1.0, -1.5], [2.5, 1.5], size=(6, 2))
scale = rng.uniform(0.3, [1.0, 1.6], size=(6, 1, 2))
x = rng.normal(size=(6, 20, 2)) * scale
y = np.einsum("trf,tf->tr", x, coefficients)
rows = Rows(torch.tensor(x), torch.tensor(y), torch.ones(6, 20).double())


def without_intercept(n_in, n_out):
    """Return a linear model that starts at a corner of the picture."""
    layer = torch.nn.Linear(n_in, n_out, bias=False)
    layer.weight.data = torch.full((1, n_in), -1.5)
    return layer


def model(inner_lr, outer_lr, max_iter, **settings):
    """One inner step, and plain gradient descent outside."""
    return MAMLRegressor(
        without_intercept,
        inner_steps=1,
        inner_lr=inner_lr,
        learn_step_sizes=False,
        optimizer="sgd",
        outer_lr=outer_lr,
        schedule="constant",
        max_grad_norm=None,
        max_iter=max_iter,
        early_stopping=False,
        engine="vectorized",
        verify=False,
        dtype="float64",
        random_state=0,
        **settings,
    )


learner, path = model(ALPHA, 0.5, max_iter=5, warm_start=True), [np.full(2, -1.5)]
for _ in range(24):  # each call goes on for five meta-steps
    learner.fit_meta(FixedEpisodes(rows, rows))
    path.append(learner.module_.weight.detach().numpy().ravel().copy())
path = np.array(path)

moments = squared_error_moments(x, y)
star, pooled = linear_initialization(moments, moments, ALPHA), linear_initialization(moments, moments, 0.0)
print(f"distance of meta-training's end from the closed form: {np.linalg.norm(path[-1] - star):.0e}")

# %%
# The contours are of the loss after adaptation, the quantity that MAML minimises.


def after_adaptation(start):
    """Mean loss of the tasks after their step."""
    errors = np.einsum("trf,tf->tr", x, adapted_linear(start, moments, ALPHA)) - y
    return (errors**2).mean()


across, up = np.linspace(-1.8, 2.8, 50), np.linspace(-1.9, 1.9, 50)
height = np.array([[after_adaptation([a, b]) for a in across] for b in up])

fig, ax = plt.subplots(figsize=(5.8, 5.2), layout="constrained")
levels = height.min() + (height.max() - height.min()) * np.linspace(0.05, 1, 9) ** 2
ax.contour(across, up, height, levels=levels, colors="#D0D0D0", linewidths=0.8)
ax.plot(*coefficients.T, "o", color=GREY, markersize=5, label="optima of the tasks")
ax.plot(*path.T, ".-", color=BLUE, linewidth=1, markersize=5, label="meta-training, every 5th meta-step")
ax.plot(*star, "*", color=ORANGE, markersize=16, markeredgecolor="white", label="closed form", zorder=3)
ax.plot(*coefficients.mean(0), "s", color=GREEN, label="mean of the optima")
ax.plot(*pooled, "D", color=PINK, label="pooled regression")
ax.set(xlabel="first coefficient", ylabel="second coefficient", title="Linear regression: where MAML lands")
ax.spines[["top", "right"]].set_visible(False)
fig.legend(frameon=False, ncols=2, loc="outside lower center")

# %%
# What a task weighs
# ------------------
#
# One parameter now, a step size of 0.2, and four tasks. Three have a curvature of 1. The curvature of the last one, whose optimum
# is at 3, varies. At a curvature of 5 its step goes to the optimum from anywhere, so it weighs nothing. Beyond 10 the step
# diverges: then the task weighs much, and *pulls* the initialisation towards its own optimum, since starting near is the only
# thing that helps it.

from fewshot.theory import maml_initialization, maml_weights, nearest_initialization, nearest_weights, quadratic_rows

optima = np.array([-2.0, 0.0, 1.0, 3.0])
curvatures = np.linspace(0.1, 20, 200)


def of_tasks(h):
    """Curvatures of the four tasks."""
    return np.array([1.0, 1.0, 1.0, h])


fig, (top, bottom) = plt.subplots(2, 1, figsize=(6.4, 5.6), layout="constrained", sharex=True)
for colour, style, label, weights, initialization in (
    (BLUE, "-", "least loss (MAML)", maml_weights, maml_initialization),
    (ORANGE, (0, (4, 1.5)), "nearest to the optima", nearest_weights, nearest_initialization),
):
    share = [weights(of_tasks(h), 0.2)[3] / weights(of_tasks(h), 0.2).sum() for h in curvatures]
    top.plot(curvatures, share, color=colour, linestyle=style, label=label)
    bottom.plot(
        curvatures, [initialization(optima, of_tasks(h), 0.2) for h in curvatures], color=colour, linestyle=style
    )
tried = np.array([0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0, 11.0, 14.0, 19.0])
landed = []
for h in tried:
    episodes = quadratic_rows(of_tasks(h), optima)
    trained = model(0.2, 0.5 / maml_weights(of_tasks(h), 0.2).sum(), max_iter=60)
    landed.append(trained.fit_meta(FixedEpisodes(episodes, episodes)).module_.weight.item())
bottom.plot(tried, landed, "o", color=BLUE, label="meta-training (MAML)")
bottom.axhline(optima[3], color=GREY, linewidth=1, linestyle=(0, (1, 1.5)))
bottom.text(0.2, optima[3] - 0.08, "optimum of the last task", color=GREY, va="top")
bottom.axhline(optima[:3].mean(), color=GREY, linewidth=1, linestyle=(0, (1, 1.5)))
bottom.text(20, optima[:3].mean() - 0.08, "mean of the others", color=GREY, ha="right", va="top")
for ax in (top, bottom):
    ax.axvline(5, color=GREY, linewidth=0.8)
    ax.axvspan(10, 20, color="#F2F2F2", zorder=0)
    ax.spines[["top", "right"]].set_visible(False)
top.text(5.15, 1.02, "solved in\none step", color=GREY, va="top")
top.text(19.8, 0.05, "the step diverges", color=GREY, ha="right")
top.set(
    ylabel="share of the last task",
    title="A task on which the step diverges pulls the initialisation",
    ylim=(-0.03, 1.05),
)
bottom.set(xlabel="curvature of the last task (step size 0.2)", ylabel="initialisation", xlim=(0, 20), ylim=(-1, 3.3))
top.legend(frameon=False, loc="upper left", bbox_to_anchor=(0.0, 0.85))
bottom.legend(frameon=False, loc="center right")

# %%
# Meta-overfitting
# ----------------
#
# An initialisation learned from T tasks suits these tasks better than the next one. For quadratic losses of one curvature the gap
# is proportional to 1/T. Here each of T tasks is left out in turn, a model is meta-trained on the others, and all tasks are
# adapted to. (A task has 200 parameters, and small numbers of tasks are drawn several times: so the dots are near
# the expectation.)

from fewshot.theory import expected_overfitting_gap

CURVATURE, SPREAD, N_PARAMETERS = 2.0, 0.15, 200
INNER = 0.15
left_after_step = (1 - INNER * CURVATURE) ** 2


def leave_one_task_out(n_tasks):
    """Mean loss after adaptation of the tasks left out, and of those trained on."""
    stars = 1.0 + SPREAD * rng.normal(size=(n_tasks, N_PARAMETERS))
    tasks = quadratic_rows(np.tile(CURVATURE * np.eye(N_PARAMETERS), (n_tasks, 1, 1)), stars)
    inputs, targets = tasks.x.reshape(-1, N_PARAMETERS).numpy(), tasks.y.ravel().numpy()
    labels, losses = np.arange(n_tasks).repeat(N_PARAMETERS), []
    for left_out in range(n_tasks):
        others = Rows(*(t[np.arange(n_tasks) != left_out] for t in tasks[:3]))
        trained = model(INNER, 0.9 / (CURVATURE * left_after_step), max_iter=15).fit_meta(FixedEpisodes(others, others))
        adapted = trained.adapt(inputs, targets, tasks=labels)
        error = (adapted.predict(inputs, tasks=labels) - targets) ** 2
        losses.append([error[labels == left_out].mean(), error[labels != left_out].mean()])
    return np.mean(losses, axis=0)


counts = [2, 3, 4, 6, 9]
measured = np.array([np.mean([leave_one_task_out(n) for _ in range(max(1, 8 // n))], axis=0) for n in counts])
trained_on = np.array(counts) - 1
many = np.linspace(1, 8, 100)
half = expected_overfitting_gap(1, N_PARAMETERS * SPREAD**2, CURVATURE, INNER) / 2

fig, ax = plt.subplots(figsize=(5.8, 3.8), layout="constrained")
ax.fill_between(many, half * (1 - 1 / many), half * (1 + 1 / many), color="#EEF3F7", zorder=0)
ax.plot(many, half * (1 + 1 / many), color=ORANGE, linestyle=(0, (4, 1.5)))
ax.plot(many, half * (1 - 1 / many), color=BLUE)
ax.plot(trained_on, measured[:, 0], "s", color=ORANGE, label="task left out")
ax.plot(trained_on, measured[:, 1], "o", color=BLUE, label="tasks trained on")
ax.text(3.9, half, "gap", color=GREY, va="center")
ax.set(
    xlabel="tasks trained on",
    ylabel="loss after adaptation",
    title="The gap grows as tasks get few\n(lines: expectation; dots: meta-training)",
    xticks=trained_on,
    ylim=(0, None),
)
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)

# sphinx_gallery_thumbnail_number = 2
