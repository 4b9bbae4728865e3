"""Pictures of what a meta-trained estimator has learned, and of where it is in trouble."""

from .adaptation_curve import AdaptationCurveDisplay
from .first_order import FirstOrderErrorDisplay, first_order_error
from .generalization_gap import GeneralizationGapDisplay
from .gradient_alignment import GradientAlignmentDisplay, task_alignment
from .learned_steps import StepSizesDisplay
from .step_condition import StepConditionDisplay, step_eigenvalues
from .support_size import SupportSizeDisplay

__all__ = [
    "AdaptationCurveDisplay",
    "FirstOrderErrorDisplay",
    "GeneralizationGapDisplay",
    "GradientAlignmentDisplay",
    "StepConditionDisplay",
    "StepSizesDisplay",
    "SupportSizeDisplay",
    "first_order_error",
    "step_eigenvalues",
    "task_alignment",
]
