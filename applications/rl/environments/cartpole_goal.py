"""CartPole with a place to be: the goal is in the reward only, the physics differs between tasks as well.

With hidden physics alone a policy trained on all tasks at once balances nearly every pole, which shows no need to adapt. Where the
cart is wanted cannot be read off its state. The dynamics are those of Gymnasium's ``CartPole-v1`` (Euler steps of 0.02 s),
in arrays over all episodes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from fewshot.errors import InvalidParameterError

from ..checks import check_count, check_range
from ._drawing import Frame, check_render_mode, draw_cart, require_rendering
from ._native import NativeBatch
from .failures import check_tasks
from .protocols import Bools, Floats

__all__ = ["CartPoleGoal", "CartPoleGoalEnv"]

TAU = 0.02  # seconds of a time step
MASS_CART = 1.0
X_LIMIT = 2.4
ANGLE_LIMIT = 12 * 2 * math.pi / 360
START = 0.05  # all four state variables begin within this distance of 0
NAMES = ("force_mag", "goal", "gravity", "length", "masspole")


def _spaces() -> tuple[Box, Discrete]:
    """Spaces of states and of pushes, as in Gymnasium."""
    high = np.array([2 * X_LIMIT, np.inf, 2 * ANGLE_LIMIT, np.inf], np.float32)
    return Box(-high, high, dtype=np.float32), Discrete(2)


def _check(parameters: Any) -> dict[str, float]:
    """Return the numbers of a task, or say what is wrong with them."""
    try:
        found = {name: float(parameters[name]) for name in NAMES} if isinstance(parameters, Mapping) else {}
    except (KeyError, TypeError, ValueError):
        found = {}
    if not found or not all(map(math.isfinite, found.values())) or min(found["length"], found["masspole"]) <= 0:
        raise InvalidParameterError(
            f"parameters: got {parameters!r}; expected a dict with finite numbers {', '.join(NAMES)}, where length and "
            "masspole are positive; call sample(rng)"
        )
    return found


class CartPoleGoal:
    r"""Family of carts with a pole, with a hidden goal and physics of their own.

    Actions 0 and 1 push the cart to the left or right. With the cart's position x after a step and the task's goal
    :math:`x^*` the reward is :math:`\exp(-2 |x - x^*|)`. An episode ends when the cart leaves ±2.4 or the pole 12 degrees and is
    cut off after `horizon` steps. Observations are position, velocity, angle and angular velocity, which start uniformly within
    ±0.05. The sign of the goal is a fair coin.

    Parameters
    ----------
    horizon : int, default=200
        Most time steps of an episode, of 0.02 s each.
    goal_distance : (float, float), default=(0.5, 1.5)
        Range of :math:`|x^*|`, in metres; all ranges are of equally likely numbers.
    gravity : (float, float), default=(6.0, 14.0)
        In m/s².
    masspole : (float, float), default=(0.05, 0.5)
        In kg; the cart has 1 kg.
    length : (float, float), default=(0.25, 1.0)
        *Half* the pole's length, in metres, as in Gymnasium.
    force_mag : (float, float), default=(5.0, 15.0)
        Of a push, in N.

    Attributes
    ----------
    observation_space : gymnasium.spaces.Box
        Of shape (4,).
    action_space : gymnasium.spaces.Discrete
        Two actions.

    Raises
    ------
    InvalidParameterError
        If `horizon` is below 1 or something else is not a range.

    Examples
    --------
    >>> import numpy as np
    >>> family = CartPoleGoal()
    >>> rng = np.random.default_rng(0)
    >>> tasks = [family.sample(rng) for _ in range(3)]
    >>> round(tasks[0]["goal"], 2)
    -0.77
    >>> batch = family.batch(tasks, n_episodes=2)
    >>> batch.reset(rng).shape
    (3, 2, 4)
    >>> observations, rewards, terminated, truncated = batch.step(np.ones((3, 2), dtype=int))
    >>> rewards.round(1)
    array([[0.2, 0.2],
           [0.1, 0.1],
           [0.3, 0.3]])
    """

    def __init__(
        self,
        horizon: int = 200,
        goal_distance: tuple[float, float] = (0.5, 1.5),
        gravity: tuple[float, float] = (6.0, 14.0),
        masspole: tuple[float, float] = (0.05, 0.5),
        length: tuple[float, float] = (0.25, 1.0),
        force_mag: tuple[float, float] = (5.0, 15.0),
    ) -> None:
        self.horizon = check_count("horizon", horizon)
        self.goal_distance = check_range("goal_distance", goal_distance)
        self.gravity = check_range("gravity", gravity)
        self.masspole = check_range("masspole", masspole)
        self.length = check_range("length", length)
        self.force_mag = check_range("force_mag", force_mag)
        for name, (low, _) in (("masspole", self.masspole), ("length", self.length)):
            if low <= 0:
                raise InvalidParameterError(
                    f"{name}: got a range from {low}; expected positive numbers; raise its lower end"
                )
        self.observation_space, self.action_space = _spaces()

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """Draw the goal and the physics of one task."""
        sign = 1.0 if rng.random() < 0.5 else -1.0
        return {
            "goal": sign * float(rng.uniform(*self.goal_distance)),
            "gravity": float(rng.uniform(*self.gravity)),
            "masspole": float(rng.uniform(*self.masspole)),
            "length": float(rng.uniform(*self.length)),
            "force_mag": float(rng.uniform(*self.force_mag)),
        }

    def make(self, parameters: Any, render_mode: str | None = None) -> CartPoleGoalEnv:
        """Build the environment of a task; with ``render_mode="rgb_array"`` it can be drawn."""
        return CartPoleGoalEnv(parameters, horizon=self.horizon, render_mode=render_mode)

    def batch(self, parameters: Sequence[Any], n_episodes: int) -> CartPoleGoalBatch:
        """Make `n_episodes` slots for each of some tasks."""
        return CartPoleGoalBatch(parameters, n_episodes, self.horizon)

    def told(self, parameters: Any) -> npt.NDArray[np.float32]:
        """Describe a task by push, goal, gravity, half-length and mass of the pole, shape (5,)."""
        return np.array(list(_check(parameters).values()), np.float32)


class CartPoleGoalBatch(NativeBatch):
    """Episodes of several tasks in arrays; see :class:`~.protocols.EpisodeBatch`.

    Parameters
    ----------
    parameters : sequence of dict
        Of each task.
    n_episodes : int
        Slots of each.
    horizon : int
        Most time steps.
    """

    def __init__(self, parameters: Sequence[Any], n_episodes: int, horizon: int) -> None:
        check_tasks(parameters)
        super().__init__(len(parameters), n_episodes, horizon, *_spaces())
        columns = np.array([list(_check(task).values()) for task in parameters]).T[..., None]
        self._force, self._goal, self._gravity, self._length, self._mass = columns
        self._total = self._mass + MASS_CART
        self._state = np.zeros((4, *self.slots))

    def _observed(self) -> npt.NDArray[np.float32]:
        return np.stack(list(self._state), -1, dtype=np.float32, casting="same_kind")

    def _begin(self, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        self._state = np.moveaxis(rng.uniform(-START, START, (*self.slots, 4)), -1, 0).copy()
        return self._observed()

    def _advance(self, actions: npt.NDArray[Any]) -> tuple[npt.NDArray[np.float32], Floats, Bools]:
        x, x_dot, theta, theta_dot = self._state
        cos, sin = np.cos(theta), np.sin(theta)
        force = np.where(actions == 1, self._force, -self._force)
        moment = self._mass * self._length
        temp = (force + moment * theta_dot * theta_dot * sin) / self._total
        theta_acc = (self._gravity * sin - cos * temp) / (
            self._length * (4.0 / 3.0 - self._mass * cos * cos / self._total)
        )
        x_acc = temp - moment * theta_acc * cos / self._total
        rates = np.stack([x_dot, x_acc, theta_dot, theta_acc])
        # A slot whose episode has ended stands still: Euler steps of a swinging pole gain energy without bound.
        self._state += TAU * self.alive * rates
        x, _, theta, _ = self._state
        return self._observed(), np.exp(-2.0 * np.abs(x - self._goal)), _outside(x, theta)


def _outside(x: Any, theta: Any) -> Any:
    """Say whether the cart or the pole has left its range."""
    return (abs(x) > X_LIMIT) | (abs(theta) > ANGLE_LIMIT)


class CartPoleGoalEnv(gymnasium.Env[npt.NDArray[np.float32], np.int64]):
    """A cart with a pole and a place to be, as a Gymnasium environment.

    Parameters
    ----------
    parameters : dict of str to float
        With ``goal``, ``gravity``, ``masspole``, ``length`` and ``force_mag``, as :meth:`CartPoleGoal.sample` draws them.
    horizon : int, default=200
        Time steps after which an episode is cut off.
    render_mode : {None, "rgb_array"}, default=None
        With "rgb_array", ``render()`` gives frames of shape (225, 400, 3): the track with a mark at each metre, the cart (blue),
        the pole (orange), as long and as heavy as it is, and a flag at the goal (green).

    Examples
    --------
    >>> env = CartPoleGoalEnv({"goal": 0.0, "gravity": 9.8, "masspole": 0.1, "length": 0.5, "force_mag": 10.0})
    >>> observation, _ = env.reset(seed=0)
    >>> observation, reward, terminated, truncated, _ = env.step(1)
    >>> round(reward, 2)
    0.97
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": round(1 / TAU)}

    def __init__(self, parameters: Mapping[str, float], horizon: int = 200, render_mode: str | None = None) -> None:
        self.parameters = _check(parameters)
        self.render_mode = check_render_mode(render_mode)
        self.horizon = check_count("horizon", horizon)
        self.observation_space: gymnasium.Space[Any]
        self.action_space: gymnasium.Space[Any]
        self.observation_space, self.action_space = _spaces()
        self.state: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
        self._time = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.float32], dict[str, Any]]:
        """Put the cart near the middle and the pole nearly upright."""
        super().reset(seed=seed)
        x, x_dot, theta, theta_dot = self.np_random.uniform(-START, START, 4)
        self.state = float(x), float(x_dot), float(theta), float(theta_dot)
        self._time = 0
        return np.array(self.state, np.float32), {}

    def step(self, action: np.int64 | int) -> tuple[npt.NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Push the cart to the left (0) or right (1)."""
        task = self.parameters
        x, x_dot, theta, theta_dot = self.state
        cos, sin = math.cos(theta), math.sin(theta)
        force = task["force_mag"] if action == 1 else -task["force_mag"]
        total, moment = task["masspole"] + MASS_CART, task["masspole"] * task["length"]
        temp = (force + moment * theta_dot**2 * sin) / total
        theta_acc = (task["gravity"] * sin - cos * temp) / (
            task["length"] * (4.0 / 3.0 - task["masspole"] * cos**2 / total)
        )
        x_acc = temp - moment * theta_acc * cos / total
        x, x_dot = x + TAU * x_dot, x_dot + TAU * x_acc
        theta, theta_dot = theta + TAU * theta_dot, theta_dot + TAU * theta_acc
        self.state = x, x_dot, theta, theta_dot
        self._time += 1
        terminated = bool(_outside(x, theta))
        truncated = self._time >= self.horizon and not terminated
        return np.array(self.state, np.float32), math.exp(-2.0 * abs(x - task["goal"])), terminated, truncated, {}

    def render(self) -> Frame:
        """Draw the cart as it is, shape (225, 400, 3)."""
        require_rendering(self.render_mode)
        x, _, angle, _ = self.state
        task = self.parameters
        return draw_cart(x, angle, task["length"], task["masspole"], task["goal"], X_LIMIT)
