"""Spaces of observations and actions, as the numbers that a policy network reads and writes.

A network sees float32 vectors: the entries of a ``Box``, a one-hot code for a ``Discrete`` observation. It puts out *raw* actions:
one real number for each entry of a ``Box``, where -1 and 1 stand for the bounds, or the code of a ``Discrete`` action. Every
function works over any leading axes at once, since it is called in each time step for all episodes of all tasks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.spaces import Box, Discrete

from fewshot.errors import InvalidDataError, InvalidParameterError

__all__ = [
    "action_map",
    "check_spaces",
    "differ",
    "encode_observations",
    "n_actions",
    "n_observed",
    "to_actions",
    "to_raw",
]

Space = gymnasium.Space[Any]


def check_spaces(observation_space: Space, action_space: Space) -> None:
    """Refuse spaces that policies cannot read or act in.

    Parameters
    ----------
    observation_space, action_space : gymnasium.Space
        Of a single environment.

    Raises
    ------
    InvalidParameterError
        If one is neither a ``Box`` (of any shape and type) nor a ``Discrete``.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete, MultiBinary
    >>> check_spaces(Box(-1.0, 1.0, (3,)), Discrete(2))
    >>> check_spaces(Box(-1.0, 1.0, (3,)), MultiBinary(2))
    Traceback (most recent call last):
        ...
    fewshot.errors.InvalidParameterError: action_space: got MultiBinary(2); expected Box or Discrete; ...
    """
    wrappers = {"observation_space": "FlattenObservation", "action_space": "TransformAction"}
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if not isinstance(space, Box | Discrete):
            raise InvalidParameterError(
                f"{name}: got {space}; expected Box or Discrete; wrap the environment, "
                f"for example in gymnasium.wrappers.{wrappers[name]}"
            )
        if isinstance(space, Box) and np.prod(space.shape) == 0:
            raise InvalidParameterError(f"{name}: got {space}; expected at least one entry; leave out empty spaces")


def differ(got: tuple[Space, Space], expected: tuple[Space, Space]) -> str | None:
    """Say whether a policy for some spaces could not act in an environment with other ones.

    Bounds of observations play no part, since a network reads numbers whatever their bounds say; those of actions do, since they
    are the units in which a policy acts.

    Parameters
    ----------
    got, expected : (gymnasium.Space, gymnasium.Space)
        Of observations and of actions, both Box or Discrete.

    Returns
    -------
    str or None
        The first that differs, ``"observation_space"`` or ``"action_space"``; None if the policy can act.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> differ((Box(0.0, 1.0, (3,)), Discrete(2)), (Box(-5.0, 5.0, (3,)), Discrete(2))) is None
    True
    >>> differ((Box(0.0, 1.0, (3,)), Discrete(2)), (Box(0.0, 1.0, (3,)), Discrete(4)))
    'action_space'
    """
    (ours, _), (theirs, _) = got, expected
    if isinstance(ours, Discrete) or isinstance(theirs, Discrete):
        same = ours == theirs
    else:
        same = (type(ours), ours.shape, ours.dtype) == (type(theirs), theirs.shape, theirs.dtype)
    return "observation_space" if not same else "action_space" if got[1] != expected[1] else None


def n_observed(space: Space) -> int:
    """Count the inputs of a network that reads observations from a space.

    Parameters
    ----------
    space : Box or Discrete
        Of observations.

    Returns
    -------
    int

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> n_observed(Box(-1.0, 1.0, (2, 3))), n_observed(Discrete(5))
    (6, 5)
    """
    return int(space.n) if isinstance(space, Discrete) else int(np.prod(space.shape or ()))


def n_actions(space: Space) -> int:
    """Count the entries of a Box action, or the choices of a Discrete one.

    Parameters
    ----------
    space : Box or Discrete
        Of actions.

    Returns
    -------
    int

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> n_actions(Box(-1.0, 1.0, (2,))), n_actions(Discrete(3, start=1))
    (2, 3)
    """
    return n_observed(space)


def encode_observations(
    space: Space,
    observations: npt.ArrayLike,
    *,
    name: str = "observations",
    remedy: str = "mend the environment's observation_space",
) -> npt.NDArray[np.float32]:
    """Turn observations into what a network reads.

    Parameters
    ----------
    space : Box or Discrete
        Of a single observation.
    observations : array-like of shape (..., *space.shape)
        Any number of them.
    name : str, default="observations"
        Of the argument, in error messages.
    remedy : str, default="mend the environment's observation_space"
        What to do, in error messages.

    Returns
    -------
    ndarray of float32 of shape (..., n_observed(space))
        Flattened entries of a Box; one-hot codes of a Discrete.

    Raises
    ------
    InvalidDataError
        If the shape does not end in the space's, or a discrete observation is none of its values.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> encode_observations(Box(-1.0, 1.0, (2,)), [[0.5, 1.0]])
    array([[0.5, 1. ]], dtype=float32)
    >>> encode_observations(Discrete(3, start=1), [1, 3])
    array([[1., 0., 0.],
           [0., 0., 1.]], dtype=float32)
    """
    values = np.asarray(observations)
    if isinstance(space, Discrete):
        codes = values - space.start
        hot: npt.NDArray[np.float32] = (codes[..., None] == np.arange(space.n)).astype(np.float32)
        if not hot.any(axis=-1).all():
            raise InvalidDataError(
                f"{name}: got a value that is not in {space}; expected integers from {space.start} to "
                f"{space.start + space.n - 1}; {remedy}"
            )
        return hot
    shape = space.shape or ()
    n_leading = values.ndim - len(shape)
    if n_leading < 0 or values.shape[n_leading:] != shape:
        raise InvalidDataError(
            f"{name}: got shape {values.shape}; expected (..., {', '.join(map(str, shape))}) as in {space}; {remedy}"
        )
    return values.reshape(*values.shape[:n_leading], n_observed(space)).astype(np.float32, copy=False)


def to_actions(space: Space, raw: npt.ArrayLike) -> npt.NDArray[Any]:
    """Turn what a policy draws into actions of the environment.

    Parameters
    ----------
    space : Box or Discrete
        Of a single action.
    raw : array-like of shape (..., n)
        For a Box one number for each of its n entries: 0 is the middle of its bounds, -1 and 1 are the bounds, and what lies
        beyond is clipped; an entry with an infinite bound is taken as it is. For a Discrete n is 1: the code, from 0 on.

    Returns
    -------
    ndarray of shape (..., *space.shape)
        In the type of the space, so that a Box of integers gets rounded numbers.

    Raises
    ------
    InvalidDataError
        If the last axis of `raw` has another length.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> to_actions(Box(0.0, 10.0, (2,)), [[0.0, 0.5], [-1.0, 3.0]])
    array([[ 5. ,  7.5],
           [ 0. , 10. ]], dtype=float32)
    >>> to_actions(Discrete(3, start=1), [[0.0], [2.0]])
    array([1, 3])
    """
    return action_map(space)(np.asarray(raw))


def action_map(space: Space) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    """Return :func:`to_actions` for a space: what depends on the space alone is done once, not at every time step.

    Parameters
    ----------
    space : Box or Discrete
        Of a single action.

    Examples
    --------
    >>> from gymnasium.spaces import Box
    >>> action_map(Box(0.0, 10.0, (2,)))(np.array([[0.0, 0.5]]))
    array([[5. , 7.5]], dtype=float32)
    """
    n_values = 1 if isinstance(space, Discrete) else n_observed(space)

    def check(raw: npt.NDArray[Any]) -> None:
        if not raw.ndim or raw.shape[-1] != n_values:
            raise InvalidDataError(
                f"raw: got shape {raw.shape}; expected (..., {n_values}) for {space}; build the policy for this space"
            )

    if isinstance(space, Discrete):

        def codes(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
            check(raw)
            return raw[..., 0].astype(space.dtype) + space.start

        return codes
    assert isinstance(space, Box)
    low, high, centre, half = _bounds(space)
    shape, dtype, whole = space.shape, space.dtype, space.dtype.kind != "f"
    if whole and dtype.itemsize == 8:  # the largest 64-bit integer has no float64: the next above it would overflow
        high = np.minimum(high, np.nextafter(2.0 ** (64 if dtype.kind == "u" else 63), 0.0))

    def values(raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
        check(raw)
        found = raw * half
        found += centre
        if whole:
            np.rint(found, out=found)
        np.minimum(np.maximum(found, low, out=found), high, out=found)
        return found.reshape((*found.shape[:-1], *shape)).astype(dtype)

    return values


def to_raw(space: Space, actions: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Undo :func:`to_actions`, as far as clipping and rounding allow.

    Parameters
    ----------
    space : Box or Discrete
        Of a single action.
    actions : array-like of shape (..., *space.shape)
        Actions of the environment.

    Returns
    -------
    ndarray of float32 of shape (..., n)
        What a policy would have drawn.

    Examples
    --------
    >>> from gymnasium.spaces import Box, Discrete
    >>> to_raw(Box(-0.5, 0.5, (2,)), [[0.5, -0.25]])
    array([[ 1. , -0.5]], dtype=float32)
    >>> to_raw(Discrete(3, start=1), [1, 3])
    array([[0.],
           [2.]], dtype=float32)
    """
    values = np.asarray(actions)
    if isinstance(space, Discrete):
        return (values - space.start).astype(np.float32)[..., None]
    assert isinstance(space, Box)
    _, _, centre, half = _bounds(space)
    flat = values.reshape(*values.shape[: values.ndim - len(space.shape)], -1).astype(np.float64)
    return ((flat - centre) / np.where(half > 0, half, 1.0)).astype(np.float32)


def _bounds(space: Box) -> tuple[npt.NDArray[np.float64], ...]:
    """Low and high of each entry, and the middle and half the width between them: 0 and 1 where one is infinite."""
    low, high = space.low.ravel().astype(np.float64), space.high.ravel().astype(np.float64)
    bounded = (space.bounded_below & space.bounded_above).ravel()
    # Halves before the difference: the width of a Box that holds most of a type is itself too large for it.
    below, above = np.where(bounded, low / 2, 0.0), np.where(bounded, high / 2, 0.0)
    return low, high, below + above, np.where(bounded, above - below, 1.0)
