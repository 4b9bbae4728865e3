"""Judging methods on tasks they have not seen: evaluation, summaries and a scorer for scikit-learn's tools."""

from .comparison import Comparison, combine, compare
from .evaluate import evaluate_few_shot
from .gap import TaskGap, leave_one_task_out, task_gap
from .scorer import FewShotScorer, few_shot_scorer
from .summary import summarize

__all__ = [
    "Comparison",
    "FewShotScorer",
    "TaskGap",
    "combine",
    "compare",
    "evaluate_few_shot",
    "few_shot_scorer",
    "leave_one_task_out",
    "summarize",
    "task_gap",
]
