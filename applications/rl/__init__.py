"""Reinforcement learning across related environments: a policy that adapts to a new one from a few episodes.

:class:`EnvFamily` and its kin are distributions over Gymnasium environments, :class:`MAMLPolicy` learns across one and adapts to a
member of it.
"""

from . import saving  # noqa: F401 - it registers what files may hold
from ._failures import EnvironmentFailedError
from .adaptation_display import AdaptationCurveDisplay
from .adaptation_report import AdaptationReport
from .animation import record_gif
from .cartpole_goal import CartPoleGoal
from .checking import check_family
from .evaluation import adaptation_curve
from .families import EnvFamily
from .learning_display import LearningCurveDisplay
from .mujoco_families import ant_direction, half_cheetah_direction, half_cheetah_velocity
from .point_navigation import PointNavigation
from .policy import MAMLPolicy
from .recorded import RecordedEpisodes
from .sb3_policy import SB3Policy
from .sources import as_family
from .told import Told
from .trajectory_display import TrajectoryDisplay

__all__ = [
    "AdaptationCurveDisplay",
    "AdaptationReport",
    "CartPoleGoal",
    "EnvFamily",
    "EnvironmentFailedError",
    "LearningCurveDisplay",
    "MAMLPolicy",
    "PointNavigation",
    "RecordedEpisodes",
    "SB3Policy",
    "Told",
    "TrajectoryDisplay",
    "adaptation_curve",
    "ant_direction",
    "as_family",
    "check_family",
    "half_cheetah_direction",
    "half_cheetah_velocity",
    "record_gif",
]
