"""A classifier that adapts to a new task and keeps the rates of groups within a bound."""

from __future__ import annotations

import copy
import warnings
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import Tags, _safe_indexing

from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError
from fewshot.estimators import MAMLClassifier
from fewshot.tasks import factorize

from .constraint_report import ConstraintReport
from .groups import Groups
from .multipliers import Multipliers, Scored, fit_multipliers, judge
from .notions import Notion, notion_of
from .rule import thresholds

__all__ = ["FairnessConstrainedClassifier"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BOUND = 0.05
BOUNDS_OF_PENALTY = (0.0, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3)


class FairnessConstrainedClassifier(ClassifierMixin, BaseEstimator):
    """Classifier that adapts to a new task from a few rows and keeps the decision rates of groups within a bound of each other.

    A :class:`~fewshot.MAMLClassifier` gives the probability of the favourable outcome, and the constraint is met by thresholds
    that depend on a row's group, or where the group is not given, on its probabilities given the row's features. How far
    thresholds must be apart is learned on training tasks that were held out, and corrected for a new task by its own rows, as far
    as these can tell.

    Names describe and do not promise: the bound is met on average over tasks like the training tasks. See ``constraint_report_``
    for what was reached.

    Parameters
    ----------
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds", "false_positive_rate_parity"}, \
default="demographic_parity"
        Which rates of favourable decisions may not differ: of all rows, of those whose outcome is favourable, of those whose
        outcome is not, or of both.
    bound : float, default=None
        Largest difference between the rates of two groups, as the root of the mean squared difference over tasks. None is 0.05,
        unless `penalty` is given.
    penalty : float, default=None
        In place of a bound: how many errors, as a share of all decisions, a gap of 1 is worth. The bound is then the one that makes
        errors plus penalty times gap least on held-out tasks.
    pos_label : label, default=None
        The favourable outcome. None: the greater of two numbers; strings have no order that means anything, so that with
        `sensitive_features` it must be named.
    use_sensitive_at_predict : bool, default=True
        Whether `predict` may be given the group, and then decides with a threshold for each. False forbids it (disparate
        treatment): the group is then only guessed from the features, as far as they tell.
    classifier : MAMLClassifier, default=None
        What gives the probabilities; None: with its default settings.
    random_state : int, RandomState or None, default=None
        Seed of everything random, where `classifier` is None.

    Attributes
    ----------
    classes_ : ndarray of shape (2,)
        Class labels.
    pos_label_ : label
        The favourable outcome.
    groups_ : Groups
        The vocabulary of groups; ``groups_.titles`` are their names.
    classifier_ : MAMLClassifier
        Gives the probability of the favourable outcome.
    constraint_report_ : ConstraintReport
        Gaps and errors on held-out tasks; print it.
    multipliers_ : dict of str to Multipliers
        What was learned for rows whose group is "known" and "unknown".

    References
    ----------
    Hardt, Price, Srebro (2016), Equality of opportunity in supervised learning, NeurIPS. Menon, Williamson (2018), The cost of
    fairness in binary classification, FAT*. Agarwal, Beygelzimer, Dudik, Langford, Wallach (2018), A reductions approach to fair
    classification, ICML, section 3, for the dual ascent.
    """

    classes_: npt.NDArray[Any]
    groups_: Groups
    multipliers_: dict[str, Multipliers]
    pos_label_: Any
    bound_: float
    _notion: Notion
    _pool: dict[str, Scored]
    _state: dict[str, Any]

    # Requested by default, so that with metadata routing on, pipelines and cross-validation pass them without ceremony.
    __metadata_request__fit = {
        "tasks": True,
        "sensitive_features": True,
        "blocks": True,
        "time": True,
        "sample_weight": True,
    }
    __metadata_request__predict = {"tasks": True, "sensitive_features": True}
    __metadata_request__predict_proba = {"tasks": True, "sensitive_features": True}
    __metadata_request__score = {"sample_weight": True}

    _expected_failed_checks: ClassVar[dict[str, str]] = {}

    def __init__(
        self,
        constraint: str = "demographic_parity",
        *,
        bound: float | None = None,
        penalty: float | None = None,
        pos_label: Any = None,
        use_sensitive_at_predict: bool = True,
        classifier: Any = None,
        random_state: Any = None,
    ) -> None:
        self.constraint = constraint
        self.bound = bound
        self.penalty = penalty
        self.pos_label = pos_label
        self.use_sensitive_at_predict = use_sensitive_at_predict
        self.classifier = classifier
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    # ---------------------------------------------------------------- meta-training

    def fit_meta(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        sensitive_features: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Learn to classify across tasks, and the thresholds that keep the constraint on tasks that were held out.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs. Whether they include the sensitive features is up to you; the constraint does not need them to.
        y : array-like of shape (rows,)
            Two classes.
        tasks : array-like of shape (rows,), default=None
            Task label of each row.
        sensitive_features : array-like of shape (rows,) or (rows, features), default=None
            Group of each row; several columns are crossed, and missing values are a group. Without it nothing is constrained.
        blocks, time, sample_weight
            As for :meth:`MAMLClassifier.fit_meta`.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, InvalidDataError
            If settings or data cannot be used; the model is then what it was before.
        """
        notion, bound = self._checked()
        fitted = copy.copy(self)
        columns = {"tasks": tasks, "blocks": blocks, "time": time, "sample_weight": sample_weight}
        fitted._fit(X, y, notion, bound, sensitive_features, columns)
        self.__dict__.update(fitted.__dict__)
        return self

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        sensitive_features: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Do the same as :meth:`fit_meta`, under the name that scikit-learn calls."""
        return self.fit_meta(
            X,
            y,
            tasks=tasks,
            sensitive_features=sensitive_features,
            blocks=blocks,
            time=time,
            sample_weight=sample_weight,
        )

    def _checked(self) -> tuple[Notion, float | None]:
        notion = notion_of(self.constraint)
        for name in ("bound", "penalty"):
            value = getattr(self, name)
            right = isinstance(value, int | float | np.number) and not isinstance(value, bool) and value >= 0
            if value is not None and not right:
                raise InvalidParameterError(f"{name}: got {value!r}; expected a number of 0 or more, or None.")
        if self.bound is not None and self.penalty is not None:
            raise InvalidParameterError("penalty: a bound was given too; give one of the two.")
        if self.penalty is not None:
            return notion, None
        return notion, BOUND if self.bound is None else float(self.bound)

    def _fit(
        self,
        X: Any,
        y: Any,
        notion: Notion,
        bound: float | None,
        sensitive_features: Any,
        columns: dict[str, Any],
    ) -> None:
        for name in ("_state", "_pool", "groups_", "multipliers_", "pos_label_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        groups = codes = None
        if sensitive_features is not None:
            n_rows = len(y) if y is not None else 0
            groups = Groups.learn(sensitive_features, n_rows)
            codes = groups.codes(sensitive_features, n_rows)
            if len(groups) < 2:
                raise InvalidDataError(
                    f"sensitive_features: got one group only ({groups.titles[0]}); a constraint compares at least two."
                )
            pos_label = self._favourable_label(y)
        given = self.classifier
        if given is not None and not isinstance(given, MAMLClassifier):
            raise InvalidParameterError(f"classifier: got {given!r}; expected a MAMLClassifier, or None.")
        model = MAMLClassifier(random_state=self.random_state) if given is None else clone(given)
        self.classifier_ = model.fit_meta(X, y, **columns)
        self.classes_ = self.classifier_.classes_
        self.n_features_in_ = self.classifier_.n_features_in_
        if hasattr(self.classifier_, "feature_names_in_"):
            self.feature_names_in_ = self.classifier_.feature_names_in_
        if groups is None or codes is None:
            warnings.warn(
                "sensitive_features: not given, so nothing is constrained; pass the group of each row.",
                UserWarning,
                stacklevel=4,
            )
            self.constraint_report_ = ConstraintReport(None, np.nan, (), pd.DataFrame(), 0, 0)
            return
        self.groups_, self.pos_label_ = groups, pos_label
        guess = MAMLClassifier(algorithm="map", random_state=self.random_state)
        self._group_classifier = guess.fit_meta(X, codes, **columns)
        self._learn_thresholds(notion, bound, codes, np.asarray(y) == pos_label)

    def _favourable_label(self, y: Any) -> Any:
        labels = np.unique(np.asarray(y))
        if len(labels) != 2:
            raise InvalidDataError(f"y: got {len(labels)} classes; with sensitive_features there must be two.")
        if self.pos_label is None:
            if labels.dtype.kind not in "buif":
                raise InvalidParameterError(
                    f"pos_label: got None, and of the labels {labels.tolist()} none is greater in a sense that matters; name the "
                    "favourable outcome."
                )
            return labels[1]
        if self.pos_label not in labels.tolist():
            raise InvalidParameterError(f"pos_label: got {self.pos_label!r}; expected one of {labels.tolist()}.")
        return labels[labels.tolist().index(self.pos_label)]

    def _learn_thresholds(
        self, notion: Notion, bound: float | None, codes: Ints, favourable: npt.NDArray[np.bool_]
    ) -> None:
        """Learn multipliers on what the models say of tasks that they were not trained on."""
        own, guessed = getattr(self.classifier_, "_held_out", {}), getattr(self._group_classifier, "_held_out", {})
        parts: dict[str, list[npt.NDArray[Any]]] = {"row": [], "task": [], "probability": [], "membership": []}
        n_tasks = 0
        for k in sorted(set(own) & set(guessed)):
            row, first, second = np.intersect1d(own[k].row, guessed[k].row, assume_unique=True, return_indices=True)
            tasks, task = np.unique(own[k].task[first], return_inverse=True)
            parts["row"].append(row)
            parts["task"].append(n_tasks + task)
            parts["probability"].append(_probabilities(own[k].prediction[first])[:, self._favourable_column])
            parts["membership"].append(_probabilities(guessed[k].prediction[second]))
            n_tasks += len(tasks)
        if not n_tasks:
            raise InvalidDataError(
                "tasks: too few, or too few rows in them, to learn thresholds on tasks that are held out; give at least two "
                "tasks, or leave sensitive_features out. A classifier= of yours must have a base."
            )
        row, task, probability, membership = (np.concatenate(part) for part in parts.values())
        group = codes[row]
        pool = Scored(
            probability,
            membership,
            group,
            notion.among(favourable[row]),
            task,
            n_tasks,
            favourable[row],
        )
        self._n_tasks, self._n_rows = (
            len(np.unique(np.concatenate([o.task for o in own.values()]))),
            len(np.unique(row)),
        )
        self._notion = notion
        self._pool = {"unknown": pool, "known": pool.told()}
        self.bound_ = self._bound_of_penalty() if bound is None else bound
        self.multipliers_ = {mode: fit_multipliers(notion, self.bound_, rows) for mode, rows in self._pool.items()}
        self._report()

    def _bound_of_penalty(self) -> float:
        tried = [fit_multipliers(self._notion, b, self._pool["unknown"]) for b in BOUNDS_OF_PENALTY]
        assert self.penalty is not None
        costs = [found.error + self.penalty * found.gap for found in tried]
        return BOUNDS_OF_PENALTY[int(np.argmin(costs))]

    def _report(self) -> None:
        nothing = np.zeros_like(self.multipliers_["known"].values)
        free = judge(self._notion, self.bound_, nothing, self._pool["known"])
        rows = {"unconstrained": free, "group unknown": self.multipliers_["unknown"]}
        if self.use_sensitive_at_predict:
            rows["group known"] = self.multipliers_["known"]
        table = pd.DataFrame(
            {name: {"error": m.error, "gap": m.gap, "feasible": m.feasible} for name, m in rows.items()}
        ).T
        self.constraint_report_ = ConstraintReport(
            self._notion.name, self.bound_, tuple(self.groups_.titles), table, self._n_tasks, self._n_rows
        )

    @property
    def _favourable_column(self) -> int:
        return int(np.flatnonzero(self.classes_ == self.pos_label_)[0])

    # ---------------------------------------------------------------- adapting

    def adapt(
        self,
        X: Any,
        y: Any,
        *,
        tasks: Any = None,
        sensitive_features: Any = None,
        X_unlabelled: Any = None,
        sensitive_unlabelled: Any = None,
        tasks_unlabelled: Any = None,
        sample_weight: Any = None,
        steps: int | None = None,
    ) -> Self:
        """Adapt to a new task, or to many at once: the classifier by the support, the thresholds by all rows whose group is known.

        Thresholds are fixed here, so that a row's prediction does not depend on the rows that are predicted with it.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Support rows.
        y : array-like of shape (rows,)
            Their outcomes.
        tasks : array-like of shape (rows,), default=None
            Task label of each row; None: all rows are one task.
        sensitive_features : array-like of shape (rows,) or (rows, features), default=None
            Group of each support row.
        X_unlabelled, sensitive_unlabelled, tasks_unlabelled : array-like, default=None
            More rows of the tasks, without outcomes, their groups and, if `tasks` is given, their task labels. Where the
            constraint is demographic parity they tell most of what there is to know about the task's gap. They help only if their
            groups are known.
        sample_weight : array-like of shape (rows,), default=None
            Row weights of the support, in adapting the classifier.
        steps : int, default=None
            As for :meth:`MAMLClassifier.adapt`.

        Returns
        -------
        FairnessConstrainedClassifier
            Adapted; this one is unchanged.
        """
        self._require_fitted("adapt")
        adapted = copy.copy(self)
        adapted.classifier_ = self.classifier_.adapt(X, y, tasks=tasks, sample_weight=sample_weight, steps=steps)
        constrained = hasattr(self, "groups_")
        given = {"sensitive_features": sensitive_features, "sensitive_unlabelled": sensitive_unlabelled}
        for name, value in given.items():
            if value is not None and not constrained:
                raise InvalidDataError(
                    f"{name}: the model was fitted without sensitive_features, so nothing is constrained."
                )
        if not constrained:
            return adapted
        for name, value in (("sensitive_unlabelled", sensitive_unlabelled), ("tasks_unlabelled", tasks_unlabelled)):
            if value is not None and X_unlabelled is None:
                raise InvalidDataError(f"{name}: given without X_unlabelled; give the rows too.")
        if tasks is not None and X_unlabelled is not None and tasks_unlabelled is None:
            raise InvalidDataError(
                "tasks_unlabelled: got None, but tasks was given; say which task each row of X_unlabelled is of."
            )
        state = adapted.classifier_._adapted
        parts = [(X, sensitive_features, tasks, np.asarray(y) == self.pos_label_)]
        if X_unlabelled is not None:
            parts.append((X_unlabelled, sensitive_unlabelled, tasks_unlabelled, None))
        known = [part for part in parts if part[1] is not None]
        adapted._state = adapted._rows_of_tasks(known, state.labels)
        adapted._adapt_multipliers()
        return adapted

    def _rows_of_tasks(self, parts: list[tuple[Any, Any, Any, Any]], labels: Any) -> dict[str, Any]:
        """Learn who is who in the tasks, and keep the rows that tell of their gaps."""
        if not parts:
            return {"guess": None, "present": np.empty(0, dtype=np.int64), "rows": None, "labels": labels}
        rows = [self._rows_of(part, labels) for part in parts]
        codes, task = (np.concatenate([r[i] for r in rows]) for i in (0, 1))
        # Tasks without a row whose group is known have no place in this model; the unadapted one guesses for them.
        guess = self._group_classifier.adapt(_stacked([part[0] for part in parts]), codes, tasks=task)
        state = {"guess": guess, "present": np.unique(task), "rows": None, "labels": labels}
        labelled = [part[3] is not None or not self._notion.needs_labels for part in parts]
        if not any(labelled):
            return state
        kept = [i for i, usable in enumerate(labelled) if usable]
        X = _stacked([parts[i][0] for i in kept])
        codes, task = (np.concatenate([rows[i][j] for i in kept]) for j in (0, 1))
        outcome = [np.zeros(len(rows[i][0]), dtype=bool) if parts[i][3] is None else parts[i][3] for i in kept]
        probability = self.classifier_.predict_proba(X, tasks=None if labels is None else labels[task])
        found = Scored(
            probability[:, self._favourable_column],
            guess.predict_proba(X, tasks=task),
            codes,
            self._notion.among(np.concatenate(outcome)),
            task,
            1 if labels is None else len(labels),
        )
        return state | {"rows": {"unknown": found, "known": found.told()}}

    def _adapt_multipliers(self) -> None:
        """Find the multipliers of each task adapted to."""
        state = self._state
        n_tasks = 1 if state["labels"] is None else len(state["labels"])
        own = {}
        for mode, found in self.multipliers_.items():
            rows = None if state["rows"] is None else state["rows"][mode]
            own[mode] = np.repeat(found.values[None], n_tasks, axis=0) if rows is None else found.for_tasks(rows)
        self._state = state | {"multipliers": own}

    def with_bound(self, bound: float) -> Self:
        """Return the same model with another bound on the gap; nothing is trained again.

        Parameters
        ----------
        bound : float
            Largest gap.

        Returns
        -------
        FairnessConstrainedClassifier
            Fitted, and adapted if this one is.
        """
        self._require_fitted("with_bound")
        if not hasattr(self, "groups_"):
            raise NotFittedError("with_bound: the model was fitted without sensitive_features; nothing is constrained.")
        other = copy.copy(self)
        other.bound, other.penalty = bound, None
        other._checked()
        other.bound_ = float(bound)
        other.multipliers_ = {
            mode: fit_multipliers(self._notion, other.bound_, rows) for mode, rows in self._pool.items()
        }
        other._report()
        if hasattr(self, "_state"):
            other._adapt_multipliers()
        return other

    def _rows_of(self, part: tuple[Any, Any, Any, Any], labels: Any) -> tuple[Ints, Ints]:
        X, sensitive, tasks, _ = part
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        codes = self.groups_.codes(sensitive, n)
        if labels is None:
            return codes, np.zeros(n, dtype=np.int64)
        unique, position = factorize("tasks", tasks, n)
        known = pd.Index(labels).get_indexer(pd.Index(unique))
        if (known < 0).any():
            raise InvalidDataError(
                f"tasks_unlabelled: task {unique[known < 0].tolist()[0]!r} has no support among X; adapt to it too, or leave its "
                "rows out."
            )
        return codes, known.astype(np.int64)[position]

    # ---------------------------------------------------------------- predicting

    def predict_proba(self, X: Any, *, sensitive_features: Any = None, tasks: Any = None) -> Floats:
        """Class probabilities, moved so that the favourable one is above one half where the decision is favourable.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        sensitive_features : array-like of shape (rows,) or (rows, features), default=None
            Group of each row. Without it the group is guessed from the features.
        tasks : array-like of shape (rows,), default=None
            Task label of each row, if the model was adapted to labelled tasks.

        Returns
        -------
        ndarray of shape (rows, 2), in the order of ``classes_``
        """
        self._require_fitted("predict")
        probability = self.classifier_.predict_proba(X, tasks=tasks)
        if not hasattr(self, "groups_"):
            if sensitive_features is not None:
                raise InvalidDataError(
                    "sensitive_features: the model was fitted without any, so nothing is constrained; leave it out."
                )
            return probability
        if sensitive_features is not None and not self.use_sensitive_at_predict:
            raise InvalidDataError(
                "sensitive_features: given, but use_sensitive_at_predict=False forbids to decide by them; leave it out."
            )
        favourable = np.clip(probability[:, self._favourable_column], 1e-9, 1 - 1e-9)
        moved = expit(logit(favourable) - logit(self._thresholds(X, sensitive_features, tasks)))
        columns = [1 - moved, moved]
        return np.column_stack(columns if self._favourable_column else columns[::-1])

    def predict(self, X: Any, *, sensitive_features: Any = None, tasks: Any = None) -> npt.NDArray[Any]:
        """Decide; arguments as for :meth:`predict_proba`.

        Returns
        -------
        ndarray of shape (rows,)
            Class labels.
        """
        probability = self.predict_proba(X, sensitive_features=sensitive_features, tasks=tasks)
        return self.classes_[probability.argmax(1)]

    def _thresholds(self, X: Any, sensitive_features: Any, tasks: Any) -> Floats:
        n = X.shape[0] if hasattr(X, "shape") else len(X)
        state: dict[str, Any] | None = getattr(self, "_state", None)
        mode = "unknown" if sensitive_features is None else "known"
        task = np.zeros(n, dtype=np.int64)
        if state is None:
            values = self.multipliers_[mode].values
        else:
            if state["labels"] is not None:
                task = pd.Index(state["labels"]).get_indexer(pd.Index(np.asarray(tasks))).astype(np.int64)
            values = state["multipliers"][mode][task]
        if sensitive_features is not None:
            membership = np.eye(len(self.groups_))[self.groups_.codes(sensitive_features, n)]
        else:
            membership = self._guessed(X, task, state)
        return thresholds(self._notion, values, membership)

    def _guessed(self, X: Any, task: Ints, state: dict[str, Any] | None) -> Floats:
        """Probabilities of the groups given the features."""
        plain = self._group_classifier
        if state is None or not len(state["present"]):
            return plain.predict_proba(X)
        out = np.empty((len(task), len(self.groups_)))
        adapted = np.isin(task, state["present"])
        for mine, model, columns in ((adapted, state["guess"], {"tasks": task[adapted]}), (~adapted, plain, {})):
            if mine.any():
                out[mine] = model.predict_proba(_safe_indexing(X, np.flatnonzero(mine)), **columns)
        return out

    def _require_fitted(self, what: str) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{what}: this {type(self).__name__} is not fitted yet; call fit_meta first.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "constraint_report_")


def _probabilities(logits: Floats) -> Floats:
    p = np.exp(logits)
    return np.asarray(p / p.sum(1, keepdims=True))


def _stacked(parts: list[Any]) -> Any:
    if all(isinstance(part, pd.DataFrame) for part in parts):
        return pd.concat(parts, ignore_index=True)
    return np.concatenate([np.asarray(part) for part in parts])
