"""A classifier that adapts to a new task and keeps the rates of groups within a bound."""

from __future__ import annotations

import copy
import logging
import warnings
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import expit, logit
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _num_samples

from fewshot.errors import InvalidDataError, InvalidParameterError, NotFittedError
from fewshot.estimators import MAMLClassifier
from fewshot.estimators._inputs import check_features
from fewshot.tasks import factorize

from .bounded_loss import LossDecider
from .constraint_report import ConstraintReport
from .curve import Curve
from .decider import Decider, Given, Rule
from .distances import Distances
from .evidence import rates_of_events
from .favourable import favourable_label
from .given_rows import read_rows, refuse_incomplete
from .groups import Groups
from .guess import GroupGuess, probabilities
from .notions import Notion, notion_of
from .operating_points import OperatingPoints
from .training import Training

__all__ = ["FairnessConstrainedClassifier"]

logger = logging.getLogger("fewshot")

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
BOUND = 0.05


class _Rows(NamedTuple):
    """Rows to decide on: whether their group is told, what the models say of them, what is known of the group, their task."""

    mode: str
    scores: Floats
    membership: Floats
    task: Ints


class FairnessConstrainedClassifier(OperatingPoints, ClassifierMixin, BaseEstimator):
    """Classifier that adapts to a new task from a few rows and keeps the decision rates of groups within a bound of each other.

    A :class:`~fewshot.MAMLClassifier` gives the probability of the favourable outcome, and the constraint is met by thresholds
    that depend on a row's group, or where the group is not given, on its probabilities given the row's features. What a gap costs,
    in errors, is learned on training tasks that were held out; how far a new task's thresholds must be apart, from its own rows as
    far as these can tell, and from the training tasks otherwise.

    Names describe and do not promise: the bound is met on average over tasks like the training tasks. Where no thresholds meet it,
    errors and gap together are made small, and ``constraint_report_`` says so.

    Parameters
    ----------
    constraint : {"demographic_parity", "equal_opportunity", "equalized_odds", "false_positive_rate_parity", \
"bounded_group_loss"}, default="demographic_parity"
        Which rates of favourable decisions may not differ: of all rows, of those whose outcome is favourable, of both these and
        those whose outcome is not, or of the latter. Or, with "bounded_group_loss", that no group's mean cross-entropy is large.
    bound : float, default=None
        Largest difference between the rates of two groups, as the root of the mean squared difference over tasks. None is 0.05,
        unless `penalty` is given. Of "bounded_group_loss": the largest mean cross-entropy of a group, which must be given.
    penalty : float, default=None
        In place of a bound, the weight of the squared gap: the share of errors plus `penalty` times the squared gap is made small.
        Beyond 14, where hardly a gap is left that can be closed, it changes nothing.
    pos_label : label, default=None
        The favourable outcome. None: the greater of two numbers; strings have no order that means anything, so that with
        `sensitive_features` it must be named.
    use_sensitive_at_predict : bool, default=True
        Whether `predict` may be given the group, and then decides with a threshold for each. False forbids it (disparate
        treatment): the group is then only guessed from the features, as far as they tell. True fits a second classifier, which
        knows the group.
    classifier : MAMLClassifier, default=None
        What gives the probabilities; None: with its default settings. With ``verbose=1`` it shows its progress.
    warm_start : bool, default=False
        After an interruption (Ctrl-C) the same `fit_meta` call goes on: what the classifiers have done is not done again.
    random_state : int, RandomState or None, default=None
        Seed of everything random; of `classifier` only where that is None.

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

    References
    ----------
    Hardt, Price, Srebro (2016), Equality of opportunity in supervised learning, NeurIPS. Menon, Williamson (2018), The cost of
    fairness in binary classification, FAT*. Agarwal, Beygelzimer, Dudik, Langford, Wallach (2018), A reductions approach to fair
    classification, ICML, section 3, for the dual ascent.

    Examples
    --------
    >>> from fewshot import MAMLClassifier
    >>> rng = np.random.default_rng(0)
    >>> state, group = np.repeat(np.arange(10), 80), rng.choice(["a", "b"], 800)
    >>> X = rng.normal(size=(800, 2)) - (group == "b")[:, None]
    >>> y = (X[:, 0] + rng.normal(size=800) > -0.5).astype(int)
    >>> classifier = MAMLClassifier(algorithm="map", random_state=0)
    >>> model = FairnessConstrainedClassifier(bound=0.1, classifier=classifier, random_state=0)
    >>> model = model.fit_meta(X, y, tasks=state, sensitive_features=group)
    >>> gaps = model.constraint_report_.table["gap"]
    >>> bool(gaps["unconstrained"] > 0.2), bool(gaps["group known"] <= 0.1 + 1e-9)
    (True, True)
    >>> adapted = model.adapt(X[:10], y[:10], sensitive_features=group[:10])
    >>> adapted.predict(X[10:14], sensitive_features=group[10:14]).shape
    (4,)
    """

    classes_: npt.NDArray[Any]
    groups_: Groups
    pos_label_: Any
    _notion: Notion
    _deciders: dict[str, Any]  # of Decider or LossDecider
    _guess: GroupGuess
    _own: Floats
    _operating_point: tuple[float, float | None]  # bound, and penalty in its place
    _training: Training | None = None

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
    __metadata_request__score = {"tasks": True, "sensitive_features": True, "sample_weight": True}

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
        warm_start: bool = False,
        random_state: Any = None,
    ) -> None:
        self.constraint = constraint
        self.bound = bound
        self.penalty = penalty
        self.pos_label = pos_label
        self.use_sensitive_at_predict = use_sensitive_at_predict
        self.classifier = classifier
        self.warm_start = warm_start
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = True
        return tags

    def get_metadata_routing(self) -> Any:
        """Return the columns that are asked for; the group at predict only where it may be used."""
        routing = super().get_metadata_routing()
        if not self.use_sensitive_at_predict:
            for method in ("predict", "predict_proba", "score"):
                getattr(routing, method).add_request(param="sensitive_features", alias=False)
        return routing

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
            As for :meth:`MAMLClassifier.fit_meta`. Weights count in fitting the classifiers; errors and gaps are of rows alike.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError, InvalidDataError
            If settings or data cannot be used; the model is then what it was before.
        """
        notion = self._checked()
        fitted = copy.copy(self)
        columns = {"tasks": tasks, "blocks": blocks, "time": time, "sample_weight": sample_weight}
        try:
            fitted._fit(X, y, notion, sensitive_features, columns)
        except KeyboardInterrupt:
            self._training = fitted._training
            logger.warning(
                "interrupted; the model is what it was before, and with warm_start=True the same fit_meta call goes on"
            )
            raise
        self.__dict__ = fitted.__dict__ | {"_training": None}  # what an earlier fit left is gone
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

    def _checked(self) -> Notion:
        notion = notion_of(self.constraint, losses=True)
        for name in ("bound", "penalty"):
            value = getattr(self, name)
            right = isinstance(value, int | float | np.number) and not isinstance(value, bool) and value >= 0
            if value is not None and not right:
                raise InvalidParameterError(f"{name}: got {value!r}; expected a number of 0 or more, or None.")
        if self.bound is not None and self.penalty is not None:
            raise InvalidParameterError("penalty: a bound was given too; give one of the two.")
        if not notion.bounds_losses and self.bound is not None and self.bound > 1:
            raise InvalidParameterError(
                f"bound: got {self.bound!r}; a gap between two rates is 1 at most: ten per cent are 0.1."
            )
        if notion.bounds_losses and self.penalty is not None:
            raise InvalidParameterError(f"penalty: bounded_group_loss takes a bound; got the penalty {self.penalty!r}.")
        if notion.bounds_losses and self.bound is None:
            raise InvalidParameterError(
                "bound: got None; bounded_group_loss needs the largest loss that a group may have (mean cross-entropy), for "
                "example bound=0.6. A model that knows nothing has log(2) = 0.69."
            )
        return notion

    def _fit(
        self,
        X: Any,
        y: Any,
        notion: Notion,
        sensitive_features: Any,
        columns: dict[str, Any],
    ) -> None:
        for name in ("_own", "_deciders", "groups_", "pos_label_", "feature_names_in_"):
            self.__dict__.pop(name, None)
        groups = codes = None
        if sensitive_features is not None:
            for name, value in (("y", y), ("tasks", columns["tasks"])):
                if value is None:
                    raise InvalidDataError(
                        f"{name}: got None; a constraint is learned from tasks and outcomes; give one per row."
                    )
            n_rows = _num_samples(X)
            groups = Groups.learn(sensitive_features, n_rows)
            codes = groups.codes(sensitive_features, n_rows)
            if len(groups) < 2:
                raise InvalidDataError(
                    f"sensitive_features: got one group only ({groups.titles[0]}); a constraint compares at least two."
                )
            pos_label = favourable_label(y, self.pos_label)
        given = self.classifier
        if given is not None and not isinstance(given, MAMLClassifier):
            raise InvalidParameterError(f"classifier: got {given!r}; expected a MAMLClassifier, or None.")
        model = MAMLClassifier(random_state=self.random_state) if given is None else clone(given)
        begun = self._training if self.warm_start else None
        self._training = Training.of(model, (X, y, columns, codes), begun)
        self.classifier_ = self._training.fitted("unknown", X, y, columns)
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
            self.constraint_report_ = ConstraintReport(None, None, (), pd.DataFrame(), 0, 0)
            return
        self.groups_, self.pos_label_ = groups, pos_label
        self._notion = notion
        inputs = {"unknown": X}
        y = np.ravel(y)
        models = {"unknown": self.classifier_}
        if self.use_sensitive_at_predict:
            inputs["known"] = np.column_stack([_numbers(X), np.eye(len(groups))[codes]])
            models["known"] = self._training.fitted("known", inputs["known"], y, columns)
        held_out = getattr(self.classifier_, "_held_out", {})
        if not held_out:
            raise InvalidDataError(
                "tasks: too few, or too few rows in them, to learn a constraint on tasks that are held out; give at least two "
                "tasks, or leave sensitive_features out. A classifier= of yours must have a base."
            )
        every = [(found.row, found.task) for found in held_out.values()]
        self._n_rows, self._n_tasks = (len(np.unique(np.concatenate(column))) for column in zip(*every, strict=True))
        task = factorize("tasks", columns["tasks"], len(codes))[1]
        rng = np.random.default_rng(check_random_state(self.random_state).randint(2**31))
        self._guess = GroupGuess.fit(_numbers(X), codes, task, len(groups), rng)
        if notion.bounds_losses:
            self._learn_weights(models, inputs, y, codes, columns)
        else:
            self._learn_thresholds(models, inputs, (codes, y == pos_label, task), rng)
        self._guess.held_out = None
        self._operate_at(self.bound, self.penalty)

    def _learn_thresholds(
        self,
        models: dict[str, MAMLClassifier],
        inputs: dict[str, Any],
        rows: tuple[Ints, npt.NDArray[np.bool_], Ints],
        rng: np.random.Generator,
    ) -> None:
        """Learn distances on what the models say of tasks that they were not trained on."""
        rates = rates_of_events(self._notion, *rows[:2], len(self.groups_))
        column = self._favourable_column
        self._deciders = {
            mode: Decider.fit(
                self._notion, model, column, self._guess, rates, _numbers(inputs[mode]), rows, mode == "known", rng
            )
            for mode, model in models.items()
        }

    def _learn_weights(
        self, models: dict[str, MAMLClassifier], inputs: dict[str, Any], y: Any, group: Ints, columns: dict[str, Any]
    ) -> None:
        """Learn weights of the groups' rows that bound their losses on tasks that the models were not trained on."""
        target = np.searchsorted(self.classes_, np.asarray(y))
        own = columns["sample_weight"]

        def fitted(mode: str, weight: Floats) -> MAMLClassifier:
            weight = weight if own is None else weight * np.asarray(own, dtype=np.float64)
            return clone(models[mode]).fit_meta(inputs[mode], y, **(columns | {"sample_weight": weight}))

        assert self.bound is not None
        self._deciders = {
            mode: LossDecider.fit(
                model, partial(fitted, mode), group, target, self.bound, mode == "known", self._favourable_column
            )
            for mode, model in models.items()
        }
        self.classifier_ = self._deciders["unknown"].classifier

    def _operate_at(self, bound: float | None, penalty: float | None) -> None:
        """Choose distances for a bound or a penalty, and report."""
        self._operating_point = (BOUND if bound is None else float(bound), penalty)
        self._decide()

    def _decide(self) -> None:
        """Say what is reached with the bound or the penalty in use."""
        bound, penalty = self._operating_point
        self._rules: dict[str, Rule | None] = {}  # found when first asked for
        rows = {"unconstrained": (*self._deciders["unknown"].unconstrained(), 0.0)}
        for mode, decider in self._deciders.items():
            for given, error, gap, found in decider.reached(self._choose):
                rows[f"group {mode}{given}"] = (error, gap, found)
        index = pd.Index(rows, name="decisions")
        table = pd.DataFrame(list(rows.values()), columns=["error", "gap", "penalty"], index=index)
        table["feasible"] = True if penalty is not None else table["gap"] <= bound * (1 + 1e-9)
        if self._notion.bounds_losses:
            table = table.rename(columns={"gap": "loss"}).drop(columns="penalty")
        self.constraint_report_ = ConstraintReport(
            self._notion.name,
            None if penalty is not None else bound,
            tuple(self.groups_.titles),
            table,
            self._n_tasks,
            self._n_rows,
            self._deciders["unknown"].unjudged(self.groups_.titles),
        )

    def _choose(self, curve: Curve, level: int) -> Distances:
        """Return the distances in use on a curve."""
        bound, penalty = self._operating_point
        if penalty is not None:
            return curve.at(penalty)
        found = curve.within(bound, level)
        return curve.best_compromise(level) if found is None else found

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
            More rows of the tasks, without outcomes, best those that decisions will be made for; their groups, if known; and, if
            `tasks` is given, their task labels. They tell how common groups are and how large the gap is: with groups, that of
            demographic parity is theirs; without, it is guessed. Where they are at least as many as the support's, what the few
            outcomes there say of the gap is left aside, since it was found to add noise.
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
        columns = {"sample_weight": sample_weight, "steps": steps}
        if not hasattr(self, "groups_"):
            for name, value in (
                ("sensitive_features", sensitive_features),
                ("sensitive_unlabelled", sensitive_unlabelled),
            ):
                if value is not None:
                    raise InvalidDataError(
                        f"{name}: the model was fitted without sensitive_features, so nothing is constrained."
                    )
            adapted.classifier_ = self.classifier_.adapt(X, y, tasks=tasks, **columns)
            return adapted
        refuse_incomplete(tasks, X_unlabelled, sensitive_unlabelled, tasks_unlabelled)
        # The classifier knows best what is wrong with a support, and says it first.
        adapted.classifier_ = self.classifier_.adapt(X, y, tasks=tasks, **columns)
        labels = adapted.classifier_._adapted.labels
        supported = (X, sensitive_features, tasks, np.ravel(y) == self.pos_label_)
        others = [] if X_unlabelled is None else [(X_unlabelled, sensitive_unlabelled, tasks_unlabelled, None)]
        given = read_rows(self.classifier_, self.groups_, self._guess, [supported, *others], labels)
        own = self._own_parts(given, 1 if labels is None else len(labels))
        adapted._own = own
        given = [part._replace(guess=probabilities(part.guess + own[part.task])) for part in given]
        usual = self._guess.shares(own)
        models = {"unknown": adapted.classifier_}
        for mode, decider in self._deciders.items():
            if mode == "known" or self._notion.bounds_losses:
                models[mode] = decider.adapt_classifier(given[0], y, labels, **columns)
        adapted._deciders = {
            mode: self._deciders[mode].adapt(model, given, usual, labels) for mode, model in models.items()
        }
        adapted.classifier_ = models["unknown"]
        adapted._decide()
        return adapted

    def _own_parts(self, given: list[Given], n_tasks: int) -> Floats:
        """Learn from the rows whose group is known how common groups are in each task."""
        known = [(part.guess, part.group, part.task) for part in given if part.group is not None]
        if not known:
            return np.zeros((n_tasks, len(self.groups_)))
        logits, group, task = (np.concatenate(column) for column in zip(*known, strict=True))
        return self._guess.adapt(logits, group, task, n_tasks)

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
        if not hasattr(self, "groups_"):
            if sensitive_features is not None:
                raise InvalidDataError(
                    "sensitive_features: the model was fitted without any, so nothing is constrained; leave it out."
                )
            return self.classifier_.predict_proba(X, tasks=tasks)
        return self._moved(self._scored(X, sensitive_features, tasks))

    def _scored(self, X: Any, sensitive_features: Any, tasks: Any) -> _Rows:
        """Return what the models say of rows, which is the same at all operating points."""
        mode = "unknown" if sensitive_features is None else "known"
        if mode == "known" and not (self.use_sensitive_at_predict and "known" in self._deciders):
            raise InvalidDataError(
                "sensitive_features: given, but use_sensitive_at_predict=False forbids to decide by them; leave it out."
            )
        x = check_features(self.classifier_, X, reset=False)
        state = getattr(self.classifier_, "_adapted", None)
        task = np.zeros(len(x), np.int64) if state is None else self.classifier_._positions(state, tasks, len(x))
        if mode == "known":
            membership = np.eye(len(self.groups_))[self.groups_.codes(sensitive_features, len(x))]
        else:
            own = getattr(self, "_own", np.zeros((1, len(self.groups_))))
            membership = probabilities(self._guess.logits(x) + own[task])
        return _Rows(mode, self._deciders[mode].scores(X, membership, tasks), membership, task)

    def _moved(self, rows: _Rows) -> Floats:
        """Return probabilities of the classes, moved by the thresholds of rows."""
        if rows.mode not in self._rules:
            self._rules[rows.mode] = self._deciders[rows.mode].rule(self._choose)
        probability, threshold = self._deciders[rows.mode].decide(*rows[1:], self._rules[rows.mode])
        moved = expit(logit(np.clip(probability, 1e-9, 1 - 1e-9)) - logit(threshold))
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

    def score(
        self, X: Any, y: Any, *, sensitive_features: Any = None, tasks: Any = None, sample_weight: Any = None
    ) -> float:
        """Accuracy of the decisions; see :func:`sklearn.metrics.accuracy_score`."""
        decided = self.predict(X, sensitive_features=sensitive_features, tasks=tasks)
        return float(accuracy_score(y, decided, sample_weight=sample_weight))

    def _require_fitted(self, what: str) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(f"{what}: this {type(self).__name__} is not fitted yet; call fit_meta first.")

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "constraint_report_")


def _numbers(X: Any) -> Floats:
    """Return features that the classifier has accepted as an array."""
    return np.asarray(X, dtype=np.float64)
