"""A comparison of meta-learning with baselines on one table: from a file to a verdict.

What ``fewshot demo`` and ``fewshot evaluate`` run, callable from Python too.
"""

from .columns import study_data
from .data import StudyData
from .reading import read_table
from .run import StudyResult, StudySettings, run_study
from .verdict import compare, verdict

__all__ = [
    "StudyData",
    "StudyResult",
    "StudySettings",
    "compare",
    "read_table",
    "run_study",
    "study_data",
    "verdict",
]
