"""Adapting a meta-trained estimator and predicting with it.

An adapted model is a shallow copy of its meta-trained one plus the parameters of each task: it shares the initialisation,
and adapting it starts again from there.
"""

from __future__ import annotations

import copy
import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from ..adaptation import Adaptation
from ..engine import Engine
from ..errors import InvalidDataError, InvalidParameterError, NotFittedError, UnknownTaskError
from ..functional import FunctionalModule, differentiable_forward
from ..heads import HeadedModule
from ..inference import AdaptedTasks, adapt_task_set, predict
from ..metagradient import MetaParameters, expand
from ..normalization import batch_norm_layers, episode_statistics
from ..stacking import Stack, StackState
from ..tasks import TaskSet, factorize
from ..threads import one_thread, threads_for
from ._inputs import check_features, check_sample_weight, check_target_length

__all__ = ["AdaptedState", "AdaptsAndPredicts"]

logger = logging.getLogger("fewshot")

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass
class AdaptedState:
    """What a model took from the tasks that it was adapted to.

    Parameters
    ----------
    tasks : AdaptedTasks or StackState
        Parameters of each task; or what each member of a stack took.
    labels : ndarray of shape (tasks,), or None
        Their labels; None for one task without a label.
    """

    tasks: AdaptedTasks | StackState
    labels: npt.NDArray[Any] | None


