"""When a training goes over to a compiled program, and which one serves a batch.

The meta-step of the change follows from the size of the work, not from a clock: results differ by rounding between
kernels, and the same seed shall give the same result. The compiler should have finished by then; if not, training waits a
moment for it. Where that was not enough, as on a machine that is busy with other things, it goes on as before, says so, and
changes over later: with ``at_once`` it waits however long it takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..adaptation import Adaptation
from ..functional import FunctionalModule
from ..metagradient import MetaParameters
from ..tasks import Rows
from .cache import Pending, Request, library_for, reason_against
from .library import Library
from .tracing import columns

__all__ = ["Switch", "seconds_of_step", "with_rows"]

logger = logging.getLogger("fewshot")

REPAYS = 3.0  # seconds of training without a program that make one worth its while
MOST_PAUSE = 1.8  # seconds that a meta-step may take, waiting for the compiler included
SOONER = 0.5  # part of the pause spent on purpose: a program does in it what kernels do in many times as long
OVERHEAD = 1.5e-3  # seconds of one vectorised kernel on small work: dozens of small operations
UNRECORDED = 2.0  # times as long as that takes a kernel whose operations are not recorded, as before a change
RATE = 1e10  # floating-point operations in a second, one core, vectorised kernels


def seconds_of_step(n_parameters: int, support: Rows, query: Rows, steps: int, order: str) -> float:
    """Estimate of a vectorised meta-step in seconds."""
    kernels = steps * (2 if order == "exact" else 1) + 1
    rows = support.weight.numel() * steps * (4 if order == "exact" else 1) + query.weight.numel()
    return OVERHEAD * kernels + 6 * n_parameters * rows / RATE


@dataclass
class _Planned:
    """A program for up to some numbers of rows."""

    request: Request
    rows: tuple[int, int]
    columns: Any  # names, shapes and types of the columns of the rows
    start: int  # meta-step at which it was begun
    resumed: bool  # in an earlier call of this training, which was interrupted
    parts: int = 0  # of the writing, done
    due: int | None = None  # meta-step of the change, once the size of the program is known
    library: Library | None = None


class Switch:
    """Supplies the program for each batch of a training.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    adaptation : Adaptation
        Settings of the inner loop.
    order : {"exact", "first", "adapt"}
        Order of the meta-gradient; "adapt" is adaptation alone, for algorithms that need no more of a program.
    planned : int
        Meta-steps of the training.
    at_once : bool
        Wait for the compiler at the first batch, whatever it costs.
    random : bool
        The module draws random numbers.
    begun : dict, default=None
        Filled with what an interrupted training needs to change over where it would have: hand it in again.
    """

    def __init__(
        self,
        functional: FunctionalModule,
        adaptation: Adaptation,
        order: Literal["exact", "first", "adapt"],
        *,
        planned: int,
        at_once: bool,
        random: bool,
        begun: dict[Any, int] | None = None,
    ) -> None:
        self.functional, self.adaptation, self.order = functional, adaptation, order
        self.planned, self.at_once, self.random = planned, at_once, random
        self.reason: str | None = None  # why there is no program, once that is known
        self.seconds: float | None = None  # of a meta-step without a program, by estimate
        self._programs: list[_Planned] = []
        self._begun = {} if begun is None else begun
        self._earlier = dict(self._begun)

    def expects(self, parameters: MetaParameters, support: Rows, query: Rows) -> bool:
        """Whether a program will be made for such batches."""
        against = reason_against(parameters, random=self.random)
        if self.reason is None and against is not None:
            self.give_up(against)
        if self.reason is not None:
            return False
        n = sum(p.numel() for p in (*parameters.moving.values(), *parameters.shared.values()))
        self.seconds = seconds_of_step(n, support, query, self.adaptation.inner_steps, self.order)
        if self.at_once:
            return True
        if self.seconds * self.planned < REPAYS:
            total = self.seconds * self.planned
            reason = f"about {total:.1f} s of work do not repay the compiler; engine='compiled' has it in any case"
            if self.planned:
                self.give_up(reason)
            else:
                self.reason = reason
            return False
        return True

    def library(
        self, iteration: int, parameters: MetaParameters, supports: Sequence[Rows], query: Rows
    ) -> tuple[Library, tuple[int, int]] | None:
        """Return the program for a batch and the numbers of rows that it is made for, if it is due.

        Parameters
        ----------
        iteration : int
            Meta-steps done.
        parameters : MetaParameters
            Their shapes count.
        supports : sequence of Rows
            Support rows of each step.
        query : Rows
            Query rows.
        """
        if self.reason is not None or (self.seconds is None and not self.expects(parameters, supports[0], query)):
            return None
        rows = max(s.x.shape[1] for s in supports), query.x.shape[1]
        described = _described(supports[0]), _described(query)
        planned = next((p for p in self._programs if p.columns == described and _fits(rows, p.rows)), None)
        if planned is None:
            planned = self._plan(iteration, parameters, supports[0], query, rows, described)
        if planned.library is not None:
            return planned.library, planned.rows
        # The first meta-step, which is waited for, writes nothing yet.
        while planned.due is None and (self.at_once or planned.parts < iteration - planned.start):
            found = library_for(planned.request, wait=None if self.at_once else 0.0)
            planned.parts += 1
            if not isinstance(found, Pending):
                return self._found(planned, found)
            if found.build_seconds is not None:
                steps = max(1, self._steps_until(found.build_seconds))
                planned.due = planned.start + planned.parts + steps
        if planned.due is None or iteration < planned.due:
            return None
        # An uninterrupted training would have had the program by now.
        found = library_for(planned.request, wait=None if planned.resumed else self._pause())
        if isinstance(found, Pending):
            assert found.build_seconds is not None
            planned.due = iteration + max(1, self._steps_until(found.build_seconds))
            logger.info("engine: the compiler is not ready yet; looking again at meta-step %d", planned.due)
            return None
        return self._found(planned, found)

    def _found(self, planned: _Planned, found: Library | str) -> tuple[Library, tuple[int, int]] | None:
        if isinstance(found, str):
            self.give_up(found)
            return None
        planned.library = found
        return found, planned.rows

    def _pause(self) -> float:
        """Seconds that a meta-step may wait: the longer it takes by itself, the less."""
        assert self.seconds is not None
        return max(1e-3, MOST_PAUSE - self.seconds)

    def _steps_until(self, build_seconds: float) -> int:
        """Meta-steps to be made while the compiler works, but for what is waited for on purpose."""
        assert self.seconds is not None
        return math.ceil((build_seconds - SOONER * self._pause()) / (UNRECORDED * self.seconds))

    def _plan(
        self,
        iteration: int,
        parameters: MetaParameters,
        support: Rows,
        query: Rows,
        rows: tuple[int, int],
        described: Any,
    ) -> _Planned:
        before = next((r for o, d, r in self._earlier if o == self.order and d == described and _fits(rows, r)), None)
        if before is not None:
            rows = before
        elif any(p.columns == described for p in self._programs):
            # A larger batch than the last one: leave room, so that few programs serve all sizes.
            rows = tuple(-(-n * 3 // 2 // 8) * 8 for n in rows)  # type: ignore[assignment]
        start = self._begun.setdefault((self.order, described, rows), iteration)
        support, query = with_rows(support, rows[0]), with_rows(query, rows[1])
        judged = None if self.order == "adapt" else query
        request = Request(self.functional, self.adaptation, parameters, support, judged, self.order)
        self._programs.append(_Planned(request, rows, described, start, before is not None))
        return self._programs[-1]

    def give_up(self, reason: str) -> None:
        """Go on without programs, and say why."""
        self.reason = reason
        if not self.at_once:  # who insists gets an error instead
            logger.info("engine: going on without a compiled program (%s)", reason)


def _fits(rows: tuple[int, int], room: tuple[int, int]) -> bool:
    return rows[0] <= room[0] and rows[1] <= room[1]


def _described(rows: Rows) -> Any:
    """Names, shapes but for the rows, and types of all columns: what beside the numbers of rows a program is made for."""
    return tuple((name, t.shape[2:], t.dtype) for name, t in columns(rows).items())


def with_rows(rows: Rows, width: int) -> Rows:
    """Pad to `width` rows per task, with copies of the first one at weight 0: a network may be infinite at zero.

    Raises
    ------
    ValueError
        If there are more rows than that.
    """
    more = width - rows.x.shape[1]
    if not more:
        return rows
    if more < 0:
        raise ValueError(f"{rows.x.shape[1]} rows do not fit into {width}")

    def longer(t: Tensor) -> Tensor:
        return torch.cat([t, t[:, :1].expand(-1, more, *t.shape[2:])], 1)

    return Rows(
        longer(rows.x), longer(rows.y), F.pad(rows.weight, (0, more)), {k: longer(v) for k, v in rows.extra.items()}
    )
