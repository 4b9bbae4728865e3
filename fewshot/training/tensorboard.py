"""TensorBoard: the columns of an estimator's history as curves, while it trains.

A callback of scikit-learn's protocol (1.9), so it is set with ``set_callbacks`` like the progress bar. TensorBoard itself is
imported when training begins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidParameterError, MissingDependencyError

__all__ = ["TensorBoardCallback"]

X_AXES = "iteration", "env_steps"  # columns that say when, not what


@dataclass
class _Run:
    """One fit: where it is written, and how much of its history is."""

    writer: Any
    rows: int = 0


class TensorBoardCallback:
    """Write the history of meta-training for TensorBoard as it comes.

    Every fit is a run with a folder of its own below `log_dir`, named after the estimator and numbered: ``MAMLPolicy-1``,
    ``MAMLPolicy-2``, ... Each column of ``history_`` becomes a curve over iterations, such as ``by_iteration/loss``; where there
    is a column ``env_steps`` also one over the time steps of all environments, such as ``by_env_steps/return_1``. A training that
    goes on (``warm_start=True``) is a new run with the old rows in front. Values that are not finite are left out.

    Parameters
    ----------
    log_dir : str or Path
        The folder that ``tensorboard --logdir`` is given.

    Raises
    ------
    MissingDependencyError
        When training begins, if tensorboard, of the extra `tracking`, is not installed.
    InvalidParameterError
        When training begins, if `log_dir` cannot be a folder; or if the estimator keeps no history.

    Examples
    --------
    >>> from fewshot import MAMLRegressor
    >>> from fewshot.training import TensorBoardCallback
    >>> model = MAMLRegressor(max_iter=100).set_callbacks(TensorBoardCallback("runs"))
    """

    def __init__(self, log_dir: str | Path) -> None:
        self.log_dir = Path(log_dir)
        self._runs: dict[int, _Run] = {}

    def __repr__(self) -> str:
        return f"TensorBoardCallback({str(self.log_dir)!r})"

    def __getstate__(self) -> dict[str, Any]:
        # Files that are being written stay behind: a copy begins runs of its own.
        return {**self.__dict__, "_runs": {}}

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin a run."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorBoardCallback needs the package tensorboard, which is not installed; run: "
                "pip install 'fewshot[tracking]'"
            ) from error
        folder = self._new_folder(type(estimator).__name__)
        self._runs[id(estimator)] = _Run(SummaryWriter(str(folder)))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: part of the protocol."""

    def on_fit_task_end(self, estimator: Any, context: Any, *, fitted_estimator: Any) -> None:
        """Write the rows of the history that are new."""
        run, history = self._runs[id(estimator)], getattr(fitted_estimator, "history_", None)
        if history is None:
            raise InvalidParameterError(
                f"TensorBoardCallback: got set on {type(estimator).__name__}, which keeps no history_ while it is fitted; "
                "expected an estimator of fewshot; set it on that one"
            )
        rows = history.to_dict("records")
        # Time steps that came before the first iteration are in the total alone.
        env_steps = getattr(fitted_estimator, "n_env_steps_", 0) - sum(row.get("env_steps", 0) for row in rows)
        for i, row in enumerate(rows):
            env_steps += row.get("env_steps", 0)
            if i < run.rows:
                continue
            for name, value in row.items():
                if name in X_AXES or not math.isfinite(value):
                    continue
                run.writer.add_scalar(f"by_iteration/{name}", value, int(row["iteration"]))
                if "env_steps" in row:
                    run.writer.add_scalar(f"by_env_steps/{name}", value, int(env_steps))
        if len(rows) > run.rows:
            run.rows = len(rows)
            run.writer.flush()

    def teardown(self, estimator: Any, context: Any) -> None:
        """End the run."""
        run = self._runs.pop(id(estimator), None)
        if run is not None:  # None: setup failed
            run.writer.close()

    def _new_folder(self, name: str) -> Path:
        """Make the first folder whose number is free; several processes may do so at once."""
        number = 1
        while True:
            folder = self.log_dir / f"{name}-{number}"
            try:
                folder.mkdir(parents=True)
            except FileExistsError as error:
                if not folder.is_dir():
                    raise InvalidParameterError(
                        f"log_dir: got {str(self.log_dir)!r}; expected a folder, or a name that is free; choose another"
                    ) from error
                number += 1
            except OSError as error:
                raise InvalidParameterError(
                    f"log_dir: got {str(self.log_dir)!r}, where no folder can be made ({error.strerror}); expected a place "
                    "to write to; choose another"
                ) from error
            else:
                return folder
