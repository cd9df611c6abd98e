"""The change of an accuracy, measured on the same examples before and after: exact, however few they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from poise.evaluation.curve import share
from poise.evaluation.flips.truth import Count
from poise.evaluation.gate.evidence import Bounded, Side

_SPARED = 0.1
"""Part of the error rate that is spent on how often the models differ at all."""
_OUTSIDE = 1e-12
_HALVINGS = 40


@dataclass(frozen=True)
class Difference(Bounded):
    """Share of examples gained minus share lost.

    What decides is the exact unconditional test of Berger & Boos (Journal of the American Statistical Association 89,
    1994). Under a change theta and a share pi of examples on which the models differ, gains minus losses D is a sum of
    independent steps of -1, 0, 1. Up to pi = 1/2, P(D >= d) grows with pi for every d >= (n - 1) theta + 2, as the
    distribution of the other n - 1 steps has its mode less than 1 from its mean (Darroch 1964). The doubt is therefore
    P(D >= d) at the upper confidence limit of pi, plus the error rate of that limit, and 1 for smaller d. Beyond
    pi = 1/2, Chernoff's bound takes the probability's place, which always grows with pi.

    Args:
        gained: examples that only the new model gets right.
        lost: examples that only the old model gets right; of as many.
        level: error rate at which bounds are sharpest; they are valid at every other.
    """

    searched: ClassVar[int] = 1 << 20

    gained: Count
    lost: Count
    level: float = 0.05

    @property
    def low(self) -> float:
        """See `Evidence`."""
        return (self.gained.certain - self.lost.possible) / self.gained.total

    @property
    def high(self) -> float:
        """See `Evidence`."""
        return (self.gained.possible - self.lost.certain) / self.gained.total

    @property
    def examples(self) -> int:
        """See `Evidence`."""
        return self.gained.total

    def doubt(self, limit: float, side: Side) -> float:
        """See `Bounded.doubt`."""
        return self._walk(side).doubt(limit if side == "at_least" else -limit)

    def bound(self, level: float, side: Side) -> float:
        """See `Bounded.bound`."""
        walk = self._walk(side)
        low, high = -1.0, walk.steps / self.examples
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if walk.doubt(middle) <= level else (low, middle)
        return low if side == "at_least" else -low

    def resized(self, examples: int, side: Side) -> Difference:
        """See `Bounded.resized`."""
        walk = self._walk(side)
        downs = -(-walk.downs * examples // walk.examples)
        ups = min(walk.steps * examples // walk.examples + downs, examples - downs)
        up, down = (Count(each, each, examples) for each in (ups, downs))
        return Difference(up, down, self.level) if side == "at_least" else Difference(down, up, self.level)

    def _walk(self, side: Side) -> Walk:
        """Ups speak for a change in the wanted direction and downs against it, as many as there are at the worst."""
        spared = _SPARED * self.level
        if side == "at_least":
            return Walk(self.gained.certain, self.lost.possible, self.examples, spared)
        return Walk(self.lost.certain, self.gained.possible, self.examples, spared)


@dataclass(frozen=True)
class Walk:
    """Independent steps of +1, 0 and -1.

    Args:
        ups: how many went up.
        downs: how many went down.
        examples: how many there are in all.
        spared: error rate of the confidence limit of how many go anywhere; fixed before they were counted.
    """

    ups: int
    downs: int
    examples: int
    spared: float

    @property
    def steps(self) -> int:
        """Where it ended."""
        return self.ups - self.downs

    @cached_property
    def differing(self) -> float:
        """The upper confidence limit of the share of steps that are not 0."""
        return share(self.ups + self.downs, self.examples, 1 - 2 * self.spared).high

    @cached_property
    def numbers(self) -> Int[np.ndarray, " m"]:
        """How many steps may not be 0, but for a probability of `_OUTSIDE`."""
        from scipy import stats  # noqa: PLC0415 - a second, which few gates need

        first, last = stats.binom.ppf([_OUTSIDE / 2, 1 - _OUTSIDE / 2], self.examples, self.differing)
        return np.arange(int(first), int(last) + 1)

    @cached_property
    def weights(self) -> Float[np.ndarray, " m"]:
        """The probability of each of these numbers."""
        from scipy import stats  # noqa: PLC0415

        return np.asarray(stats.binom.pmf(self.numbers, self.examples, self.differing))

    def doubt(self, change: float) -> float:
        """The p-value against the hypothesis that ups are at most this much more likely than downs."""
        if change <= -1:
            return 0.0
        if abs(change) > self.differing:
            return self.spared if change < 0 else 1.0
        if self.steps < (self.examples - 1) * change + 2:
            return 1.0
        tail = self._tail(change) if self.differing <= 1 / 2 else self._chernoff(change)
        return min(1.0, tail + self.spared)

    def _tail(self, change: float) -> float:
        """P(D >= steps), given how many steps are not 0 and summed over that."""
        up = min(max((self.differing + change) / (2 * self.differing), 0.0), 1.0)
        fewer = np.minimum(np.ceil((self.steps + self.numbers) / 2) - 1, self.numbers)
        beyond = special.bdtrc(fewer, self.numbers, up)
        return float(self.weights @ beyond) + _OUTSIDE

    def _chernoff(self, change: float) -> float:
        """The least of E exp(s (D - steps)) over s >= 0, which bounds P(D >= steps)."""
        up, down, mean = (self.differing + change) / 2, (self.differing - change) / 2, self.steps / self.examples
        # With z = exp(s) the derivative vanishes where up (1 - mean) z^2 - mean (1 - differing) z = down (1 + mean).
        a, b, c = up * (1 - mean), -mean * (1 - self.differing), -down * (1 + mean)
        if a <= 0:
            return up**self.examples if mean == 1 else 1.0
        z = max(1.0, (-b + math.sqrt(b * b - 4 * a * c)) / (2 * a))
        factor = math.log(up * z + 1 - self.differing + down / z) - mean * math.log(z)
        return math.exp(self.examples * factor)
