"""Closed forms that meta-training must reproduce: what the tests compare the code with, and the page on theory explains."""

from .alignment import gradient_alignment, least_alignment, quadratic_alignment
from .batch_statistics import ShiftedInputs, crossover_support_size, episode_norm_error, global_norm_error
from .fixed_episodes import FixedEpisodes, quadratic_rows
from .gaussian_prior import gaussian_posterior, half_trust_of_prior, prior_of_step, step_of_prior
from .hessian_products import first_order_error, meta_gradient_product
from .linear_regression import adapted_linear, linear_initialization, linear_weights, squared_error_moments
from .overfitting import expected_overfitting_gap, leave_one_task_out_gap
from .quadratics import (
    adapted_losses,
    maml_initialization,
    maml_weights,
    nearest_initialization,
    nearest_weights,
)
from .rotating_boundary import frozen_feature_accuracy, one_step_accuracy

__all__ = [
    "FixedEpisodes",
    "ShiftedInputs",
    "adapted_linear",
    "adapted_losses",
    "crossover_support_size",
    "episode_norm_error",
    "expected_overfitting_gap",
    "first_order_error",
    "frozen_feature_accuracy",
    "gaussian_posterior",
    "global_norm_error",
    "gradient_alignment",
    "half_trust_of_prior",
    "least_alignment",
    "leave_one_task_out_gap",
    "linear_initialization",
    "linear_weights",
    "maml_initialization",
    "maml_weights",
    "meta_gradient_product",
    "nearest_initialization",
    "nearest_weights",
    "one_step_accuracy",
    "prior_of_step",
    "quadratic_alignment",
    "quadratic_rows",
    "squared_error_moments",
    "step_of_prior",
]
