"""One trial of a search, as it is shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A trial that has ended.

    Args:
        number: its number in the study.
        values: what was tried, by the dotted names of the options.
        value: the figure that the search maximises, where the trial stood at its end; None where it had none.
        state: "finished" or "stopped".
        figures: whatever else was measured.
        within: whether the bounds were kept.
    """

    number: int
    values: Mapping[str, Any]
    value: float | None
    state: str
    figures: Mapping[str, float]
    within: bool

    @property
    def eligible(self) -> bool:
        """Whether it may be the best."""
        return self.state == "finished" and self.within and self.value is not None


def best_of(tried: list[Tried]) -> Tried | None:
    """The trial with the highest figure among those that were finished within the bounds; the first among equals."""
    return max((each for each in tried if each.eligible), key=lambda each: each.value or 0.0, default=None)
