"""Few-shot adaptation of models for tables, policies and fair classifiers.

Learn across tasks with ``fit_meta``, adapt to a new one from a few rows with ``adapt``, predict with ``predict``.
"""

from . import errors
from .episodes import EpisodeSampler
from .estimators import MAMLClassifier, MAMLRegressor
from .persistence import load, save
from .pipeline import MetaPipeline, make_meta_pipeline
from .tasks import Rows, TaskSampler, TaskSet

__all__ = [
    "EpisodeSampler",
    "MAMLClassifier",
    "MAMLRegressor",
    "MetaPipeline",
    "Rows",
    "TaskSampler",
    "TaskSet",
    "errors",
    "load",
    "make_meta_pipeline",
    "save",
]

__version__ = "0.1.0"
