"""Progress through scikit-learn's callback protocol.

The protocol (``sklearn.callback``, scikit-learn 1.9) is marked experimental, so this is the only file that touches it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sklearn.callback import CallbackSupportMixin, ProgressBar, with_callbacks

__all__ = ["CallbackSupportMixin", "progress_bar", "report_rounds", "with_callbacks"]


@contextmanager
def progress_bar(estimator: Any, shown: bool) -> Iterator[None]:
    """Show a progress bar during one fit, unless the estimator has callbacks of its own or runs inside another's fit."""
    own = getattr(estimator, "_skl_callbacks", [])
    if not shown or own or hasattr(estimator, "_parent_callback_ctx"):
        yield
        return
    estimator.set_callbacks(ProgressBar())
    try:
        yield
    finally:
        estimator.set_callbacks()


@contextmanager
def report_rounds(
    estimator: Any, n_rounds: int | None, X: Any, y: Any, fitted: Callable[[], dict[str, Any]]
) -> Iterator[Callable[..., bool]]:
    """Tell the callbacks about rounds of training.

    Parameters
    ----------
    estimator : estimator
        Whose callbacks are called.
    n_rounds : int or None
        How many rounds are planned; None if nobody knows.
    X, y : array-like
        Training data, as callbacks see them.
    fitted : callable
        Returns the attributes that make a copy of the estimator fitted as of now; called only if a callback asks.

    Yields
    ------
    callable
        ``(state, number, last=False) -> stop``, to be called after each round. Where `n_rounds` is unknown, `last` says that none
        follows.
    """
    context = estimator._init_callback_context(max_subtasks=n_rounds)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    current = [context.subcontext(task_name="round").call_on_fit_task_begin(estimator=estimator, X=X, y=y)]

    def end_of_round(state: Any, number: int, last: bool = False) -> bool:
        stop = current[0].call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=fitted)
        last = last if n_rounds is None else number + 1 >= n_rounds
        if not (last or stop):
            current[0] = context.subcontext(task_name="round").call_on_fit_task_begin(estimator=estimator, X=X, y=y)
        return bool(stop)

    yield end_of_round
    context.call_on_fit_task_end(estimator=estimator, X=X, y=y, reconstruction_attributes=fitted)
