"""Reinforcement learning across related environments: a policy that adapts to a new one from a few episodes.

:class:`EnvFamily` and its kin are distributions over Gymnasium environments, :class:`MAMLPolicy` learns across one and adapts to a
member of it.
"""

from . import saving  # noqa: F401 - it registers what files may hold
from .adaptation_report import AdaptationReport
from .cartpole_goal import CartPoleGoal
from .evaluation import adaptation_curve
from .families import EnvFamily
from .point_navigation import PointNavigation
from .policy import MAMLPolicy
from .recorded import RecordedEpisodes
from .sources import as_family
from .told import Told

__all__ = [
    "AdaptationReport",
    "CartPoleGoal",
    "EnvFamily",
    "MAMLPolicy",
    "PointNavigation",
    "RecordedEpisodes",
    "Told",
    "adaptation_curve",
    "as_family",
]
