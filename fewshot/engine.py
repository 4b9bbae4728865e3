"""What runs a network: kernels over single tasks, vectorised kernels, or a compiled program.

The engine tries the vectorised kernels on the first batch and, with ``engine="auto"``, falls back to the loop over tasks
where they cannot run, with one logged reason. Once per training it compares the vectorised meta-gradient with the plain
loop's on two tasks in float64, because a wrong derivative trains silently. Long trainings go over to a compiled program,
which is compared with the kernels before its first result is used.
"""

from __future__ import annotations

import logging
import math
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.func import vmap

from .adaptation import Adaptation
from .agreement import by_both_kernels, differences, norm, two_tasks, with_a_padded_row, with_an_unused_row
from .compiled import Library, Request, Switch, adapting_library, room_for, seconds_of_step, with_rows
from .errors import InvalidParameterError, VerificationError
from .functional import FunctionalModule, differentiable_forward
from .kernels import Kernels, LoopKernels, VectorizedKernels, per_task_rows
from .metagradient import (
    NEED_THE_END,
    MetaGradient,
    MetaParameters,
    Order,
    expand,
    from_adapted,
    inner_loop,
    meta_gradient,
    of_network,
    take_tasks,
    task_shares,
)
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["Engine"]

logger = logging.getLogger("fewshot")

MODES = ("auto", "loop", "vectorized", "compiled")
CHUNK_VALUES = (
    1_000_000  # parameters of the tasks that are computed together: about the cache, and little overhead left
)
STEPS_COMPARED = 2  # of adapting: the second one takes the first one's result, and sizes of its own
AGREEMENT = 1e-2  # relative difference of single-precision derivatives that rounding can explain

_SAID: weakref.WeakKeyDictionary[FunctionalModule, set[str]] = weakref.WeakKeyDictionary()


