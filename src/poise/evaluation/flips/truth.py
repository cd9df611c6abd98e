"""What is certain of a statement about each example, and what is possible, where some verdicts are still open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from poise.evaluation.profile import Profile

Rows = Int[np.ndarray, " m"]
"""Examples by their rows."""


class Count(NamedTuple):
    """How many of some examples have a property.

    Attributes:
        certain: those that have it whatever the open verdicts turn out to be.
        possible: those that have it or may yet; equal to `certain` once every verdict is in.
        total: examples in all.
    """

    certain: int
    possible: int
    total: int

    @property
    def settled(self) -> bool:
        """Whether the count is known."""
        return self.certain == self.possible


@dataclass(frozen=True)
class Truth:
    """A statement about each example at each grid point: true, false, or open.

    Statements combine by Kleene's logic, so bounds stay bounds.

    Args:
        certain: where it is known to be true.
        possible: where it is not known to be false.
    """

    certain: Bool[np.ndarray, "n points"]
    possible: Bool[np.ndarray, "n points"]

    @classmethod
    def of(cls, profile: Profile, rows: Rows | None = None) -> Truth:
        """That the example is classified correctly at the grid point, whatever the attack; by default for all rows."""
        points = np.arange(len(profile.epsilons))[None, :]
        chosen = slice(None) if rows is None else rows
        return cls(profile.robust_to[chosen, None] >= points, profile.broken_from[chosen, None] > points)

    def __and__(self, other: Truth) -> Truth:
        return Truth(self.certain & other.certain, self.possible & other.possible)

    def __or__(self, other: Truth) -> Truth:
        return Truth(self.certain | other.certain, self.possible | other.possible)

    def __invert__(self) -> Truth:
        return Truth(~self.possible, ~self.certain)

    def clean(self) -> Truth:
        """The same statement about the clean image, repeated at each grid point."""
        repeated = [np.broadcast_to(each[:, :1], each.shape) for each in (self.certain, self.possible)]
        return Truth(*repeated)

    def counts(self) -> list[Count]:
        """How many examples it is true of, at each grid point."""
        sums = zip(self.certain.sum(axis=0).tolist(), self.possible.sum(axis=0).tolist(), strict=True)
        return [Count(low, high, len(self.certain)) for low, high in sums]
