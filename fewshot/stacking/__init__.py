"""Mixing a pooled model with several ways to adapt it, by what each is worth on tasks that were held out."""

from .fisher import FisherPrior
from .fit import StackFit
from .gaussian_process import GaussianProcessMember
from .members import Member
from .mixed import MixedSlopes
from .network import NetworkMember
from .report import AdaptationReport, report_on
from .responses import CLASSES, VALUES, Response
from .stack import Stack, StackState
from .subpopulations import OnSubpopulations

__all__ = [
    "CLASSES",
    "VALUES",
    "AdaptationReport",
    "FisherPrior",
    "GaussianProcessMember",
    "Member",
    "MixedSlopes",
    "NetworkMember",
    "OnSubpopulations",
    "Response",
    "Stack",
    "StackFit",
    "StackState",
    "report_on",
]
