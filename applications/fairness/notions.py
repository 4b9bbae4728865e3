"""Notions of group fairness: which rates of favourable decisions are compared, and among which rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fewshot.errors import InvalidParameterError

__all__ = ["BOUNDED_GROUP_LOSS", "NOTIONS", "Notion", "notion_of"]


@dataclass(frozen=True)
class Notion:
    """A notion of group fairness.

    Parameters
    ----------
    name : str
        As the parameter `constraint` takes it.
    events : tuple of str
        Rows among which the groups' rates of favourable decisions are compared: "all", "positive" (whose outcome was favourable)
        and "negative".
    """

    name: str
    events: tuple[str, ...]

    @property
    def needs_labels(self) -> bool:
        """Whether the rates can only be known where outcomes are."""
        return self.events != ("all",)

    @property
    def bounds_losses(self) -> bool:
        """Whether losses are bounded, and no rates compared."""
        return not self.events

    def among(self, favourable: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return which rows each event holds, shape (events, rows); `favourable` are the outcomes."""
        of = {"all": np.ones(len(favourable), dtype=bool), "positive": favourable, "negative": ~favourable}
        return np.stack([of[event] for event in self.events])

    def chances(self, probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return how likely rows are to be of each event, shape (events, rows), by the probability of a favourable outcome."""
        of = {"all": np.ones(len(probability)), "positive": probability, "negative": 1 - probability}
        return np.stack([of[event] for event in self.events])


NOTIONS = {
    notion.name: notion
    for notion in (
        Notion("demographic_parity", ("all",)),
        Notion("equal_opportunity", ("positive",)),
        Notion("false_positive_rate_parity", ("negative",)),
        Notion("equalized_odds", ("positive", "negative")),
    )
}


# Each group's loss has a bound; no rates are compared.
BOUNDED_GROUP_LOSS = Notion("bounded_group_loss", ())


def notion_of(name: str, parameter: str = "constraint", *, losses: bool = False) -> Notion:
    """Return a notion by name, or raise an error that lists them; with `losses` also the one about losses."""
    known = NOTIONS | ({BOUNDED_GROUP_LOSS.name: BOUNDED_GROUP_LOSS} if losses else {})
    if not isinstance(name, str) or name not in known:
        raise InvalidParameterError(f"{parameter}: got {name!r}; expected one of {', '.join(map(repr, known))}.")
    return known[name]
