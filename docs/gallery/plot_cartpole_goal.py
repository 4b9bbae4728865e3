r"""
CartPole with a place to be
===========================

A cart balances a pole, as in Gymnasium's ``CartPole-v1``. Here it also has a place to be, which it is not shown: the nearer to that
place, the higher the reward. Gravity, the mass and length of the pole and the strength of a push differ from task to task as well.

This is nearer to work with robots than :ref:`point navigation <sphx_glr_auto_gallery_plot_point_navigation.py>`: actions are pushes
to the left or right, a mistake ends the episode, and what should be found out is mixed with what should not be forgotten: to keep
the pole up.
"""

# %%
# The family of tasks
# -------------------
#
# The place lies between 0.5 and 1.5 metres to the left or right of the middle. With the cart at a distance :math:`d` from it, a
# time step brings a reward of :math:`\exp(-2 d)`: 1 at the place, 0.37 half a metre away, 0.14 at one metre. An episode is over
# when the pole leans by more than 12 degrees or the cart leaves its track, and after 200 time steps (4 seconds) at the latest. So
# the *return*, the sum of an episode's rewards, lies between 0 and 200, and on its way to the place the cart has to lose some.

import numpy as np

from fewshot.applications.rl import CartPoleGoal

family = CartPoleGoal()
task = family.sample(np.random.default_rng(0))
for name, value in task.items():
    print(f"{name:10s} {value:6.2f}")

# %%
# Meta-training
# -------------
#
# The policy must learn to balance all poles, and to change after 20 episodes of one task so that the cart goes to the right place.

from time import perf_counter

from fewshot.applications.rl import LearningCurveDisplay, MAMLPolicy

BUDGET = 5_000_000
began = perf_counter()
policy = MAMLPolicy(hidden=(32, 32), random_state=0).fit_meta(family, total_env_steps=BUDGET)
print(f"{policy.n_iter_} iterations, {policy.n_env_steps_:,} environment steps, {perf_counter() - began:.0f} seconds")

# %%
# Two things happen in the learning curve. At first both lines rise, since the pole stays up longer. Then they part: the initial
# policy gives up reward, so that the adapted one gets more. It need not be good at anything; it has to try what tells places apart.

display = LearningCurveDisplay.from_policy(policy)
_ = display.ax_.set_title("CartPole with a place to be: meta-training")

# %%
# Adapt to one task
# -----------------
#
# A task that was not met in meta-training, with its place on the left:

env = family.make(task, render_mode="rgb_array")
adapted = policy.adapt(env, episodes=20)
print(adapted.adaptation_report_)

# %%
# The interval is one for the difference of the two means: if it lies above 0, the gain is no accident of the episodes that were
# run. An animation shows where it comes from. The flag marks the place; only the reward knows it.

from fewshot.applications.rl import record_gif

path = record_gif(adapted, env, "cartpole_goal.gif", before=policy, deterministic=True, random_state=0)
print(path)

# %%
# Beside a policy that was not meta-trained
# -----------------------------------------
#
# The other way would be a *joint* policy (``inner_steps=0``), trained on all tasks with as many environment steps, and fine-tuned
# in the same way. Its step size is the best of three on 40 other tasks.

import pandas as pd

from fewshot.applications.rl import AdaptationCurveDisplay, adaptation_curve

joint = MAMLPolicy(hidden=(32, 32), inner_steps=0, random_state=0).fit_meta(family, total_env_steps=BUDGET)

tried = {
    rate: adaptation_curve(joint, family, steps=3, inner_lr=rate, random_state=1).groupby("step")["return"].mean()
    for rate in (0.1, 0.3, 1.0)
}
best = pd.DataFrame(tried).loc[1:].mean().idxmax()
print(f"step size of the joint policy: {best}")

# %%
# Both adapt to the same 40 unseen tasks, in one to three steps of 20 episodes each.

curves = {
    "MAML": adaptation_curve(policy, family, steps=3, random_state=2),
    "joint policy, fine-tuned": adaptation_curve(joint, family, steps=3, inner_lr=best, random_state=2),
}
display = AdaptationCurveDisplay.from_curves(curves)
display.ax_.set_title("CartPole with a place to be: 40 unseen tasks")
for name, curve in curves.items():
    print(f"{name:25s}", curve.groupby("step")["return"].mean().round(1).tolist())

# %%
# Before adapting (step 0) the joint policy is the better one: being good on average is what it was trained for. From the first step
# on, the policy that was trained to adapt gets more. Here are the same returns, apart for places to the left and to the right:

rng = np.random.default_rng(2)  # whose first draws are the tasks that the curves met
places = ["left" if family.sample(rng)["goal"] < 0 else "right" for _ in range(40)]
for name, curve in curves.items():
    table = curve.assign(place=[places[i] for i in curve["task"]]).pivot_table("return", "place", "step")
    print(f"{name}\n{table.astype(float).round(1).to_string()}\n")

# %%
# The joint policy has taken a side: it drives off to one at once, which is the best that can be done by a policy that neither knows
# the place nor will learn of it. From over there, episodes say little about the other side, so fine-tuning helps little. The
# meta-trained policy waits about the middle, where the rewards of slightly different ways tell left from right.
#
# Meta-training looked one step ahead. Nothing promises that further steps bring more; ``inner_steps=2`` would train for two.
#
# Not all families are like this: see :ref:`sphx_glr_auto_gallery_plot_joint_is_enough.py`.

# sphinx_gallery_thumbnail_number = 2
