"""The meta-learned regressor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import Tags
from sklearn.utils.validation import check_array, column_or_1d

from ..errors import InvalidDataError, InvalidParameterError
from ..losses import REGRESSION_LOSSES, RowLoss, absolute_error, huber, poisson, resolve_loss, squared_error
from ..tasks import Rows
from ._base import MetaEstimator
from ._inputs import one_line
from ._settings import COMMON_PARAMETERS, describe

__all__ = ["MAMLRegressor"]

STANDARDISED = (squared_error, absolute_error, huber)


@describe(COMMON_PARAMETERS)
class MAMLRegressor(RegressorMixin, MetaEstimator):
    """Regressor that adapts to a new task from a few rows, as strongly as that helped on tasks that it was not trained on.

    It mixes a pooled model with several ways to adapt it, or with one of them by name; see `algorithm` and `base`.

    {parameters}

    Attributes
    ----------
    adaptation_report_ : AdaptationReport
        How strongly it adapts at each support size, with what, and what that lost on held-out tasks; unless it is one algorithm
        alone.
    module_ : torch.nn.Module
        The network with the meta-learned weights, to take out; of a mixture that with the most weight, if there is
        one. It predicts the standardised target.
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
    Finn, Abbeel, Levine (2017), Model-agnostic meta-learning for fast adaptation of deep networks, ICML, section 3;
    Antoniou, Edwards, Storkey (2019), How to train your MAML, ICLR (step sizes per tensor and step).

    Examples
    --------
    >>> import numpy as np
    >>> from fewshot import MAMLRegressor
    >>> rng = np.random.default_rng(0)
    >>> slope = np.repeat(rng.normal(size=20), 10)  # 20 tasks of 10 rows, each a line of its own
    >>> X = rng.normal(size=(200, 1))
    >>> model = MAMLRegressor(random_state=0).fit_meta(X, slope * X[:, 0], tasks=np.repeat(np.arange(20), 10))
    >>> adapted = model.adapt([[1.0], [-1.0]], [2.0, -2.0])
    >>> bool(adapted.predict([[0.5]])[0] > 0.3)
    True
    """

    def __init__(
        self,
        module: Any = None,
        *,
        hidden: Sequence[int] = (40, 40),
        activation: str = "relu",
        input_shape: Sequence[int] | None = None,
        loss: Any = None,
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
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        # Without adaptation it predicts from a starting point, which is not meant to be good for any one task.
        tags.regressor_tags.poor_score = True
        return tags

    def predict(self, X: Any, *, tasks: Any = None, return_std: bool = False) -> Any:
        """Predict targets.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Inputs.
        tasks : array-like of shape (rows,), default=None
            Task label of each row, if the model was adapted to labelled tasks. A model that was not adapted predicts from
            its initialisation, the same for every task.
        return_std : bool, default=False
            Return the standard deviations of new observations, too; of "ridge" and "dkt" only.

        Returns
        -------
        ndarray of shape (rows,) or (rows, outputs), or two of them
            Predictions, and standard deviations where asked for.

        Raises
        ------
        NotFittedError
            Before :meth:`fit_meta`.
        UnknownTaskError
            If a label is not among those that the model was adapted to.
        InvalidParameterError
            If standard deviations are asked of an algorithm that has none.
        """
        out = self._outputs(X, tasks)
        out = np.exp(out) if self._row_loss() is poisson else out * self._target_scale + self._target_mean
        mean = out if self._multi_output else out[:, 0]
        if not return_std:
            return mean
        deviation = self._deviations(X, tasks) * self._target_scale
        return mean, deviation if self._multi_output else deviation[:, 0]

    def score(self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None) -> float:
        """Coefficient of determination of the predictions; see :func:`sklearn.metrics.r2_score`."""
        return float(r2_score(y, self.predict(X, tasks=tasks), sample_weight=sample_weight))

    def _row_loss(self) -> RowLoss:
        return resolve_loss(self.loss, REGRESSION_LOSSES)

    def _n_scores(self) -> int:
        return len(self._target_mean)

    def _unit(self) -> float:
        return float(self._target_scale.mean())

    def _n_outputs(self) -> int:
        return len(self._target_mean)

    def _encode_fit(
        self, y: Any, codes: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], first: bool
    ) -> npt.NDArray[np.float64]:
        if self.shots_per_class is not None:
            raise InvalidParameterError("shots_per_class: a regressor has no classes; use shots=.")
        target = _check_target(y)
        if first:
            self._multi_output = target.ndim == 2
            columns = target.reshape(len(target), -1)
            self._target_mean = np.zeros(columns.shape[1])
            self._target_scale = np.ones(columns.shape[1])
            if self._row_loss() in STANDARDISED:
                self._target_mean = np.average(columns, axis=0, weights=weight)
                spread = np.sqrt(np.average((columns - self._target_mean) ** 2, axis=0, weights=weight))
                self._target_scale = np.where(spread > 0, spread, 1.0)
        return self._scaled(target)

    def _encode_adapt(self, y: Any) -> npt.NDArray[np.float64]:
        return self._scaled(_check_target(y))

    def _scaled(self, target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        columns = target.reshape(len(target), -1)
        if (target.ndim == 2) != self._multi_output or columns.shape[1] != self._n_outputs():
            expected = f"(rows, {self._n_outputs()})" if self._multi_output else "(rows,)"
            raise InvalidDataError(f"y: got shape {target.shape}; expected {expected} as in meta-training.")
        if self._row_loss() is poisson and (columns < 0).any():
            raise InvalidDataError(f"y: got {columns.min():g}; loss='poisson' needs counts of 0 or more.")
        return (columns - self._target_mean) / self._target_scale

    def _encode_sampler(self, support: Rows, query: Rows) -> None:
        if not support.y.is_floating_point():
            raise InvalidDataError(
                "X: the sampler draws integer targets; a regressor needs floats, or use MAMLClassifier."
            )
        self._multi_output = support.y.ndim == 3
        n = support.y.shape[2] if self._multi_output else 1
        self._target_mean, self._target_scale = np.zeros(n), np.ones(n)


def _check_target(y: Any) -> npt.NDArray[np.float64]:
    target = one_line("y", check_array, y, ensure_2d=False, dtype=np.float64, ensure_all_finite=False, input_name="y")
    if target.ndim == 2 and target.shape[1] == 1:
        target = column_or_1d(target, warn=True)
    bad = int((~np.isfinite(target)).sum())
    if bad:
        kind = "NaN" if np.isnan(target).any() else "infinity"
        raise InvalidDataError(f"y: contains {bad} value(s) of NaN or infinity ({kind}); drop those rows.")
    if target.ndim > 2:
        raise InvalidDataError(f"y: got shape {target.shape}; expected (rows,) or (rows, outputs).")
    return target
