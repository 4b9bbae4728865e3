"""Reinforcement learning across related environments: a policy that adapts to a new one from a few episodes.

:class:`EnvFamily` and its kin are distributions over Gymnasium environments, :class:`MAMLPolicy` learns across one and adapts to a
member of it.
"""

from . import saving  # noqa: F401 - it registers what files may hold
from .adaptation_report import AdaptationReport
from .displays.adaptation_display import AdaptationCurveDisplay
from .displays.animation import record_gif
from .displays.learning_display import LearningCurveDisplay
from .displays.trajectory_display import TrajectoryDisplay
from .environments.cartpole_goal import CartPoleGoal
from .environments.checking import check_family
from .environments.failures import EnvironmentFailedError
from .environments.families import EnvFamily
from .environments.mujoco_families import ant_direction, half_cheetah_direction, half_cheetah_velocity
from .environments.point_navigation import PointNavigation
from .environments.presets import acrobot, cartpole, mountain_car_continuous, pendulum
from .environments.sources import as_family
from .environments.told import Told
from .evaluation import adaptation_curve
from .policy import MAMLPolicy
from .recorded import RecordedEpisodes
from .sb3_policy import SB3Policy

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
    "acrobot",
    "adaptation_curve",
    "ant_direction",
    "as_family",
    "cartpole",
    "check_family",
    "half_cheetah_direction",
    "half_cheetah_velocity",
    "mountain_car_continuous",
    "pendulum",
    "record_gif",
]
