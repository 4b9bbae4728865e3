"""Few-shot classification under group fairness: constrained classifiers, honest reports, evaluation on held-out tasks."""

from . import saving  # noqa: F401 - it registers what files may hold
from .classifier import FairnessConstrainedClassifier
from .constraint_report import ConstraintReport
from .evaluation import evaluate_fairness, summarize_fairness
from .report import FairnessReport, fairness_report

__all__ = [
    "ConstraintReport",
    "FairnessConstrainedClassifier",
    "FairnessReport",
    "evaluate_fairness",
    "fairness_report",
    "summarize_fairness",
]
