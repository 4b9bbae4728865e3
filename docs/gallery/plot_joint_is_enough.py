r"""
When a joint policy needs no adaptation
=======================================

Adapting costs episodes in the new environment, so it should bring something. This page shows a family in which it brings nothing:
poles to balance that differ in length, mass and more. One ordinary policy, trained on all of them together (a *joint* policy),
balances nearly every one. The page then shows how to find out, within minutes, which kind of family yours is.

The reason is simple. Whatever the pole, the right push follows from what the policy sees: where the pole leans, and how fast it is
falling. Before finding out about a task can pay, the task has to hide something that matters, such as :ref:`a place to be
<sphx_glr_auto_gallery_plot_cartpole_goal.py>`.
"""

# %%
# The family of tasks
# -------------------
#
# :meth:`EnvFamily.vary <fewshot.applications.rl.EnvFamily.vary>` varies properties of a registered Gymnasium environment. Each time
# step brings a reward of 1 until the pole falls, and an episode is cut off after 200 time steps: the *return*, the sum of an
# episode's rewards, is 200 at most.

from fewshot.applications.rl import EnvFamily, check_family

family = EnvFamily.vary(
    "CartPole-v1",
    length=(0.25, 1.0),  # half the pole's length, in metres
    masspole=(0.05, 0.5),  # kg
    masscart=(0.5, 2.0),  # kg
    gravity=(6.0, 14.0),  # m/s²
    force_mag=(5.0, 15.0),  # of a push, in N
    horizon=200,
)

# %%
# First see that the family is in order. :func:`~fewshot.applications.rl.check_family` looks for what goes wrong in silence: tasks
# that are all the same, random numbers that do not follow from the seed, observations that are not finite. It raises an error or
# warns; here it has nothing to say.

_ = check_family(family)

# %%
# The recipe: three policies
# --------------------------
#
# Train three policies with the same budget of environment steps:
#
# - a *joint* policy (``inner_steps=0``), trained on all tasks together;
# - a joint policy that is *told* the task: :class:`~fewshot.applications.rl.Told` puts the task's numbers behind every observation.
#   You cannot have it on a robot whose numbers nobody knows, but it says what knowing the task is worth. Adapting cannot hope for
#   much more;
# - a policy that is *meta-trained* to adapt.
#
# Gymnasium's environments are stepped one by one, so iterations have fewer episodes here than by default, and longer steps.

from time import perf_counter

from fewshot.applications.rl import MAMLPolicy, Told

BUDGET = 300_000
settings = {"hidden": (32, 32), "episodes": 5, "max_kl": 0.05, "random_state": 0}
joint = MAMLPolicy(inner_steps=0, **settings)
told = MAMLPolicy(inner_steps=0, **settings)
maml = MAMLPolicy(**settings)
for name, policy, tasks in (("joint", joint, family), ("told", told, Told(family)), ("MAML", maml, family)):
    began = perf_counter()
    policy.fit_meta(tasks, total_env_steps=BUDGET)
    print(f"{name:5s} {policy.n_env_steps_:,} environment steps, {perf_counter() - began:.0f} seconds")

# %%
# All three meet the same 20 unseen tasks. Step 0 is the return before adapting, step 1 that after one step on 10 episodes. The
# policy that is told the task has nothing left to adapt to. To be fair to the joint policy, its step size is the best of three on
# other tasks; MAML has learned its own.

import pandas as pd

from fewshot.applications.rl import AdaptationCurveDisplay, adaptation_curve

tried = {
    rate: adaptation_curve(joint, family, n_tasks=20, episodes=10, inner_lr=rate, random_state=1)
    .groupby("step")["return"]
    .mean()
    for rate in (0.03, 0.1, 0.3)
}
best = pd.DataFrame(tried).loc[1].idxmax()

options = {"n_tasks": 20, "episodes": 10, "random_state": 2}
curves = {
    "joint policy": adaptation_curve(joint, family, inner_lr=best, **options),
    "joint policy, told the task": adaptation_curve(told, Told(family), steps=0, **options),
    "MAML": adaptation_curve(maml, family, **options),
}
display = AdaptationCurveDisplay.from_curves(curves)
display.ax_.set(ylim=(0, 210), title="CartPole with varied physics: 20 unseen tasks")
_ = display.ax_.legend(frameon=False, loc="lower center")

# %%
# The bars are 95 % intervals: where the mean over other tasks of the family would lie. Read the picture in this order:
#
# 1. What is knowing the task worth? Compare, at step 0, the policy that is told the task with the joint one. If their intervals
#    overlap widely, the task hides nothing that matters, and you need no adaptation.
# 2. If being told is worth a lot: does the meta-trained policy, after a step, close a good part of that gap? Then adapting pays.

means = pd.DataFrame({name: curve.groupby("step")["return"].mean() for name, curve in curves.items()})
print(means.round(1).T.rename(columns="step {}".format).to_string(na_rep="-"))
base = means.loc[0, "joint policy"]
print(f"\nBeing told the task is worth {means.loc[0, 'joint policy, told the task'] - base:+.1f}.")
print(f"MAML after one step, less the unadapted joint policy: {means.loc[1, 'MAML'] - base:+.1f}.")

# %%
# What adapting says by itself
# ----------------------------
#
# Without such a comparison, adapting itself tells you. After its step, ``adapt`` runs as many fresh episodes with the adapted
# policy and compares. Here is the joint policy in a usual task, and in the corner of the family where everything is hard at once:
# the longest and heaviest pole, the heaviest cart, strong gravity and weak pushes. The step size is the policy's own, not the one
# searched above.

usual = {"length": 0.5, "masspole": 0.1, "masscart": 1.0, "gravity": 9.8, "force_mag": 10.0}
hard = {"length": 1.0, "masspole": 0.5, "masscart": 2.0, "gravity": 14.0, "force_mag": 5.0}
for name, task in (("usual", usual), ("hard", hard)):
    report = joint.adapt(family.make(task)).adaptation_report_
    print(f"{name}: {report}")

# %%
# A gain whose interval holds 0 cannot be told from chance. Where the mean did not rise, the *guard* of ``adapt`` gives the policy
# back as it was. Trying still costs the episodes, and some of them are run by a policy that may be worse: on hardware, read
# :doc:`/reinforcement_learning` on that first.
#
# In a family like this one keep the joint policy: it is simpler, and needs no episodes in the new environment. A family in which
# the same comparison comes out the other way is :ref:`CartPole with a place to be <sphx_glr_auto_gallery_plot_cartpole_goal.py>`.
