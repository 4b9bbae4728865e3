"""Copies of an environment, each with all that was changed in it.

``copy.deepcopy`` would build an ``EzPickle`` environment (MuJoCo's, Box2D's) anew from the arguments of its constructor and lose
every attribute that was set afterwards; so attributes are copied, whatever the class says. Nor would it copy functions: those that
look at the environment (``lambda reward: reward - env.unwrapped.speed``, or ``ClipAction``'s own) would look at the original from
every copy; so they are made anew, with the copy in the environment's place.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import types
from collections.abc import Iterator
from typing import Any

import gymnasium

from fewshot.errors import InvalidParameterError

from .failures import describe_cause

__all__ = ["copy_env"]

FEW = 100  # values of a list or dict that may hold functions; longer ones hold data

Env = gymnasium.Env[Any, Any]


def copy_env(env: Env) -> Env:
    """Copy an environment with all that was changed in it.

    Parameters
    ----------
    env : gymnasium.Env
        Stays as it is.

    Returns
    -------
    gymnasium.Env

    Raises
    ------
    InvalidParameterError
        If something in it cannot be copied.

    Examples
    --------
    >>> import gymnasium
    >>> env = gymnasium.make("CartPole-v1")
    >>> env.unwrapped.length = 0.9
    >>> other = copy_env(env)
    >>> other.unwrapped.length, other.unwrapped is env.unwrapped
    (0.9, False)
    """
    try:
        return _Copier(env).made
    except Exception as error:
        raise InvalidParameterError(
            f"family: got {env}, which cannot be copied ({describe_cause(error)}); expected one that can; "
            "give EnvFamily(make=..., sample=...) with a function that builds it"
        ) from error


class _Copier:
    """One copy.

    Parameters
    ----------
    env : gymnasium.Env
        The original.

    Attributes
    ----------
    made : gymnasium.Env
        The copy.
    """

    def __init__(self, env: Env) -> None:
        chain = [env]
        while isinstance(chain[-1], gymnasium.Wrapper):
            chain.append(chain[-1].env)
        # All of them first, empty, so that whatever is met in one finds the copies of the others.
        self._memo: dict[int, Any] = {id(one): object.__new__(type(one)) for one in chain}
        self._envs = set(self._memo)
        for one in chain:
            vars(self._memo[id(one)]).update({name: self._copied(value) for name, value in vars(one).items()})
        self.made: Env = self._memo[id(env)]

    def _copied(self, value: Any) -> Any:
        """Copy a value; what copies of it were made before is found again."""
        if id(value) in self._memo:
            return self._memo[id(value)]
        if not self._is_bound(value, set()):
            return copy.deepcopy(value, self._memo)
        made: Any
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.MethodType):
            made = types.MethodType(self._copied(value.__func__), self._copied(value.__self__))
        elif isinstance(value, functools.partial):
            keywords = {name: self._copied(part) for name, part in value.keywords.items()}
            made = functools.partial(self._copied(value.func), *map(self._copied, value.args), **keywords)
        elif isinstance(value, dict):
            made = {key: self._copied(part) for key, part in value.items()}
        else:
            made = type(value)(map(self._copied, value))
        self._memo[id(value)] = made
        return made

    def _is_bound(self, value: Any, seen: set[int]) -> bool:
        """Whether a function, or something simple that holds functions, looks at one of the environments."""
        if id(value) in self._envs:
            return True
        if id(value) in seen:
            return False
        seen.add(id(value))
        return any(self._is_bound(part, seen) for part in _parts(value))

    def _function(self, function: types.FunctionType) -> types.FunctionType:
        """Make a function anew that looks at the copies."""
        cells = tuple(types.CellType() for _ in function.__closure__ or ())
        variables = {name: value for name, value in _globals(function) if self._is_bound(value, set())}
        own = dict(function.__globals__) if variables else function.__globals__
        made = types.FunctionType(function.__code__, own, function.__name__, None, cells)
        self._memo[id(function)] = made  # before its parts, which may hold it
        made.__defaults__ = function.__defaults__ and tuple(map(self._held, function.__defaults__))
        made.__kwdefaults__ = function.__kwdefaults__ and {k: self._held(v) for k, v in function.__kwdefaults__.items()}
        for cell, before in zip(cells, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # a variable that was deleted
                cell.cell_contents = self._held(before.cell_contents)
        own.update({name: self._held(value) for name, value in variables.items()})
        return made

    def _held(self, value: Any) -> Any:
        """Copy what a function holds, if it looks at an environment; all else is shared, as functions share it."""
        return self._copied(value) if self._is_bound(value, set()) else value


def _parts(value: Any) -> Iterator[Any]:
    """List what a function, or something simple that may hold functions, refers to."""
    if isinstance(value, types.FunctionType):
        for cell in value.__closure__ or ():
            with contextlib.suppress(ValueError):
                yield cell.cell_contents
        yield from value.__defaults__ or ()
        yield from (value.__kwdefaults__ or {}).values()
        yield from (variable for _, variable in _globals(value))
    elif isinstance(value, types.MethodType):
        yield from (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif type(value) in (dict, list, tuple) and len(value) <= FEW:
        yield from value.values() if isinstance(value, dict) else value


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """List global variables that a function, or one within it, names: environments, and functions of the same module."""
    codes = [function.__code__]
    for code in codes:
        for name in code.co_names:
            value = function.__globals__.get(name)
            if isinstance(value, gymnasium.Env) or getattr(value, "__globals__", None) is function.__globals__:
                yield name, value
        codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
