"""A network and its loss as pure functions of one task: what the kernels differentiate.

Parameters come in three groups: *moving* ones are adapted by the inner loop, *shared* ones are meta-learned but the same for
all tasks, *constant* tensors (buffers and parameters frozen with ``requires_grad=False``) never change.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from .adaptation import moving_names
from .errors import InvalidParameterError
from .losses import RowLoss, task_loss
from .normalization import (
    batch_norm_layers,
    check_strategy,
    episode_statistics,
    observed_moments,
    renormalised,
    replace_norm_layers,
)
from .step_sizes import Tensors
from .tasks import Rows

__all__ = ["FunctionalModule", "differentiable_forward"]

STATISTICS = ("episode_mean", "episode_var")  # buffers of a batch norm

# A network is run by putting a task's weights into one skeleton, so only one thread may do so at a time.
_lock = threading.RLock()


class FunctionalModule:
    """Pure per-task functions of a network.

    Parameters
    ----------
    module : torch.nn.Module
        The network; a copy is kept in which norm layers are replaced (see :mod:`fewshot.normalization`).
    row_loss : callable
        ``(output, target) -> loss`` of each row.
    adapted : {"all", "head", "body"} or list of str
        Which parameters move.
    n_outputs : int
        Outputs per row that the loss expects.
    query_row_loss : callable, default=None
        Loss of the query's rows, where it is not that of the support's.
    batch_norm : {"episode", "global", "transductive", "per_step"}, default="episode"
        What batch statistics mean, see :mod:`fewshot.normalization`.
    inner_steps : int, default=0
        Of the adaptation, which ``"per_step"`` has one set of statistics more than.

    Attributes
    ----------
    moving, shared, constant : dict of str to Tensor
        The module's parameters and buffers, by group.
    uses_batch_statistics : bool
        Whether the query needs the support's rows in its forward pass.
    captures_support : bool
        Whether predictions for an adapted task need more of its support than the parameters that moved.
    normalises_by_rows : bool
        Whether statistics are those of the rows of a task, which therefore have to be some.
    running : list of str
        Names of the constant tensors that are running statistics.
    per_step : frozenset of str
        Names of the constant tensors whose first axis is the inner step.
    """

    def __init__(
        self,
        module: nn.Module,
        row_loss: RowLoss,
        adapted: object,
        n_outputs: int,
        query_row_loss: RowLoss | None = None,
        batch_norm: str = "episode",
        inner_steps: int = 0,
    ) -> None:
        check_strategy(batch_norm)
        self.skeleton = replace_norm_layers(module).train()
        self.row_loss, self.n_outputs = row_loss, n_outputs
        self.query_row_loss = query_row_loss or row_loss
        move = set(moving_names(self.skeleton, adapted))
        named = {n: p.detach().clone() for n, p in self.skeleton.named_parameters()}
        trainable = {n for n, p in self.skeleton.named_parameters() if p.requires_grad}
        self.moving: Tensors = {n: p for n, p in named.items() if n in move}
        self.shared: Tensors = {n: p for n, p in named.items() if n in trainable - move}
        self.constant: Tensors = {n: p for n, p in named.items() if n not in trainable}
        self.constant.update({n: b.detach().clone() for n, b in self.skeleton.named_buffers()})
        layers = batch_norm_layers(self.skeleton)
        self.batch_norm = batch_norm if layers else "episode"
        self.uses_batch_statistics = bool(layers) and batch_norm == "episode"
        self.captures_support = self.uses_batch_statistics
        self.normalises_by_rows = bool(layers) and batch_norm in ("episode", "transductive")
        keeps = bool(layers) and batch_norm in ("global", "per_step")
        self.running = [n for n in self.constant if n.rpartition(".")[2] in STATISTICS] if keeps else []
        self.per_step = frozenset(self.running if batch_norm == "per_step" else ())
        for name in self.per_step:
            value = self.constant[name]
            self.constant[name] = value.expand(inner_steps + 1, *value.shape).clone()
        # Only structure is needed from here on; the weights travel as arguments.
        for p in self.skeleton.parameters():
            p.requires_grad_(False)

    def output(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Output of the network for the rows `x` of one task, shape (rows, n_outputs)."""
        out = functional_call(self.skeleton, (moving, shared, constant), (x,))
        if isinstance(out, Tensor) and out.ndim == 1 and self.n_outputs == 1:
            out = out.unsqueeze(-1)
        if not isinstance(out, Tensor) or out.shape != (len(x), self.n_outputs):
            got = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
            raise InvalidParameterError(
                f"module: returned {got} for {len(x)} rows; expected ({len(x)}, {self.n_outputs}), one row per row of X "
                "and one column per output or class."
            )
        return out

    def constants(self, constant: Tensors, step: int) -> Tensors:
        """Constant tensors as they are at an inner step, counted from 0; the query comes after the last one."""
        if not self.per_step:
            return constant
        return {n: v[min(step, len(v) - 1)] if n in self.per_step else v for n, v in constant.items()}

    def support_loss(self, moving: Tensors, shared: Tensors, constant: Tensors, rows: Rows) -> Tensor:
        """Loss of the support rows of one task."""
        return task_loss(self.row_loss, self._by_own_statistics(moving, shared, constant, rows), rows)

    def query_loss(self, moving: Tensors, shared: Tensors, constant: Tensors, support: Rows, query: Rows) -> Tensor:
        """Loss of the query rows of one task."""
        if not self.uses_batch_statistics:
            return task_loss(self.query_row_loss, self._by_own_statistics(moving, shared, constant, query), query)
        x = torch.cat([support.x, query.x])
        with episode_statistics(torch.cat([support.weight, torch.zeros_like(query.weight)])):
            output = self.output(moving, shared, constant, x)
        return task_loss(self.query_row_loss, output[len(support.x) :], query)

    def _by_own_statistics(self, moving: Tensors, shared: Tensors, constant: Tensors, rows: Rows) -> Tensor:
        """Output for rows whose own batch statistics count, for the values or for the derivatives alone."""
        context = episode_statistics if self.normalises_by_rows else renormalised if self.running else None
        if context is None:
            return self.output(moving, shared, constant, rows.x)
        with context(rows.weight):
            return self.output(moving, shared, constant, rows.x)

    def prediction(self, moving: Tensors, shared: Tensors, constant: Tensors, x: Tensor) -> Tensor:
        """Output of the network for rows to predict, with the statistics in `constant` or, if ``"transductive"``, their own."""
        if self.batch_norm != "transductive":
            return self.output(moving, shared, constant, x)
        with episode_statistics(torch.ones(len(x), dtype=x.dtype)):
            return self.output(moving, shared, constant, x)

    def support_statistics(self, moving: Tensors, shared: Tensors, constant: Tensors, rows: Rows) -> Tensors:
        """Return what predictions need of the support rows of one task, to be merged into `constant`: its batch statistics."""
        if not self.uses_batch_statistics:
            return {}
        return self.moments(moving, shared, constant, rows, normalised=False)

    def moments(self, moving: Tensors, shared: Tensors, constant: Tensors, rows: Rows, *, normalised: bool) -> Tensors:
        """Mean and variance, over the rows of one task, of what each batch norm sees.

        With `normalised` false, running statistics are not used yet: layers normalise by these rows.
        """
        captured: Tensors = {}
        with (observed_moments if normalised else episode_statistics)(rows.weight, captured):
            self.output(moving, shared, constant, rows.x)
        return captured

    def to(self, device: torch.device) -> None:
        """Move the weights that the functions start from."""
        for group in (self.moving, self.shared, self.constant):
            group.update({name: value.to(device) for name, value in group.items()})

    @contextmanager
    def mode(self, *, training: bool) -> Iterator[None]:
        """Switch dropout and the like on or off, and back."""
        with _lock:
            before = self.skeleton.training
            self.skeleton.train(training)
            try:
                yield
            finally:
                self.skeleton.train(before)

    def copy(self) -> FunctionalModule:
        """Copy the groups of tensors; the tensors and the skeleton are shared."""
        new = copy.copy(self)
        new.moving, new.shared, new.constant = dict(self.moving), dict(self.shared), dict(self.constant)
        return new

    def is_random(self, x: Tensor) -> bool:
        """Whether a forward pass in training mode draws random numbers."""
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
            differentiable_forward(),
            self.mode(training=True),
        ):
            before = torch.random.get_rng_state()
            self.output(self.moving, self.shared, self.constants(self.constant, 0), x)
            return not torch.equal(before, torch.random.get_rng_state())


@contextmanager
def differentiable_forward() -> Iterator[None]:
    """Let attention use kernels that can be differentiated twice and vectorised; restores torch's settings.

    One thread at a time: the settings are global, and so is the skeleton of a network to all who share it.
    """
    with _lock:
        fast = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)
