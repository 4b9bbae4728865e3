"""Which program serves which call, and the ones that this process has."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ..adaptation import Adaptation
from ..functional import FunctionalModule
from ..metagradient import MetaParameters
from ..tasks import Rows
from .build import Build, BuildError, lanes
from .library import Library
from .program import Program, adapt_program, meta_gradient_program
from .tracing import Task, columns
from .values import UnsupportedError

__all__ = ["Pending", "Request", "library_for", "reason_against"]


BUILD_SECONDS, BUILD_RATE = 0.2, 25_000.0  # of a build: the least it takes, and characters a second


@dataclass(frozen=True)
class Request:
    """What a program is to do.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    adaptation : Adaptation
        Settings of the inner loop.
    parameters : MetaParameters
        Their shapes and types count.
    support : Rows
        Support rows; the numbers of tasks and of inner steps are left open.
    query : Rows or None
        Query rows; None only for "adapt", which then evaluates the support.
    kind : {"exact", "first", "adapt"}
        The meta-gradient of that order, or adaptation alone.
    """

    functional: FunctionalModule
    adaptation: Adaptation
    parameters: MetaParameters
    support: Rows
    query: Rows | None
    kind: Literal["exact", "first", "adapt"]

    def key(self) -> Any:
        """Return what the program depends on, but for the network."""
        a = self.adaptation
        rows = tuple(
            (name, t.shape[1:], t.dtype)
            for part in (self.support, self.query)
            for name, t in ({} if part is None else columns(part)).items()
        )
        dtype = next(iter(self.parameters.moving.values())).dtype
        names = tuple(self.parameters.moving)
        settings = (self.kind, a.learn_step_sizes, a.scales, a.optimizer, a.proximal, names, self.query is None, dtype)
        return settings, self.functional.skeleton.training, rows

    def program(self) -> Generator[None, None, Program]:
        """Write the program, in parts; raises :class:`UnsupportedError`."""
        task = Task(
            self.adaptation.rule.begin(self.parameters.moving),
            self.parameters.shared,
            self.functional.constants(self.functional.constant, 0),
            _first(self.support),
            {n: v[0] if n.startswith("log_alpha.") else v for n, v in self.parameters.sizes.items()},
        )
        query = None if self.query is None else _first(self.query)
        width = lanes(next(iter(task.moving.values())).dtype)
        if self.kind == "adapt":
            return adapt_program(self.functional, self.adaptation, task, query, width)
        assert query is not None
        return meta_gradient_program(self.functional, self.adaptation, task, query, self.kind, width)


class Pending:
    """A program that is being written or built.

    Parameters
    ----------
    request : Request
        What it is to do.
    """

    def __init__(self, request: Request) -> None:
        self._writing: Generator[None, None, Program] | None = request.program()
        self._program: Program | None = None
        self._build: Build | None = None

    @property
    def build_seconds(self) -> float | None:
        """About how long the compiler takes, judging by the length of the source; None until that is written."""
        return None if self._program is None else BUILD_SECONDS + self._program.length / BUILD_RATE

    def library(self, *, wait: float) -> Library | None:
        """Go on with the work and return the library if it is there.

        Parameters
        ----------
        wait : float
            Seconds to wait for the compiler. Of the writing before it, which takes this process's own time, one part is done
            if that is 0, and all of it otherwise.

        Raises
        ------
        UnsupportedError
            If the network holds an operation that no code is generated for.
        BuildError
            If there is no compiler, or it fails.
        """
        while self._build is None:
            assert self._writing is not None
            try:
                next(self._writing)
            except StopIteration as done:
                self._program, self._writing = done.value, None
                self._build = Build(done.value.source)
            if not wait:
                return None
        assert self._program is not None
        path = self._build.wait(wait)
        try:
            return None if path is None else Library(path, self._program)
        except OSError as error:
            raise BuildError(
                f"{path} cannot be loaded ({error}); FEWSHOT_CACHE names a folder that programs may run from"
            ) from error


# By network, so that they are neither copied nor pickled with an estimator and die with the network. A string says why
# there is none.
_LIBRARIES: weakref.WeakKeyDictionary[FunctionalModule, dict[Any, Library | Pending | str]] = (
    weakref.WeakKeyDictionary()
)


def reason_against(parameters: MetaParameters, *, random: bool) -> str | None:
    """Say why programs cannot serve these parameters at all; None if they can."""
    first = next(iter(parameters.moving.values()))
    if random:
        return "the module draws random numbers"
    if first.device.type != "cpu":
        return f"programs are for the CPU, and the parameters are on {first.device.type!r}"
    if first.dtype not in (torch.float32, torch.float64):
        return f"parameters are of type {first.dtype}"
    return None


def library_for(request: Request, *, wait: float | None) -> Library | Pending | str:
    """Return the library for a request, begun if need be.

    Parameters
    ----------
    request : Request
        What the program is to do.
    wait : float or None
        Seconds to wait, see :meth:`Pending.library`; None: as long as it takes.

    Returns
    -------
    Library, Pending or str
        The library; what will become one; or one line that says why there is none.
    """
    known = _LIBRARIES.setdefault(request.functional, {})
    key = request.key()
    found = known.get(key)
    try:
        if found is None:
            found = Pending(request)
        if isinstance(found, Pending):
            found = found.library(wait=float("inf") if wait is None else wait) or found
    except (UnsupportedError, BuildError) as error:
        found = str(error)
    except Exception as error:  # whatever a user's forward pass raises while it is recorded
        lines = str(error).strip().splitlines()
        found = f"the module cannot be recorded ({type(error).__name__}: {lines[0][:200] if lines else ''})"
    except BaseException:  # an interruption: what was half written cannot go on
        known.pop(key, None)
        raise
    known[key] = found
    return found


def _first(rows: Rows) -> Rows:
    return Rows(rows.x[0], rows.y[0], rows.weight[0], {k: v[0] for k, v in rows.extra.items()})
