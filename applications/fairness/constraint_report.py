"""What a constraint costs and whether it is met, on tasks that were held out."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

__all__ = ["ConstraintReport"]


@dataclass(frozen=True)
class ConstraintReport:
    """How a fairness-constrained classifier does on held-out training tasks; print it for the answer in words.

    Parameters
    ----------
    constraint : str or None
        The notion; None if the classifier is not constrained.
    bound : float or None
        The largest gap allowed; None if a penalty was given.
    groups : tuple of str
        The groups.
    table : DataFrame
        One row each for decisions "unconstrained", and with "group unknown" and "group known" at predict; for both of these also if
        other rows of the task are given to `adapt`, without groups. `error`, share of wrong decisions; `gap`, the root of the
        debiased squared gap, averaged over tasks, of the pair of groups where it is largest; `penalty`, the weight of the squared
        gap that does this; `feasible`, whether the gap is within the bound. With "bounded_group_loss" the column `loss`, the
        largest mean cross-entropy of a group, stands in place of gap and penalty.
    n_tasks, n_rows : int
        Held-out tasks and rows that this rests on.
    unjudged : tuple of str
        Pairs of groups with too few rows to tell a gap; nothing is done about theirs.
    """

    constraint: str | None
    bound: float | None
    groups: tuple[str, ...]
    table: pd.DataFrame
    n_tasks: int
    n_rows: int
    unjudged: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.constraint is None:
            return "Not constrained: fit_meta was called without sensitive_features."
        within = "" if self.bound is None else f" within {self.bound:g}"
        lines = [
            f"{self.constraint.replace('_', ' ')}{within} between {', '.join(self.groups)}; {self.n_tasks} held-out tasks, "
            f"{self.n_rows} rows."
        ]
        column, what, means = "gap", "gap", "penalty"
        if "loss" in self.table:
            column, what, means = "loss", "largest loss of a group", "weighting that was tried"
        for name, row in self.table.iterrows():
            blamed = name != "unconstrained" and not row["feasible"]
            said = f" NOT within the bound, which no {means} meets." if blamed else ""
            lines.append(f"{name}: {what} {row[column]:.3f}, errors {row['error']:.1%}.{said}")
        if self.unjudged:
            lines.append(f"Too few rows to tell a gap, so that nothing is done about it: {', '.join(self.unjudged)}.")
        return "\n".join(lines)
