"""Built-in networks, and how whatever a user calls a module becomes one.

Each builder is a plain function of the number of inputs and outputs, known by name so that a saved model can be rebuilt
without executing anything from the file.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from .errors import InvalidParameterError

__all__ = ["BUILDERS", "CONTEXT", "build_module", "conv4", "linear", "mlp"]

CONTEXT = "context"  # last part of the name of parameters that tell a network which task it is in

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


class Context(nn.Module):
    """A network that sees context parameters, which begin at zero, as further inputs.

    Parameters
    ----------
    network : torch.nn.Module
        Takes rows of shape (rows, n_in + n_context).
    n_context : int
        Number of context parameters.

    References
    ----------
    Zintgraf, Shiarlis, Kurin, Hofmann, Whiteson (2019), Fast context adaptation via meta-learning, ICML, section 3.

    Examples
    --------
    >>> Context(linear(3 + 2, 1), 2)(torch.zeros(4, 3)).shape
    torch.Size([4, 1])
    """

    def __init__(self, network: nn.Module, n_context: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(n_context))
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Append the context to every row."""
        return self.network(torch.cat([x, self.context.expand(len(x), -1)], 1))


class ContextFilm(nn.Module):
    """Scales and shifts channels as context parameters, which begin at zero, say: ``(1 + a(context)) x + b(context)``.

    Parameters
    ----------
    n_context : int
        Number of context parameters.
    channels : int
        Second axis of what it sees.

    References
    ----------
    Zintgraf et al. (2019), section 3.2; Perez, Strub, de Vries, Dumoulin, Courville (2018), FiLM: visual reasoning with a general
    conditioning layer, AAAI.

    Examples
    --------
    >>> ContextFilm(5, 3)(torch.ones(2, 3, 4, 4)).shape
    torch.Size([2, 3, 4, 4])
    """

    def __init__(self, n_context: int, channels: int) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(n_context))
        self.film = nn.Linear(n_context, 2 * channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift the channels of `x`, shape (rows, channels, height, width)."""
        scale, shift = self.film(self.context).reshape(2, -1, 1, 1)
        return (1 + scale) * x + shift


def conv4(
    n_in: int,
    n_out: int,
    *,
    image_shape: tuple[int, int, int] | None = None,
    channels: int = 32,
    n_context: int = 0,
) -> nn.Module:
    """Four 3 x 3 convolutions of stride 2 with batch normalisation, mean over space, linear head.

    Parameters
    ----------
    n_in, n_out : int
        Number of input values (channels x height x width) and of outputs.
    image_shape : (int, int, int), default=None
        Channels, height and width of the flat rows; None takes `n_in` as one square grey image.
    channels : int, default=32
        Channels of each convolution.
    n_context : int, default=0
        Context parameters, which scale and shift the channels after the third convolution.

    Returns
    -------
    torch.nn.Module
        Takes flat rows (rows, n_in).

    References
    ----------
    Vinyals et al. (2016), Matching networks for one shot learning, section 3.1; strides in place of pooling as in Finn,
    Abbeel, Levine (2017), appendix A.1. Zintgraf et al. (2019), section 4.3 (context).
    """
    if image_shape is None:
        image_shape = (1, math.isqrt(n_in), math.isqrt(n_in))
    if math.prod(image_shape) != n_in:
        raise InvalidParameterError(
            f"image_shape: got {image_shape} for {n_in} inputs; expected (channels, height, width) with that product."
        )
    layers: list[nn.Module] = [nn.Unflatten(-1, image_shape)]
    width = image_shape[0]
    for k in range(4):
        layers += [nn.Conv2d(width, channels, 3, stride=2, padding=1), nn.BatchNorm2d(channels)]
        layers += [ContextFilm(n_context, channels)] if n_context and k == 2 else []
        layers += [nn.ReLU()]
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
    n_context: int = 0,
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
    n_context : int, default=0
        Context parameters that the network should have: further inputs of a built-in one or of what a factory returns, unless the
        factory takes ``n_context=`` itself. A module, being built, must bring parameters whose name ends in "context".
    seed : int, default=0
        Seed of the random initial weights. Torch's global random state is left as it was.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    InvalidParameterError
        If `module` is none of these, or a factory that does not return a module, or cannot have context parameters.
    """
    if input_shape is not None and math.prod(input_shape) != n_in:
        raise InvalidParameterError(
            f"input_shape: got {tuple(input_shape)} for {n_in} features; expected a shape with that product."
        )
    own_context = n_context > 0 and callable(module) and _takes_context(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if module is None:
            built: Any = mlp(n_in + n_context, n_out, hidden=hidden, activation=activation)
        elif isinstance(module, nn.Module):
            built = copy.deepcopy(module)
        elif callable(module):
            built = module(n_in, n_out, n_context=n_context) if own_context else module(n_in + n_context, n_out)
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
    if n_context and not own_context and not isinstance(module, nn.Module):
        if input_shape is not None:
            raise InvalidParameterError(
                "input_shape: context parameters are further inputs of a row, which has then another shape; let the factory take "
                "n_context= and make a parameter `context` of that length, as conv4 does."
            )
        built = Context(built, n_context)
    if n_context and not any(n.rpartition(".")[2] == CONTEXT for n, _ in built.named_parameters()):
        raise InvalidParameterError(
            "module: has no context parameters to adapt; name a parameter `context`, or give a factory (n_in, n_out) -> module, "
            "whose network then gets them as further inputs."
        )
    return built if input_shape is None else Reshaped(built, input_shape)


def _takes_context(factory: Any) -> bool:
    try:
        return "n_context" in inspect.signature(factory).parameters
    except (TypeError, ValueError):  # no signature to be had
        return False