class Engine:
    """Runs the kernels of one network.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    adaptation : Adaptation
        Settings of the inner loop.
    mode : {"auto", "loop", "vectorized", "compiled"}, default="auto"
        What to use. "auto" begins with vectorised kernels, or with the loop where these cannot run, and goes over to a
        compiled program where the training is long enough to repay the compiler's time; "compiled" waits for it.
    verify : {"auto", True, False}, default="auto"
        Compare both kinds of kernels before training; "auto" does so where the vectorised ones are used.
    max_memory : float, default=None
        MiB that the parameter sets of the tasks in flight may take; None: as many tasks at once as the cache has room for.
    """

    def __init__(
        self,
        functional: FunctionalModule,
        adaptation: Adaptation,
        *,
        mode: Literal["auto", "loop", "vectorized", "compiled"] = "auto",
        verify: bool | Literal["auto"] = "auto",
        max_memory: float | None = None,
    ) -> None:
        if mode not in MODES:
            raise InvalidParameterError(f"engine: got {mode!r}; expected one of {', '.join(map(repr, MODES))}.")
        if verify != "auto" and not isinstance(verify, bool):
            raise InvalidParameterError(f"verify: got {verify!r}; expected 'auto', True or False.")
        number = isinstance(max_memory, int | float | np.number) and not isinstance(max_memory, bool)
        if max_memory is not None and not (number and max_memory > 0):
            raise InvalidParameterError(f"max_memory: got {max_memory!r}; expected a positive number of MiB, or None.")
        self.functional, self.adaptation = functional, adaptation
        self.mode, self.verify, self.max_memory = mode, verify, max_memory
        self.kernels: Kernels = LoopKernels(functional)
        self._switch: Switch | None = None
        self._random = False  # whether the network draws random numbers

    def prepare(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        calibrate: Callable[[MetaParameters], MetaParameters] | None = None,
        planned: int = 0,
        begun: dict[Any, int] | None = None,
        begin_with: Order | None = None,
    ) -> None:
        """Choose the kernels and check them on a first batch.

        Parameters
        ----------
        parameters : MetaParameters
            Starting values.
        supports : sequence of Rows
            Support rows of each step.
        query : Rows
            Query rows.
        order : {"exact", "first", "implicit", "reptile"}
            Order of the meta-gradient, which the kernels are checked with.
        calibrate : callable, default=None
            Changes the starting values once the kernels are chosen and before they are checked: derivatives that overflow
            cannot be compared.
        planned : int, default=0
            Meta-steps of the training; many of them repay compiling a program.
        begun : dict, default=None
            Kept with a training that may be interrupted, so that it changes over to a program where it would have.
        begin_with : {"exact", "first"}, default=None
            Order of the first meta-steps, where that is another one, see :meth:`change_order`.

        Raises
        ------
        VerificationError
            If the vectorised meta-gradient is wrong.
        InvalidParameterError
            If ``engine="vectorized"`` or ``"compiled"`` was asked for and the network cannot be run that way.
        """
        self._random = self.functional.is_random(per_task_rows(query, int(query.weight.sum(1).argmax())).x)
        calibrate = calibrate or (lambda unchanged: unchanged)
        self.change_order(begin_with or order, planned, begun)
        self._choose_kernels(parameters, supports, query, order, calibrate)
        if self.mode == "compiled":
            assert self._switch is not None
            if self._switch.expects(parameters, supports[0], query):
                self._switch.library(0, parameters, supports, query)
            if self._switch.reason is not None:
                raise InvalidParameterError(
                    f"engine: 'compiled' is not possible ({self._switch.reason}); use engine='auto'."
                )

    def change_order(self, order: Order, planned: int = 0, begun: dict[Any, int] | None = None) -> None:
        """Expect meta-gradients of this order from now on: a program is made for one; see :meth:`prepare`."""
        if self.mode in ("auto", "compiled"):
            self._switch = Switch(
                self.functional,
                self.adaptation,
                "adapt" if order == "implicit" or order == "reptile" else order,
                planned=planned,
                at_once=self.mode == "compiled",
                random=self._random,
                begun=begun,
            )

    def _choose_kernels(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        calibrate: Callable[[MetaParameters], MetaParameters],
    ) -> None:
        if self.mode == "loop":
            calibrate(parameters)
            return
        pair = two_tasks(supports[0])
        first = [take_tasks(s, pair) for s in supports], take_tasks(query, pair)
        # Kernels that will be given up soon are not worth tracing.
        soon = self._switch is not None and self._switch.expects(parameters, supports[0], query)
        candidate = VectorizedKernels(self.functional, random=self._random, trace=not soon)
        try:
            meta_gradient(
                VectorizedKernels(self.functional, trace=False, random=self._random),
                self.adaptation,
                parameters,
                *first,
                order=order,
            )
        except InvalidParameterError:
            raise
        except Exception as error:  # whatever a user's forward pass raises under vmap
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            if self.mode == "vectorized":
                raise InvalidParameterError(
                    f"engine: 'vectorized' cannot run this module ({reason}); use engine='auto' or 'loop'."
                ) from error
            logger.warning(
                "engine: going through the tasks one by one, which is slow, since the module cannot be vectorised (%s)",
                reason,
            )
            calibrate(parameters)
            return
        loop, self.kernels = self.kernels, candidate
        parameters = calibrate(parameters)
        if self.verify is False:
            return
        try:
            self._compare(parameters, *first, order)
        except VerificationError:
            self.kernels = loop
            raise

    def _compare(self, parameters: MetaParameters, supports: Sequence[Rows], query: Rows, order: Any) -> None:
        supports, query = [with_a_padded_row(s) for s in supports], with_a_padded_row(query)
        case = self.functional, self.adaptation, parameters, supports, query, order
        with self.functional.mode(training=False):  # the two kinds of kernels draw dropout differently
            try:
                loop, vectorized = by_both_kernels(*case, torch.float64)
                tolerance = 1e-6
            except RuntimeError as error:  # a forward pass that insists on single precision
                logger.debug("verify: float64 failed (%s); comparing in the training precision", error)
                loop, vectorized = by_both_kernels(*case, None)
                tolerance = 1e-2
        errors, size = differences(loop.gradient.flat(), vectorized.gradient.flat())
        worst = max(errors, key=lambda name: errors[name])
        if not math.isfinite(size):
            logger.info("verify: the meta-gradient of the first batch is not finite, so it could not be checked")
        elif not errors[worst] <= tolerance:
            layer = worst.partition("/")[2].removeprefix("log_alpha.").removeprefix("log_c.").rpartition(".")[0]
            raise VerificationError(
                f"engine: the vectorised meta-gradient of {worst.partition('/')[2]!r} differs from the plain loop's by "
                f"{errors[worst]:.2g} (relative); layer {layer!r}, or one that it feeds, is not exact under torch's vmap "
                "or mixes the rows of a batch; use engine='loop'."
            )

    def gradient(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        seed: int,
        iteration: int = 0,
        *,
        step_weights: Sequence[float] | None = None,
        share: Tensor | None = None,
    ) -> MetaGradient:
        """Query losses and the gradient of their mean; see :func:`fewshot.metagradient.meta_gradient`.

        Parameters
        ----------
        parameters : MetaParameters
            Where to take the gradient.
        supports : sequence of Rows
            Support rows of each step.
        query : Rows
            Query rows.
        order : {"exact", "first", "implicit", "reptile"}
            Order of the meta-gradient.
        seed : int
            Seed of random draws inside the network.
        iteration : int, default=0
            Meta-steps done: it decides when a compiled program takes over.
        step_weights, share
            As of :func:`fewshot.metagradient.meta_gradient`.
        """
        found = self._gradient(parameters, supports, query, order, seed, iteration, step_weights, share)
        if not self.adaptation.learns_start:
            found.vector[: _size(parameters.moving)] = 0
        return found

    def _gradient(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        seed: int,
        iteration: int,
        step_weights: Sequence[float] | None,
        share: Tensor | None,
    ) -> MetaGradient:
        if self._switch is not None and self._switch.reason is None:
            due = self._switch.library(iteration, parameters, supports, query)
            if due is not None and self._agrees(*due, parameters, supports, query, order):
                return self._by_program(*due, parameters, supports, query, order, seed, step_weights, share)
            if self._switch.reason is not None:
                self.kernels = self._recorded()  # they were to be given up soon, and now stay
        return self._by_kernels(parameters, supports, query, order, seed, step_weights, share)

    def _recorded(self) -> Kernels:
        """Return the kernels in use, such that they record their operations where shapes recur."""
        kernels = self.kernels
        if not isinstance(kernels, VectorizedKernels):
            return kernels
        return VectorizedKernels(self.functional, random=kernels.random)

    def _by_kernels(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        seed: int,
        step_weights: Sequence[float] | None = None,
        share: Tensor | None = None,
    ) -> MetaGradient:
        return meta_gradient(
            self.kernels,
            self.adaptation,
            parameters,
            supports,
            query,
            order=order,
            seed=seed,
            chunk=self._chunk(parameters, len(query.x)),
            step_weights=step_weights,
            share=share,
        )

    def _by_program(
        self,
        library: Library,
        rows: tuple[int, int],
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
        seed: int,
        step_weights: Sequence[float] | None = None,
        share: Tensor | None = None,
    ) -> MetaGradient:
        query = with_rows(query, rows[1])
        first = with_rows(supports[0], rows[0])
        padded = [first if s is supports[0] else with_rows(s, rows[0]) for s in supports]
        groups, steps = self._groups(parameters), self.adaptation.inner_steps
        if order in NEED_THE_END:
            share = task_shares(query) if share is None else share
            return self._from_ends(library, groups, parameters, padded, query, share, order, seed)
        loss, share, vector = library.meta_gradient(
            groups, padded, query, steps, share, step_weights if steps else None
        )
        if not self.adaptation.learns:
            vector = vector[: len(vector) - _size(parameters.sizes)]
        vector = self.adaptation.rule.fold(groups["moving"], vector)
        return MetaGradient(loss, share, vector, parameters)

    def _from_ends(
        self,
        library: Library,
        groups: dict[str, Tensors],
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        share: Tensor,
        order: Order,
        seed: int,
    ) -> MetaGradient:
        """Adapt by a program, and take from there what an algorithm needs; so many tasks at a time as the kernels take."""
        n_tasks, losses, total = len(query.x), [], torch.zeros(0)
        chunk = self._chunk(parameters, n_tasks) or n_tasks
        for first in range(0, n_tasks, chunk):
            part = slice(first, first + chunk)
            taken = take_tasks(supports[0], part)  # once, where all steps see the same rows
            some = [taken if s is supports[0] else take_tasks(s, part) for s in supports]
            adapted, before, _ = library.adapt(groups, some, None, self.adaptation.inner_steps, keep=True)
            loss, gradient = from_adapted(
                self.kernels,
                self.adaptation,
                parameters,
                of_network(adapted),
                list(before),
                some[-1],
                take_tasks(query, part),
                share[part],
                order,
                seed + first,
            )
            losses.append(loss)
            vector = torch.cat([t.reshape(-1) for t in gradient.values()])
            total = total + vector if len(total) else vector
        return MetaGradient(torch.cat(losses), share, total, parameters)

    def _groups(self, parameters: MetaParameters) -> dict[str, Tensors]:
        return {
            "moving": self.adaptation.rule.begin(parameters.moving),
            "shared": parameters.shared,
            "sizes": parameters.sizes,
            "constant": self.functional.constant,
        }

    def _agrees(
        self,
        library: Library,
        rows: tuple[int, int],
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Order,
    ) -> bool:
        """Compare a program with the kernels on a batch before its first use."""
        assert self._switch is not None
        if library.agrees is None and self.verify is False:
            library.agrees = True
        if library.agrees is not None:
            return library.agrees
        supports, query = [with_an_unused_row(s) for s in supports], with_an_unused_row(query)
        began = time.perf_counter()
        expected = self._by_kernels(parameters, supports, query, order, 0).gradient.flat()
        between = time.perf_counter()
        got = self._by_program(library, rows, parameters, supports, query, order, 0).gradient.flat()
        ended = time.perf_counter()
        errors, size = differences(expected, got)
        worst = max(errors, key=lambda name: errors[name])
        if not math.isfinite(size):
            return False  # nothing to compare with: the next batch will tell
        library.agrees = errors[worst] <= AGREEMENT
        if not library.agrees:
            self._switch.give_up(self._disagrees(f"the meta-gradient of {worst.partition('/')[2]!r}", errors[worst]))
            return False
        logger.info(
            "engine: a compiled program from here on (%s ms for a meta-gradient, %s ms without)",
            _milliseconds(ended - between),
            _milliseconds(between - began),
        )
        return True

    def _disagrees(self, what: str, error: float) -> str:
        text = f"{what} by the compiled program differs from the plain one by {error:.2g} (relative)"
        if self.mode == "compiled":
            raise VerificationError(f"engine: {text}; use engine='vectorized'.")
        return text

    def _chunk(self, parameters: MetaParameters, n_tasks: int) -> int | None:
        """Tasks to compute at once; None if all of them."""
        values = _size(parameters.moving)
        chunk = max(1, CHUNK_VALUES // max(values, 1))
        if self.max_memory is not None:
            size = sum(p.numel() * p.element_size() for p in parameters.moving.values())
            sets = self.adaptation.inner_steps + 6  # the path, gradients, cotangents and a first layer of temporaries
            chunk = min(chunk, max(1, int(self.max_memory * 2**20 / (size * sets))))
        if chunk >= n_tasks:
            return None
        return -(-n_tasks // -(-n_tasks // chunk))  # chunks of one size, if the number of tasks allows it

    def losses(self, parameters: MetaParameters, support: Rows, query: Rows) -> Tensor:
        """Query loss of each task after adaptation, without derivatives; shape (tasks,)."""
        steps, n_tasks = self.adaptation.inner_steps, len(query.x)
        chunk = self._chunk(parameters, n_tasks) or n_tasks
        losses, kernels = [], self._recorded()  # the same episodes are judged round after round
        with self.functional.mode(training=False):
            for first in range(0, n_tasks, chunk):
                some = take_tasks(support, slice(first, first + chunk))
                judged = take_tasks(query, slice(first, first + chunk))
                adapted = self._adapted(kernels, parameters, some, steps)[0]
                losses.append(kernels.query_gradient(adapted, parameters.shared, some, judged, 0, steps)[0])
        return torch.cat(losses)

    def adapt(self, parameters: MetaParameters, support: Rows, steps: int) -> tuple[Tensors, Tensor, Tensor]:
        """Adapt to each task; the network must be in evaluation mode.

        Parameters
        ----------
        parameters : MetaParameters
            Where adaptation starts.
        support : Rows
            Support rows.
        steps : int
            Inner steps, at least one.

        Returns
        -------
        moving : dict of str to Tensor
            Adapted parameters with a leading task axis.
        before, after : Tensor of shape (tasks,)
            Support losses at the initialisation and at the adapted parameters.
        """
        n = sum(p.numel() for p in (*parameters.moving.values(), *parameters.shared.values()))
        if self.mode in ("auto", "compiled"):
            width = room_for(support.x.shape[1])
            padded = with_rows(support, width)
            request = Request(self.functional, self.adaptation, parameters, padded, None, "adapt")
            seconds = seconds_of_step(n, support, support, steps, "first")
            library = adapting_library(request, seconds, at_once=self.mode == "compiled")
            if isinstance(library, Library) and self._adapts_alike(library, parameters, support, width, steps):
                return self._adapt_by_program(library, parameters, padded, steps)
            if isinstance(library, str):
                self._without_program(library)
        return self._adapt_by_kernels(parameters, support, steps)

    def _adapt_by_kernels(
        self, parameters: MetaParameters, support: Rows, steps: int
    ) -> tuple[Tensors, Tensor, Tensor]:
        parts = []
        chunk = self._chunk(parameters, len(support.x)) or len(support.x)
        for first in range(0, len(support.x), chunk):
            some = take_tasks(support, slice(first, first + chunk))
            # One task is not worth what vectorising costs.
            kernels = self.kernels if len(some.x) > 1 else LoopKernels(self.functional)
            adapted, losses = self._adapted(kernels, parameters, some, steps)
            parts.append((adapted, losses[0], kernels.gradient(adapted, parameters.shared, some, 0, steps)[0]))
        moving = {name: torch.cat([p[0][name] for p in parts]) for name in parameters.moving}
        return moving, torch.cat([p[1] for p in parts]), torch.cat([p[2] for p in parts])

    def _adapted(
        self, kernels: Kernels, parameters: MetaParameters, support: Rows, steps: int
    ) -> tuple[Tensors, list[Tensor]]:
        """Parameters after adaptation, and support losses before each step."""
        start = expand(self.adaptation.rule.begin(parameters.moving), len(support.x))
        path, losses = inner_loop(kernels, self.adaptation, parameters, [support] * steps, 0, start, whole_path=False)
        return of_network(path[-1]), losses

    def _adapt_by_program(
        self, library: Library, parameters: MetaParameters, support: Rows, steps: int
    ) -> tuple[Tensors, Tensor, Tensor]:
        moving, losses, after = library.adapt(self._groups(parameters), [support] * steps, None, steps, keep=True)
        return of_network(moving), losses[0], after

    def _adapts_alike(
        self, library: Library, parameters: MetaParameters, support: Rows, width: int, steps: int
    ) -> bool:
        """Compare the first steps of a program with the kernels' on two tasks before its first use."""
        if library.agrees is None and self.verify is False:
            library.agrees = True
        if library.agrees is not None:
            return library.agrees
        some = with_an_unused_row(take_tasks(support, two_tasks(support)))
        few = min(steps, STEPS_COMPARED)
        expected = self._adapt_by_kernels(parameters, some, few)[0]
        got = self._adapt_by_program(library, parameters, with_rows(some, width), few)[0]
        size, moved = norm(expected), {name: value - parameters.moving[name] for name, value in expected.items()}
        errors, length = differences(moved, {name: got[name] - parameters.moving[name] for name in moved})
        if not math.isfinite(length):
            return False  # nothing to compare with: the next call will tell
        precision = torch.finfo(next(iter(expected.values())).dtype).eps
        if length <= precision / AGREEMENT * size:
            # A step that is lost in rounding tells little: the next call is judged again.
            return norm({name: got[name] - value for name, value in expected.items()}) <= 100 * precision * size
        worst = max(errors, key=lambda name: errors[name])
        library.agrees = errors[worst] <= AGREEMENT
        if not library.agrees:
            self._without_program(self._disagrees(f"the step of {worst!r}", errors[worst]))
        return library.agrees

    def of_tasks(self, function: Callable[[Tensors, Rows], Tensors], moving: Tensors, rows: Rows) -> Tensors:
        """Apply a function of one task's parameters and rows to each task, by the means that the kernels use, underived.

        Parameters
        ----------
        function : callable
            ``(moving, rows) -> dict of str to Tensor``, none with a task axis.
        moving : dict of str to Tensor
            Parameters with a leading task axis.
        rows : Rows
            Rows of each task.
        """
        with torch.no_grad(), differentiable_forward():
            if self.is_vectorized and len(rows.x) > 1:
                found: Tensors = vmap(function, randomness="different")(moving, rows)
                return found
            each = [
                function({name: value[t] for name, value in moving.items()}, per_task_rows(rows, t))
                for t in range(len(rows.x))
            ]
        return {name: torch.stack([of_task[name] for of_task in each]) for name in each[0]}

    def _without_program(self, reason: str) -> None:
        if self.mode == "compiled":
            raise InvalidParameterError(
                f"engine: 'compiled' is not possible ({reason}); use engine='auto', of a fitted model by "
                "set_params(engine='auto')."
            )
        said = _SAID.setdefault(self.functional, set())
        if reason not in said:
            said.add(reason)
            logger.info("engine: adapting without a compiled program (%s)", reason)

    @property
    def is_vectorized(self) -> bool:
        """Whether the vectorised kernels are in use."""
        return isinstance(self.kernels, VectorizedKernels)

    def use(self, *, vectorized: bool) -> None:
        """Take these kernels without trying them, as an earlier :meth:`prepare` found."""
        self.kernels = VectorizedKernels(self.functional) if vectorized else LoopKernels(self.functional)


def _size(tensors: Tensors) -> int:
    return sum(t.numel() for t in tensors.values())


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.2f}" if seconds < 0.01 else f"{1e3 * seconds:.0f}"
