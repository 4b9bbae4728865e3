"""Few-shot classification under group fairness: constrained classifiers, honest reports, evaluation on held-out tasks."""

from . import saving  # noqa: F401 - it registers what files may hold
from .classifier import FairnessConstrainedClassifier
from .constraint_report import ConstraintReport
from .displays import FrontierDisplay, GapDisplay
from .evaluation import evaluate_fairness, summarize_fairness
from .report import FairnessReport, fairness_report

__all__ = [
    "ConstraintReport",
    "FairnessConstrainedClassifier",
    "FairnessReport",
    "FrontierDisplay",
    "GapDisplay",
    "evaluate_fairness",
    "fairness_report",
    "summarize_fairness",
]
