"""The algorithms of the family by name: what each says about the settings that a user leaves open.

An algorithm is a set of defaults for one engine, and a few restrictions: settings that it has no use for are refused. Explicit
settings win otherwise, so that ``algorithm="anil"`` with ``order="first"`` is first-order ANIL. The mathematics of each is in
``docs/algorithms.md``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import InvalidParameterError

__all__ = ["ALGORITHMS", "STACKS", "Algorithm", "get_algorithm"]

# What a setting at None is, where the algorithm does not say otherwise.
DEFAULTS: dict[str, Any] = {
    "inner_steps": 5,
    "inner_lr": 0.1,
    "learn_step_sizes": "tensor",
    "inner_optimizer": "gradient_descent",
    "proximal": 0.0,
    "adapted": "all",
    "order": "exact",
    "multi_step_loss": False,
    "batch_norm": "episode",
    "n_context": 32,
    "head_objective": "predictive",
}
# Values by which a user may leave out, in words, what an algorithm leaves out anyhow.
OFF: dict[str, Any] = {"inner_steps": 0, "learn_step_sizes": False, "multi_step_loss": False, "proximal": 0}


@dataclass(frozen=True)
class Algorithm:
    """An algorithm of the family.

    Parameters
    ----------
    name : str
        As in ``algorithm=``.
    settings : mapping of str to object
        What settings at None become, where that is not as for MAML.
    refuses : mapping of str to str
        Settings that it has no use for, with the reason.
    head : {"ridge", "gaussian_process"}, default=None
        What replaces the last layer, and the inner steps with it.
    worst_tasks : bool, default=False
        Tasks with large losses get more weight.

    Examples
    --------
    >>> ALGORITHMS["anil"].resolve({"inner_lr": 0.5})["adapted"]
    'head'
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    refuses: Mapping[str, str] = field(default_factory=dict)
    head: Literal["ridge", "gaussian_process"] | None = None
    worst_tasks: bool = False

    def resolve(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Fill in what is None.

        Parameters
        ----------
        given : mapping of str to object
            Settings by name; those that algorithms say nothing about are left out of the result.

        Raises
        ------
        InvalidParameterError
            If one was given that the algorithm has no use for.
        """
        resolved = {}
        for name, usual in DEFAULTS.items():
            off = OFF.get(name) if name in self.refuses else None
            said = self.settings.get(name, off)
            value = given.get(name)
            if value is None:
                value = usual if said is None else said
            elif name in self.refuses and not (type(value) is type(said) and value == said):
                raise InvalidParameterError(
                    f"{name}: got {value!r}, which algorithm={self.name!r} cannot take, since {self.refuses[name]}; leave "
                    f"{name} at None, or choose another algorithm."
                )
            resolved[name] = value
        if resolved["learn_step_sizes"] is True:
            resolved["learn_step_sizes"] = "tensor"
        return resolved


GRADIENT_STEPS = {"head_objective": "it adapts by gradient steps and has no head in closed form"}
OF_A_HEAD = {
    name: "it solves the last layer in closed form and takes no gradient steps"
    for name in (
        "inner_steps",
        "inner_lr",
        "learn_step_sizes",
        "inner_optimizer",
        "proximal",
        "adapted",
        "order",
        "multi_step_loss",
    )
}
OF_REPTILE = {
    "learn_step_sizes": "it learns from where adaptation ends, which says nothing about how far steps should go",
    "order": "it takes no derivative through the inner steps",
    "multi_step_loss": "it does not judge the query",
    "adapted": "parameters that do not move would not be learned",
    **GRADIENT_STEPS,
}
OF_IMPLICIT = {
    "learn_step_sizes": "its gradient is that of the inner problem's solution, which does not depend on the step sizes",
    "order": "its gradient is implicit",
    "multi_step_loss": "its gradient is that of the inner problem's solution alone",
    **GRADIENT_STEPS,
}

OF_A_MAP = {name: "it takes Newton steps on coefficients and has no network" for name in DEFAULTS}
STACKS = ("auto", "map")  # what is more than one network

ALGORITHMS: dict[str, Algorithm] = {
    algorithm.name: algorithm
    for algorithm in (
        # Settings are handed on to those members that have a use for them; where there can be no stack, it is MAML.
        Algorithm("auto"),
        Algorithm("map", {}, OF_A_MAP),
        Algorithm("maml", {}, GRADIENT_STEPS),
        Algorithm("fomaml", {"order": "first"}, GRADIENT_STEPS),
        Algorithm("anil", {"adapted": "head"}, GRADIENT_STEPS),
        Algorithm("boil", {"adapted": "body"}, GRADIENT_STEPS),
        Algorithm("meta-sgd", {"learn_step_sizes": "parameter"}, GRADIENT_STEPS),
        Algorithm(
            "maml++",
            {"order": "annealed", "multi_step_loss": True, "batch_norm": "per_step"},
            GRADIENT_STEPS,
        ),
        # Its step sizes, learned, tend to zero while a context of many parameters still says nothing: fixed, as in the paper.
        Algorithm(
            "cavia",
            {"adapted": "context", "inner_lr": 1.0, "learn_step_sizes": False},
            {"adapted": "its context is all that moves", **GRADIENT_STEPS},
        ),
        Algorithm("reptile", {"inner_steps": 30, "inner_lr": 0.02, "order": "reptile"}, OF_REPTILE),
        Algorithm("tr-maml", {}, GRADIENT_STEPS, worst_tasks=True),
        Algorithm("ridge", {"adapted": "head", "inner_steps": 0}, OF_A_HEAD, head="ridge"),
        Algorithm("dkt", {"adapted": "head", "inner_steps": 0}, OF_A_HEAD, head="gaussian_process"),
        Algorithm(
            "imaml",
            # Descent with a fixed step size diverges here: nothing in the implicit gradient keeps the loss flat enough for it.
            {"inner_optimizer": "adam", "inner_steps": 30, "inner_lr": 0.02, "proximal": 0.3, "order": "implicit"},
            OF_IMPLICIT,
        ),
    )
}


def get_algorithm(name: Any) -> Algorithm:
    """Return the algorithm of this name.

    Raises
    ------
    InvalidParameterError
        If there is none.

    Examples
    --------
    >>> get_algorithm("fomaml").settings
    {'order': 'first'}
    """
    if isinstance(name, str) and name in ALGORITHMS:
        return ALGORITHMS[name]
    close = difflib.get_close_matches(str(name).lower().replace("_", "-"), ALGORITHMS, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise InvalidParameterError(f"algorithm: got {name!r}{hint}; expected one of {', '.join(map(repr, ALGORITHMS))}.")
