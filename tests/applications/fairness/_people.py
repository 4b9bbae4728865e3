"""Tasks of people in two groups, and a classifier that is quick to fit."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from fewshot import MAMLClassifier

QUICK = MAMLClassifier(algorithm="map", base=LogisticRegression(), random_state=0)


def table(n_tasks=10, rows=60, seed=0):
    """Two groups; the second has the lower outcomes, by a column that tells of the group too."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(n_tasks), rows)
    group = (rng.random(n_tasks * rows) < 0.4).astype(int)
    X = rng.normal(size=(n_tasks * rows, 3))
    X[:, 1] -= (1.5 + 0.4 * rng.normal(size=n_tasks))[task] * group
    level = 0.5 * rng.normal(size=n_tasks)
    y = (X[:, 0] + X[:, 1] + level[task] + 0.5 * rng.normal(size=len(task)) > -0.3).astype(int)
    return X, y, task, np.array(["a", "b"])[group]


X, Y, TASK, GROUP = table()
TRAIN = TASK < 8
