"""Settings are chosen by what they do for tasks that the model has not seen, never by held-out rows of seen tasks.

Each candidate is fitted to the training tasks of a fold, adapted to supports of the held-out ones, and judged on the rest
of their rows; every candidate sees the same supports. A model tuned over rows instead would learn to recognise tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, ParameterGrid
from sklearn.utils import check_random_state

from ..episodes import rank_rows
from ..errors import InvalidParameterError
from ._table import Table

__all__ = ["candidates", "draw_episodes", "held_out_folds", "held_out_loss", "positive_numbers", "tune"]

FOLDS = 3


def candidates(prefix: str, grid: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """Spell out a parameter grid for the model that holds the estimator under the name `prefix`."""
    try:
        points = list(ParameterGrid(grid or {}))
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(
            f"param_grid: got {grid!r}; expected names and lists of values, as GridSearchCV takes them: {error}"
        ) from None
    return [{f"{prefix}__{name}": value for name, value in point.items()} for point in points]


def positive_numbers(name: str, given: Any, default: Sequence[float]) -> npt.NDArray[np.float64]:
    """Return the values of a setting that is one positive number, several to choose from, or None for the default ones."""
    values = np.atleast_1d(np.asarray(default if given is None else given, dtype=np.float64))
    if values.ndim != 1 or not len(values) or not (values > 0).all():
        raise InvalidParameterError(f"{name}: got {given!r}; expected positive numbers, or None.")
    return values


def held_out_folds(codes: npt.NDArray[np.int64], n_tasks: int) -> list[tuple[Any, Any]]:
    """Split rows into at most three folds of whole tasks; none if there is only one task."""
    if n_tasks < 2:
        return []
    return list(GroupKFold(min(FOLDS, n_tasks)).split(codes, groups=codes))


def tune(
    model: Any,
    table: Table,
    settings: Sequence[dict[str, Any]],
    *,
    shots: Sequence[int] = (0,),
    draws: int = 1,
    max_tasks: int = 100,
    random_state: Any = None,
) -> dict[str, Any]:
    """Return the settings with the least loss on held-out training tasks.

    The loss is the absolute error, or the negative log-likelihood of the true class, averaged over tasks and shots.

    Parameters
    ----------
    model : Baseline
        Cloned for each candidate.
    table : Table
        The training tasks.
    settings : list of dict
        Candidates, as for ``set_params``. With one candidate, or one task, the first is returned untried.
    shots : sequence of int
        Support sizes; 0 judges the unadapted model.
    draws : int
        Supports of each size drawn per task.
    max_tasks : int
        At most so many tasks are adapted to, drawn at random; without shots all are judged.
    random_state : int, RandomState or None
        Seed of the supports.
    """
    folds = held_out_folds(table.codes, len(table.labels))
    if len(settings) < 2 or not folds:
        return settings[0]
    seed = int(check_random_state(random_state).randint(2**31 - 1))
    rng = np.random.default_rng(seed)
    episodes = [episode for _ in range(draws) for episode in draw_episodes(table, shots, max_tasks, rng)]
    losses = []
    for setting in settings:
        candidate = clone(model).set_params(**setting)
        losses.append(
            np.mean(
                [
                    held_out_loss(clone(candidate).fit_meta(**table.columns(train)), table, test, episodes)
                    for train, test in folds
                ]
            )
        )
    return settings[int(np.argmin(losses))]


def draw_episodes(
    table: Table, shots: Sequence[int], max_tasks: int, rng: np.random.Generator
) -> list[tuple[int, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Draw rows of support and query, for each number of shots, of `max_tasks` tasks together; without shots of all."""
    task_set = table.task_set()
    chosen = rng.permutation(task_set.n_tasks)[:max_tasks]
    ranks = rank_rows(task_set, chosen, rng)
    enough = (ranks.limit > 0)[ranks.segment]
    episodes = []
    for k in shots:
        if k == 0:  # nobody adapts, so that all tasks can be judged at no cost, and nothing is drawn
            episodes.append((0, np.empty(0, dtype=np.int64), np.arange(table.n_rows)))
            continue
        support, query = ranks.split(np.minimum(k, ranks.limit))
        rows = task_set.order[ranks.row]
        episodes.append((k, rows[support], rows[query & enough]))
    return episodes


def held_out_loss(model: Any, table: Table, test: Any, episodes: list[tuple[int, Any, Any]]) -> float:
    """Return the loss of a fitted model on the episodes of the tasks whose rows are `test`."""
    held_out = np.zeros(table.n_rows, dtype=bool)
    held_out[test] = True
    means = []
    for k, support, query in episodes:
        support, query = support[held_out[support]], query[held_out[query]]
        if not len(query):
            continue
        ask = table.columns(query, roles=False)
        adapted, tasks = model, {}
        if k:
            adapted = model.adapt(**table.columns(support, roles=False))
            tasks = {"tasks": ask["tasks"]}
        losses = _row_losses(adapted, ask["X"], ask["y"], tasks)
        sizes = np.bincount(table.codes[query])
        sums = np.bincount(table.codes[query], weights=losses)
        means.append(np.mean(sums[sizes > 0] / sizes[sizes > 0]))
    return float(np.mean(means)) if means else np.inf


def _row_losses(model: Any, X: Any, y: npt.NDArray[Any], tasks: dict[str, Any]) -> npt.NDArray[np.float64]:
    classes = getattr(model, "classes_", None)
    if classes is None:
        # What evaluation reports unless told otherwise; squares would let a few wild extrapolations decide.
        errors = np.abs(y - model.predict(X, **tasks))
        return errors if errors.ndim == 1 else errors.mean(1)
    if not hasattr(model, "predict_proba"):
        return (y != model.predict(X, **tasks)).astype(np.float64)
    known = np.isin(y, classes)
    column = np.searchsorted(classes, np.where(known, y, classes[0]))
    true = model.predict_proba(X, **tasks)[np.arange(len(y)), column]
    return -np.log(np.clip(np.where(known, true, 0.0), 1e-12, 1.0))
