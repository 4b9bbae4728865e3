"""Fair classifiers in files: settings, fitted parts and what they were adapted to; no training rows."""

from fewshot.persistence import register

from .bounded_loss import LossDecider
from .classifier import FairnessConstrainedClassifier
from .constraint_report import ConstraintReport
from .curve import Curve
from .decider import Decider, Rule
from .distances import Distances
from .evidence import Evidence
from .groups import Groups
from .guess import GroupGuess
from .notions import Notion
from .scored import Scored

__all__: list[str] = []

for _cls in (
    ConstraintReport,
    Curve,
    Decider,
    Evidence,
    FairnessConstrainedClassifier,
    GroupGuess,
    Groups,
    LossDecider,
    Distances,
    Notion,
    Rule,
    Scored,
):
    register(_cls, f"fairness.{_cls.__name__}")
