"""Pictures of the native environments: a small canvas in the units of the world, and what is drawn on it.

A figure of matplotlib takes some 50 ms a frame, a canvas of pillow two or three. It is drawn at twice the size and reduced, which
smooths edges. Colours are Okabe and Ito's, which colour-blind readers tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw

from fewshot.errors import InvalidParameterError

__all__ = ["Canvas", "check_render_mode", "draw_cart", "draw_point", "require_rendering"]

Frame = npt.NDArray[np.uint8]
Place = tuple[float, float]

FINER = 2  # drawn pixels for each pixel of the frame, in each direction
INK, PALE, GROUND = "#333333", "#E8E8E8", "#9A9A9A"
MOVER, GOAL, POLE = "#0072B2", "#009E73", "#D55E00"

POINT_SIZE = 320, 320
POINT_VIEW = 0.8  # distance of the edges from the origin
GRID = 0.25

CART_SIZE = 400, 225
CART_VIEW = 2.7  # metres to each side


def check_render_mode(value: object) -> str | None:
    """Return how an environment shows itself, or say what is wrong with it."""
    if value not in (None, "rgb_array"):
        raise InvalidParameterError(
            f"render_mode: got {value!r}; expected 'rgb_array' or None; frames can be shown by fewshot.applications.rl.record_gif"
        )
    return None if value is None else "rgb_array"


def require_rendering(render_mode: str | None) -> None:
    """Refuse to draw an environment that was built without a render mode."""
    if render_mode is None:
        raise InvalidParameterError(
            "render_mode: got None; expected 'rgb_array' to draw; build the environment by "
            "family.make(parameters, render_mode='rgb_array')"
        )


class Canvas:
    """A white picture of a window of the plane.

    Parameters
    ----------
    size : (int, int)
        Width and height of the frame, in pixels.
    centre : (float, float)
        What is in the middle, in units of the world; y points upwards.
    scale : float
        Pixels of the frame for each unit of the world.

    Examples
    --------
    >>> canvas = Canvas((40, 20), centre=(0.0, 0.0), scale=10.0)
    >>> canvas.disc((0.0, 0.0), 4.0, "#000000")
    >>> frame = canvas.frame()
    >>> frame.shape, frame[10, 20].tolist(), frame[0, 0].tolist()
    ((20, 40, 3), [0, 0, 0], [255, 255, 255])
    """

    def __init__(self, size: tuple[int, int], centre: Place, scale: float) -> None:
        self._image = Image.new("RGB", (size[0] * FINER, size[1] * FINER), "white")
        self._draw = ImageDraw.Draw(self._image)
        self._centre, self._scale = centre, scale * FINER

    def _pixel(self, place: Place) -> Place:
        width, height = self._image.size
        x, y = place[0] - self._centre[0], place[1] - self._centre[1]
        return width / 2 + self._scale * x, height / 2 - self._scale * y

    def line(self, places: Sequence[Place], colour: str, width: float = 1.0) -> None:
        """Join places by a line of so many pixels of the frame."""
        self._draw.line([self._pixel(p) for p in places], colour, round(width * FINER), joint="curve")

    def disc(self, place: Place, radius: float, fill: str | None, outline: str | None = None, width: float = 1) -> None:
        """Draw a disc with a radius in pixels of the frame."""
        x, y = self._pixel(place)
        r = radius * FINER
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill, outline, round(width * FINER))

    def polygon(self, places: Sequence[Place], fill: str) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._pixel(p) for p in places], fill)

    def frame(self) -> Frame:
        """Return the picture, of shape (height, width, 3)."""
        return np.asarray(self._image.reduce(FINER))


def _blend(colour: str, share: float) -> str:
    """Mix a colour with white; a share of 1 leaves it as it is."""
    parts = ImageColor.getrgb(colour)[:3]
    return "#" + "".join(f"{round(255 + share * (part - 255)):02X}" for part in parts)


def draw_point(trail: Sequence[Place], goal: Place) -> Frame:
    """Draw the plane of point navigation: grid, start, goal, and the point with the way that it came.

    Parameters
    ----------
    trail : sequence of (float, float)
        Positions from the start on; the last is where the point is. One outside the view is shown hollow, at its edge.
    goal : (float, float)
        Where it should be.

    Returns
    -------
    ndarray of uint8 of shape (320, 320, 3)
    """
    view = max(POINT_VIEW, 1.2 * abs(goal[0]), 1.2 * abs(goal[1]))
    canvas = Canvas(POINT_SIZE, (0.0, 0.0), POINT_SIZE[0] / (2 * view))
    if view < 8 * POINT_VIEW:  # beyond, lines would fill the picture
        n = math.floor(view / GRID)
        for i in range(-n, n + 1):
            colour = PALE if i else "#CFCFCF"
            canvas.line([(i * GRID, -view), (i * GRID, view)], colour)
            canvas.line([(-view, i * GRID), (view, i * GRID)], colour)
    canvas.disc((0.0, 0.0), 3.5, "white", GROUND, 1.5)
    for radius, fill in ((12.0, _blend(GOAL, 0.25)), (7.5, "white"), (4.5, GOAL)):
        canvas.disc(goal, radius, fill)
    steps = len(trail) - 1
    for i in range(steps):  # older parts fade
        share = 0.25 + 0.75 * (i + 1) / steps
        canvas.line(trail[i : i + 2], _blend(MOVER, share), 2.0)
    x, y = trail[-1]
    edge = 0.97 * view
    inside = max(abs(x), abs(y)) <= edge
    place = min(max(x, -edge), edge), min(max(y, -edge), edge)
    canvas.disc(place, 6.5, MOVER if inside else "white", "white" if inside else MOVER, 1.5)
    return canvas.frame()


def draw_cart(x: float, angle: float, length: float, masspole: float, goal: float, limit: float) -> Frame:
    """Draw a cart with its pole on a track, and where the cart should be.

    Parameters
    ----------
    x : float
        Position of the cart, in metres.
    angle : float
        Of the pole, in radians; positive ones lean to the right.
    length : float
        Half the pole's length, in metres.
    masspole : float
        Mass of the pole, in kg; heavier ones are drawn thicker.
    goal : float
        Where the cart should be, in metres.
    limit : float
        Distance from the middle at which the track ends, in metres.

    Returns
    -------
    ndarray of uint8 of shape (225, 400, 3)
    """
    scale = CART_SIZE[0] / (2 * CART_VIEW)
    canvas = Canvas(CART_SIZE, (0.0, 1.06), scale)
    wheel, half, height = 0.08, 0.29, 0.24
    floor = wheel + 0.02
    canvas.line([(-limit, 0.0), (limit, 0.0)], INK, 2.0)
    for end in (-limit, limit):
        canvas.line([(end, -0.1), (end, 0.14)], INK, 2.5)
    for metre in range(-math.floor(limit), math.floor(limit) + 1):
        canvas.line([(metre, -0.06), (metre, 0.0)], GROUND, 1.5)
    canvas.line([(goal, 0.0), (goal, 2.1)], _blend(GOAL, 0.35), 1.5)
    canvas.polygon([(goal, -0.03), (goal - 0.1, -0.22), (goal + 0.1, -0.22)], GOAL)
    canvas.polygon([(goal, 2.1), (goal, 1.88), (goal + 0.24, 1.99)], GOAL)
    body = [(x - half, floor), (x + half, floor), (x + half, floor + height), (x - half, floor + height)]
    canvas.polygon(body, MOVER)
    for side in (-0.6 * half, 0.6 * half):
        canvas.disc((x + side, wheel), wheel * scale, INK)
    pivot = x, floor + height
    top = x + 2 * length * math.sin(angle), pivot[1] + 2 * length * math.cos(angle)
    width = 3.0 + 10.0 * math.sqrt(min(max(masspole, 0.0), 1.0))
    canvas.line([pivot, top], POLE, width)
    for end_of_pole in (pivot, top):
        canvas.disc(end_of_pole, width / 2, POLE)
    canvas.disc(pivot, 3.0, "white")
    return canvas.frame()
