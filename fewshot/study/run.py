"""The study itself: one split of the tasks, every method fitted once, judged on the same supports.

Tasks are divided in three. Training tasks fit the preparation of the inputs and every method; validation tasks decide when
meta-training stops and which baseline it has to beat; test tasks are only predicted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from ..baselines import default_baselines
from ..errors import InvalidDataError, InvalidParameterError
from ..estimators import MAMLClassifier, MAMLRegressor
from ..model_selection import evaluate_few_shot, summarize
from ..pipeline import make_meta_pipeline
from ..training.loop import ROUNDS
from .data import StudyData
from .verdict import META, compare, verdict

__all__ = ["StudyResult", "StudySettings", "run_study"]

VALIDATION_SHARE = 0.2  # of the tasks that are not test tasks
MANY_ROWS = 100_000  # from here on more than one thread pays; below, threads mostly wait for each other
META_STEPS = 20  # what meta-training counts for in the progress, a baseline's fit counting 1
Labels = npt.NDArray[Any]


@dataclass(frozen=True)
class StudySettings:
    """How a study is done.

    Parameters
    ----------
    shots : tuple of int, default=(0, 1, 2, 5, 10)
        Support sizes; 0 judges every method as it is before it adapts. At least one must be larger.
    draws : int, default=5
        Random supports per task and size.
    test_share : float, default=0.3
        Share of the tasks that judge.
    folds : int, default=None
        Judge all tasks, in so many folds, in place of `test_share`.
    seed : int, default=0
        Of the split, the methods and the supports.
    max_iter : int, default=None
        Meta-steps; None as for :class:`~fewshot.MAMLRegressor`.
    """

    shots: tuple[int, ...] = (0, 1, 2, 5, 10)
    draws: int = 5
    test_share: float = 0.3
    folds: int | None = None
    seed: int = 0
    max_iter: int | None = None

    def check(self, n_tasks: int) -> None:
        """Raise InvalidParameterError unless a table of so many tasks can be studied like this."""
        if not self.shots or min(self.shots) < 0 or max(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise InvalidParameterError(
                f"shots: got {', '.join(map(str, self.shots)) or 'none'}; expected different whole numbers of support rows, "
                "at least one of them 1 or more."
            )
        if self.draws < 1:
            raise InvalidParameterError(f"draws: got {self.draws}; expected 1 or more.")
        if self.seed < 0:
            raise InvalidParameterError(f"seed: got {self.seed}; expected 0 or more.")
        if not 0 < self.test_share < 1:
            raise InvalidParameterError(f"test_share: got {self.test_share:g}; expected a number between 0 and 1.")
        if self.folds is not None and not 2 <= self.folds <= n_tasks:
            raise InvalidParameterError(f"folds: got {self.folds}; expected 2 to {n_tasks}, the number of tasks.")
        if self.max_iter is not None and self.max_iter < 1:
            raise InvalidParameterError(f"max_iter: got {self.max_iter}; expected 1 or more.")


@dataclass(frozen=True)
class StudyResult:
    """What a study found.

    Parameters
    ----------
    data : StudyData
        The table.
    settings : StudySettings
        How it was done.
    scores : DataFrame
        Columns protocol ("random", "first"), fold, part ("validation", "test"), method, task, shots, draw, error.
    summary : DataFrame
        Of the test tasks: columns protocol, method, shots, mean, low, high (95 % interval over tasks), n_tasks.
    comparison : DataFrame
        Of meta-learning with the best baseline, see :func:`compare`.
    verdict : str
        The outcome in a sentence.
    sizes : tuple of int
        Training, validation and test tasks, of the first fold.
    notes : list of str
        What a reader has to know about the study, the data's own notes left out.
    seconds : float
        Time it took.
    """

    data: StudyData
    settings: StudySettings
    scores: pd.DataFrame
    summary: pd.DataFrame
    comparison: pd.DataFrame
    verdict: str
    sizes: tuple[int, int, int]
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def protocols(self) -> list[str]:
        """How supports were chosen, in the order of the study."""
        return list(dict.fromkeys(self.summary["protocol"]))

    def protocol_name(self, protocol: str) -> str:
        """Spell a protocol out."""
        return {"random": "supports drawn at random", "first": f"supports from the first {self.data.row_noun}s"}[
            protocol
        ]


Progress = Callable[[str, float, float], None]


def run_study(data: StudyData, settings: StudySettings, progress: Progress | None = None) -> StudyResult:
    """Compare meta-learning with the default baselines on tasks that none of them has seen.

    Parameters
    ----------
    data : StudyData
        The table; with times, supports from the first rows are tried beside random ones.
    settings : StudySettings
        How it is done.
    progress : callable, default=None
        Called as ``progress(what, done, total)`` at each step, and in between while meta-training; `done` grows to `total`.

    Returns
    -------
    StudyResult

    Raises
    ------
    InvalidParameterError
        If a setting is out of range.
    InvalidDataError
        If there are too few tasks, or every task is too small for every support size.
    """
    with threadpool_limits(1 if len(data.y) < MANY_ROWS else None):
        return _run(data, settings, progress)


def _run(data: StudyData, settings: StudySettings, progress: Progress | None) -> StudyResult:
    started = perf_counter()
    settings.check(data.n_tasks)
    splits = list(split_tasks(np.unique(data.tasks), settings))
    protocols = ["random"] if data.time is None else ["random", "first"]
    n_methods = len(_methods(data.kind, settings, splits[0][1]))
    steps = _Steps(progress, len(splits) * (n_methods * (1 + len(protocols)) + META_STEPS - 1))
    notes: dict[str, None] = {}
    folds = [
        _run_fold(data, settings, split, protocols, notes, steps, f", fold {i + 1}" if len(splits) > 1 else "").assign(
            fold=i
        )
        for i, split in enumerate(splits)
    ]
    steps.start("done", 0)
    columns = ["protocol", "fold", "part", "method", "task", "shots", "draw", "error"]
    scores = pd.concat(folds, ignore_index=True)[columns]
    comparison = compare(scores)
    train, validation, test = splits[0]
    return StudyResult(
        data=data,
        settings=settings,
        scores=scores,
        summary=_summary(scores),
        comparison=comparison,
        verdict=verdict(comparison, data.error_name_and_unit, data.task_noun, data.row_noun),
        sizes=(len(train), len(validation), len(test)),
        notes=[*_about(data, settings, scores), *notes],
        seconds=perf_counter() - started,
    )


def _run_fold(
    data: StudyData,
    settings: StudySettings,
    split: tuple[Labels, Labels, Labels],
    protocols: list[str],
    notes: dict[str, None],
    steps: _Steps,
    suffix: str,
) -> pd.DataFrame:
    rows = dict(zip(("train", "validation", "test"), (_rows_of(data, labels) for labels in split), strict=True))
    if data.kind == "classification":
        rows = _known_classes(data, rows, notes)
    prepare = FrozenEstimator(preparation(data).fit(data.X.iloc[rows["train"]]))
    found = []
    for name, method in _methods(data.kind, settings, np.unique(data.tasks[rows["validation"]])).items():
        seen = rows["train"]
        if name == META:
            seen = np.sort(np.concatenate([seen, rows["validation"]]))
            steps.start(f"meta-training{suffix}", META_STEPS)
            method.set_callbacks(_Rounds(steps))
        else:
            steps.start(f"fitting {name}{suffix}")
        with _collecting(notes, name):
            model = make_meta_pipeline(prepare, method).fit_meta(**_columns(data, seen))
        for protocol in protocols:
            steps.start(f"judging {name}{suffix}")
            for part in ("validation", "test"):
                scores = _judge(model, data, rows[part], protocol, settings, required=part == "test")
                if len(scores):
                    found.append(scores.assign(protocol=protocol, part=part, method=name))
    return pd.concat(found, ignore_index=True)


class _Steps:
    """Where a study is, in steps of different size."""

    def __init__(self, report: Progress | None, total: float) -> None:
        self.report, self.total = report, total
        self.what, self.before, self.size = "", 0.0, 0.0

    def start(self, what: str, size: float = 1.0) -> None:
        """End the last step and begin the next one."""
        self.what, self.before, self.size = what, self.before + self.size, size
        self.reached(0.0)

    def reached(self, share: float) -> None:
        """Tell how much of the step is done."""
        if self.report is not None:
            self.report(self.what, self.before + share * self.size, self.total)


class _Rounds:
    """Callback of scikit-learn's protocol that counts the rounds of meta-training."""

    def __init__(self, steps: _Steps) -> None:
        self.steps, self.n = steps, 0

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing: part of the protocol."""

    def teardown(self, estimator: Any, context: Any) -> None:
        """Do nothing: part of the protocol."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: part of the protocol."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Count."""
        self.n += 1
        self.steps.reached(min(1.0, self.n / ROUNDS))


def split_tasks(labels: Labels, settings: StudySettings) -> Iterator[tuple[Labels, Labels, Labels]]:
    """Yield training, validation and test tasks, one triple for each fold.

    Examples
    --------
    >>> [[len(part) for part in parts] for parts in split_tasks(np.arange(10), StudySettings(folds=2))]
    [[4, 1, 5], [4, 1, 5]]
    """
    n = len(labels)
    if n < 3:
        raise InvalidDataError(f"tasks: got {n}; a study needs at least 3: to train, to choose and to judge.")
    mixed = labels[np.random.default_rng(settings.seed).permutation(n)]
    if settings.folds is None:
        tests = [mixed[: min(max(1, round(settings.test_share * n)), n - 2)]]
    else:
        tests = np.array_split(mixed, settings.folds)
    for test in tests:
        rest = mixed[~np.isin(mixed, test)]
        n_validation = min(max(1, round(VALIDATION_SHARE * len(rest))), len(rest) - 1)
        if n_validation < 1:
            raise InvalidParameterError(
                f"folds: {settings.folds} of {n} tasks leave one to train and choose on; use more folds."
            )
        yield np.sort(rest[n_validation:]), np.sort(rest[:n_validation]), np.sort(test)


def preparation(data: StudyData) -> ColumnTransformer:
    """Medians for missing numbers, marked by a column of their own, and scaling; a column per value of a text."""
    numbers = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True), StandardScaler()
    )
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return ColumnTransformer([("numbers", numbers, data.numeric), ("texts", texts, data.text)])


def _methods(kind: str, settings: StudySettings, validation: Labels) -> dict[str, Any]:
    meta = MAMLRegressor if kind == "regression" else MAMLClassifier
    model = meta(max_iter=settings.max_iter, validation_tasks=validation.tolist() or None, random_state=settings.seed)
    return {META: model, **default_baselines(kind, random_state=settings.seed)}


def _rows_of(data: StudyData, labels: Labels) -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.isin(data.tasks, labels))


def _known_classes(data: StudyData, rows: dict[str, Any], notes: dict[str, None]) -> dict[str, Any]:
    """Leave out rows of classes that the training tasks lack: no method can be right about them."""
    known = np.isin(data.y, data.y[rows["train"]])
    for part in ("validation", "test"):
        lost = rows[part][~known[rows[part]]]
        if len(lost):
            classes = ", ".join(map(str, np.unique(data.y[lost])[:5]))
            notes[f"{len(lost)} {part} rows have classes that no training task has ({classes}) and are left out."] = (
                None
            )
    return {part: r[known[r]] for part, r in rows.items()}


def _columns(data: StudyData, rows: npt.NDArray[np.int64]) -> dict[str, Any]:
    columns = {"X": data.X.iloc[rows], "y": data.y[rows], "tasks": data.tasks[rows]}
    columns |= {n: c[rows] for n, c in (("blocks", data.blocks), ("time", data.time)) if c is not None}
    return columns


@contextmanager
def _collecting(notes: dict[str, None], method: str) -> Iterator[None]:
    """Turn the warnings of a method into notes."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    notes.update({f"{method}: {_without_advice(warning.message)}": None for warning in caught})


