"""Solvers of the last layer in closed form, on meta-learned features: beside gradient steps, the other way to adapt."""

from ._solver import HeadSolver
from .gaussian_process import GaussianProcess
from .ridge import Ridge

__all__ = ["SOLVERS", "GaussianProcess", "HeadSolver", "Ridge"]

SOLVERS: dict[str, HeadSolver] = {"ridge": Ridge(), "gaussian_process": GaussianProcess()}
