"""What the regressor and the classifier share: from checked arrays through the core to a fitted estimator."""

from __future__ import annotations

import copy
import logging
import warnings
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from torch.nn.modules.batchnorm import _BatchNorm

from ..adaptation import Adaptation
from ..algorithms import get_algorithm
from ..engine import Engine
from ..episodes import EpisodeSampler, check_shots
from ..errors import InvalidDataError, InvalidParameterError
from ..functional import differentiable_forward
from ..heads import check_head, make_functional, with_head
from ..inference import predict
from ..losses import RowLoss
from ..metagradient import MetaParameters, check_order, expand
from ..networks import CONTEXT, build_module
from ..normalization import check_strategy
from ..stacking import NetworkMember, Stack, StackFit, report_on
from ..tasks import Rows, TaskSet, factorize, is_sampler
from ..threads import one_thread, threads_for
from ..training import TrainingSettings, TrainingState, Validation, meta_train, split_tasks
from ..training.callbacks import CallbackSupportMixin, progress_bar, report_rounds, with_callbacks
from ..training.loop import ROUNDS
from ._adapted import AdaptsAndPredicts
from ._inputs import check_columns, check_features, check_sample_weight, check_target_length, one_line
from ._stacked import is_stacked, start_fit

__all__ = ["MetaEstimator"]

logger = logging.getLogger("fewshot")

SAMPLED_FOR_CLASSES = 64  # tasks of a sampler that tell the features and classes
# Of the logarithms of step sizes, as multiples of the learning rate: one for a whole tensor has less noise in its gradient.
STEP_SIZE_LR = {"tensor": 100.0, "parameter": 10.0, "False": 1.0}
STATISTICS_ROWS = 2048  # training rows from which an unadapted model takes its batch statistics
EPISODES_PER_VALIDATION_TASK = 4
MOST_VALIDATION_EPISODES = 128