def _without_advice(message: Warning | str) -> str:
    """Return the first line up to what is addressed to a programmer."""
    return str(message).splitlines()[0].partition("; ")[0].rstrip(".") + "."


def _judge(
    model: Any, data: StudyData, rows: npt.NDArray[np.int64], protocol: str, settings: StudySettings, required: bool
) -> pd.DataFrame:
    """Errors of the tasks in these rows; what only validates may be too small for any."""
    empty = pd.DataFrame({"task": [], "shots": [], "draw": [], "error": []})
    if not len(rows):
        if required:
            raise InvalidDataError(
                "target: no test row has a class that occurs in the training tasks; merge rare classes."
            )
        return empty
    draws = 1 if protocol == "first" and _first_rows_are_certain(data) else settings.draws
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tasks too small for a K are counted in the table
            frame = evaluate_few_shot(
                model,
                **_columns(data, rows),
                shots=list(settings.shots),
                draws=draws,
                cv="prefit",
                support=protocol,
                scoring=_misclassified if data.kind == "classification" else _absolute_error,
                random_state=settings.seed,
            )
    except InvalidDataError:
        if required:
            raise
        return empty
    return frame.rename(columns={"value": "error"})[["task", "shots", "draw", "error"]]


# Called for every task, size and draw, where scikit-learn's own scorers would take most of a study's time.


