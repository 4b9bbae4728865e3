r"""
Point navigation: find a goal that is not shown
===============================================

A point starts in the middle of a plane and should go to a goal. It sees where it is, but not where the goal is: only the reward
depends on it. This is the first reinforcement-learning problem of the MAML paper (Finn et al., 2017, section 5.3), and small enough
to see everything that happens.

Think of it as a robot that is put to work at a new place. One fixed policy cannot be right for all goals. What can be learned
ahead is a policy that finds out quickly: it tries a few episodes, looks at the rewards, changes its weights once, and goes to the
goal from then on. Learning that ahead, on many goals, is *meta-training*; changing the weights for one goal is *adapting*.
"""

# %%
# The family of tasks
# -------------------
#
# A :class:`~fewshot.applications.rl.PointNavigation` object is a *family* of environments. Each task has a goal of its own, drawn
# from a square. In every time step the point moves by at most 0.1 in each coordinate, and the reward is minus its distance to the
# goal. An episode ends at the goal, or after 100 time steps. The *return* of an episode is the sum of its rewards: it is negative,
# and the nearer to 0 the better.

import numpy as np

from fewshot.applications.rl import PointNavigation

family = PointNavigation()
rng = np.random.default_rng(0)
for _ in range(3):
    print("a goal: ({:.2f}, {:.2f})".format(*family.sample(rng)))

# %%
# Meta-training
# -------------
#
# In each iteration, :class:`~fewshot.applications.rl.MAMLPolicy` draws 20 goals and runs 20 episodes for each. It adapts a copy of
# the policy to every goal, runs the copies for 20 more episodes, and then moves the common initial policy so that the *adapted*
# copies get better. The budget is the number of time steps in all environments together, so that the same seed gives the same
# result; ``max_time=`` would set a number of seconds instead.

from time import perf_counter

from fewshot.applications.rl import LearningCurveDisplay, MAMLPolicy

BUDGET = 4_000_000
began = perf_counter()
policy = MAMLPolicy(hidden=(32, 32), random_state=0).fit_meta(family, total_env_steps=BUDGET)
print(f"{policy.n_iter_} iterations, {policy.n_env_steps_:,} environment steps, {perf_counter() - began:.0f} seconds")

# %%
# The learning curve has two lines. The dashed one is the initial policy, which knows nothing of the goal: no training can lift it
# much. The solid one is the return after one adaptation step on 20 episodes. Meta-training lifts that one. Pale lines are single
# iterations, strong ones their moving mean.

display = LearningCurveDisplay.from_policy(policy)
_ = display.ax_.set_title("Point navigation: meta-training")

# %%
# Adapt to one goal
# -----------------
#
# ``adapt`` takes any Gymnasium environment with the same spaces. It runs 20 episodes, takes one step, and returns a new policy;
# ``policy`` itself stays as it is. Then it runs 20 episodes more to see whether the step helped. If it did not, it returns the
# initial policy: this is the *guard*.

goal = (0.4, -0.3)
env = family.make(goal, render_mode="rgb_array")
adapted = policy.adapt(env, episodes=20)
print(adapted.adaptation_report_)

# %%
# The report gives the mean return before and after, and a 95 % confidence interval of their difference. An interval above 0 says
# that the gain is no accident of the few episodes that were run.
#
# After one step the policy heads for the goal and stops near it. A second step, on 20 episodes of what the first one gave, brings
# it closer:

adapted = policy.adapt(env, episodes=20, steps=2)
print(adapted.adaptation_report_)

# %%
# Look at it
# ----------
#
# :class:`~fewshot.applications.rl.TrajectoryDisplay` adapts to some goals and draws the ways of the point. Strong lines are
# episodes of the most likely actions, pale ones of sampled actions, as they are used for learning.

from fewshot.applications.rl import TrajectoryDisplay

_ = TrajectoryDisplay.from_policy(policy, family, goals=[goal, (-0.45, 0.1), (0.2, 0.45)], steps=2)

# %%
# The initial policy wanders about the middle, which lets it find out where rewards are higher. The adapted ones go to their goals.
# :func:`~fewshot.applications.rl.record_gif` makes an animation of an episode of each, side by side. The ringed dot is the goal,
# and "return" is the sum of the rewards so far.

from fewshot.applications.rl import record_gif

path = record_gif(adapted, env, "point_navigation.gif", before=policy, random_state=0)
print(path)

# %%
# Beside a policy that was not meta-trained
# -----------------------------------------
#
# Would an ordinary policy, trained on all goals and then fine-tuned on the new one, do as well? ``inner_steps=0`` trains one: it
# maximises the mean return over all goals and never looks ahead to adapting. It gets as many environment steps, and is then adapted
# in the same way, from as many episodes. Its step size has to be found: here it is the best of four in 40 tasks that are not used
# below. MAML needs no such search, since it learns its step sizes in meta-training.

import pandas as pd

from fewshot.applications.rl import AdaptationCurveDisplay, adaptation_curve

joint = MAMLPolicy(hidden=(32, 32), inner_steps=0, random_state=0).fit_meta(family, total_env_steps=BUDGET)

tried = {
    rate: adaptation_curve(joint, family, steps=3, inner_lr=rate, random_state=1).groupby("step")["return"].mean()
    for rate in (0.03, 0.1, 0.3, 1.0)
}
best = pd.DataFrame(tried).loc[1:].mean().idxmax()
print(f"step size of the joint policy: {best}")

# %%
# Both policies now meet the same 40 unseen goals. :func:`~fewshot.applications.rl.adaptation_curve` adapts to all of them at
# once and returns a frame with the return before adapting (step 0) and after each step. No guard takes part here.

curves = {
    "MAML": adaptation_curve(policy, family, steps=3, random_state=2),
    "joint policy, fine-tuned": adaptation_curve(joint, family, steps=3, inner_lr=best, random_state=2),
}
display = AdaptationCurveDisplay.from_curves(curves)
display.ax_.set_title("Point navigation: 40 unseen goals")
for name, curve in curves.items():
    print(f"{name:25s}", curve.groupby("step")["return"].mean().round(1).tolist())

# %%
# Before adapting, both are equally lost. The bars are 95 % intervals over goals: where the mean over other goals of the family
# would lie. Each further step costs 20 episodes more, so what counts on a robot is how high a line is after the first ones.
#
# A joint policy can come close after one step if its step size was chosen well. Here it stays about the middle, as near to every
# goal as one can be, and sets out from there. The next page has a problem in which a joint policy does not stay in the middle.
#
# Go on to :ref:`sphx_glr_auto_gallery_plot_cartpole_goal.py`, or to :doc:`/reinforcement_learning` for environments of your own.
#
# References
# ----------
#
# Finn, Abbeel and Levine (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.

# sphinx_gallery_thumbnail_number = 2
