"""Built-in networks, and how whatever a user calls a module becomes one.

Each builder is a plain function of the number of inputs and outputs, known by name so that a saved model can be rebuilt
without executing anything from the file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .errors import InvalidParameterError

__all__ = ["BUILDERS", "build_module", "conv4", "linear", "mlp"]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


def mlp(n_in: int, n_out: int, *, hidden: Sequence[int] = (40, 40), activation: str = "relu") -> nn.Sequential:
    """Multi-layer perceptron.

    Parameters
    ----------
    n_in, n_out : int
        Number of inputs and outputs.
    hidden : sequence of int, default=(40, 40)
        Widths of the hidden layers; empty gives a linear model.
    activation : {"relu", "tanh", "gelu", "silu", "elu", "softplus"}, default="relu"
        Nonlinearity between layers.

    Returns
    -------
    torch.nn.Sequential

    Examples
    --------
    >>> mlp(3, 1, hidden=(8,))
    Sequential(
      (0): Linear(in_features=3, out_features=8, bias=True)
      (1): ReLU()
      (2): Linear(in_features=8, out_features=1, bias=True)
    )
    """
    if activation not in ACTIVATIONS:
        raise InvalidParameterError(f"activation: got {activation!r}; expected one of {', '.join(ACTIVATIONS)}.")
    try:
        widths = [int(w) for w in hidden]
    except (TypeError, ValueError):
        widths = [0]
    if any(w < 1 for w in widths):
        raise InvalidParameterError(f"hidden: got {hidden!r}; expected a sequence of positive layer widths.")
    layers: list[nn.Module] = []
    for width_in, width_out in zip([n_in, *widths], [*widths, n_out], strict=True):
        layers += [nn.Linear(width_in, width_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def linear(n_in: int, n_out: int) -> nn.Sequential:
    """Linear model: an :func:`mlp` without hidden layers.

    Examples
    --------
    >>> linear(3, 1)
    Sequential(
      (0): Linear(in_features=3, out_features=1, bias=True)
    )
    """
    return mlp(n_in, n_out, hidden=())


def conv4(n_in: int, n_out: int, *, image_shape: tuple[int, int, int] | None = None, channels: int = 32) -> nn.Module:
    """Four 3 x 3 convolutions of stride 2 with batch normalisation, mean over space, linear head.

    Parameters
    ----------
    n_in, n_out : int
        Number of input values (channels x height x width) and of outputs.
    image_shape : (int, int, int), default=None
        Channels, height and width of the flat rows; None takes `n_in` as one square grey image.
    channels : int, default=32
        Channels of each convolution.

    Returns
    -------
    torch.nn.Module
        Takes flat rows (rows, n_in).

    References
    ----------
    Vinyals et al. (2016), Matching networks for one shot learning, section 3.1; strides in place of pooling as in Finn,
    Abbeel, Levine (2017), appendix A.1.
    """
    if image_shape is None:
        image_shape = (1, math.isqrt(n_in), math.isqrt(n_in))
    if math.prod(image_shape) != n_in:
        raise InvalidParameterError(
            f"image_shape: got {image_shape} for {n_in} inputs; expected (channels, height, width) with that product."
        )
    layers: list[nn.Module] = [nn.Unflatten(-1, image_shape)]
    width = image_shape[0]
    for _ in range(4):
        layers += [nn.Conv2d(width, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
        width = channels
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, n_out))


BUILDERS: dict[str, Callable[..., nn.Module]] = {"mlp": mlp, "linear": linear, "conv4": conv4}


class Reshaped(nn.Module):
    """A module that sees each flat row in another shape.

    Parameters
    ----------
    module : torch.nn.Module
        Takes (rows, *input_shape).
    input_shape : tuple of int
        Shape of one row.
    """

    def __init__(self, module: nn.Module, input_shape: Sequence[int]) -> None:
        super().__init__()
        self.module, self.input_shape = module, tuple(input_shape)

    def forward(self, x: Tensor) -> Tensor:
        """Reshape the rows and apply the module."""
        return self.module(x.reshape(*x.shape[:-1], *self.input_shape))


def build_module(
    module: Any,
    n_in: int,
    n_out: int,
    *,
    hidden: Sequence[int] = (40, 40),
    activation: str = "relu",
    input_shape: Sequence[int] | None = None,
    seed: int = 0,
) -> nn.Module:
    """Make a network of what the user gave; its random weights depend on `seed` alone.

    Parameters
    ----------
    module : torch.nn.Module, callable or None
        A module (copied, with its weights), a class or factory ``(n_in, n_out) -> module``, or None for an :func:`mlp`.
    n_in, n_out : int
        Number of inputs and outputs.
    hidden, activation
        For the built-in network.
    input_shape : sequence of int, default=None
        Shape in which the module sees a row; None leaves it flat.
    seed : int, default=0
        Seed of the random initial weights. Torch's global random state is left as it was.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InvalidParameterError
        If `module` is none of these, or a factory that does not return a module.
    """
    if input_shape is not None and math.prod(input_shape) != n_in:
        raise InvalidParameterError(
            f"input_shape: got {tuple(input_shape)} for {n_in} features; expected a shape with that product."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if module is None:
            built: Any = mlp(n_in, n_out, hidden=hidden, activation=activation)
        elif isinstance(module, nn.Module):
            built = copy.deepcopy(module)
        elif callable(module):
            built = module(n_in, n_out)
        else:
            raise InvalidParameterError(
                f"module: got {type(module).__name__}; expected a torch.nn.Module, a callable (n_in, n_out) -> "
                "torch.nn.Module, or None."
            )
    if not isinstance(built, nn.Module):
        raise InvalidParameterError(f"module: the factory returned {type(built).__name__}; expected a torch.nn.Module.")
    if any(isinstance(p, UninitializedParameter) for p in built.parameters()):
        raise InvalidParameterError(
            "module: has lazy layers, whose shapes are not known yet; run it once on a row of X."
        )
    if not any(True for _ in built.parameters()):
        raise InvalidParameterError("module: has no parameters; expected at least one to learn.")
    return built if input_shape is None else Reshaped(built, input_shape)
