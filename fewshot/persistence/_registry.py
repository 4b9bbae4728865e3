"""Which classes a file may name, and how their objects are taken apart and put together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from ..errors import InvalidParameterError, SerializationError

__all__ = [
    "Registered",
    "attributes_of",
    "by_class",
    "by_name",
    "estimator_from_state",
    "estimator_state",
    "from_attributes",
    "register",
]

T = TypeVar("T", bound=type)
State = Mapping[str, Mapping[str, Any]]

# Of a running or interrupted fit; and what belongs to a session rather than to a model.
NOT_SAVED = ("_training", "_skl_callbacks", "_skl_callbacks_to_teardown", "_parent_callback_ctx")


@dataclasses.dataclass(frozen=True)
class Registered:
    """A class that files may name.

    Parameters
    ----------
    cls : type
        The class itself; subclasses are not meant.
    name : str
        Its name in files.
    to_state : callable
        ``object -> {group: {name: value}}`` of values that can be saved.
    from_state : callable
        ``(cls, state) -> object``.
    """

    cls: type
    name: str
    to_state: Callable[[Any], State]
    from_state: Callable[[type, State], Any]


by_class: dict[type, Registered] = {}
by_name: dict[str, Registered] = {}


def register(
    cls: T,
    name: str,
    *,
    to_state: Callable[[Any], State] | None = None,
    from_state: Callable[[type, State], Any] | None = None,
) -> T:
    """Make objects of a class something that :func:`fewshot.save` takes, by themselves or inside others.

    Parameters
    ----------
    cls : type
        The class; subclasses need a call of their own.
    name : str
        Its name in files, never to be changed; by custom ``"medicine.PatientModel"`` for an application's.
    to_state : callable, default=None
        ``object -> {group: {name: value}}``, values of the types that files hold and objects of registered classes. None:
        for dataclasses their fields, for scikit-learn estimators their parameters and fitted attributes.
    from_state : callable, default=None
        ``(cls, state) -> object``, its inverse.

    Returns
    -------
    type
        `cls`.

    Raises
    ------
    InvalidParameterError
        If the name is taken by another class, or only one of the functions is given, or none where both are needed.

    Examples
    --------
    >>> import dataclasses, tempfile, fewshot
    >>> from fewshot.persistence import register
    >>> @dataclasses.dataclass
    ... class Dose:
    ...     milligrams: float
    >>> _ = register(Dose, "example.Dose")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     fewshot.save(Dose(2.5), f"{folder}/dose")
    ...     fewshot.load(f"{folder}/dose")
    Dose(milligrams=2.5)
    """
    taken = by_name.get(name)
    if taken is not None and (taken.cls.__module__, taken.cls.__qualname__) != (cls.__module__, cls.__qualname__):
        raise InvalidParameterError(f"name: {name!r} is taken by {taken.cls.__module__}.{taken.cls.__qualname__}.")
    if (to_state is None) != (from_state is None):
        raise InvalidParameterError("to_state, from_state: got one of them; give both or none.")
    if to_state is None or from_state is None:
        if dataclasses.is_dataclass(cls):
            to_state, from_state = _fields, _from_fields
        elif issubclass(cls, BaseEstimator):
            to_state, from_state = estimator_state, estimator_from_state
        else:
            raise InvalidParameterError(
                f"to_state: needed for {cls.__name__}, which is neither a dataclass nor a scikit-learn estimator."
            )
    by_class[cls] = by_name[name] = Registered(cls, name, to_state, from_state)
    return cls


def _fields(value: Any) -> State:
    return {"fields": {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}}


def _from_fields(cls: type, state: State) -> Any:
    return cls(**state["fields"])


def attributes_of(value: Any) -> State:
    """Everything that an object consists of."""
    return {"attributes": dict(vars(value))}


def from_attributes(cls: type, state: State) -> Any:
    """Inverse of :func:`attributes_of`."""
    value: Any = object.__new__(cls)
    vars(value).update(state["attributes"])
    return value


def estimator_state(estimator: Any) -> dict[str, dict[str, Any]]:
    """Parameters and fitted attributes of an estimator."""
    parameters = estimator.get_params(deep=False)
    fitted = {k: v for k, v in vars(estimator).items() if k not in parameters and k not in NOT_SAVED}
    state = {"parameters": parameters, "fitted": fitted}
    if "_metadata_request" in fitted:
        state["routing"] = routing_state(fitted.pop("_metadata_request"))
    return state


def estimator_from_state(cls: type, state: State) -> Any:
    """Inverse of :func:`estimator_state`."""
    unknown = sorted(set(state["parameters"]) - set(cls._get_param_names()))  # type: ignore[attr-defined]
    if unknown:
        raise SerializationError(
            f"path: the file sets {', '.join(unknown)}, which {cls.__name__} does not have here; it was saved by another "
            "version, use that one."
        )
    estimator = cls(**state["parameters"])
    vars(estimator).update(state["fitted"])
    if "routing" in state:
        set_routing(estimator, state["routing"])
    return estimator


def routing_state(request: MetadataRequest) -> dict[str, Any]:
    """Return what the methods of an estimator request of scikit-learn's metadata routing."""
    return {method: dict(own.requests) for method, own in vars(request).items() if hasattr(own, "requests")}


def set_routing(estimator: Any, routing: Mapping[str, Any]) -> None:
    """Inverse of :func:`routing_state`."""
    request = MetadataRequest(owner=estimator)
    for method, requests in routing.items():
        for name, alias in requests.items():
            getattr(request, method).add_request(param=name, alias=alias)
    estimator._metadata_request = request