class MetaEstimator(AdaptsAndPredicts, CallbackSupportMixin, BaseEstimator):
    """Base of the meta-learned estimators; see :class:`MAMLRegressor` for the parameters."""

    # Requested by default, so that with metadata routing on, pipelines and cross-validation pass them without ceremony.
    __metadata_request__fit = {"tasks": True, "blocks": True, "time": True, "sample_weight": True}
    __metadata_request__predict = {"tasks": True}
    __metadata_request__predict_proba = {"tasks": True}
    __metadata_request__decision_function = {"tasks": True}
    __metadata_request__score = {"tasks": True, "sample_weight": True}

    n_features_in_: int

    # Checks of sklearn.utils.estimator_checks that cannot pass, and why.
    _expected_failed_checks: ClassVar[dict[str, str]] = {}

    # ---------------------------------------------------------------- what subclasses say

    def _encode_fit(
        self, y: Any, codes: npt.NDArray[np.int64], weight: npt.NDArray[np.float64], first: bool
    ) -> npt.NDArray[Any]:
        """Check and encode training targets; sets what decoding needs."""
        raise NotImplementedError

    def _encode_sampler(self, support: Rows, query: Rows) -> None:
        """Set what decoding needs from a first batch of a sampler."""
        raise NotImplementedError

    def _row_loss(self) -> RowLoss:
        raise NotImplementedError

    def _n_outputs(self) -> int:
        raise NotImplementedError

    def _wrap_sampler(self, sampler: Any) -> Any:
        return sampler

    # ---------------------------------------------------------------- meta-training

    def fit_meta(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Learn across tasks.

        Parameters
        ----------
        X : array-like of shape (rows, features), or TaskSampler
            Inputs of all tasks; or a sampler of episodes, then `y` and `tasks` must be None.
        y : array-like of shape (rows,) or (rows, outputs)
            Targets.
        tasks : array-like of shape (rows,), default=None
            Task label of each row. None treats all rows as one task, cut at random into episodes, with a warning.
        blocks : array-like of shape (rows,), default=None
            Block labels, compared within a task: rows of one block (one visit) never stand on both sides of an episode.
        time : array-like of shape (rows,), default=None
            When each row was recorded; needed by ``support="first"``.
        sample_weight : array-like of shape (rows,), default=None
            Row weights in the losses of support and query.

        Returns
        -------
        self
            Meta-trained. After Ctrl-C the estimator is fitted with what it had; with ``warm_start=True`` the same call goes
            on from there.

        Raises
        ------
        InvalidParameterError
            If a setting cannot be used.
        InvalidDataError
            If the data cannot be used as they are.
        DivergenceError
            If losses stop being finite.
        VerificationError
            If the vectorised meta-gradient of `module` is wrong.
        """
        before = dict(self.__dict__)
        try:
            with progress_bar(self, shown=bool(self.verbose)):
                return self._fit_meta(X, y, tasks, blocks, time, sample_weight)
        except Exception:
            self.__dict__.clear()  # a fit that failed must not cost the model that was there
            self.__dict__.update(before)
            raise

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        tasks: Any = None,
        blocks: Any = None,
        time: Any = None,
        sample_weight: Any = None,
    ) -> Self:
        """Meta-train; the same as :meth:`fit_meta`, under the name that scikit-learn calls."""
        return self.fit_meta(X, y, tasks=tasks, blocks=blocks, time=time, sample_weight=sample_weight)

    @with_callbacks
    def _fit_meta(self, X: Any, y: Any, tasks: Any, blocks: Any, time: Any, sample_weight: Any) -> Self:
        if is_stacked(self, is_sampler(X)):
            return self._fit_stack(X, y, tasks, blocks, time, sample_weight)
        self._forget("_stack", "_held_out", "adaptation_report_")
        adaptation = self._adaptation()
        dtype = self._dtype()
        again = bool(self.warm_start) and hasattr(self, "_parameters")
        seed = one_line("random_state", check_random_state, self.random_state).randint(2**31)
        rng = np.random.default_rng(seed)
        self._forget("_adapted", "_task_classes", "step_scale_", "task_weights_")
        if is_sampler(X):
            given = {"y": y, "tasks": tasks, "blocks": blocks, "time": time, "sample_weight": sample_weight}
            for name, value in given.items():
                if value is not None:
                    raise InvalidDataError(f"{name}: X is a task sampler, which draws its own; leave {name} out.")
            task_set = None
            self._features_of_sampler(X, again)
        else:
            task_set = self._task_set(X, y, tasks, blocks, time, sample_weight, dtype, again)
        build_seed = int(rng.integers(2**31))  # drawn in any case: a resumed fit must find the same numbers after it
        if again:
            self._functional = self._functional.copy()  # adapted models share the old one
        else:
            self._build(adaptation, dtype, build_seed)
        self._fitted_adaptation = adaptation
        device = self._device()
        if task_set is None:
            sampler, validation = self._from_sampler(X, rng, device)
        else:
            sampler, validation = self._from_task_set(task_set, rng, device)
        n_rows = None if task_set is None else task_set.n_rows
        self._functional.to(device)
        settings = self._settings(n_rows, validation is not None)
        state = self._starting_state(adaptation, rng, again)
        engine = Engine(self._functional, adaptation, mode=self.engine, verify=self.verify, max_memory=self.max_memory)
        n_rounds = -(-settings.max_iter // max(1, settings.max_iter // ROUNDS))

        def fitted() -> dict[str, Any]:
            return self._fitted_attributes(state, engine) | self._task_weights(state, sampler)

        n_parameters = sum(p.numel() for p in self._template.parameters())
        n_rows_at_once = settings.tasks_per_batch * _rows_per_episode(sampler)
        try:
            with (
                threads_for(n_parameters, n_rows_at_once),
                report_rounds(self, n_rounds, X, y, fitted) as on_round,
            ):
                meta_train(engine, sampler, settings, state, validation=validation, on_round=on_round, device=device)
        except KeyboardInterrupt:
            self._finish(fitted(), sampler, state)
            logger.warning(
                "interrupted after %d of %d meta-steps; the model is usable as it is, and with warm_start=True the same "
                "fit_meta call goes on",
                state.iteration,
                settings.max_iter,
            )
            raise
        self._finish(fitted(), sampler, None)
        return self

    def _forget(self, *attributes: str) -> None:
        """Remove what an earlier fit left."""
        for attribute in attributes:
            self.__dict__.pop(attribute, None)

    def _fit_stack(self, X: Any, y: Any, tasks: Any, blocks: Any, time: Any, sample_weight: Any) -> Self:
        """Fit the pooled base and the ways to adapt it, and learn how to mix them."""
        self._dtype(), self._device()
        get_algorithm(self.algorithm).resolve(self.get_params(deep=False))
        begun = getattr(self, "_training", None) if self.warm_start else None
        self._forget(
            "_adapted",
            "_parameters",
            "_stack",
            "_held_out",
            "_training",
            "module_",
            "history_",
            "step_scale_",
            "task_weights_",
        )
        seed = one_line("random_state", check_random_state, self.random_state).randint(2**31)
        task_set = self._task_set(X, y, tasks, blocks, time, sample_weight, torch.float64, False)
        fit = begun if isinstance(begun, StackFit) else start_fit(self, task_set, self._n_scores(), int(seed))
        try:
            with one_thread(), report_rounds(self, fit.n_rounds, X, y, dict) as on_round:
                self._use_stack(fit, fit.run(lambda number: on_round(None, number)))
        except KeyboardInterrupt:
            base = fit.base_alone()
            if base is not None:
                self._use_stack(fit, base)
            self._training = fit
            logger.warning(
                "interrupted after %d of %d rounds; until then it predicts as its pooled base, and with warm_start=True the same "
                "fit_meta call goes on",
                fit.n_done,
                fit.n_rounds,
            )
            raise
        return self

    def _use_stack(self, fit: StackFit, stack: Stack) -> None:
        self._stack, self._held_out = stack, fit.held_out
        self.adaptation_report_ = report_on(fit, stack, self._unit())
        networks = {m.name: m.model for m in stack.members if isinstance(m, NetworkMember)}
        self.n_iter_ = max([1, *(int(model.n_iter_) for model in networks.values())])
        self._show_network()

    def _show_network(self) -> None:
        """Take out the network of the member that has the most weight at any support size."""
        networks = {m.name: m.model for m in self._stack.members if isinstance(m, NetworkMember)}
        if networks:
            heaviest = max(networks, key=lambda name: float(self.adaptation_report_.weights[name].to_numpy().max()))
            self.module_, self.history_ = networks[heaviest].module_, networks[heaviest].history_

    def _n_scores(self) -> int:
        """Return the number of values, or of classes, that a stack predicts for a row."""
        raise NotImplementedError

    def _unit(self) -> float:
        """Return the unit of the standardised target."""
        return 1.0

    def _finish(self, fitted: dict[str, Any], sampler: Any, interrupted: TrainingState | None) -> None:
        self.__dict__.update(fitted, _training=interrupted)
        self._functional.to(torch.device("cpu"))
        if self._functional.uses_batch_statistics or self._functional.running:
            if self._functional.uses_batch_statistics:
                self._pooled_statistics(sampler)
            constant = self._functional.constants(self._functional.constant, 0)
            for name, layer in self.module_.named_modules():
                # A frozen layer keeps its statistics too: a pretrained body comes back bit for bit.
                frozen = not all(p.requires_grad for p in layer.parameters())
                if isinstance(layer, _BatchNorm) and layer.running_mean is not None and not frozen:
                    prefix = f"{name}." if name else ""
                    for buffer, statistic in (("running_mean", "episode_mean"), ("running_var", "episode_var")):
                        getattr(layer, buffer).copy_(constant[prefix + statistic])

    def _fitted_attributes(self, state: TrainingState, engine: Engine) -> dict[str, Any]:
        parameters = state.result().to(torch.device("cpu"))
        module = copy.deepcopy(self._template)
        with torch.no_grad():
            named = dict(module.named_parameters())
            for name, value in {**parameters.moving, **parameters.shared}.items():
                named[name].copy_(value)
        return {
            "_parameters": parameters,
            "_vectorized": engine.is_vectorized,
            "module_": module.eval(),
            "n_iter_": state.iteration,
            "history_": pd.DataFrame(state.history),
        }

    def _task_weights(self, state: TrainingState, sampler: Any) -> dict[str, Any]:
        """Return the weights of the training tasks, where they are learned."""
        if state.task_weights is None:
            return {}
        episodes: EpisodeSampler = getattr(sampler, "sampler", sampler)
        labels = episodes.task_set.labels[episodes.tasks_]
        return {"task_weights_": pd.DataFrame({"task": labels, "weight": state.task_weights})}

    def _task_set(
        self, X: Any, y: Any, tasks: Any, blocks: Any, time: Any, sample_weight: Any, dtype: torch.dtype, again: bool
    ) -> TaskSet:
        array = check_features(self, X, reset=not again)
        check_target_length(array, y)
        n = len(array)
        if n < 2:
            raise InvalidDataError("X: got 1 sample; expected at least 2 rows, one for support and one for query.")
        columns = check_columns(n, blocks=blocks, time=time)
        if tasks is None:
            warnings.warn(
                f"tasks: not given, so all {n} rows are treated as one task and episodes are random parts of it; pass "
                "tasks=, one label per row, to learn across tasks.",
                UserWarning,
                stacklevel=6,
            )
            tasks = np.zeros(n, dtype=np.int64)
        codes = factorize("tasks", tasks, n)[1]
        weight = check_sample_weight(sample_weight, array)
        encoded = self._encode_fit(y, codes, weight, first=not again)
        weight = self._row_weights(encoded, weight)
        return TaskSet.from_arrays(array, encoded, tasks, **columns, sample_weight=weight, dtype=dtype)

    def _from_task_set(
        self, task_set: TaskSet, rng: np.random.Generator, device: torch.device
    ) -> tuple[Any, Validation | None]:
        fraction = isinstance(self.validation_tasks, int | float | str)
        training, held = split_tasks(
            task_set, self.validation_tasks if self.early_stopping or not fraction else None, rng
        )
        sampler = self._episodes(task_set.select(training) if len(held) else task_set)
        if sampler.n_left_out_:
            name = "shots_per_class" if sampler.per_class else "shots"
            warnings.warn(
                f"{name}: {sampler.n_left_out_} of {len(training)} tasks are too small for {sampler.low} support row(s) and "
                f"a query row, and are left out; lower {name} to use them.",
                UserWarning,
                stacklevel=6,
            )
        if not len(held):
            return self._wrap_sampler(sampler), None
        try:
            judge = self._wrap_sampler(self._episodes(task_set.select(held)))
        except InvalidDataError:
            logger.info("validation_tasks: the held-out tasks are too small for an episode; no early stopping")
            return self._wrap_sampler(sampler), None
        n = min(EPISODES_PER_VALIDATION_TASK * len(held), max(MOST_VALIDATION_EPISODES, len(held)))
        return self._wrap_sampler(sampler), Validation(judge, n, rng, device, worst=self._worst_tasks())

    def _episodes(self, task_set: TaskSet) -> EpisodeSampler:
        return EpisodeSampler(
            task_set,
            self._shots(task_set),
            self.queries,
            shots_per_class=self.shots_per_class,
            support=self.support,
            split_single=True,
        )

    def _shots(self, task_set: TaskSet) -> Any:
        """Support rows of an episode: two or more where statistics over one row would be worthless."""
        layer = self._layer_over_rows(task_set.x[:1])
        if layer is None or self.shots_per_class is not None:
            return self.shots
        low, high = check_shots("shots", self.shots)
        if high < 2:
            raise InvalidParameterError(
                f"shots: one support row has no batch statistics for layer {layer!r}; use shots=2 or more, or LayerNorm."
            )
        if low < 2:
            logger.info("shots: episodes start at 2 rows, since layer %r needs batch statistics", layer)
        return max(low, 2), high

    def _features_of_sampler(self, sampler: Any, again: bool) -> None:
        support, query = sampler.sample(SAMPLED_FOR_CLASSES, np.random.default_rng(0))
        n_in = int(np.prod(support.x.shape[2:]))
        if again and n_in != self.n_features_in_:
            raise InvalidDataError(
                f"X: the sampler draws {n_in} features; the model was trained on {self.n_features_in_}."
            )
        self.n_features_in_ = n_in
        if not again:
            self._encode_sampler(support, query)

    def _from_sampler(
        self, sampler: Any, rng: np.random.Generator, device: torch.device
    ) -> tuple[Any, Validation | None]:
        if self._worst_tasks():
            raise InvalidParameterError(
                f"algorithm: {self.algorithm!r} weighs the tasks of a table, and X is a sampler, whose tasks do not come again; "
                "pass X, y and tasks, or use another algorithm."
            )
        wrapped = self._wrap_sampler(_FlatTargets(sampler, self._n_outputs()))
        fraction = self.validation_tasks
        if not self.early_stopping or not fraction:
            return wrapped, None
        return wrapped, Validation(wrapped, MOST_VALIDATION_EPISODES, rng, device)

    def _build(self, adaptation: Adaptation, dtype: torch.dtype, seed: int) -> None:
        self._template = self._network(self._n_outputs(), seed).to(dtype)
        self._functional = make_functional(
            self._template,
            self._row_loss(),
            adaptation.adapted,
            self._n_outputs(),
            batch_norm=self._resolved()["batch_norm"],
            inner_steps=adaptation.inner_steps,
        )
        check_head(self._template, self._functional, torch.zeros(2, self.n_features_in_, dtype=dtype))
        self._predicts_double = self._runs_in_double()

    def _network(self, n_outputs: int, seed: int = 0) -> torch.nn.Module:
        """Build what the settings describe."""
        built = build_module(
            self.module,
            self.n_features_in_,
            n_outputs,
            hidden=self.hidden,
            activation=self.activation,
            input_shape=self.input_shape,
            n_context=self._n_context(),
            seed=seed,
        )
        return with_head(built, get_algorithm(self.algorithm).head, self._resolved()["head_objective"])

    def _starting_state(self, adaptation: Adaptation, rng: np.random.Generator, again: bool) -> TrainingState:
        if not again:
            moving = self._functional.moving
            return TrainingState(MetaParameters(moving, self._functional.shared, adaptation.init(moving)), rng)
        interrupted = getattr(self, "_training", None)
        if interrupted is not None:
            return interrupted
        return TrainingState(self._parameters.to(), rng, warm=True)

    def _pooled_statistics(self, sampler: Any) -> None:
        """Batch statistics for a model that is not adapted: those of training rows at the initialisation."""
        support, query = sampler.sample(max(2, int(self.tasks_per_batch)), np.random.default_rng(0))
        x = torch.cat([r.x[r.weight > 0] for r in (support, query)])[:STATISTICS_ROWS]
        rows = Rows(x, x[:, 0], torch.ones(len(x), dtype=x.dtype))
        f, p = self._functional, self._parameters
        with torch.no_grad(), differentiable_forward():
            f.constant = {**f.constant, **f.support_statistics(p.moving, p.shared, f.constant, rows)}

    # ---------------------------------------------------------------- settings

    def _resolved(self) -> dict[str, Any]:
        """Return the settings that the algorithm says where they are None."""
        return get_algorithm(self.algorithm).resolve(self.get_params(deep=False))

    def _adaptation(self) -> Adaptation:
        resolved = self._resolved()
        check_strategy(resolved["batch_norm"])
        adaptation = Adaptation(
            inner_steps=resolved["inner_steps"],
            inner_lr=resolved["inner_lr"],
            learn_step_sizes=resolved["learn_step_sizes"],
            adapted=resolved["adapted"],
            optimizer=resolved["inner_optimizer"],
            proximal=resolved["proximal"],
        )
        check_order(resolved["order"], adaptation)
        return adaptation

    def _worst_tasks(self) -> bool:
        return get_algorithm(self.algorithm).worst_tasks

    def _n_context(self) -> int:
        """Return the number of context parameters that the network needs."""
        resolved = self._resolved()
        n = resolved["n_context"]
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 1:
            raise InvalidParameterError(f"n_context: got {n!r}; expected a whole number of 1 or more.")
        if resolved["adapted"] == CONTEXT:
            return int(n)
        if self.n_context is not None:
            raise InvalidParameterError(
                f"n_context: got {n!r}, but adapted={resolved['adapted']!r} moves no context; use algorithm='cavia', or None."
            )
        return 0

    def _settings(self, n_rows: int | None, validated: bool) -> TrainingSettings:
        resolved = self._resolved()
        return TrainingSettings(
            max_iter=default_iterations(n_rows) if self.max_iter is None else self.max_iter,
            tasks_per_batch=self.tasks_per_batch,
            outer_lr=self.outer_lr,
            optimizer=self.optimizer,
            schedule=self.schedule,
            max_grad_norm=self.max_grad_norm,
            step_size_lr=STEP_SIZE_LR[str(resolved["learn_step_sizes"])],
            order=resolved["order"],
            multi_step_loss=resolved["multi_step_loss"],
            worst_tasks=self._worst_tasks(),
            patience=PATIENCE if validated and self.early_stopping else None,
        )

    def _device(self) -> torch.device:
        try:
            device = torch.device(self.device)
        except (RuntimeError, TypeError):
            raise InvalidParameterError(f"device: got {self.device!r}; expected 'cpu', 'cuda', ...") from None
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InvalidParameterError(f"device: got {self.device!r}, but torch sees no CUDA device; use 'cpu'.")
        return device

    def _runs_in_double(self) -> bool:
        f = self._functional
        row = torch.zeros(1, self.n_features_in_, dtype=torch.float64)
        try:
            predict(f, expand(f.moving, 1), f.shared, {}, [row])
        except Exception as error:  # whatever a user's forward pass raises
            logger.debug("predict: the module insists on single precision (%s)", error)
            return False
        return True


class _FlatTargets:
    """Gives the float targets of a user's sampler the shape (tasks, rows, outputs) that losses expect."""

    def __init__(self, sampler: Any, n_outputs: int) -> None:
        self.sampler, self.n_outputs = sampler, n_outputs

    def sample(self, n_tasks: int, rng: np.random.Generator) -> tuple[Rows, Rows]:
        support, query = self.sampler.sample(n_tasks, rng)
        return _with_output_axis(support), _with_output_axis(query)


def _with_output_axis(rows: Rows) -> Rows:
    return rows._replace(y=rows.y.unsqueeze(-1)) if rows.y.is_floating_point() and rows.y.ndim == 2 else rows


def _rows_per_episode(sampler: Any) -> int:
    support, query = sampler.sample(1, np.random.default_rng(0))
    return int(support.x.shape[1] + query.x.shape[1])


PATIENCE = 15  # rounds of 1/50 of the training


def default_iterations(n_rows: int | None) -> int:
    """Meta-steps when `max_iter` is None: about one a training row, so that the time to fit grows with the data."""
    return 3000 if n_rows is None else int(np.clip(n_rows, 150, 2000))