def _absolute_error(model: Any, X: Any, y: npt.NDArray[Any]) -> float:
    return float(np.mean(np.abs(y - model.predict(X))))


def _misclassified(model: Any, X: Any, y: npt.NDArray[Any]) -> float:
    return float(np.mean(y != model.predict(X)))


def _first_rows_are_certain(data: StudyData) -> bool:
    """Whether the first K rows of a task are always the same: of a block of several rows one is drawn."""
    return data.blocks is None or not pd.DataFrame({"t": data.tasks, "b": data.blocks}).duplicated().any()


def _summary(scores: pd.DataFrame) -> pd.DataFrame:
    test = scores[scores["part"] == "test"].rename(columns={"error": "value"}).assign(metric="error")
    parts = [summarize(frame).assign(protocol=name) for name, frame in test.groupby("protocol", sort=False)]
    columns = ["protocol", "method", "shots", "mean", "low", "high", "n_tasks"]
    return pd.concat(parts, ignore_index=True)[columns]


def _about(data: StudyData, settings: StudySettings, scores: pd.DataFrame) -> list[str]:
    """Say what the table alone does not."""
    rows, tasks = f"{data.row_noun}s", f"{data.task_noun}s"
    notes = [
        f"{tasks.capitalize()} with too few {rows} for a support size are left out of its column, and a larger support leaves "
        f"fewer {rows} to judge on: compare methods within a column, not columns."
    ]
    if "first" in set(scores["protocol"]):
        later = f"later {rows}"
        blocks = (
            ""
            if data.blocks is None
            else f", and the support is cut to what leaves three of them (one, for {tasks} with few)"
        )
        notes.append(f"With supports from the first {rows} the {later} are judged{blocks}.")
    asked = set(settings.shots) - set(scores.loc[scores["part"] == "test", "shots"])
    if asked:
        notes.append(f"No test {data.task_noun} is large enough for {', '.join(map(str, sorted(asked)))} shots.")
    return notes
