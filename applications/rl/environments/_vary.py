"""Tasks that differ in attributes, constructor arguments and model arrays of a registered environment.

An attribute that the environment lacks is refused: Python, and Gymnasium's ``set_attr``, would accept a misspelt name in silence,
and all tasks would be the same.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from fewshot.errors import InvalidParameterError

from ..checks import check_range
from ._derived import derive_known

__all__ = ["Variation"]

Env = gymnasium.Env[Any, Any]
Draw = Callable[[np.random.Generator], Any]


def _drawer(name: str, choices: Any) -> Draw:
    """Turn a range, choices or a function into a function that draws a value."""
    if callable(choices):
        return choices
    if isinstance(choices, tuple) and len(choices) == 2 and all(isinstance(end, Real) for end in choices):
        low, high = check_range(name, choices)
        return lambda rng: float(rng.uniform(low, high))
    if isinstance(choices, set | frozenset):
        choices = sorted(choices, key=repr)  # the order of a set of strings differs from process to process
    if isinstance(choices, list | range | np.ndarray) and len(choices):
        entries = choices.tolist() if isinstance(choices, np.ndarray) else list(choices)
        return lambda rng: entries[int(rng.integers(len(entries)))]
    raise InvalidParameterError(
        f"{name}: got {choices!r}; expected a range (low, high), a list or set of values, or a function of a "
        "numpy.random.Generator; a list with one entry sets a constant"
    )


def _constructor_arguments(spec: Any) -> set[str]:
    """Names that the environment's constructor takes."""
    point = spec.entry_point
    if point is None:
        return set()
    creator = load_env_creator(point) if isinstance(point, str) else point
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return {p.name for p in inspect.signature(creator).parameters.values() if p.kind in kinds} | set(spec.kwargs)


def _plain_attributes(env: Any) -> set[str]:
    """Names of the attributes of an unwrapped environment that hold data."""
    return {
        name
        for name in {*dir(type(env)), *vars(env)}
        if not name.startswith("__") and not callable(getattr(env, name, None))
    }


class Variation:
    """A sampler and a maker of one registered environment with varied properties.

    Parameters
    ----------
    env_id : str
        Registered name.
    choices : mapping of str to range, list, set or callable
        What varies; see :meth:`fewshot.applications.rl.environments.families.EnvFamily.vary`.
    derive : callable or None
        Called with the unwrapped environment after its attributes are set.
    wrap : callable or None
        Called with the environment, returns a wrapped one.
    horizon : int or None
        Replaces the registered limit of time steps.
    constants : mapping or None
        Constructor arguments that are the same for all tasks.
    """

    def __init__(
        self,
        env_id: str,
        choices: Mapping[str, Any],
        derive: Callable[[Any], object] | None,
        wrap: Callable[[Env], Env] | None,
        horizon: int | None,
        constants: Mapping[str, Any] | None,
    ) -> None:
        self.env_id, self.derive, self.wrap, self.horizon = env_id, derive, wrap, horizon
        self.constants = dict(constants or {})
        self.draws = {name: _drawer(name, choices[name]) for name in choices}
        try:
            spec = gymnasium.spec(env_id)
        except gymnasium.error.Error as error:
            raise InvalidParameterError(
                f"env_id: got {env_id!r}; expected a registered environment; {' '.join(str(error).split())}"
            ) from error
        arguments = _constructor_arguments(spec)
        self.arguments = [name for name in self.draws if name in arguments]
        self.attributes = [name for name in self.draws if name not in arguments]
        probe = self._build({})
        try:
            for name in self.attributes:
                self._check_attribute(probe.unwrapped, name, arguments)
        finally:
            probe.close()

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw one value of each varied property, in the order in which they were given."""
        return {name: draw(rng) for name, draw in self.draws.items()}

    def make(self, parameters: Mapping[str, Any]) -> Env:
        """Build the environment of a task."""
        if not isinstance(parameters, Mapping) or set(parameters) != set(self.draws):
            raise InvalidParameterError(
                f"parameters: got {parameters!r}; expected a dict with the keys {sorted(self.draws)}; call sample(rng)"
            )
        env = self._build({name: parameters[name] for name in self.arguments})
        inner = env.unwrapped
        for name in self.attributes:
            self._set(inner, name, parameters[name])
        if any("." in name for name in self.attributes):
            _refresh_mujoco(inner)
        derive_known(inner, self.draws)
        if self.derive is not None:
            self.derive(inner)
        return env if self.wrap is None else self.wrap(env)

    def _build(self, varied: Mapping[str, Any]) -> Env:
        # The checker compares every observation with the space, which costs as much as a small environment.
        return gymnasium.make(
            self.env_id,
            max_episode_steps=self.horizon,
            disable_env_checker=True,
            **{**self.constants, **varied},
        )

    def _check_attribute(self, env: Any, name: str, arguments: set[str]) -> None:
        """Refuse what cannot be varied, with what may have been meant."""
        owner, last = _owner(env, name)
        if owner is None or not hasattr(owner, last):
            known = _plain_attributes(env) | arguments
            if "." in name and owner is not None:
                known = {name[: -len(last)] + other for other in _plain_attributes(owner)}
            by_lower = {other.lower(): other for other in known}
            meant = difflib.get_close_matches(name.lower(), sorted(by_lower), n=1, cutoff=0.7)
            hint = f"did you mean {by_lower[meant[0]]!r}?" if meant else f"it has {', '.join(sorted(_numbers(env)))}"
            raise InvalidParameterError(
                f"{name}: got a name that {type(env).__name__} lacks; expected an attribute of the unwrapped "
                f"environment, an argument of its constructor or a path such as 'model.body_mass'; {hint}"
            )
        if callable(getattr(owner, last)):
            raise InvalidParameterError(
                f"{name}: got a method of {type(env).__name__}; expected an attribute that holds data; use wrap= for behaviour"
            )

    @staticmethod
    def _set(env: Any, name: str, value: Any) -> None:
        """Set an attribute, or scale what a path leads to."""
        owner, last = _owner(env, name)
        before = getattr(owner, last)
        if "." in name:
            value = before * np.asarray(value)
        if isinstance(before, np.ndarray):
            if np.shape(value) != before.shape:
                raise InvalidParameterError(
                    f"{name}: got a value of shape {np.shape(value)}; expected {before.shape}; "
                    "draw it with a function of a generator"
                )
            if "." in name:  # arrays of a model are views of memory that has to stay
                before[...] = value
                return
            value = np.asarray(value, before.dtype)
        setattr(owner, last, value)


def _owner(env: Any, name: str) -> tuple[Any, str]:
    """Follow a dotted name to the object that has its last part; None if it leads nowhere."""
    *path, last = name.split(".")
    for part in path:
        env = getattr(env, part, None)
    return env, last


def _numbers(env: Any) -> Sequence[str]:
    """Names of public attributes that are numbers."""
    return [
        name
        for name in _plain_attributes(env)
        if not name.startswith("_") and isinstance(getattr(env, name, None), Real) and name not in ("isopen",)
    ]


def _refresh_mujoco(env: Any) -> None:
    """Let MuJoCo recompute what it derives from a model's masses and sizes."""
    model, data = getattr(env, "model", None), getattr(env, "data", None)
    if type(model).__module__.partition(".")[0] == "mujoco":
        import mujoco

        mujoco.mj_setConst(model, data)
