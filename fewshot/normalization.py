"""Normalisation inside an episode: layers by elementary operations that see row weights.

What "batch statistics" mean is a choice. With ``"episode"`` the statistics of a task's support rows normalise its support and its
query, so no query row influences another: little bias, but noisy for few rows. With ``"transductive"`` each batch has its own, the
query too, which is what most published code of MAML does: predictions then depend on which rows are predicted together. With
``"global"`` running averages over meta-training normalise everything: stable, but off for a task whose inputs are shifted. With
``"per_step"`` there is one running average for each inner step, since features change on the way (Antoniou, Edwards, Storkey 2019,
section 4). Bronskill et al. (2020, section 3) compare such choices.

Running averages that derivatives take for constants let training run away: weights grow, the averages follow and undo it in the
output, and nothing holds them back. So values are normalised by the averages, and derivatives go through the statistics of the
rows, as in batch renormalisation: ``(x - mean) / std * r + d`` with the rows' own mean and standard deviation, and r and d, which
turn that into the value by the averages, held fixed. Both are limited, which matters only while averages are far behind.

Padded rows (weight 0) never count; torch's own layer, given padded rows, would be off. LayerNorm and InstanceNorm are replaced
too, for their fused kernels give wrong second derivatives where somebody differentiates *through* ``vmap`` (torch 2.13: off by
.17 and .47 relative); fewshot's own kernels, ``vmap`` of derivatives, are exact with either, as its tests show. The replacements
keep names, parameters and state dict.

References
----------
Antoniou, Edwards, Storkey (2019), How to train your MAML, ICLR. Bronskill, Gordon, Requeima, Nowozin, Turner (2020), TaskNorm:
rethinking batch normalization for meta-learning, ICML. Ioffe (2017), Batch renormalization: towards reducing minibatch dependence
in batch-normalized models, NeurIPS.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from .errors import InvalidParameterError

__all__ = [
    "STRATEGIES",
    "batch_norm_layers",
    "check_strategy",
    "episode_statistics",
    "observed_moments",
    "renormalised",
    "replace_norm_layers",
]

STRATEGIES = ("episode", "global", "transductive", "per_step")


def check_strategy(batch_norm: object) -> None:
    """Refuse what is no meaning of batch statistics."""
    if batch_norm not in STRATEGIES:
        raise InvalidParameterError(
            f"batch_norm: got {batch_norm!r}; expected one of {', '.join(map(repr, STRATEGIES))}."
        )


# What values are normalised by; derivatives go through the rows' own statistics unless these are only looked at.
R_MAX, D_MAX = 3.0, 5.0  # Ioffe (2017), section 4
OWN, STORED, LOOKED_AT = "own", "stored", "looked at"


class _Episode(threading.local):
    """Which rows give the statistics of the forward pass that is running; None: stored statistics are used."""

    mask: Tensor | None = None
    captured: dict[str, Tensor] | None = None
    values: str = OWN


_episode = _Episode()


@contextmanager
def episode_statistics(mask: Tensor, captured: dict[str, Tensor] | None = None) -> Iterator[None]:
    """Normalise with the statistics of the rows where `mask`, shape (rows,), is non-zero.

    A dict given as `captured` receives each layer's mean and variance under the buffers' names, ready to be passed back
    in a later forward pass without this context.
    """
    with _during(mask, captured, OWN):
        yield


@contextmanager
def renormalised(mask: Tensor) -> Iterator[None]:
    """Give values by the stored statistics, and derivatives by those of the rows where `mask`, shape (rows,), is non-zero."""
    with _during(mask, None, STORED):
        yield


@contextmanager
def observed_moments(mask: Tensor, captured: dict[str, Tensor]) -> Iterator[None]:
    """Fill `captured` as :func:`episode_statistics` does, while normalising with the stored statistics."""
    with _during(mask, captured, LOOKED_AT):
        yield


@contextmanager
def _during(*state: Any) -> Iterator[None]:
    outer = _episode.mask, _episode.captured, _episode.values
    _episode.mask, _episode.captured, _episode.values = state
    try:
        yield
    finally:
        _episode.mask, _episode.captured, _episode.values = outer


class EpisodeBatchNorm(nn.Module):
    """Batch normalisation with the statistics of the support rows.

    Outside :func:`episode_statistics` it uses the stored ``episode_mean`` and ``episode_var``. Variances are the biased
    ones, as torch normalises with.

    Parameters
    ----------
    layer : torch.nn.BatchNorm1d, BatchNorm2d or BatchNorm3d
        The layer to stand in for; parameters and buffers are shared.
    name : str
        Qualified name of the layer in its network.
    """

    weight: Tensor | None
    bias: Tensor | None
    episode_mean: Tensor
    episode_var: Tensor

    def __init__(self, layer: _BatchNorm, name: str) -> None:
        super().__init__()
        _take_over(self, layer)
        self.eps, self.name = layer.eps, name
        self.over_rows_only = False  # set by a forward pass: are rows all that the statistics average over?
        reference = layer.weight if layer.affine else torch.empty(0)
        tracked = layer.running_mean is not None and layer.running_var is not None
        mean = layer.running_mean.clone() if tracked else reference.new_zeros(layer.num_features)  # type: ignore[union-attr]
        var = layer.running_var.clone() if tracked else reference.new_ones(layer.num_features)  # type: ignore[union-attr]
        # Not persistent, so that the state dict stays that of the user's layer.
        self.register_buffer("episode_mean", mean, persistent=False)
        self.register_buffer("episode_var", var, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x`, shape (rows, channels, *positions)."""
        over = [0, *range(2, x.ndim)]
        self.over_rows_only = x.shape[2:].numel() == 1
        column = (1, -1) + (1,) * (x.ndim - 2)
        mean, var = self.episode_mean, self.episode_var
        if _episode.mask is not None:
            if len(_episode.mask) != len(x):
                raise InvalidParameterError(
                    f"module: layer {self.name!r} sees {len(x)} rows of the {len(_episode.mask)} in X, so the rows that give "
                    "its batch statistics cannot be told; normalise before folding axes into rows, or use LayerNorm."
                )
            counts = (_episode.mask != 0).to(x.dtype)
            share = (counts / counts.sum().clamp(min=1)).reshape(-1, *(1,) * (x.ndim - 1))
            if x.ndim > 2:
                share = share / x.shape[2:].numel()
            own_mean = (share * x).sum(over)
            own_var = (share * (x - own_mean.reshape(column)) ** 2).sum(over)
            if _episode.captured is not None:
                prefix = f"{self.name}." if self.name else ""
                if f"{prefix}episode_mean" in _episode.captured:
                    raise InvalidParameterError(
                        f"module: layer {self.name!r} runs twice in a forward pass, so its batch statistics are not those of "
                        "one place; use two layers."
                    )
                _episode.captured[f"{prefix}episode_mean"] = own_mean
                _episode.captured[f"{prefix}episode_var"] = own_var
            if _episode.values == STORED:
                scale = (var + self.eps).rsqrt()
                r = ((own_var + self.eps).sqrt() * scale).detach().clamp(1 / R_MAX, R_MAX)
                d = ((own_mean - mean) * scale).detach().clamp(-D_MAX, D_MAX)
                x = (x - own_mean.reshape(column)) * ((own_var + self.eps).rsqrt() * r).reshape(column) + d.reshape(
                    column
                )
                return self._affine(x, column)
            if _episode.values == OWN:
                mean, var = own_mean, own_var
        return self._affine((x - mean.reshape(column)) * (var + self.eps).rsqrt().reshape(column), column)

    def _affine(self, x: Tensor, column: tuple[int, ...]) -> Tensor:
        if self.weight is None or self.bias is None:
            return x
        return x * self.weight.reshape(column) + self.bias.reshape(column)


