"""Calls to vector environments: no hanging or left processes when a worker dies, no left answers when a call is broken off.

Gymnasium's ``AsyncVectorEnv`` reports a worker that was killed by a bare ``BrokenPipeError`` or ``EOFError``, and ``close`` then
fails in the same way and leaves the other processes running. A call that is interrupted stays pending for ever, and some of its
answers may have been read already.
"""

from __future__ import annotations

import contextlib
import multiprocessing.connection
import time
import warnings
from typing import Any

from gymnasium.vector import AsyncVectorEnv
from gymnasium.vector.async_vector_env import AsyncState

__all__ = ["close_workers", "dead_workers", "settle_workers", "wait_for_workers"]

PATIENCE = 1.0  # seconds for all processes to end by themselves
LAST_WORD = 10.0  # seconds for all processes to answer a call that was broken off
# A call to a worker, the only one whose answer is a bare True.
MARK: tuple[str, tuple[Any, ...]] = ("_call", ("has_wrapper_attr", ("step",), {}))


def dead_workers(env: Any, patience: float = 0.0) -> list[int]:
    """List the workers of an ``AsyncVectorEnv`` whose process has ended; of another vector environment, none.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        Which may be wrapped.
    patience : float, default=0.0
        Seconds to wait for a first one: pipes are closed a little before their process has ended.

    Returns
    -------
    list of int
    """
    processes = getattr(getattr(env, "unwrapped", env), "processes", [])
    if patience and processes:
        ready = multiprocessing.connection.wait([process.sentinel for process in processes], patience)
        for process in processes:
            if process.sentinel in ready:
                process.join(patience)
    return [i for i, process in enumerate(processes) if not process.is_alive()]


def wait_for_workers(env: Any, timeout: float | None = None) -> list[int]:
    """Wait until every worker of an ``AsyncVectorEnv`` has answered a call that was sent.

    Parameters
    ----------
    env : gymnasium.vector.AsyncVectorEnv
        Between ``step_async`` and ``step_wait``, or the same of ``reset``.
    timeout : float or None
        Seconds to wait.

    Returns
    -------
    list of int
        Workers that will not answer: their process has ended, or the time is over. Empty if all have answered.
    """
    waiting = dict(enumerate(env.parent_pipes))
    end = None if timeout is None else time.monotonic() + timeout
    while waiting:
        # A pipe counts as ready when it holds an answer, and as soon as its other end is closed; but that end may have been
        # inherited by another process, which would keep it open: so the processes are watched as well.
        sentinels = [env.processes[i].sentinel for i in waiting]
        left = None if end is None else max(0.0, end - time.monotonic())
        ready = multiprocessing.connection.wait([*waiting.values(), *sentinels], left)
        waiting = {i: pipe for i, pipe in waiting.items() if pipe not in ready}
        if any(sentinel in ready for sentinel in sentinels):
            return dead_workers(env, patience=1.0)
        if waiting and not ready:
            return sorted(waiting)
    return []


def settle_workers(env: Any, patience: float = LAST_WORD) -> None:
    """Wait for what an ``AsyncVectorEnv`` has still to answer to a call that was broken off, and drop it: it can be used again.

    It cannot if a worker has ended, or does not answer in time; the next call then raises an error. Another vector environment has
    nothing to answer.

    Parameters
    ----------
    env : gymnasium.vector.VectorEnv
        Which may be wrapped.
    patience : float, default=10.0
        Seconds to wait.
    """
    env = env.unwrapped
    if not isinstance(env, AsyncVectorEnv) or env.closed:
        return
    env._state = AsyncState.WAITING_CALL
    end = time.monotonic() + patience
    workers = [
        (pipe, process) for pipe, process in zip(env.parent_pipes, env.processes, strict=True) if pipe is not None
    ]
    with contextlib.suppress(OSError, EOFError):  # a worker has ended, as all do by Ctrl-C in a terminal
        # Nobody knows which workers were called and whose answers were read, so each is asked something else behind it.
        for pipe, _ in workers:
            pipe.send(MARK)
        for pipe, process in workers:
            answer: tuple[Any, bool] = (None, True)
            while answer[0] is not True:
                ready = multiprocessing.connection.wait([pipe, process.sentinel], max(0.0, end - time.monotonic()))
                if not ready:
                    return
                if pipe not in ready:
                    raise EOFError
                answer = pipe.recv()
    env._state = AsyncState.DEFAULT


def close_workers(env: Any) -> None:
    """Close an ``AsyncVectorEnv`` in whatever state it is."""
    for process in env.processes:
        process.terminate()
    end = time.monotonic() + PATIENCE
    for process in env.processes:
        process.join(max(0.0, end - time.monotonic()))
        if (
            process.is_alive()
        ):  # it handles the signal, as SDL makes a process do that has drawn a window, or a fork of it
            process.kill()
            process.join()
    # Only now, since it waits for its processes without end.
    with contextlib.suppress(OSError, EOFError), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a call that is pending, which is why processes are ended
        env.close(terminate=True)
    for pipe in env.parent_pipes:
        if pipe is not None:
            pipe.close()
    env.closed = True  # or its destructor would try again
