"""Episodes to look at: an animated GIF of a policy at work, beside the one it was before it adapted.

Both act in the same environment from the same seed, one after the other, so what differs between the two panels is the policy. Any
environment that renders arrays will do.
"""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont

from fewshot.errors import FewShotError, InvalidParameterError

from ..checks import check_count
from ..environments.failures import EnvironmentFailedError, describe_cause
from ..environments.limits import horizon_of
from ..policy import MAMLPolicy

__all__ = ["record_gif"]

Act = Callable[[Any], Any]

CAPTIONS = "before adapting", "after adapting"
INK, QUIET = "#222222", "#666666"
GAP = 12  # pixels between panels
MOST_FPS = 50.0  # GIF delays are hundredths of a second, and browsers slow down those below two
USUAL_FPS = 25.0
HOLD = 1.2  # seconds for which the last frame of an episode stays
FPS_IF_UNKNOWN = 30.0
SAMPLED = 24  # frames from which the palette is taken


@dataclass(frozen=True)
class _Shot:
    """A frame, and what to write over it."""

    frame: npt.NDArray[np.uint8]
    step: int
    total: float
    over: bool = False


def record_gif(
    policy: Any,
    env: gymnasium.Env[Any, Any],
    path: str | Path,
    *,
    before: Any = None,
    episodes: int = 1,
    deterministic: bool = False,
    fps: float | None = None,
    width: int = 400,
    captions: Sequence[str] | None = None,
    random_state: int | None = None,
) -> Path:
    """Write an animated GIF of a policy's episodes, beside those of the policy before it adapted.

    Parameters
    ----------
    policy : MAMLPolicy, agent or callable
        Who acts: a policy, an agent with ``predict(observation, deterministic=...)`` such as those of stable-baselines3, or a
        function from an observation to an action.
    env : gymnasium.Env
        Where, with ``render_mode="rgb_array"``.
    path : str or Path
        The file to write, whose name ends in ``.gif``.
    before : MAMLPolicy, agent or callable, default=None
        Who acts in a second panel, to the left, from the same seeds; None: there is one panel.
    episodes : int, default=1
        Episodes, shown one after another. Where one panel's is over earlier, its last frame stays.
    deterministic : bool, default=False
        Take the most likely actions.
    fps : float, default=None
        Frames a second, at most 50; None: those of the environment (``metadata["render_fps"]``), at most 25. Where the
        environment has more, frames are left out, so the speed is the environment's own.
    width : int, default=400
        Most pixels in the width of a panel; larger frames are scaled down.
    captions : sequence of str, default=None
        Above the panels; None: "before adapting" and "after adapting", and nothing over a single one.
    random_state : int or None, default=None
        Seed of episodes and of sampled actions.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InvalidParameterError
        If the environment does not render arrays or has no limit of time steps, or an argument cannot be used.
    EnvironmentFailedError
        If the environment cannot draw itself.
    FewShotError
        If the file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> from fewshot.applications.rl import MAMLPolicy, PointNavigation, record_gif
    >>> family = PointNavigation(horizon=10)
    >>> policy = MAMLPolicy(tasks_per_batch=4, episodes=5, random_state=0).fit_meta(family, total_env_steps=400)
    >>> env = family.make((0.3, -0.2), render_mode="rgb_array")
    >>> adapted = policy.adapt(family.make((0.3, -0.2)), episodes=5)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = record_gif(adapted, env, f"{folder}/point.gif", before=policy, random_state=0)
    ...     path.name, path.stat().st_size > 1000
    ('point.gif', True)
    """
    path, episodes, width = Path(path), check_count("episodes", episodes), check_count("width", width)
    if path.suffix.lower() != ".gif":
        raise InvalidParameterError(f"path: got {str(path)!r}; expected a name that ends in .gif; rename it")
    _check_env(env)
    policies = [policy] if before is None else [before, policy]
    if captions is None:
        captions = CAPTIONS if len(policies) > 1 else ("",)
    if len(captions) != len(policies):
        raise InvalidParameterError(
            f"captions: got {len(captions)} for {len(policies)} panels; expected one for each; give as many"
        )
    stride, delay = _timing(env, fps)
    seeds = np.random.default_rng(random_state).integers(2**31, size=(episodes, 2))
    columns = [list(_episodes(env, policy, seeds, deterministic, stride)) for policy in policies]
    pictures: list[Image.Image] = []
    delays: list[int] = []
    for panels in zip(*columns, strict=True):
        length = max(map(len, panels))
        for i in range(length):
            shots = [shown[min(i, len(shown) - 1)] for shown in panels]
            pictures.append(_compose(shots, captions, width))
            delays.append(round(1000 * (HOLD if i == length - 1 else delay)))
    _write(pictures, delays, path)
    return path


def _check_env(env: Any) -> None:
    """Refuse what cannot be drawn."""
    if not isinstance(env, gymnasium.Env):
        raise InvalidParameterError(
            f"env: got {type(env).__name__}; expected one gymnasium.Env; build it by family.make(parameters, ...)"
        )
    if env.render_mode != "rgb_array":
        raise InvalidParameterError(
            f"env: got {env} with render_mode {env.render_mode!r}; expected 'rgb_array'; build it by "
            "family.make(parameters, render_mode='rgb_array'), gymnasium.make(..., render_mode='rgb_array') or "
            "EnvFamily.vary(..., constants={'render_mode': 'rgb_array'})"
        )


