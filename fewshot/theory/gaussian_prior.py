r"""One step on the mean of a Gaussian is Bayes' rule with a normal prior at the initialisation.

A task has n rows :math:`y_j \sim N(\theta, \sigma^2)`, and the loss is their negative log-likelihood, summed:
:math:`\sum_j (y_j - \theta)^2 / (2 \sigma^2)`. One step of size :math:`\alpha` from :math:`\theta_0` gives

.. math:: \theta' = \theta_0 + \frac{\alpha n}{\sigma^2} (\bar y - \theta_0).

Under the prior :math:`N(\theta_0, \tau^2)` the posterior has the precision :math:`1/\tau^2 + n/\sigma^2` and the mean
:math:`\theta_0 + \frac{n/\sigma^2}{1/\tau^2 + n/\sigma^2} (\bar y - \theta_0)`. The two agree where

.. math:: \frac1\alpha = \frac1{\tau^2} + \frac n{\sigma^2}:

the step size *is* the posterior variance. It stands for a prior only if :math:`\alpha < \sigma^2 / n`: a step of just that size
goes to the mean of the rows, as with a flat prior, and a longer one goes past it, as with no prior at all.

A fixed step size thus means another prior for every number of rows. One prior for all of them is what the factor
:math:`n / (n + c)` of learned step sizes gives (:mod:`fewshot.step_sizes`), with :math:`c = \sigma^2 / \tau^2`.

References
----------
Grant, Finn, Levine, Darrell, Griffiths (2018), Recasting gradient-based meta-learning as hierarchical Bayes, ICLR, section 3.
"""

from __future__ import annotations

import numpy.typing as npt

from ..errors import InvalidParameterError
from ._checks import array, count, number

__all__ = ["gaussian_posterior", "half_trust_of_prior", "prior_of_step", "step_of_prior"]


def prior_of_step(step_size: float, n_rows: int, noise_variance: float) -> float:
    r"""Variance of the prior that a step stands for, :math:`1 / (1/\alpha - n/\sigma^2)`.

    Parameters
    ----------
    step_size : float
        :math:`\alpha`, of a step on the summed negative log-likelihood.
    n_rows : int
        Number of support rows n.
    noise_variance : float
        :math:`\sigma^2`.

    Returns
    -------
    float
        :math:`\tau^2`.

    Raises
    ------
    InvalidParameterError
        If ``step_size >= noise_variance / n_rows``: such a step stands for no prior.

    Examples
    --------
    >>> prior_of_step(0.1, 4, 1.0)
    0.166...
    """
    alpha, n = number("step_size", step_size), count("n_rows", n_rows, 1)
    variance = number("noise_variance", noise_variance)
    if alpha * n >= variance:
        raise InvalidParameterError(
            f"step_size: got {alpha:g}; expected less than noise_variance / n_rows = {variance / n:g}, since a step of that size "
            "ends at the mean of the rows or beyond it, where no prior of finite variance puts the estimate; use a smaller "
            "step_size."
        )
    return 1 / (1 / alpha - n / variance)


def step_of_prior(prior_variance: float, n_rows: int, noise_variance: float) -> float:
    r"""Size of the step that applies Bayes' rule, :math:`1 / (1/\tau^2 + n/\sigma^2)`, which is the posterior variance.

    Parameters
    ----------
    prior_variance : float
        :math:`\tau^2`.
    n_rows : int
        Number of support rows n.
    noise_variance : float
        :math:`\sigma^2`.

    Returns
    -------
    float
        :math:`\alpha`, always below ``noise_variance / n_rows``.

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> step_of_prior(1.0, 4, 1.0)
    0.2
    """
    prior, n = number("prior_variance", prior_variance), count("n_rows", n_rows, 1)
    return 1 / (1 / prior + n / number("noise_variance", noise_variance))


def half_trust_of_prior(prior_variance: float, noise_variance: float) -> float:
    r"""Constant c with which steps scaled by :math:`n / (n + c)` apply one prior to every number of rows.

    With c = :math:`\sigma^2 / \tau^2` and a step that would otherwise end at the mean of the rows (``inner_lr=0.5`` for the mean
    squared error), it is the ``half_trust`` of :class:`fewshot.adaptation.Adaptation`.

    Parameters
    ----------
    prior_variance, noise_variance : float
        :math:`\tau^2` and :math:`\sigma^2`.

    Returns
    -------
    float
        In rows: how many weigh as much as the prior.

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> half_trust_of_prior(0.5, 2.0)
    4.0
    """
    return number("noise_variance", noise_variance) / number("prior_variance", prior_variance)


def gaussian_posterior(
    y: npt.ArrayLike, prior_mean: float, prior_variance: float, noise_variance: float
) -> tuple[float, float]:
    r"""Posterior of the mean of normal rows under a normal prior; its mean is its mode too, the MAP estimate.

    Parameters
    ----------
    y : array-like of shape (rows,)
        Observations.
    prior_mean, prior_variance : float
        Of the prior :math:`N(\theta_0, \tau^2)`.
    noise_variance : float
        :math:`\sigma^2`.

    Returns
    -------
    mean, variance : float

    Raises
    ------
    InvalidParameterError
        If a value cannot be used.

    Examples
    --------
    >>> gaussian_posterior([1.0, 2.0, 3.0, 2.0], 0.0, 1.0, 1.0)
    (1.6, 0.2)
    """
    rows, start = array("y", y, 1), float(array("prior_mean", prior_mean, 0))
    variance = step_of_prior(prior_variance, len(rows), noise_variance)
    return variance * (start / prior_variance + float(rows.sum()) / noise_variance), variance
