"""What users have: methods to compare with, all with the calls of FairnessConstrainedClassifier."""

from .matching import RateMatching
from .penalized import PenalizedNetwork
from .plain import PlainClassifier
from .reductions import FairlearnClassifier

__all__ = ["FairlearnClassifier", "PenalizedNetwork", "PlainClassifier", "RateMatching"]
