"""A table whose columns have been given their roles."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["StudyData"]


@dataclass(frozen=True)
class StudyData:
    """Inputs, targets and tasks, ready for a study, and what to call them.

    Parameters
    ----------
    X : DataFrame of shape (rows, features)
        Inputs; `numeric` columns may have missing values, `text` columns may not.
    y : ndarray of shape (rows,)
        Targets: numbers, or class labels.
    tasks : ndarray of shape (rows,)
        Task labels.
    blocks, time : ndarray of shape (rows,), or None
        Block labels; times, which make studies of the first rows possible.
    kind : {"regression", "classification"}
        What the targets are.
    name, target, task : str
        Names of the data, of the target and of what a task is, as a reader should see them.
    task_noun, row_noun : str
        One task and one row, as nouns in the singular.
    unit : str
        Unit of the target, or an empty string.
    numeric, text : list of str
        Columns of `X` by how they are prepared.
    notes : list of str
        What was left out or taken for something, in sentences.
    description : str
        Provenance and known problems, or an empty string.
    """

    X: pd.DataFrame
    y: npt.NDArray[Any]
    tasks: npt.NDArray[Any]
    kind: str
    name: str
    target: str
    task: str
    numeric: list[str]
    text: list[str]
    blocks: npt.NDArray[Any] | None = None
    time: npt.NDArray[Any] | None = None
    task_noun: str = "task"
    row_noun: str = "row"
    unit: str = ""
    notes: list[str] = field(default_factory=list)
    description: str = ""

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return len(np.unique(self.tasks))

    @property
    def error_name(self) -> str:
        """What is measured; lower is better."""
        if self.kind == "classification":
            return f"share of {self.row_noun}s misclassified"
        return f"mean absolute error of {self.target}"

    @property
    def error_name_and_unit(self) -> str:
        """The same with the target's unit, if known."""
        return f"{self.error_name}, in {self.unit}" if self.unit else self.error_name

    def facts(self) -> list[tuple[str, str]]:
        """Describe the data: pairs of a heading and a value."""
        sizes = np.unique(self.tasks, return_counts=True)[1]
        missing = {c: int(n) for c, n in self.X[self.numeric].isna().sum().items() if n}
        y = self.y
        if self.kind == "regression":
            unit = f", in {self.unit}" if self.unit else ""
            about = f"{self.target}{unit}: mean {y.mean():.3g}, standard deviation {y.std():.3g}"
        else:
            labels, counts = np.unique(y, return_counts=True)
            order = np.argsort(-counts, kind="stable")
            shown = ", ".join(f"{labels[i]} {counts[i] / len(y):.0%}" for i in order[:5])
            about = f"{self.target}: {len(labels)} classes ({shown}{', ...' if len(labels) > 5 else ''})"
        return [
            ("Data", self.name),
            ("Rows", f"{len(y):,}{f' ({self.row_noun}s)' if self.row_noun != 'row' else ''}"),
            (
                "Tasks",
                f"{len(sizes):,} ({self.task}), with {sizes.min()} to {sizes.max()} rows, median {np.median(sizes):g}",
            ),
            ("Target", f"{about}; {self.kind}"),
            ("Numeric inputs", ", ".join(self.numeric) or "none"),
            *([("Text inputs", ", ".join(self.text) + " (one column per value)")] if self.text else []),
            ("Missing", ", ".join(f"{c} {n:,}" for c, n in missing.items()) or "nothing"),
        ]