class AdaptsAndPredicts:
    """What an estimator does once it is meta-trained."""

    algorithm: str
    engine: Any
    dtype: str
    _stack: Stack
    _parameters: MetaParameters
    _functional: FunctionalModule
    _fitted_adaptation: Adaptation
    _template: torch.nn.Module
    _vectorized: bool
    _predicts_double: bool
    _adapted: AdaptedState
    step_scale_: npt.NDArray[np.float32]

    def _resolved(self) -> dict[str, Any]:
        """Return the settings that the algorithm says where they are None."""
        raise NotImplementedError

    def _encode_adapt(self, y: Any) -> npt.NDArray[Any]:
        """Check and encode the targets of a support."""
        raise NotImplementedError

    def _prepare_support(self, task_set: TaskSet) -> TaskSet:
        """Last changes to a support before adaptation."""
        return task_set

    def _row_weights(self, y: npt.NDArray[Any], weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Row weights with everything that the estimator multiplies in."""
        return weight

    def _dtype(self) -> torch.dtype:
        if self.dtype not in DTYPES:
            raise InvalidParameterError(f"dtype: got {self.dtype!r}; expected 'float32' or 'float64'.")
        return DTYPES[self.dtype]

    def _layer_over_rows(self, row: torch.Tensor) -> str | None:
        """Name of a layer whose batch statistics are over rows alone, or None."""
        f = self._functional
        if not f.normalises_by_rows:
            return None
        row = row.to(next(iter(f.moving.values())).dtype)
        with torch.no_grad(), differentiable_forward(), episode_statistics(torch.ones(2), {}):
            f.output(f.moving, f.shared, f.constant, torch.cat([row, row]))
        layers = [layer.name for layer in batch_norm_layers(f.skeleton) if layer.over_rows_only]
        return layers[0] if layers else None

    def _check_fitted(self, what: str) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError(
                f"{what}: this {type(self).__name__} is not fitted yet; call fit_meta(X, y, tasks=...) first."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_parameters") or hasattr(self, "_stack")

    def adapt(self, X: Any, y: Any, *, tasks: Any = None, sample_weight: Any = None, steps: int | None = None) -> Self:
        """Adapt to a new task, or to many at once, from a few rows.

        Parameters
        ----------
        X : array-like of shape (rows, features)
            Support rows.
        y : array-like of shape (rows,) or (rows, outputs)
            Their targets.
        tasks : array-like of shape (rows,), default=None
            Task labels: the rows of each label are the support of a task of its own, and all tasks adapt in one
            vectorised call. Predictions then need the label of each row.
        sample_weight : array-like of shape (rows,), default=None
            Row weights.
        steps : int, default=None
            Number of gradient steps; None is `inner_steps`.

        Returns
        -------
        estimator
            A new fitted estimator of the same class; this one is unchanged. Of one algorithm alone, ``step_scale_`` holds the
            factor by which the safeguard shrank the steps of each task (1: not at all; 0: the task stayed at the initialisation).

        Raises
        ------
        NotFittedError
            Before :meth:`fit_meta`.
        InvalidDataError
            If the rows cannot be used as they are.
        """
        self._check_fitted("adapt")
        if steps is not None and (not isinstance(steps, int | np.integer) or isinstance(steps, bool) or steps < 0):
            raise InvalidParameterError(f"steps: got {steps!r}; expected a whole number of 0 or more.")
        if hasattr(X, "__len__") and len(X) == 0:
            raise InvalidDataError(
                "X: got 0 support rows; adapt needs at least one (without any, predict with the unadapted model)."
            )
        array = check_features(self, X, reset=False)
        check_target_length(array, y)
        adapted = copy.copy(self)
        encoded = adapted._encode_adapt(y)
        labels = np.zeros(len(array), dtype=np.int64) if tasks is None else tasks
        weight = self._row_weights(encoded, check_sample_weight(sample_weight, array))
        stacked = hasattr(self, "_stack")
        dtype = torch.float64 if stacked else self._dtype()
        task_set = TaskSet.from_arrays(array, encoded, labels, sample_weight=weight, dtype=dtype)
        if stacked:
            if steps is not None:
                raise InvalidParameterError(
                    f"steps: got {steps!r}, but how strongly this model adapts was learned (adaptation_report_); leave steps out, "
                    "or meta-train with base=None and an algorithm that takes gradient steps."
                )
            with one_thread():
                state = self._stack.adapt(task_set)
            adapted._adapted = AdaptedState(state, None if tasks is None else task_set.labels)
            return adapted
        task_set = adapted._prepare_support(task_set)
        self._require_rows_for_statistics(task_set)
        if steps and isinstance(self._functional, HeadedModule):
            raise InvalidParameterError(
                f"steps: got {steps!r}; algorithm={self.algorithm!r} solves the last layer in closed form and takes no steps; "
                "leave steps out."
            )
        adaptation = self._fitted_adaptation
        if not adaptation.learns:  # a fixed step size is a setting of adapting too
            adaptation = replace(adaptation, inner_lr=self._resolved()["inner_lr"])
        engine = Engine(self._functional, adaptation, mode=self.engine)
        engine.use(vectorized=self._vectorized)
        parameters = self._parameters
        if not adaptation.learns:
            parameters = replace(parameters, sizes=adaptation.init(parameters.moving))
        with self._threads(len(array)):
            found = adapt_task_set(engine, parameters, task_set, None if steps is None else int(steps))
        adapted._adapted = AdaptedState(found, None if tasks is None else task_set.labels)
        adapted.step_scale_ = found.step_scale.numpy()
        stuck = int((adapted.step_scale_ == 0).sum())
        if stuck:
            logger.warning(
                "adapt: %d of %d task(s) stayed at the initialisation, since no step size lowered their support loss; see "
                "step_scale_ and check the units of X and y",
                stuck,
                len(adapted.step_scale_),
            )
        return adapted

    def _require_rows_for_statistics(self, task_set: TaskSet) -> None:
        layer = self._layer_over_rows(task_set.x[:1])
        if layer is not None and task_set.sizes.min() < 2:
            raise InvalidDataError(
                f"X: a support of one row has no batch statistics for layer {layer!r}; give at least two rows per task."
            )

    def _require_rows_to_predict(self, x: list[torch.Tensor]) -> None:
        if self._functional.batch_norm != "transductive" or min(map(len, x)) >= 2:
            return
        layer = self._layer_over_rows(x[0][:1])
        if layer is not None:
            raise InvalidDataError(
                f"X: got one row to predict; with batch_norm='transductive' layer {layer!r} normalises the rows that are predicted "
                "together, so give two or more (of each task), or use another batch_norm."
            )

    def _deviations(self, X: Any, tasks: Any) -> npt.NDArray[np.float64]:
        """Return standard deviations of new observations in float64, shape (rows, outputs)."""
        self._check_fitted("predict")
        functional = getattr(self, "_functional", None)
        if not isinstance(functional, HeadedModule):
            raise InvalidParameterError(
                f"return_std: algorithm={self.algorithm!r} gives no predictive variance; use algorithm='ridge' or 'dkt' with "
                "base=None."
            )
        return self._outputs(X, tasks, functional.deviation)

    def _outputs(self, X: Any, tasks: Any, of_one: Any = None) -> npt.NDArray[np.float64]:
        """Network outputs (or another function of one task) of each row in float64, shape (rows, outputs)."""
        self._check_fitted("predict")
        array = check_features(self, X, reset=False)
        state = getattr(self, "_adapted", None)
        known = np.zeros(len(array), dtype=np.int64) if state is None else self._positions(state, tasks, len(array))
        if hasattr(self, "_stack"):
            with one_thread():
                return self._stack.predict(None if state is None else state.tasks, array, known)
        # In double precision, where the network allows it, a prediction does not depend on the rows beside it.
        x = torch.tensor(array, dtype=torch.float64 if self._predicts_double else self._dtype())
        if state is None:
            return self._run(expand(self._parameters.moving, 1), {}, [x], of_one)[0]
        found = state.tasks
        if state.labels is None:
            return self._run(found.moving, found.statistics, [x], of_one)[0]
        unique, codes = np.unique(known, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        parts = np.split(order, np.cumsum(np.bincount(codes))[:-1])
        index = torch.from_numpy(unique)
        results = self._run(
            {k: v[index] for k, v in found.moving.items()},
            {k: v[index] for k, v in found.statistics.items()},
            [x[torch.from_numpy(part)] for part in parts],
            of_one,
        )
        out = np.empty((len(array), results[0].shape[1]))
        out[order] = np.concatenate(results)
        return out

    def _positions(self, state: AdaptedState, tasks: Any, n_rows: int) -> npt.NDArray[np.int64]:
        """Position of each row's task among those adapted to."""
        if state.labels is None:
            if tasks is not None:
                raise UnknownTaskError("tasks: this model was adapted to one task without a label; leave tasks out.")
            return np.zeros(n_rows, dtype=np.int64)
        if tasks is None:
            raise UnknownTaskError(
                f"tasks: this model was adapted to {len(state.labels)} labelled tasks; pass tasks=, one label per row of X."
            )
        unique, codes = factorize("tasks", tasks, n_rows)
        known = pd.Index(state.labels).get_indexer(pd.Index(unique))
        if (known < 0).any():
            raise UnknownTaskError(
                f"tasks: {unique[known < 0].tolist()[0]!r} is not among the {len(state.labels)} tasks that this model was adapted "
                "to; adapt to it first."
            )
        return known.astype(np.int64)[codes]

    def _run(
        self, moving: Any, statistics: Any, x: list[torch.Tensor], of_one: Any = None
    ) -> list[npt.NDArray[np.float64]]:
        self._require_rows_to_predict(x)
        with self._threads(sum(map(len, x))):
            outputs = predict(self._functional, moving, self._parameters.shared, statistics, x, of_one)
        return [o.double().numpy() for o in outputs]

    def _threads(self, n_rows: int) -> AbstractContextManager[None]:
        return threads_for(sum(p.numel() for p in self._template.parameters()), n_rows)
