"""Judging methods on tasks they have not seen: evaluation, summaries and a scorer for scikit-learn's tools."""

from .evaluate import evaluate_few_shot
from .scorer import FewShotScorer, few_shot_scorer
from .summary import summarize

__all__ = ["FewShotScorer", "evaluate_few_shot", "few_shot_scorer", "summarize"]
