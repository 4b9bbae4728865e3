"""Did meta-learning pay? A plain answer from paired differences.

The opponent is the best baseline, the one that a user would take instead: chosen on validation tasks by its error averaged
over support sizes, once for each way of choosing supports. Choosing it on the test tasks would favour the baselines by their
luck, and choosing one beforehand would favour meta-learning. Every test task is compared with itself, so that what makes a
task hard for all methods cancels. There is one comparison for each support size and way of choosing supports; their
intervals are widened (Bonferroni) to hold all together with 95 %, so that it is fair to pick out the clearest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import t

__all__ = ["META", "compare", "decimals_for", "verdict"]

META = "fewshot"
LEVEL = 0.95
FEWEST_TASKS = 5  # with fewer test tasks an interval is no evidence, however narrow


def compare(scores: pd.DataFrame) -> pd.DataFrame:
    """Compare meta-learning with the baseline that does best on validation tasks, task by task.

    Parameters
    ----------
    scores : DataFrame
        As in :class:`StudyResult`.

    Returns
    -------
    DataFrame
        Columns protocol, shots, baseline, difference, low, high, n_tasks, for each protocol and support size above 0. The
        difference is the baseline's error less that of meta-learning (positive: meta-learning is better), averaged over test
        tasks, with its joint 95 % interval, which is infinite for fewer than five tasks.
    """
    keys = ["protocol", "shots", "fold", "part", "method", "task"]
    means = scores[scores["shots"] > 0].groupby(keys, sort=False)["error"].mean()
    table = means.unstack("method").reset_index()
    baselines = [m for m in table.columns if m not in (META, *keys)]
    rows: list[tuple[str, int, str, npt.NDArray[np.float64]]] = []
    for protocol in table["protocol"].unique():
        here = table[table["protocol"] == protocol]
        best = {fold: _best_baseline(here[here["fold"] == fold], baselines) for fold in here["fold"].unique()}
        test = here[here["part"] == "test"]
        opponent = test["fold"].map(best)
        for k in test["shots"].unique():
            differences, names = [], opponent[test["shots"] == k].value_counts()
            for name in names.index:
                judged = test[(test["shots"] == k) & (opponent == name)]
                differences.append((judged[name] - judged[META]).to_numpy())
            name = names.index[0] if len(names) == 1 else f"the best baseline (mostly {names.index[0]})"
            values = np.concatenate(differences)
            rows.append((protocol, int(k), name, values[np.isfinite(values)]))
    level = 1 - (1 - LEVEL) / max(1, len(rows))
    out = [[*row[:3], *_interval(row[3], level)] for row in rows]
    return pd.DataFrame(out, columns=["protocol", "shots", "baseline", "difference", "low", "high", "n_tasks"])


def _best_baseline(table: pd.DataFrame, baselines: list[str]) -> str:
    """Least error on validation tasks, averaged over tasks, then over support sizes."""
    validation = table[table["part"] == "validation"]
    # Where no validation task is large enough for any size the test tasks choose, which favours the baseline.
    judges = validation if len(validation) else table
    means = {name: judges.groupby("shots")[name].mean().to_numpy().mean() for name in baselines}
    return min(means, key=lambda name: means[name])


def _interval(values: npt.NDArray[Any], level: float) -> tuple[float, float, float, int]:
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < FEWEST_TASKS:
        return mean, -math.inf, math.inf, n
    half = float(t.ppf((1 + level) / 2, n - 1) * values.std(ddof=1) / math.sqrt(n))
    return mean, mean - half, mean + half, n


def verdict(comparison: pd.DataFrame, error_name: str, task_noun: str = "task", row_noun: str = "row") -> str:
    """Say in one sentence whether meta-learning paid.

    Parameters
    ----------
    comparison : DataFrame
        From :func:`compare`.
    error_name : str
        What is measured, with its unit; lower is better.
    task_noun, row_noun : str, default="task", "row"
        One task and one row, as nouns.

    Returns
    -------
    str

    Examples
    --------
    >>> rows = [["random", 5, "mixed slopes", -0.03, -0.05, -0.01, 48]]
    >>> columns = ["protocol", "shots", "baseline", "difference", "low", "high", "n_tasks"]
    >>> said = verdict(pd.DataFrame(rows, columns=columns), "error of dose (mg)", "patient", "visit")
    >>> print(said)  # doctest: +NORMALIZE_WHITESPACE
    Meta-learning did not pay here: with 5 random visits, mixed slopes is better than fewshot by 0.030 [0.010, 0.050]
    (error of dose (mg), 48 patients, 95 % interval).
    """
    judged = comparison[np.isfinite(comparison["low"].astype(float))]
    if judged.empty:
        most = int(comparison["n_tasks"].max()) if len(comparison) else 0
        return (
            f"Whether meta-learning paid cannot be said: {most} test {task_noun}(s) are too few to judge by "
            f"(at least {FEWEST_TASKS} are needed)."
        )
    n = len(judged)
    better, worse = judged[judged["low"] > 0], judged[judged["high"] < 0]

    def told(rows: pd.DataFrame) -> str:
        return _told(_clearest(rows), row_noun)

    measured = f"{error_name}, {{}}95 % interval{'' if n == 1 else f's that hold jointly for all {n} comparisons'}"
    if len(better) and len(worse):
        return f"Meta-learning paid in part: {told(better)}, but {told(worse)} ({measured.format('')})."
    found = better if len(better) else worse if len(worse) else judged
    one = measured.format(f"{int(_clearest(found)['n_tasks'])} {task_noun}s, ")
    if found is judged:
        which = "the one comparison" if n == 1 else f"none of {n} comparisons"
        shows = "shows no" if n == 1 else "shows a"
        return (
            f"No evidence that meta-learning paid here: {which} with the best baseline {shows} difference beyond chance; at the "
            f"clearest, {_told(_clearest(judged), row_noun, 'ahead of')} ({one})."
        )
    if n == 1:
        count = ""
    elif found is better:
        count = f"; it is better in {len(better)} of {n} comparisons and worse in none"
    else:
        count = f"; a baseline is better in {len(worse)} of {n} comparisons and worse in none"
    return f"Meta-learning {'paid' if found is better else 'did not pay'} here: {told(found)} ({one}){count}."


def _clearest(rows: pd.DataFrame) -> pd.Series:
    width = (rows["high"] - rows["low"]).clip(lower=1e-300)
    return rows.iloc[int((rows["difference"].abs() / width).to_numpy().argmax())]


def _told(row: pd.Series, row_noun: str, relation: str = "better than") -> str:
    """Name the winner of one comparison, with the difference as a positive number."""
    meta_wins = row["difference"] > 0
    low, high = (row["low"], row["high"]) if meta_wins else (-row["high"], -row["low"])
    k = int(row["shots"])
    if row["protocol"] == "random":
        how = f"{k} random {row_noun}{'s' if k > 1 else ''}"
    else:
        how = f"the first {f'{k} {row_noun}s' if k > 1 else row_noun}"
    winner, loser = (META, row["baseline"]) if meta_wins else (row["baseline"], META)
    n = decimals_for((high - low) / 2)
    return f"with {how}, {winner} is {relation} {loser} by {abs(row['difference']):.{n}f} [{low:.{n}f}, {high:.{n}f}]"


def decimals_for(half_width: float) -> int:
    """Decimals that show an uncertainty of this size with two digits.

    Examples
    --------
    >>> [decimals_for(w) for w in (0.05, 5.0, 70.0, 0.0)]
    [3, 1, 0, 3]
    """
    if not math.isfinite(half_width) or half_width <= 0:
        return 3
    return int(min(6, max(0, 1 - math.floor(math.log10(half_width)))))
