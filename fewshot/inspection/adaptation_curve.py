"""How the score of unseen tasks changes from inner step to inner step."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import pandas as pd

from ..errors import InvalidParameterError
from ..model_selection import evaluate_few_shot, summarize
from ._plotting import AFTER, BEFORE, axes_for, tidy, whole_numbers
from ._reading import inner_loop_of, random_start

__all__ = ["AdaptationCurveDisplay"]


class _Stopped:
    """A fitted model that adapts with so many steps."""

    def __init__(self, model: Any, steps: int) -> None:
        self.model, self.steps = model, steps

    def fit_meta(self, *args: Any, **kwargs: Any) -> Self:
        raise NotImplementedError("it is fitted")

    def adapt(self, X: Any, y: Any, **columns: Any) -> Any:
        return self.model.adapt(X, y, steps=self.steps, **columns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["model"], name)

    def __sklearn_tags__(self) -> Any:
        return self.model.__sklearn_tags__()


class AdaptationCurveDisplay:
    """Score on tasks against the number of inner steps: of the model, and of a random initialisation that adapts the same way.

    Make one by :meth:`from_estimator`. Step 0 is the model that is not adapted. Bands are 95 % intervals over tasks.

    Parameters
    ----------
    curves : DataFrame
        Columns ``method`` ("meta-learned", "random initialisation"), ``step``, ``mean``, ``low``, ``high``.
    metric : str
        Name of the score.
    trained_steps : int
        Inner steps that training looked ahead.

    Attributes
    ----------
    ax_, figure_ : matplotlib.axes.Axes, matplotlib.figure.Figure
        Where it was drawn.
    """

    def __init__(self, *, curves: pd.DataFrame, metric: str, trained_steps: int) -> None:
        self.curves, self.metric, self.trained_steps = curves, metric, trained_steps

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: Any = None,
        tasks: Any = None,
        *,
        shots: int = 5,
        steps: int | Sequence[int] | None = None,
        scoring: Any = None,
        draws: int = 1,
        n_tasks: int = 100,
        random_state: int = 0,
        ax: Any = None,
    ) -> AdaptationCurveDisplay:
        """Adapt to each task with every number of steps, score, and draw.

        Parameters
        ----------
        estimator : MAMLRegressor or MAMLClassifier
            Meta-trained; it adapts by gradient steps.
        X, y, tasks
            A table of tasks that it was not trained on, or a sampler alone.
        shots : int, default=5
            Support rows.
        steps : int or sequence of int, default=None
            Numbers of steps, or the largest one; None: up to twice those of training.
        scoring, draws, n_tasks
            As of :func:`fewshot.model_selection.evaluate_few_shot`, one scorer.
        random_state : int, default=0
            Seed of the draws and of the random initialisation.
        ax : matplotlib.axes.Axes, default=None
            Where to draw; None: in a new figure.

        Returns
        -------
        AdaptationCurveDisplay

        Raises
        ------
        NotFittedError, InvalidParameterError, InvalidDataError
            If the estimator, the data or a setting cannot be used.
        """
        inner = inner_loop_of(estimator, "AdaptationCurveDisplay")
        trained = inner.adaptation.inner_steps
        counts = _counts(2 * trained if steps is None else steps)
        random = copy.copy(estimator)
        random._parameters = random_start(estimator, inner, random_state)
        models = {
            f"{name}|{k}": _Stopped(model, k)
            for name, model in (("meta-learned", estimator), ("random initialisation", random))
            for k in counts
        }
        frame = evaluate_few_shot(
            models,
            X,
            y,
            tasks,
            shots=shots,
            cv="prefit",
            scoring=scoring,
            draws=draws,
            n_tasks=n_tasks,
            random_state=random_state,
        )
        if frame["metric"].nunique() > 1:
            raise InvalidParameterError(f"scoring: got {frame['metric'].nunique()} scorers; expected one.")
        table = summarize(frame)
        table[["method", "step"]] = table["method"].str.split("|", n=1, expand=True)
        table["step"] = table["step"].astype(int)
        curves = table[["method", "step", "mean", "low", "high"]]
        return cls(curves=curves, metric=str(frame["metric"].iloc[0]), trained_steps=trained).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> AdaptationCurveDisplay:
        """Draw into given axes, or new ones."""
        self.figure_, self.ax_ = axes_for(ax)
        for name, style in (("random initialisation", BEFORE), ("meta-learned", AFTER)):
            part = self.curves[self.curves["method"] == name].sort_values("step")
            self.ax_.plot(part["step"], part["mean"], marker="o", markersize=4, label=name, **style)
            self.ax_.fill_between(
                part["step"], part["low"], part["high"], color=style["color"], alpha=0.15, linewidth=0
            )
        self.ax_.axvline(self.trained_steps, color="#7A7A7A", linewidth=0.8, linestyle=(0, (1, 1.5)))
        self.ax_.set(xlabel="inner steps (dotted: as trained)", ylabel=self.metric.replace("_", " "))
        whole_numbers(self.ax_)
        self.ax_.legend(frameon=False)
        tidy(self.ax_)
        return self


def _counts(steps: Any) -> list[int]:
    whole = isinstance(steps, int | np.integer) and not isinstance(steps, bool) and steps >= 1
    counts = list(range(int(steps) + 1)) if whole else steps
    good = isinstance(counts, Sequence | np.ndarray) and not isinstance(counts, str) and len(counts) > 0
    if not good or not all(isinstance(k, int | np.integer) and not isinstance(k, bool) and k >= 0 for k in counts):
        raise InvalidParameterError(
            f"steps: got {steps!r}; expected a number of steps of 1 or more, or several of 0 or more."
        )
    return sorted({int(k) for k in counts})
