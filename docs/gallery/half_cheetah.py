r"""
Half-cheetah: a velocity that only the reward knows
===================================================

A two-legged robot runs in MuJoCo and should keep a velocity that differs from task to task. As in the MAML paper (Finn et al.,
2017, section 5.3) only the reward knows which one: it is minus the difference between the velocity of the robot and the wanted
one, less a cost of the torques. The 17 observations show the robot's posture and its own velocities, the 6 actions are torques at
its joints.

This script needs MuJoCo (``pip install 'fewshot[mujoco]'``) and takes about ten minutes on two cores. So it was not run when this
page was built; download it at the end of the page.
"""

# %%
# The family of tasks
# -------------------
#
# :func:`~fewshot.applications.rl.half_cheetah_velocity` draws the wanted velocity between 0 and 2 m/s. The environments are
# Gymnasium's ``HalfCheetah-v5``, but all episodes of an iteration are simulated together, over all cores. Episodes have 100 time
# steps of 0.05 s, and their *return*, the sum of the rewards, is negative: the nearer to 0, the better.
#
# To draw on a computer without a screen, MuJoCo has to be told how before it is imported: ``egl`` where there is a graphics driver,
# ``osmesa`` elsewhere.

import os
import sys

if sys.platform == "linux" and not os.environ.get("DISPLAY"):
    os.environ.setdefault("MUJOCO_GL", "egl")

from fewshot.applications.rl import half_cheetah_velocity

family = half_cheetah_velocity(horizon=100)

# %%
# Meta-training
# -------------
#
# A time step of MuJoCo costs some sixty times one of :ref:`point navigation <sphx_glr_auto_gallery_plot_point_navigation.py>`. So
# an iteration has 5 episodes for each of 20 tasks in place of 20, and several steps are made on each batch (``outer="ppo"``, as in
# ProMP). ``verbose=1`` shows a progress bar. Ctrl-C keeps what was learned, and with ``warm_start=True`` the same call goes on.

from fewshot.applications.rl import LearningCurveDisplay, MAMLPolicy

policy = MAMLPolicy(outer="ppo", episodes=5, max_kl=0.03, warm_start=True, verbose=1, random_state=0)
policy.fit_meta(family, max_time=480)
print(f"{policy.n_iter_} iterations, {policy.n_env_steps_:,} environment steps")

LearningCurveDisplay.from_policy(policy).figure_.savefig("half_cheetah_learning.png", dpi=150)

# %%
# The dashed line is the return before adapting, the solid one that after one step on 5 episodes of the task.
#
# Adapt to unseen velocities
# --------------------------
#
# The policy adapts to 20 velocities that were not met in meta-training, in one to three steps of 20 episodes each. Bars are 95 %
# intervals over tasks: where the mean over other velocities would lie.

from fewshot.applications.rl import AdaptationCurveDisplay

display = AdaptationCurveDisplay.from_policy(policy, family, n_tasks=20, steps=3, random_state=1)
display.figure_.savefig("half_cheetah_adaptation.png", dpi=150)
print(display.summary.drop(columns="policy").round(1).to_string(index=False))

# %%
# One velocity, to look at
# ------------------------
#
# ``adapt`` runs 20 episodes, takes a step, and runs 20 episodes more to see whether it helped; the report has the mean return
# before and after, and a 95 % interval of the difference. The animation has both policies side by side.

from fewshot.applications.rl import record_gif

task = {"velocity": 1.5}
adapted = policy.adapt(family.make(task), episodes=20)
print(adapted.adaptation_report_)

env = family.make(task, render_mode="rgb_array")
print(record_gif(adapted, env, "half_cheetah.gif", before=policy, width=320, random_state=0))
env.close()

# %%
# Keep the policy
# ---------------
#
# Ten minutes of training are worth keeping. The file holds weights and settings, and nothing in it is executed on loading.

import fewshot

fewshot.save(policy, "half_cheetah.fewshot")

# %%
# References
# ----------
#
# Finn, Abbeel and Levine (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.

# sphinx_gallery_thumbnail_path = '_static/half_cheetah.png'
