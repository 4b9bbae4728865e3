r"""Weights of a mixture of predictors, learned from the tasks that none of them was trained on.

Stacking takes the weights that lose least on held-out tasks (Wolpert 1992). With few tasks that is as good as choosing one
predictor, and by chance the wrong one. So the weights here are averaged over what the tasks might have been: over Bayesian
bootstrap draws, each of which weighs the tasks by Dirichlet(1, ..., 1) (Rubin 1981; Yao, Vehtari, Simpson, Gelman 2018, section
3.4, do so for weights by score). In each draw the weights w maximise

    sum_v a_v log w_v - n_0 log L(w)    or    sum_v a_v log w_v - n_0 L(w),

where L is the mean loss of the tasks, in the first form if it has a unit, in the second if it is a negative log-likelihood; n_0 is
the number of observations that the tasks are worth, and a_v the prior's mass of each predictor. So what is hardly better is hardly
preferred, and with no task at all the weights are the prior's.

References
----------
Wolpert (1992), Stacked generalization, Neural Networks 5. Rubin (1981), The Bayesian bootstrap, Annals of Statistics 9.
Yao, Vehtari, Simpson, Gelman (2018), Using stacking to average Bayesian predictive distributions, Bayesian Analysis 13.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax

from .responses import TaskLosses

__all__ = ["bootstrap_weights", "stacking_weights"]

Floats = npt.NDArray[np.float64]
BOOTSTRAPS = 20
ROWS_PER_TASK = 100.0  # one task tells two predictors apart as so many independent rows would


def stacking_weights(
    losses: TaskLosses,
    tasks: Floats,
    prior: Floats,
    observations: float,
    *,
    likelihood: bool,
    start: Floats | None = None,
) -> Floats:
    """Return the weights for given weights of the tasks.

    Parameters
    ----------
    losses : TaskLosses
        Losses of mixtures, by task.
    tasks : ndarray of shape (tasks,)
        Weights of the tasks, which sum to 1.
    prior : ndarray of shape (variants,)
        The prior's mass of each predictor, positive.
    observations : float
        What all tasks together are worth.
    likelihood : bool
        Whether a loss is a negative log-likelihood, or has a unit.
    start : ndarray of shape (variants,), default=None
        Where to start.

    Returns
    -------
    ndarray of shape (variants,)
        Positive, sum 1.
    """

    def objective(z: Floats) -> tuple[float, Floats]:
        w = softmax(z)
        value, gradient = losses.value_and_gradient(w)
        mean, slope = float(tasks @ value), tasks @ gradient
        if likelihood:
            total, slope = observations * mean, observations * slope
        else:
            total, slope = observations * np.log(mean), observations * slope / mean
        total -= float(prior @ np.log(np.maximum(w, 1e-300)))
        by_w = w * (slope - w @ slope) - prior + w * prior.sum()
        return total, by_w

    z = np.log(prior / prior.sum() if start is None else start)
    found = minimize(objective, z, jac=True, method="L-BFGS-B", options={"maxiter": 200})
    weights: Floats = softmax(found.x)
    return weights


def bootstrap_weights(
    losses: TaskLosses, judged: npt.NDArray[np.bool_], prior: Floats, rng: np.random.Generator, *, likelihood: bool
) -> Floats:
    """Average the stacking weights over Bayesian bootstrap draws of the tasks.

    Parameters
    ----------
    losses : TaskLosses
        Losses of mixtures, by task.
    judged : ndarray of bool, shape (tasks,)
        Which tasks count.
    prior : ndarray of shape (variants,)
        The prior's mass of each predictor.
    rng : numpy.random.Generator
        Source of the draws.
    likelihood : bool
        Whether a loss is a negative log-likelihood, or has a unit.

    Returns
    -------
    ndarray of shape (variants,)
    """
    n = int(judged.sum())
    tasks = np.zeros(len(judged))
    total = np.zeros(len(prior))
    start = None
    for _ in range(BOOTSTRAPS):
        tasks[judged] = rng.dirichlet(np.ones(n))
        start = stacking_weights(losses, tasks, prior, n * ROWS_PER_TASK, likelihood=likelihood, start=start)
        total += start
    return total / BOOTSTRAPS
