r"""
Inside a meta-trained model
===========================

Seven pictures of one regressor, meta-trained on sinusoids whose amplitude and phase are the task's own. What each is for is on
the page :doc:`/inspection`.
"""

import matplotlib.pyplot as plt
import numpy as np

from fewshot import MAMLRegressor
from fewshot.baselines import SupportMean
from fewshot.datasets import Sinusoids
from fewshot.inspection import (
    AdaptationCurveDisplay,
    FirstOrderErrorDisplay,
    GeneralizationGapDisplay,
    GradientAlignmentDisplay,
    StepConditionDisplay,
    StepSizesDisplay,
    SupportSizeDisplay,
)


def table(n_tasks, seed, rows=40):
    """Rows of some tasks, with the labels of these."""
    support, _ = Sinusoids(shots=rows, queries=1).sample(n_tasks, np.random.default_rng(seed))
    return support.x.reshape(-1, 1).numpy(), support.y.ravel().numpy(), np.arange(n_tasks).repeat(rows)


model = MAMLRegressor(shots=(2, 20), max_iter=1200, random_state=0, algorithm="maml", base=None).fit_meta(
    Sinusoids(shots=10, queries=10)
)
X, y, tasks = table(40, seed=1)  # of tasks that it has not seen

# %%
# Does adapting help, and how far?
# --------------------------------
#
# Error against inner steps and against support rows. The untrained network has the same step sizes and the same rows.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
AdaptationCurveDisplay.from_estimator(model, X, y, tasks, shots=10, ax=axes[0])
mean = SupportMean().fit_meta(X, y, tasks=tasks)
SupportSizeDisplay.from_estimator(
    {"MAMLRegressor": model, "mean of the support": mean}, X, y, tasks, shots=[1, 2, 5, 10, 20], draws=2, ax=axes[1]
)
axes[1].set_xticks([1, 5, 10, 20])

# %%
# How steps are made
# ------------------
#
# Learned step sizes of each tensor; and step size times curvature at the initialisation, whose range should stay below 2.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
StepSizesDisplay.from_estimator(model, ax=axes[0])
condition = StepConditionDisplay.from_estimator(model, X, y, tasks, shots=10, ax=axes[1])

# %%
# Where first steps go
# --------------------
#
# The cosine of the first step with the way to each task's optimum, before and after meta-training; and what a first-order
# meta-gradient would leave out.

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
GradientAlignmentDisplay.from_estimator(model, X, y, tasks, shots=10, steps=100, ax=axes[0])
FirstOrderErrorDisplay.from_estimator(model, X, y, tasks, shots=10, batch_size=6, ax=axes[1])

# %%
# Known and unknown tasks
# -----------------------
#
# Trained on two thirds of 12 tasks, three times, and judged on all of them. The dots above the line are tasks that suffer from not
# being known. Twelve tasks are few, and the interval of the gap says whether they tell it from chance.

few = table(12, seed=2)
gap = GeneralizationGapDisplay.from_estimator(
    MAMLRegressor(max_iter=300, early_stopping=False, random_state=0, algorithm="maml", base=None),
    *few,
    shots=5,
    cv=3,
    draws=2,
    random_state=0,
)
print(gap.gap)
