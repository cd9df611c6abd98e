"""The mean of a bounded number per example, such as the change of the epsilon range that each withstands."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from poise.evaluation.gate.evidence import Bounded, Side

_BOLDEST = 0.9
_HALVINGS = 40


@dataclass(frozen=True)
class Mean(Bounded):
    """A mean with bounds by betting (Waudby-Smith & Ramdas, J. R. Stat. Soc. B 86, 2024, sections 3 and 4).

    A gambler who wins where examples exceed the limit cannot, on average, gain if their mean does not; the doubt is 1
    over the most that the capital ever grew to (Ville's inequality). This holds for any distribution within the range,
    while Student's t promises too much where few examples carry the whole change.

    Args:
        lowest: one number per example, the least that open verdicts allow, in an order that has nothing to do with the
            numbers.
        highest: the most that they allow.
        range: the least and the largest number that there can be.
        level: error rate at which bounds are sharpest; they are valid at every other.
    """

    searched: ClassVar[int] = 1 << 16

    lowest: Float[np.ndarray, " n"]
    highest: Float[np.ndarray, " n"]
    range: tuple[float, float]
    level: float = 0.05

    @property
    def low(self) -> float:
        """See `Evidence`."""
        return math.fsum(self.lowest.tolist()) / len(self.lowest)

    @property
    def high(self) -> float:
        """See `Evidence`."""
        return math.fsum(self.highest.tolist()) / len(self.highest)

    @property
    def examples(self) -> int:
        """See `Evidence`."""
        return len(self.lowest)

    def doubt(self, limit: float, side: Side) -> float:
        """See `Bounded.doubt`."""
        floor, ceiling = self.range
        place = (limit - floor) / (ceiling - floor)
        return float(doubt_of_mean(self._shares(side), place if side == "at_least" else 1 - place, self.level))

    def bound(self, level: float, side: Side) -> float:
        """See `Bounded.bound`."""
        shares = self._shares(side)
        low, high = 0.0, float(shares.mean())
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            sure = float(doubt_of_mean(shares, middle, self.level)) <= level
            low, high = (middle, high) if sure else (low, middle)
        floor, ceiling = self.range
        return floor + (ceiling - floor) * (low if side == "at_least" else 1 - low)

    def resized(self, examples: int, side: Side) -> Mean:
        """See `Bounded.resized`; the same numbers over again."""
        numbers = np.resize(self.highest if side == "at_most" else self.lowest, examples)
        return Mean(numbers, numbers, self.range, self.level)

    def _shares(self, side: Side) -> Float[np.ndarray, " n"]:
        """The numbers in [0, 1], larger for what is wanted."""
        floor, ceiling = self.range
        if side == "at_least":
            return (self.lowest - floor) / (ceiling - floor)
        return (ceiling - self.highest) / (ceiling - floor)


def doubt_of_mean(values: Float[np.ndarray, "*draws n"], mean: float, level: float) -> Float[np.ndarray, "*draws"]:
    """The p-value against the hypothesis that values in [0, 1] have at most this mean.

    Each bet is fixed before its example is seen, from the variance so far, such that the capital grows fastest to
    1 / level at the end.

    Args:
        values: independent examples, in the order of the bets; further dimensions are repetitions.
        mean: the hypothesis.
        level: what the bets aim at.
    """
    if mean <= 0:
        return np.zeros(values.shape[:-1])
    if mean >= 1:
        return np.ones(values.shape[:-1])
    count = values.shape[-1]
    seen = np.arange(1, count + 1)
    means = (0.5 + values.cumsum(axis=-1)) / (seen + 1)
    variances = (0.25 + np.square(values - means).cumsum(axis=-1)) / (seen + 1)
    before = np.concatenate([np.full((*values.shape[:-1], 1), 0.25), variances[..., :-1]], axis=-1)
    bets = np.minimum(np.sqrt(2 * math.log(1 / level) / (count * before)), _BOLDEST / mean)
    capital = np.log1p(bets * (values - mean)).cumsum(axis=-1).max(axis=-1)
    return np.asarray(np.exp(-np.maximum(capital, 0.0)))