def _timing(env: Any, fps: float | None) -> tuple[int, float]:
    """Return every how many steps a frame is shown, and for how many seconds."""
    own = float(env.metadata.get("render_fps") or FPS_IF_UNKNOWN)
    if fps is None:
        fps = min(own, USUAL_FPS)
    if not (isinstance(fps, int | float | np.number) and 0 < fps <= MOST_FPS):
        raise InvalidParameterError(
            f"fps: got {fps!r}; expected a number above 0 and at most {MOST_FPS:.0f}; lower it, or leave it out"
        )
    stride = max(1, round(own / fps))
    return stride, 1 / fps if stride == 1 else stride / own


def _acting(policy: Any, deterministic: bool, seed: int) -> Act:
    """Make a function from observations to actions, whose random numbers follow from the seed."""
    if isinstance(policy, MAMLPolicy):
        policy._check_fitted("record_gif")
        policy = copy.copy(policy)  # whose own random numbers go on undisturbed
        policy._act_generator = torch.Generator().manual_seed(seed)
    predict = getattr(policy, "predict", None)
    if predict is None:
        if not callable(policy):
            raise InvalidParameterError(
                f"policy: got {type(policy).__name__}; expected a policy, an agent with predict, or a function; "
                "pass one that returns an action"
            )
        return policy

    def act(observation: Any) -> Any:
        found = predict(observation, deterministic=deterministic)
        return found[0] if isinstance(found, tuple) else found  # stable-baselines3 adds the state of recurrent agents

    return act


def _episodes(
    env: Any, policy: Any, seeds: npt.NDArray[np.int64], deterministic: bool, stride: int
) -> Iterator[list[_Shot]]:
    """Run an episode for each pair of seeds, of the environment and of the actions."""
    limits = [n for n in (horizon_of(env), getattr(policy, "horizon_", None)) if n is not None]
    if not limits:
        raise InvalidParameterError(
            f"env: got {env}, which sets no limit of time steps; expected one; wrap it in gymnasium.wrappers.TimeLimit"
        )
    for env_seed, act_seed in seeds.tolist():
        act = _acting(policy, deterministic, act_seed)
        observation, _ = env.reset(seed=env_seed)
        shots, total, over, step = [_Shot(_frame(env), 0, 0.0)], 0.0, False, 0
        while not over:
            observation, reward, terminated, truncated, _ = env.step(act(observation))
            step, total = step + 1, total + float(reward)
            over = bool(terminated or truncated or step >= min(limits))
            if over or step % stride == 0:
                shots.append(_Shot(_frame(env), step, total, over))
        yield shots


def _frame(env: Any) -> npt.NDArray[np.uint8]:
    """Let the environment draw itself."""
    try:
        frame = env.render()
    except FewShotError:
        raise
    except Exception as error:
        raise EnvironmentFailedError(
            f"render: got {describe_cause(error)} from {env}; expected a frame; install what it draws with (for MuJoCo without a "
            "screen, set MUJOCO_GL=egl or MUJOCO_GL=osmesa before it is imported)"
        ) from error
    if not (isinstance(frame, np.ndarray) and frame.ndim == 3 and frame.shape[2] == 3):
        got = f"an array of shape {frame.shape}" if isinstance(frame, np.ndarray) else type(frame).__name__
        raise EnvironmentFailedError(
            f"render: got {got} from {env}; expected an array of shape (height, width, 3); mend the environment"
        )
    return frame.astype(np.uint8)  # a copy: some environments draw into the same array again


def _compose(shots: Sequence[_Shot], captions: Sequence[str], width: int) -> Image.Image:
    """Put panels side by side, under their captions."""
    panels = []
    for shot in shots:
        panel = Image.fromarray(shot.frame)
        if panel.width > width:
            panel = panel.resize((width, max(1, round(panel.height * width / panel.width))), Image.Resampling.LANCZOS)
        panels.append(panel)
    size = min(14, max(8, panels[0].width // 22))
    below = 1.75 * size if any(captions) else 0.35 * size
    top = round(below + 1.45 * size)
    total = sum(p.width for p in panels) + GAP * (len(panels) - 1)
    picture = Image.new("RGB", (total, top + max(p.height for p in panels)), "white")
    draw = ImageDraw.Draw(picture)
    font, small = ImageFont.load_default(size), ImageFont.load_default(math.floor(0.86 * size))
    x = 0
    for panel, shot, caption in zip(panels, shots, captions, strict=True):
        draw.text((x + 4, 0.35 * size), caption, INK, font)
        progress = f"{'ended at ' if shot.over else ''}step {shot.step}, return {shot.total:.1f}"
        draw.text((x + 4, below), progress, QUIET, small)
        picture.paste(panel, (x, top))
        draw.rectangle((x, top, x + panel.width - 1, top + panel.height - 1), outline="#BBBBBB")
        x += panel.width + GAP
    return picture


def _write(pictures: Sequence[Image.Image], delays: Sequence[int], path: Path) -> None:
    """Write frames with one palette, so that nothing flickers."""
    some = [np.asarray(pictures[i]) for i in np.unique(np.linspace(0, len(pictures) - 1, SAMPLED).astype(int))]
    palette = Image.fromarray(np.concatenate([picture[::2] for picture in some])).quantize(
        255, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE
    )
    first, *others = (p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures)
    data = io.BytesIO()
    first.save(data, "GIF", save_all=True, append_images=others, duration=list(delays), loop=0, optimize=False)
    try:
        path.write_bytes(data.getvalue())
    except OSError as error:
        raise FewShotError(f"path: {path} cannot be written ({error.strerror}).") from error
