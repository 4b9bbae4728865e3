"""The meta-learned classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.metrics import accuracy_score
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import column_or_1d

from ..episodes import PerTaskLabels
from ..errors import InvalidDataError, InvalidParameterError, NotFittedError
from ..losses import CLASSIFICATION_LOSSES, RowLoss, binary_cross_entropy, resolve_loss
from ..tasks import Rows, TaskSet
from ._base import MetaEstimator
from ._inputs import one_line
from ._settings import CLASSIFIER_PARAMETERS, COMMON_PARAMETERS, describe

__all__ = ["MAMLClassifier"]


@describe(COMMON_PARAMETERS + CLASSIFIER_PARAMETERS)
class MAMLClassifier(ClassifierMixin, MetaEstimator):
    """Classifier that adapts to a new task from a few rows, as strongly as that helped on tasks that it was not trained on.

    It mixes a pooled model with several ways to adapt it, or with one of them by name; see `algorithm` and `base`.

    {parameters}

    Attributes
    ----------
    classes_ : ndarray of shape (classes,)
        Class labels; with ``label_space="per_task"`` those of the support that the model was adapted to.
    adaptation_report_ : AdaptationReport
        How strongly it adapts at each support size, with what, and what that lost on held-out tasks; unless it is one algorithm
        alone.
    module_ : torch.nn.Module
        The network with the meta-learned weights, to take out; of a mixture that with the most weight, if there is one.
    n_iter_ : int
        Number of meta-steps done.
    history_ : DataFrame
        One row per round of training: iteration, loss, validation_loss, skipped, seconds.
    task_weights_ : DataFrame
        Of "tr-maml": the weight that each training task ended with.
    n_features_in_, feature_names_in_
        As everywhere in scikit-learn.
    step_scale_ : ndarray of shape (tasks,)
        On an adapted model: factor by which the safeguard shrank each task's steps.

    References
    ----------
    Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import MAMLClassifier
    >>> rng = np.random.default_rng(0)
    >>> tasks = np.repeat(np.arange(20), 20)
    >>> sign = np.where(rng.random(20) < 0.5, -1, 1)[tasks]  # in half of the tasks the labels are swapped
    >>> X = rng.normal(size=(400, 2))
    >>> y = np.where(sign * X[:, 0] > 0, "yes", "no")
    >>> model = MAMLClassifier(random_state=0).fit_meta(X, y, tasks=tasks)
    >>> adapted = model.adapt([[1.0, 0.0], [-1.0, 0.0], [2.0, 1.0]], ["no", "yes", "no"])
    >>> adapted.predict([[1.5, 0.0], [-1.5, 0.0]])
    array(['no', 'yes'], dtype='<U3')
    """

    def __init__(
        self,
        module: Any = None,
        *,
        hidden: Sequence[int] = (40, 40),
        activation: str = "relu",
        input_shape: Sequence[int] | None = None,
        loss: Any = None,
        label_space: str = "shared",
        class_weight: Any = None,
        algorithm: str = "auto",
        base: Any = "auto",
        inner_steps: int | None = None,
        inner_lr: float | None = None,
        learn_step_sizes: Any = None,
        inner_optimizer: str | None = None,
        proximal: float | None = None,
        adapted: Any = None,
        n_context: int | None = None,
        head_objective: str | None = None,
        order: str | None = None,
        multi_step_loss: bool | None = None,
        batch_norm: str | None = None,
        shots: Any = (1, 20),
        shots_per_class: Any = None,
        queries: int | None = 20,
        support: str = "random",
        tasks_per_batch: int = 16,
        max_iter: int | None = None,
        outer_lr: float = 0.001,
        optimizer: Any = "adam",
        schedule: str = "cosine",
        max_grad_norm: float | None = 10.0,
        validation_tasks: Any = "auto",
        early_stopping: bool = True,
        warm_start: bool = False,
        engine: str = "auto",
        verify: Any = "auto",
        max_memory: float | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.module = module
        self.hidden = hidden
        self.activation = activation
        self.input_shape = input_shape
        self.loss = loss
        self.label_space = label_space
        self.class_weight = class_weight
        self.algorithm = algorithm
        self.base = base
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.learn_step_sizes = learn_step_sizes
        self.inner_optimizer = inner_optimizer
        self.proximal = proximal
        self.adapted = adapted
        self.n_context = n_context
        self.head_objective = head_objective
        self.order = order
        self.multi_step_loss = multi_step_loss
        self.batch_norm = batch_norm
        self.shots = shots
        self.shots_per_class = shots_per_class
        self.queries = queries
        self.support = support
        self.tasks_per_batch = tasks_per_batch
        self.max_iter = max_iter
        self.outer_lr = outer_lr
        self.optimizer = optimizer
        self.schedule = schedule
        self.max_grad_norm = max_grad_norm
        self.validation_tasks = validation_tasks
        self.early_stopping = early_stopping
        self.warm_start = warm_start
        self.engine = engine
        self.verify = verify
        self.max_memory = max_memory
        self.device = device
        self.dtype = dtype
        self.random_state = random_state
        self.verbose = verbose

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        # Without adaptation it predicts from a starting point, which is not meant to be good for any one task.
        tags.classifier_tags.poor_score = True
        return tags

    _n_classes: int

    # ---------------------------------------------------------------- prediction

    def decision_function(self, X: Any, *, tasks: Any = None) -> npt.NDArray[np.float64]:
        """Scores whose largest names the class; for two classes the log-odds of the second.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        tasks : array-like of shape (rows,), default=None
            Task label of each row, if the model was adapted to labelled tasks.

        Returns
        -------
        ndarray of shape (rows,) for two classes, else (rows, classes)
        """
        out = self._logits(X, tasks)
        if self._row_loss() is binary_cross_entropy:
            return out[:, 0]
        return out[:, 1] - out[:, 0] if len(self.classes_) == 2 else out

    def predict_proba(self, X: Any, *, tasks: Any = None) -> npt.NDArray[np.float64]:
        """Class probabilities.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        tasks : array-like of shape (rows,), default=None
            Task label of each row, if the model was adapted to labelled tasks.

        Returns
        -------
        ndarray of shape (rows, classes), in the order of ``classes_``
        """
        out = self._logits(X, tasks)
        if self._row_loss() is binary_cross_entropy:
            p = expit(out[:, 0])
            return np.column_stack([1 - p, p])
        return softmax(out, axis=1)

    def predict(self, X: Any, *, tasks: Any = None) -> npt.NDArray[Any]:
        """Predict class labels.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        tasks : array-like of shape (rows,), default=None
            Task label of each row, if the model was adapted to labelled tasks. A model that was not adapted predicts from
            its initialisation, the same for every task.

        Returns
        -------
        ndarray of shape (rows,)

        Raises
        ------
        NotFittedError
            Before :meth:`fit_meta`, or with ``label_space="per_task"`` before :meth:`adapt`.
        UnknownTaskError
            If a label is not among those that the model was adapted to.
        """
        out = self._logits(X, tasks)
        code = (out[:, 0] > 0).astype(int) if self._row_loss() is binary_cross_entropy else out.argmax(1)
        return self.classes_[code]

    def score(self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None) -> float:
        """Accuracy of the predictions; see :func:`sklearn.metrics.accuracy_score`."""
        return float(accuracy_score(y, self.predict(X, tasks=tasks), sample_weight=sample_weight))

    def _logits(self, X: Any, tasks: Any) -> npt.NDArray[np.float64]:
        self._check_fitted("predict")
        if self.label_space == "per_task" and not hasattr(self, "_task_classes"):
            raise NotFittedError(
                "predict: with label_space='per_task' the classes are those of a task; call adapt(X, y) first."
            )
        out = self._outputs(X, tasks)
        if self.label_space != "per_task":
            return out
        # Output j stands for the j-th class of the row's own task: move it to that class's column.
        labels = self._adapted.labels
        rows = np.zeros(len(out), dtype=int) if labels is None else pd.Index(labels).get_indexer(np.asarray(tasks))
        columns = np.full((len(out), len(self.classes_) + 1), -1e9)
        np.put_along_axis(columns, self._task_classes[rows], out, axis=1)
        return columns[:, :-1]

    # ---------------------------------------------------------------- what the base asks for

    def _row_loss(self) -> RowLoss:
        return resolve_loss(self.loss, CLASSIFICATION_LOSSES)

    def _n_scores(self) -> int:
        return self._n_classes

    def _n_outputs(self) -> int:
        return 1 if self._row_loss() is binary_cross_entropy else self._n_classes

    def _wrap_sampler(self, sampler: Any) -> Any:
        return PerTaskLabels(sampler, self._n_classes) if self.label_space == "per_task" else sampler

    def _encode_fit(
        self, y: Any, codes: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], first: bool
    ) -> npt.NDArray[np.int64]:
        if self.label_space not in ("shared", "per_task"):
            raise InvalidParameterError(f"label_space: got {self.label_space!r}; expected 'shared' or 'per_task'.")
        labels = _check_labels(y)
        classes, encoded = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise InvalidDataError(
                f"y: got one class only ({classes.tolist()[0]!r}); a classifier needs at least two classes."
            )
        per_task = self.label_space == "per_task"
        n_classes = len(classes)
        if per_task:
            of_task = np.unique(np.column_stack([codes, encoded]), axis=0)[:, 0]
            n_classes = max(2, int(np.bincount(of_task).max()))
            if not first and n_classes > self._n_classes:
                raise InvalidDataError(
                    f"y: a task has {n_classes} classes; the model that warm_start goes on from has outputs for "
                    f"{self._n_classes}; start anew with warm_start=False."
                )
        if first:
            self.classes_, self._n_classes = classes, n_classes
            if self._row_loss() is binary_cross_entropy and (len(classes) != 2 or per_task):
                raise InvalidParameterError(
                    f"loss: 'binary_cross_entropy' needs two shared classes, got {len(classes)}; use 'cross_entropy'."
                )
        elif not per_task:
            encoded = self._codes(labels)
        if not per_task and self.class_weight is not None:
            weights = one_line("class_weight", compute_class_weight, self.class_weight, classes=classes, y=labels)
            if not (weights >= 0).all():
                raise InvalidParameterError(f"class_weight: got {self.class_weight!r}; expected weights of 0 or more.")
            self._class_weights = np.ones(len(self.classes_))
            self._class_weights[self._codes(classes)] = weights
        elif self.class_weight is not None:
            raise InvalidParameterError("class_weight: has no meaning with label_space='per_task'; leave it at None.")
        return encoded.astype(np.int64)

    def _row_weights(self, y: npt.NDArray[Any], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        if self.class_weight is None or self.label_space == "per_task":
            return weight
        return weight * self._class_weights[y]

    def _encode_sampler(self, support: Rows, query: Rows) -> None:
        if support.y.is_floating_point():
            raise InvalidDataError("X: the sampler draws float targets; a classifier needs integer codes.")
        self._n_classes = max(2, int(max(support.y.max(), query.y.max())) + 1)
        self.classes_ = np.arange(self._n_classes)

    def _encode_adapt(self, y: Any) -> npt.NDArray[np.int64]:
        labels = _check_labels(y)
        if self.label_space != "per_task":
            return self._codes(labels)
        self.classes_, encoded = np.unique(labels, return_inverse=True)
        return encoded.astype(np.int64)

    def _codes(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        known = np.isin(labels, self.classes_)
        if not known.all():
            raise InvalidDataError(
                f"y: class {labels[~known].tolist()[0]!r} was not seen in meta-training (classes: "
                f"{', '.join(map(str, self.classes_[:8]))}); use label_space='per_task' if each task has its own."
            )
        return np.searchsorted(self.classes_, labels).astype(np.int64)

    def _prepare_support(self, task_set: TaskSet) -> TaskSet:
        """With labels per task: number the classes of each task 0, 1, ... and remember which is which."""
        if self.label_space != "per_task":
            return task_set
        y = task_set.y.numpy()
        owner = np.repeat(np.arange(task_set.n_tasks), task_set.sizes)
        pairs, inverse = np.unique(owner * len(self.classes_) + y, return_inverse=True)
        task, column = pairs // len(self.classes_), pairs % len(self.classes_)
        first = np.searchsorted(task, np.arange(task_set.n_tasks))
        local = np.arange(len(pairs)) - first[task]
        if local.max() >= self._n_classes:
            label = task_set.labels.tolist()[task[local.argmax()]]
            raise InvalidDataError(
                f"y: the support of task {label!r} has {local.max() + 1} classes; the model was meta-trained for at most "
                f"{self._n_classes}."
            )
        self._task_classes = np.full((task_set.n_tasks, self._n_classes), len(self.classes_))
        self._task_classes[task, local] = column
        n_classes = torch.from_numpy(np.bincount(task, minlength=task_set.n_tasks)[owner])
        classes = torch.arange(self._n_classes) < n_classes[:, None]
        return replace(task_set, y=torch.from_numpy(local[inverse]), extra={"classes": classes})


def _check_labels(y: Any) -> npt.NDArray[Any]:
    labels = np.asarray(one_line("y", column_or_1d, y, warn=True))
    missing = int(pd.isna(labels).sum())
    if missing:
        raise InvalidDataError(f"y: Input y contains NaN, None or NA ({missing} of {len(labels)}); drop those rows.")
    if labels.dtype.kind == "f" and np.isinf(labels).any():
        raise InvalidDataError(
            "y: Input y contains infinity or a value too large for dtype('float64'); drop those rows."
        )
    one_line("y", check_classification_targets, labels)
    return labels
