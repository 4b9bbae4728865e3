"""The rows that a model is adapted to, as a user gives them: checked, and read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from fewshot.errors import InvalidDataError
from fewshot.estimators import MAMLClassifier
from fewshot.estimators._inputs import check_features
from fewshot.tasks import factorize

from .decider import Given
from .groups import Groups
from .guess import GroupGuess

__all__ = ["read_rows", "refuse_incomplete"]


def refuse_incomplete(tasks: Any, X_unlabelled: Any, sensitive_unlabelled: Any, tasks_unlabelled: Any) -> None:
    """Raise an error if columns of the unlabelled rows are given without what they go with."""
    for name, value in (("sensitive_unlabelled", sensitive_unlabelled), ("tasks_unlabelled", tasks_unlabelled)):
        if value is not None and X_unlabelled is None:
            raise InvalidDataError(f"{name}: given without X_unlabelled; give the rows too.")
    if tasks is not None and X_unlabelled is not None and tasks_unlabelled is None:
        raise InvalidDataError(
            "tasks_unlabelled: got None, but tasks was given; say which task each row of X_unlabelled is of."
        )
    if tasks is None and tasks_unlabelled is not None:
        raise InvalidDataError(
            "tasks_unlabelled: given without tasks; say which task each row of X is of too, or leave it out if all are of one."
        )


def read_rows(
    classifier: MAMLClassifier,
    groups: Groups,
    guess: GroupGuess,
    parts: list[tuple[Any, Any, Any, npt.NDArray[np.bool_] | None]],
    labels: npt.NDArray[Any] | None,
) -> list[Given]:
    """Read rows of the tasks adapted to; in place of guesses they have logits without the task's part.

    Parameters
    ----------
    classifier : MAMLClassifier
        Knows the features.
    groups : Groups
        The vocabulary.
    guess : GroupGuess
        Guesses groups.
    parts : list of tuple
        Features, groups or None, task labels or None, outcomes or None where rows are unlabelled.
    labels : ndarray or None
        Labels of the tasks, if there are several.
    """
    found = []
    for X, sensitive, tasks, favourable in parts:
        end = "" if favourable is not None else "_unlabelled"
        x = check_features(classifier, X, reset=False, name=f"X{end}")
        task = np.zeros(len(x), dtype=np.int64)
        if labels is not None:
            unique, position = factorize(f"tasks{end}", tasks, len(x))
            known = pd.Index(labels).get_indexer(pd.Index(unique))
            if (known < 0).any():
                raise InvalidDataError(
                    f"tasks_unlabelled: task {unique[known < 0].tolist()[0]!r} has no support among X; adapt to it too, or "
                    "leave its rows out."
                )
            task = known.astype(np.int64)[position]
        name = f"sensitive{end or '_features'}"
        group = None if sensitive is None else groups.codes(sensitive, len(x), name)
        found.append(Given(X, guess.logits(x), task, group, favourable))
    return found
