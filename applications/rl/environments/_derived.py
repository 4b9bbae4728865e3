"""Attributes of Gymnasium's environments that are computed once, when they are built, from others.

Setting CartPole's ``length`` afterwards leaves ``polemass_length`` as it was, so the pole would have the old length in one term of
its dynamics and the new one in another. A name that is varied itself is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

__all__ = ["derive_known"]

# class name: {attribute: how it follows from the others}. By name, so that nothing has to be imported to look.
FORMULAS: dict[str, dict[str, Callable[[Any], float]]] = {
    "CartPoleEnv": {
        "total_mass": lambda env: env.masspole + env.masscart,
        "polemass_length": lambda env: env.masspole * env.length,
    },
    # The length of the second link enters the dynamics through its centre of mass only.
    "AcrobotEnv": {
        "LINK_COM_POS_1": lambda env: env.LINK_LENGTH_1 / 2,
        "LINK_COM_POS_2": lambda env: env.LINK_LENGTH_2 / 2,
    },
}


def derive_known(env: Any, varied: Collection[str]) -> None:
    """Recompute what follows from attributes that were set, for the environments listed here and their subclasses.

    Parameters
    ----------
    env : gymnasium.Env
        Unwrapped.
    varied : collection of str
        Names that were set, which are kept.
    """
    for kind in type(env).__mro__:
        for name, formula in FORMULAS.get(kind.__name__, {}).items():
            if name not in varied:
                setattr(env, name, formula(env))
