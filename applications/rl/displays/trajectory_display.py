"""Picture of adapting in the plane: the ways of a point before and after, with the goal that it was not shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidDataError, InvalidParameterError

from ..checks import check_count
from ..environments.point_navigation import PointNavigation, PointNavigationEnv
from ._plotting import AFTER, BEFORE, GOAL

__all__ = ["TrajectoryDisplay"]

Paths = Sequence[npt.NDArray[Any]]

PANELS = {1: 3.2, 2: 2.5}  # width in inches, by the number of tasks
PANEL = 1.8  # with more
MARGIN = 1.15


class TrajectoryDisplay:
    """Ways in point navigation before and after adapting, a panel for each goal.

    Make one by :meth:`from_policy`.

    Parameters
    ----------
    goals : sequence of (float, float)
        Of each task.
    before, after : sequence of sequence of ndarray of shape (time + 1, 2)
        Positions in each episode of each task. The first one, which :meth:`from_policy` makes of the most likely actions, is drawn
        strong, the others pale.

    Attributes
    ----------
    axes_ : ndarray of matplotlib.axes.Axes of shape (tasks,)
        The panels.
    ax_ : matplotlib.axes.Axes
        The first of them.
    figure_ : matplotlib.figure.Figure
        Where they are.

    Examples
    --------
    >>> import numpy as np
    >>> start = np.zeros((1, 2))
    >>> display = TrajectoryDisplay(
    ...     goals=[(0.3, -0.2)],
    ...     before=[[np.vstack([start, [[-0.1, 0.1]]])]],
    ...     after=[[np.vstack([start, [[0.1, -0.1]], [[0.2, -0.2]]])]],
    ... ).plot()
    >>> display.axes_.shape
    (1,)
    """

    def __init__(
        self, *, goals: Sequence[tuple[float, float]], before: Sequence[Paths], after: Sequence[Paths]
    ) -> None:
        self.goals, self.before, self.after = list(goals), list(before), list(after)

    @classmethod
    def from_policy(
        cls,
        policy: Any,
        family: PointNavigation,
        *,
        n_tasks: int = 3,
        goals: Sequence[tuple[float, float]] | None = None,
        episodes: int = 20,
        steps: int = 1,
        n_paths: int = 2,
        random_state: int | None = 0,
        ax: Any = None,
    ) -> TrajectoryDisplay:
        """Adapt to some goals, and draw episodes of the policy before and after.

        The adapted policy is the one that ``adapt`` gives with its guard.

        Parameters
        ----------
        policy : MAMLPolicy
            Meta-trained on point navigation.
        family : PointNavigation
            Where tasks are drawn from.
        n_tasks : int, default=3
            How many.
        goals : sequence of (float, float), default=None
            Tasks to adapt to; None: `n_tasks` drawn ones.
        episodes, steps : int, default=20, 1
            As of :meth:`~fewshot.applications.rl.MAMLPolicy.adapt`.
        n_paths : int, default=2
            Fresh episodes of sampled actions of each policy, drawn behind one of its most likely actions.
        random_state : int or None, default=0
            Seed of drawn goals; the episodes follow from the policy's own.
        ax : sequence of matplotlib.axes.Axes, default=None
            Panels, as many as tasks; None: in a new figure.

        Returns
        -------
        TrajectoryDisplay

        Raises
        ------
        InvalidParameterError
            If `family` is another one, or a number is below 1.
        """
        if not isinstance(family, PointNavigation):
            raise InvalidParameterError(
                f"family: got {type(family).__name__}; expected PointNavigation, whose observations are places in the plane; "
                "use record_gif for others"
            )
        n_tasks, n_paths = check_count("n_tasks", n_tasks), check_count("n_paths", n_paths)
        rng = np.random.default_rng(random_state)
        chosen = [family.sample(rng) for _ in range(n_tasks)] if goals is None else list(goals)
        before: list[Paths] = []
        after: list[Paths] = []
        for goal in chosen:
            env = family.make(goal)
            adapted = policy.adapt(env, episodes=episodes, steps=steps)
            for one, paths in ((policy, before), (adapted, after)):
                sampled = [np.asarray(path) for path in one.record(env, episodes=n_paths).observations]
                paths.append([_most_likely(one, env), *sampled])
        return cls(goals=chosen, before=before, after=after).plot(ax)

    def plot(self, ax: Any = None) -> TrajectoryDisplay:
        """Draw.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or sequence of them, default=None
            A panel for each task; None: in a new figure.

        Returns
        -------
        TrajectoryDisplay
            Itself.
        """
        from matplotlib import pyplot as plt
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        layout, n = ConstrainedLayoutEngine(), len(self.goals)
        if not n or {len(self.before), len(self.after)} != {n}:
            raise InvalidDataError(
                f"goals, before, after: got {n}, {len(self.before)} and {len(self.after)}; expected one entry for each task in "
                "all; give as many"
            )
        width = PANELS.get(n, PANEL)
        if ax is None:
            figure, panels = plt.subplots(
                1,
                n,
                figsize=(width * n + 0.4, width + 1.0),
                sharex=True,
                sharey=True,
                squeeze=False,
                layout=layout,
            )
        else:
            panels = np.array(ax, dtype=object)
            if panels.size != n:
                raise InvalidParameterError(
                    f"ax: got {panels.size} axes for {n} tasks; expected one each; give as many"
                )
            figure = panels.flat[0].figure
        self.figure_, self.axes_ = figure, panels.reshape(-1)
        self.ax_ = self.axes_[0]
        places = np.concatenate([np.concatenate([*b, *a]) for b, a in zip(self.before, self.after, strict=True)])
        reach = MARGIN * max(np.abs(places).max(), np.abs(np.array(self.goals)).max())
        for panel, goal, before, after in zip(self.axes_, self.goals, self.before, self.after, strict=True):
            _draw_panel(panel, goal, before, after)
            panel.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal", xlabel="x (length units)")
        self.ax_.set_ylabel("y (length units)")
        handles, labels = self.ax_.get_legend_handles_labels()
        if ax is None:
            figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) if n > 3 else 2, frameon=False)
            layout.execute(figure)  # the first pass places the legend, the next one makes room for it
        else:
            self.ax_.legend(handles, labels, frameon=False, fontsize="small")
        return self


def _most_likely(policy: Any, env: PointNavigationEnv) -> npt.NDArray[Any]:
    """Return the positions of an episode of most likely actions, shape (time + 1, 2)."""
    position, _ = env.reset(seed=0)
    path, over = [position], False
    while not over:
        position, _, terminated, truncated, _ = env.step(policy.predict(position))
        path.append(position)
        over = terminated or truncated
    return np.array(path)


def _draw_panel(panel: Any, goal: tuple[float, float], before: Paths, after: Paths) -> None:
    """Draw the ways in one task."""
    for paths, style, label in ((before, BEFORE, "before adapting"), (after, AFTER, "after adapting")):
        for path in paths[1:]:
            panel.plot(*path.T, color=style["color"], linewidth=0.8, alpha=0.35)
        panel.plot(*paths[0].T, color=style["color"], linewidth=2, label=label, zorder=2.5)
        panel.plot(*paths[0][-1], color=style["color"], marker="o", markersize=5, markeredgecolor="white", zorder=2.6)
    panel.plot(
        0, 0, marker="o", markersize=6, color="white", markeredgecolor="#555555", linestyle="", label="start", zorder=3
    )
    panel.plot(
        *goal,
        marker="*",
        markersize=14,
        color=GOAL,
        markeredgecolor="white",
        linestyle="",
        label="goal (hidden)",
        zorder=3,
    )
    panel.grid(color="#ECECEC", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.locator_params(nbins=4)
