"""Which of two outcomes is the favourable one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidDataError, InvalidParameterError

__all__ = ["favourable_label"]


def favourable_label(labels: npt.ArrayLike, pos_label: Any = None) -> Any:
    """Return the label that is named, or the greater of two numbers.

    Parameters
    ----------
    labels : array-like
        The labels, or outcomes with these labels.
    pos_label : label, default=None
        The favourable one.

    Raises
    ------
    InvalidDataError
        If there are not two labels.
    InvalidParameterError
        If `pos_label` is none of them, or is not given where they are not numbers.

    Examples
    --------
    >>> favourable_label([0, 1, 1]), favourable_label(["granted", "refused"], "granted")
    (1, 'granted')
    """
    found = np.unique(np.asarray(labels))
    if len(found) != 2:
        raise InvalidDataError(f"y: got {len(found)} classes; with sensitive_features there must be two.")
    if pos_label is None:
        if found.dtype.kind not in "buif":
            raise InvalidParameterError(
                f"pos_label: got None, and of the labels {found.tolist()} none is greater in a sense that matters; name the "
                "favourable outcome."
            )
        return found.tolist()[1]
    if pos_label not in found.tolist():
        raise InvalidParameterError(f"pos_label: got {pos_label!r}; expected one of {found.tolist()}.")
    return found.tolist()[found.tolist().index(pos_label)]
