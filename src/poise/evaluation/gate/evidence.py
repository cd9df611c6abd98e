"""What a profile says about a figure of the whole population: a value, a bound, and the doubt that a limit is kept."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from scipy import special

from poise.evaluation.curve import share
from poise.evaluation.flips.truth import Count

Side = Literal["at_most", "at_least"]

_ROUNDING = 1e-12


class Evidence(ABC):
    """A figure measured on some examples.

    `low` and `high` are the values that it takes on these very examples; they differ while verdicts are open.
    """

    @property
    @abstractmethod
    def low(self) -> float:
        """The least value that open verdicts allow."""

    @property
    @abstractmethod
    def high(self) -> float:
        """The largest value that open verdicts allow."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """How many examples the figure is measured on; at least 1."""

    def value(self, side: Side) -> float:
        """The least favourable value that open verdicts allow."""
        return self.high if side == "at_most" else self.low

    def breaks(self, limit: float, side: Side) -> bool:
        """Whether the value lies beyond the limit however open verdicts turn out."""
        return self.low > limit + _ROUNDING if side == "at_most" else self.high < limit - _ROUNDING

    def keeps(self, limit: float, side: Side) -> bool:
        """Whether the value lies within the limit however open verdicts turn out."""
        return self.high <= limit + _ROUNDING if side == "at_most" else self.low >= limit - _ROUNDING


class Bounded(Evidence):
    """A figure of a population, from which the examples were drawn independently.

    Every doubt and every bound allows for the worst that open verdicts may turn out to be.
    """

    searched: ClassVar[int] = 10**9
    """Up to how many examples a number that is enough is searched for."""

    @abstractmethod
    def doubt(self, limit: float, side: Side) -> float:
        """A p-value against the hypothesis that the population breaks the limit.

        If it does, a doubt of at most q comes up with a probability of at most q, for each q in (0, 1) and any number
        of examples. A limit at the end of the range, which nothing can break, leaves no doubt.
        """

    @abstractmethod
    def bound(self, level: float, side: Side) -> float:
        """The one-sided confidence bound: the limits that are kept with a doubt of at most `level` begin here."""

    @abstractmethod
    def resized(self, examples: int, side: Side) -> Bounded:
        """The same value on another number of examples, rounded to what is less favourable on this side."""

    def needed(self, limit: float, level: float, side: Side) -> int | None:
        """About how many examples, at the same value, would bring the bound within the limit; None for no number.

        They are searched for, as the bounds of rare events come closer faster than with the root of their number; only
        beyond `searched` they are taken to come closer with the root.
        """
        margin = limit - self.value(side) if side == "at_most" else self.value(side) - limit
        if margin <= _ROUNDING:
            return None
        few, enough = 0, self.examples
        while self.resized(enough, side).doubt(limit, side) > level:
            if enough > self.searched:
                width = abs(self.resized(enough, side).bound(level, side) - self.value(side))
                return math.ceil(enough * (width / margin) ** 2)
            few, enough = enough, 2 * enough
        while few + 1 < enough:
            middle = (few + enough) // 2
            shown = self.resized(middle, side).doubt(limit, side) <= level
            few, enough = (few, middle) if shown else (middle, enough)
        return enough


@dataclass(frozen=True)
class Ratio(Evidence):
    """A ratio that is shown as it is, without a bound.

    Args:
        measured: its value.
        of: examples that it was measured on.
    """

    measured: float
    of: int

    @property
    def low(self) -> float:
        """See `Evidence`."""
        return self.measured

    @property
    def high(self) -> float:
        """See `Evidence`."""
        return self.measured

    @property
    def examples(self) -> int:
        """See `Evidence`."""
        return self.of


@dataclass(frozen=True)
class Share(Bounded):
    """A share of examples: binomial, with Clopper and Pearson's exact bounds.

    Args:
        count: how many of how many; at least one.
    """

    count: Count

    @property
    def low(self) -> float:
        """See `Evidence`."""
        return self.count.certain / self.count.total

    @property
    def high(self) -> float:
        """See `Evidence`."""
        return self.count.possible / self.count.total

    @property
    def examples(self) -> int:
        """See `Evidence`."""
        return self.count.total

    def doubt(self, limit: float, side: Side) -> float:
        """See `Bounded.doubt`."""
        certain, possible, total = self.count
        if limit >= 1 if side == "at_most" else limit <= 0:
            return 0.0
        if side == "at_most":
            return float(special.bdtr(possible, total, limit))
        return float(special.bdtrc(certain - 1, total, limit))

    def bound(self, level: float, side: Side) -> float:
        """See `Bounded.bound`."""
        certain, possible, total = self.count
        if side == "at_most":
            return share(possible, total, 1 - 2 * level).high
        return share(certain, total, 1 - 2 * level).low

    def resized(self, examples: int, side: Side) -> Share:
        """See `Bounded.resized`."""
        certain, possible, total = self.count
        count = -(-possible * examples // total) if side == "at_most" else certain * examples // total
        return Share(Count(count, count, examples))
