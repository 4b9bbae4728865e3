"""Point navigation: a point in the plane that must find a goal which it is not shown.

The problem of the MAML paper, section 5.3: goals differ between tasks and appear in the reward only, so a policy without memory
cannot read the task off its observation and has to adapt. Everything is arrays: 400 episodes advance in some ten microseconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box

from fewshot.errors import InvalidParameterError

from ..checks import check_count, check_range
from ._drawing import Frame, check_render_mode, draw_point, require_rendering
from ._native import NativeBatch
from .failures import check_tasks
from .protocols import Bools, Floats

__all__ = ["PointNavigation", "PointNavigationEnv"]

LIMIT = 0.1  # of each coordinate of a move

Goal = tuple[float, float]


def _spaces(horizon: int) -> tuple[Box, Box]:
    """Spaces of positions and of moves."""
    reach = LIMIT * horizon
    return Box(-reach, reach, (2,), np.float32), Box(-LIMIT, LIMIT, (2,), np.float32)


def _tolerance(value: Any) -> float:
    """Return a tolerance, or say what is wrong with it."""
    if not (isinstance(value, int | float | np.number) and 0 <= value < math.inf):
        raise InvalidParameterError(f"tolerance: got {value!r}; expected a number of at least 0, such as 0.01")
    return float(value)


def _goal(parameters: Any) -> Goal:
    """Return the goal as two numbers, or say what is wrong with it."""
    try:
        x, y = (float(value) for value in parameters)
    except (TypeError, ValueError):
        x = y = math.nan
    if not (math.isfinite(x) and math.isfinite(y)):
        raise InvalidParameterError(
            f"parameters: got {parameters!r}; expected two finite numbers, the goal's coordinates; call sample(rng)"
        )
    return x, y


class PointNavigation:
    r"""Family of planes with a hidden goal.

    Episodes start at the origin. An action is a move, clipped to ±0.1 in each coordinate; with position p after the move and the
    task's goal g, the reward is :math:`-\lVert p - g \rVert`. An episode ends when both coordinates lie within `tolerance` of the
    goal's or, cut off, after `horizon` steps. The observation is the position.

    Parameters
    ----------
    horizon : int, default=100
        Most time steps of an episode.
    goals : (float, float), default=(-0.5, 0.5)
        Range of the goal's coordinates, which are drawn uniformly.
    tolerance : float, default=0.01
        Distance in each coordinate within which the goal is reached. 0: never, so that all episodes are of full length.

    Attributes
    ----------
    observation_space, action_space : gymnasium.spaces.Box
        Of shape (2,).

    Raises
    ------
    InvalidParameterError
        If `horizon` is below 1, `goals` is not a range or `tolerance` is negative.

    References
    ----------
    C. Finn, P. Abbeel and S. Levine (2017). Model-agnostic meta-learning for fast adaptation of deep networks. ICML.

    Examples
    --------
    >>> import numpy as np
    >>> family = PointNavigation()
    >>> rng = np.random.default_rng(0)
    >>> tasks = [family.sample(rng) for _ in range(3)]
    >>> batch = family.batch(tasks, n_episodes=2)
    >>> batch.reset(rng).shape
    (3, 2, 2)
    >>> towards = np.broadcast_to(np.clip(tasks, -0.1, 0.1)[:, None], (3, 2, 2))
    >>> positions, rewards, terminated, truncated = batch.step(towards)
    >>> positions[:, 0].round(2)
    array([[ 0.1, -0.1],
           [-0.1, -0.1],
           [ 0.1,  0.1]], dtype=float32)
    """

    def __init__(self, horizon: int = 100, goals: tuple[float, float] = (-0.5, 0.5), tolerance: float = 0.01) -> None:
        self.horizon = check_count("horizon", horizon)
        self.goals, self.tolerance = check_range("goals", goals), _tolerance(tolerance)
        self.observation_space, self.action_space = _spaces(self.horizon)

    def __repr__(self) -> str:
        return f"PointNavigation(horizon={self.horizon}, goals={self.goals}, tolerance={self.tolerance})"

    def sample(self, rng: np.random.Generator) -> Goal:
        """Draw a goal (x, y)."""
        x, y = rng.uniform(*self.goals, size=2)
        return float(x), float(y)

    def make(self, parameters: Any, render_mode: str | None = None) -> PointNavigationEnv:
        """Build the environment with the goal `parameters`; with ``render_mode="rgb_array"`` it can be drawn."""
        return PointNavigationEnv(_goal(parameters), self.horizon, self.tolerance, render_mode)

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> PointNavigationBatch:
        """Make `n_episodes` slots for each goal in `parameters`."""
        return PointNavigationBatch(parameters, n_episodes, self.horizon, self.tolerance)

    def told(self, parameters: Any) -> npt.NDArray[np.float32]:
        """Describe a task by its goal, shape (2,)."""
        return np.array(_goal(parameters), np.float32)


class PointNavigationBatch(NativeBatch):
    """Episodes of several goals in one array; see :class:`~.protocols.EpisodeBatch`.

    Parameters
    ----------
    parameters : sequence of (float, float)
        Goals.
    n_episodes : int
        Slots of each.
    horizon : int
        Most time steps.
    tolerance : float
        Within which a goal is reached.
    """

    def __init__(self, parameters: Sequence[Any], n_episodes: int, horizon: int, tolerance: float) -> None:
        check_tasks(parameters)
        super().__init__(len(parameters), n_episodes, horizon, *_spaces(horizon))
        self._goals = np.array([_goal(goal) for goal in parameters])[:, None, :]
        self._positions, self._tolerance = np.zeros((*self.slots, 2)), tolerance

    def _begin(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        self._positions = np.zeros((*self.slots, 2))
        return self._positions.astype(np.float32)

    def _advance(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Floats, Bools]:
        # In float64, where the limit is 0.1: float32's is a little more, and a hundred such moves leave the space of positions.
        self._positions += actions.clip(-LIMIT, LIMIT, dtype=np.float64)
        offset = self._positions - self._goals
        x, y = offset[..., 0], offset[..., 1]
        rewards = -np.sqrt(x * x + y * y)
        reached = (np.abs(x) < self._tolerance) & (np.abs(y) < self._tolerance)
        return self._positions.astype(np.float32), rewards, reached


class PointNavigationEnv(gymnasium.Env[npt.NDArray[np.float32], npt.NDArray[np.float32]]):
    """A plane with one goal, as a Gymnasium environment.

    Parameters
    ----------
    goal : (float, float)
        Where it is.
    horizon : int, default=100
        Time steps after which an episode is cut off.
    tolerance : float, default=0.01
        Within which the goal is reached.
    render_mode : {None, "rgb_array"}, default=None
        With "rgb_array", ``render()`` gives frames of shape (320, 320, 3), which reach from -0.8 to 0.8 in both directions: the
        start (grey ring), the goal (green), the point and its way (blue).

    Examples
    --------
    >>> import numpy as np
    >>> env = PointNavigationEnv((0.05, 0.0))
    >>> position, _ = env.reset(seed=0)
    >>> env.step(np.array([0.05, 0.0], dtype=np.float32))[1:4]
    (-7.450580...e-10, True, False)
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(self, goal: Goal, horizon: int = 100, tolerance: float = 0.01, render_mode: str | None = None) -> None:
        self.goal, self.tolerance = _goal(goal), _tolerance(tolerance)
        self.render_mode = check_render_mode(render_mode)
        self.horizon = check_count("horizon", horizon)
        self.observation_space: gymnasium.Space[Any]
        self.action_space: gymnasium.Space[Any]
        self.observation_space, self.action_space = _spaces(self.horizon)
        self._x = self._y = 0.0
        self._time = 0
        self._trail: list[Goal] = [(0.0, 0.0)]  # kept only where it is drawn

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Put the point at the origin."""
        super().reset(seed=seed)
        self._x = self._y = 0.0
        self._time = 0
        self._trail = [(0.0, 0.0)]
        return np.zeros(2, np.float32), {}

    def step(
        self, action: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Move the point."""
        self._x += min(max(float(action[0]), -LIMIT), LIMIT)
        self._y += min(max(float(action[1]), -LIMIT), LIMIT)
        self._time += 1
        if self.render_mode is not None:
            self._trail.append((self._x, self._y))
        x, y = self._x - self.goal[0], self._y - self.goal[1]
        terminated = abs(x) < self.tolerance and abs(y) < self.tolerance
        truncated = self._time >= self.horizon and not terminated
        return np.array([self._x, self._y], np.float32), -math.sqrt(x * x + y * y), terminated, truncated, {}

    def render(self) -> Frame:
        """Draw the plane as it is, shape (320, 320, 3)."""
        require_rendering(self.render_mode)
        return draw_point(self._trail, self.goal)
