"""Which kernels run a network.

The engine tries the vectorised kernels on the first batch and, with ``engine="auto"``, falls back to the loop over tasks where
they cannot run, with one logged reason. Once per training it compares the vectorised meta-gradient with the plain loop's on
two tasks in float64, because a wrong derivative trains silently.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .adaptation import Adaptation
from .errors import InvalidParameterError, VerificationError
from .functional import FunctionalModule
from .kernels import Kernels, LoopKernels, VectorizedKernels, per_task_rows
from .metagradient import MetaGradient, MetaParameters, expand, inner_loop, meta_gradient, take_tasks
from .tasks import Rows

__all__ = ["Engine"]

logger = logging.getLogger("fewshot")


class Engine:
    """Runs the kernels of one network.

    Parameters
    ----------
    functional : FunctionalModule
        The network and its loss.
    adaptation : Adaptation
        Settings of the inner loop.
    mode : {"auto", "loop", "vectorized"}, default="auto"
        Kernels to use.
    verify : {"auto", True, False}, default="auto"
        Compare both kinds of kernels before training; "auto" does so where the vectorised ones are used.
    max_memory : float, default=None
        MiB that the parameter sets of the tasks in flight may take; None is no bound.
    """

    def __init__(
        self,
        functional: FunctionalModule,
        adaptation: Adaptation,
        *,
        mode: Literal["auto", "loop", "vectorized"] = "auto",
        verify: bool | Literal["auto"] = "auto",
        max_memory: float | None = None,
    ) -> None:
        if mode not in ("auto", "loop", "vectorized"):
            raise InvalidParameterError(f"engine: got {mode!r}; expected 'auto', 'loop' or 'vectorized'.")
        if verify not in ("auto", True, False):
            raise InvalidParameterError(f"verify: got {verify!r}; expected 'auto', True or False.")
        if max_memory is not None and not max_memory > 0:
            raise InvalidParameterError(f"max_memory: got {max_memory!r}; expected a positive number of MiB, or None.")
        self.functional, self.adaptation = functional, adaptation
        self.mode, self.verify, self.max_memory = mode, verify, max_memory
        self.kernels: Kernels = LoopKernels(functional)

    def prepare(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Literal["exact", "first"],
        calibrate: Callable[[MetaParameters], MetaParameters] | None = None,
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
        order : {"exact", "first"}
            Order of the meta-gradient.
        calibrate : callable, default=None
            Changes the starting values once the kernels are chosen and before they are checked: derivatives that overflow
            cannot be compared.

        Raises
        ------
        VerificationError
            If the vectorised meta-gradient is wrong.
        InvalidParameterError
            If ``engine="vectorized"`` was asked for and the network cannot be vectorised.
        """
        random = self.functional.is_random(per_task_rows(query, int(query.weight.sum(1).argmax())).x)
        calibrate = calibrate or (lambda unchanged: unchanged)
        if self.mode == "loop":
            calibrate(parameters)
            return
        pair = _two_tasks(supports[0])
        first = [take_tasks(s, pair) for s in supports], take_tasks(query, pair)
        candidate = VectorizedKernels(self.functional, random=random)
        try:
            meta_gradient(
                VectorizedKernels(self.functional, trace=False, random=random),
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
            logger.info(
                "engine: going through the tasks one by one, since the module cannot be vectorised (%s)", reason
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
        supports, query = [_with_a_padded_row(s) for s in supports], _with_a_padded_row(query)
        with self.functional.mode(training=False):  # the two kinds of kernels draw dropout differently
            try:
                loop, vectorized = self._both(parameters, supports, query, order, torch.float64)
                tolerance = 1e-6
            except RuntimeError as error:  # a forward pass that insists on single precision
                logger.debug("verify: float64 failed (%s); comparing in the training precision", error)
                loop, vectorized = self._both(parameters, supports, query, order, None)
                tolerance = 1e-2
        expected, got = loop.gradient.flat(), vectorized.gradient.flat()
        size = math.sqrt(sum(float(v.double().norm()) ** 2 for v in expected.values()))
        errors = {
            name: float((got[name] - v).double().norm()) / max(float(v.double().norm()), 1e-3 * size, 1e-12)
            for name, v in expected.items()
        }
        worst = max(errors, key=lambda name: math.inf if math.isnan(errors[name]) else errors[name])
        if not math.isfinite(size):
            logger.info("verify: the meta-gradient of the first batch is not finite, so it could not be checked")
        elif not errors[worst] <= tolerance:
            layer = worst.partition("/")[2].removeprefix("log_alpha.").removeprefix("log_c.").rpartition(".")[0]
            raise VerificationError(
                f"engine: the vectorised meta-gradient of {worst.partition('/')[2]!r} differs from the plain loop's by "
                f"{errors[worst]:.2g} (relative); layer {layer!r}, or one that it feeds, is not exact under torch's vmap "
                "or mixes the rows of a batch; use engine='loop'."
            )

    def _both(
        self, parameters: MetaParameters, supports: Sequence[Rows], query: Rows, order: Any, dtype: torch.dtype | None
    ) -> list[MetaGradient]:
        def cast(t: Tensor) -> Tensor:
            return t.to(dtype) if dtype is not None and t.is_floating_point() else t

        def cast_rows(r: Rows) -> Rows:
            return Rows(cast(r.x), cast(r.y), cast(r.weight), {k: cast(v) for k, v in r.extra.items()})

        constant = {k: cast(v) for k, v in self.functional.constant.items()}
        parameters = MetaParameters.from_flat({k: cast(v.detach()) for k, v in parameters.flat().items()})
        supports, query = [cast_rows(s) for s in supports], cast_rows(query)
        kernels = LoopKernels(self.functional, constant), VectorizedKernels(self.functional, constant, trace=False)
        return [meta_gradient(k, self.adaptation, parameters, supports, query, order=order) for k in kernels]

    def gradient(
        self,
        parameters: MetaParameters,
        supports: Sequence[Rows],
        query: Rows,
        order: Literal["exact", "first"],
        seed: int,
    ) -> MetaGradient:
        """Query losses and the gradient of their mean; see :func:`fewshot.metagradient.meta_gradient`."""
        chunk = self._chunk(parameters, len(query.x))
        return meta_gradient(
            self.kernels, self.adaptation, parameters, supports, query, order=order, seed=seed, chunk=chunk
        )

    def _chunk(self, parameters: MetaParameters, n_tasks: int) -> int | None:
        """Tasks that fit into `max_memory` at once; None if all of them do."""
        if self.max_memory is None:
            return None
        size = sum(p.numel() * p.element_size() for p in parameters.moving.values())
        sets = self.adaptation.inner_steps + 6  # the path, gradients, cotangents and a first layer of temporaries
        chunk = max(1, int(self.max_memory * 2**20 / (size * sets)))
        return chunk if chunk < n_tasks else None

    def losses(self, parameters: MetaParameters, support: Rows, query: Rows) -> Tensor:
        """Query loss of each task after adaptation, without derivatives; shape (tasks,)."""
        steps, n_tasks = self.adaptation.inner_steps, len(query.x)
        chunk = self._chunk(parameters, n_tasks) or n_tasks
        losses = []
        with self.functional.mode(training=False):
            for first in range(0, n_tasks, chunk):
                some = take_tasks(support, slice(first, first + chunk))
                judged = take_tasks(query, slice(first, first + chunk))
                start = expand(parameters.moving, len(judged.x))
                path, _ = inner_loop(self.kernels, self.adaptation, parameters, [some] * steps, 0, start)
                losses.append(self.kernels.query_gradient(path[-1], parameters.shared, some, judged, 0)[0])
        return torch.cat(losses)

    @property
    def is_vectorized(self) -> bool:
        """Whether the vectorised kernels are in use."""
        return isinstance(self.kernels, VectorizedKernels)

    def use(self, *, vectorized: bool) -> None:
        """Take these kernels without trying them, as an earlier :meth:`prepare` found."""
        self.kernels = VectorizedKernels(self.functional) if vectorized else LoopKernels(self.functional)


def _with_a_padded_row(rows: Rows) -> Rows:
    """Append a copy of the first row with weight 0: a network that mixes rows gives itself away."""

    def longer(t: Tensor) -> Tensor:
        return torch.cat([t, t[:, :1]], 1)

    weight = torch.cat([rows.weight, torch.zeros_like(rows.weight[:, :1])], 1)
    return Rows(longer(rows.x), longer(rows.y), weight, {k: longer(v) for k, v in rows.extra.items()})


def _two_tasks(support: Rows) -> Tensor:
    """Positions of the tasks with most and with fewest support rows, so that padding takes part in the comparison."""
    n = (support.weight > 0).sum(1).cpu().numpy()
    order = np.argsort(n, kind="stable")
    return torch.from_numpy(np.unique(order[[0, -1]]))