class ElementaryLayerNorm(nn.Module):
    """:class:`torch.nn.LayerNorm` by elementary operations, exact to second order under ``vmap``.

    Parameters
    ----------
    layer : torch.nn.LayerNorm
        The layer to stand in for; parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: nn.LayerNorm) -> None:
        super().__init__()
        _take_over(self, layer)
        self.eps, self.over = layer.eps, tuple(range(-len(layer.normalized_shape), 0))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axes of `x`."""
        centred = x - x.mean(self.over, keepdim=True)
        x = centred * ((centred**2).mean(self.over, keepdim=True) + self.eps).rsqrt()
        if self.weight is not None:
            x = x * self.weight
        return x if self.bias is None else x + self.bias


class ElementaryInstanceNorm(nn.Module):
    """:class:`torch.nn.InstanceNorm1d`, ``2d`` or ``3d`` by elementary operations, exact to second order under ``vmap``.

    Statistics are always those of the instance, as in torch's default (``track_running_stats=False``).

    Parameters
    ----------
    layer : torch.nn.InstanceNorm1d, InstanceNorm2d or InstanceNorm3d
        The layer to stand in for; parameters are shared.
    """

    weight: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: _InstanceNorm) -> None:
        super().__init__()
        _take_over(self, layer)
        self.eps = layer.eps
        self.unbatched_ndim = layer._get_no_batch_dim()

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each channel of each row of `x`, shape (rows, channels, *positions) or (channels, *positions)."""
        n_positions = self.unbatched_ndim - 1
        over = tuple(range(-n_positions, 0))
        centred = x - x.mean(over, keepdim=True)
        x = centred * ((centred**2).mean(over, keepdim=True) + self.eps).rsqrt()
        column = (-1,) + (1,) * n_positions
        if self.weight is None or self.bias is None:
            return x
        return x * self.weight.reshape(column) + self.bias.reshape(column)


def _take_over(new: nn.Module, layer: nn.Module) -> None:
    """Give `new` the parameters and buffers of `layer`, under the same names."""
    for name, parameter in layer._parameters.items():
        new.register_parameter(name, parameter)
    for name, buffer in layer._buffers.items():
        new.register_buffer(name, buffer, persistent=name not in layer._non_persistent_buffers_set)


def _equivalent(layer: nn.Module, name: str) -> nn.Module | None:
    if isinstance(layer, _BatchNorm):
        return EpisodeBatchNorm(layer, name)
    if isinstance(layer, nn.LayerNorm):
        return ElementaryLayerNorm(layer)
    if isinstance(layer, _InstanceNorm):
        return ElementaryInstanceNorm(layer)
    return None


def replace_norm_layers(module: nn.Module) -> nn.Module:
    """Return a copy of `module` whose norm layers are the equivalents of this file; `module` itself is unchanged.

    Examples
    --------
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    >>> replaced = replace_norm_layers(net)
    >>> list(replaced.state_dict()) == list(net.state_dict()), type(net[1]).__name__, type(replaced[1]).__name__
    (True, 'BatchNorm1d', 'EpisodeBatchNorm')
    """
    module = copy.deepcopy(module)
    root = _equivalent(module, "")
    if root is not None:
        return root
    replaced: dict[int, nn.Module] = {}  # a layer used twice stays one layer
    for name, parent in list(module.named_modules(remove_duplicate=False)):
        for child_name, child in list(parent._modules.items()):
            if child is None:
                continue
            qualified = f"{name}.{child_name}" if name else child_name
            new: Any = replaced.get(id(child)) or _equivalent(child, qualified)
            if new is not None:
                replaced[id(child)] = new
                parent._modules[child_name] = new
    for name, layer in module.named_modules():
        if isinstance(layer, EpisodeBatchNorm):
            layer.name = name  # the first of its names, as that of its buffers
    return module


def batch_norm_layers(module: nn.Module) -> list[EpisodeBatchNorm]:
    """List the episode batch norms of a module made by :func:`replace_norm_layers`."""
    return [layer for layer in module.modules() if isinstance(layer, EpisodeBatchNorm)]
