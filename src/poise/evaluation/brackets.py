"""Where each example stands between robust and broken, and what to try on it next.

An adversarial example at one epsilon settles all larger ones, and robustness at one settles all smaller ones: an
example is settled once two neighbouring grid points differ. What is certain of it is a bracket; outcomes narrow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from poise.core.misuse import Misuse

Mode = Literal["bisect", "ascending"]

_NOWHERE = -1
MOST_POINTS = 62
"""Points that a grid has at most: what is known of an example at each is a bit of one number."""


class Work(NamedTuple):
    """What to try on an example: which unit of the suite, at which grid point."""

    unit: int
    point: int


@dataclass
class Brackets:
    """The brackets of all examples; one row each.

    bisect: the suite's first unit alone locates the grid point below which it fails, by halving; there the whole suite
    is run. If a later unit breaks the example at that point, the next lower one is tried, beginning with the unit that
    did. A robust verdict thus costs one pass of the suite, not one for each grid point. ascending: the whole suite at
    every grid point in turn, until one breaks.

    Args:
        right: which clean images are classified correctly.
        points: number of grid points, the first of which is 0.
        units: number of units of the suite.
        mode: bisect or ascending.
    """

    right: np.ndarray
    points: int
    units: int
    mode: Mode = "bisect"

    def __post_init__(self) -> None:
        if self.mode not in ("bisect", "ascending"):
            raise Misuse(f"a curve is made by 'bisect' or 'ascending'; got {self.mode!r}")
        if self.points > MOST_POINTS:
            raise Misuse(f"a grid has at most {MOST_POINTS} points; got {self.points}")
        count = len(self.right)
        self.robust_to = np.where(self.right, 0, -1).astype(np.int64)
        self.broken_from = np.where(self.right, self.points, 0).astype(np.int64)
        self.broken_by = np.full(count, _NOWHERE, dtype=np.int64)
        self._probed = np.zeros(count, dtype=np.int64)
        self._failed = np.zeros(count, dtype=object)  # Python's integers have a bit for any number of units
        self._failed_at = np.full(count, _NOWHERE, dtype=np.int64)
        self._probes = np.zeros(count, dtype=np.int64)
        self._held = np.ones(count, dtype=np.int64)

    def next(self, row: int) -> Work | None:
        """What to try on an example next; None once it is settled."""
        low, high = int(self.robust_to[row]), int(self.broken_from[row])
        if low + 1 == high:
            return None
        if self.mode == "ascending":
            return Work(self._untried(row, low + 1), low + 1)
        probed = max(low, min(int(self._probed[row]), high - 1))
        if probed + 1 < high and self.units > 1:
            return Work(0, (probed + high) // 2)
        point = high - 1 if self.units > 1 else (low + high) // 2
        return Work(self._untried(row, point), point)

    def done(self, row: int, efforts: Sequence[float]) -> float:
        """The share of an example's work that is done, in [0, 1]: what has failed where it is tried, by effort.

        Args:
            row: the example.
            efforts: what each unit costs on an example that withstands it, in any measure.
        """
        work = self.next(row)
        if work is None:
            return 1.0
        failed = self._failures(row, work.point)
        here = sum(effort for unit, effort in enumerate(efforts) if failed >> unit & 1) / sum(efforts)
        return here if self.mode == "bisect" else (work.point - 1 + here) / (self.points - 1)

    def _failures(self, row: int, point: int) -> int:
        """Which units are known to have failed at a grid point, a bit each."""
        return int(self._failed[row]) if self._failed_at[row] == point else int(self._probes[row]) >> point & 1

    def _untried(self, row: int, point: int) -> int:
        """The first unit that has not failed at this point, the one that broke the example last before all others."""
        failed = self._failures(row, point)
        leader = int(self.broken_by[row])
        if leader != _NOWHERE and not failed >> leader & 1:
            return leader
        return next(unit for unit in range(self.units) if not failed >> unit & 1)

    def fail(self, row: int, work: Work) -> None:
        """The unit found nothing at that point."""
        if self._failed_at[row] != work.point:
            self._failed_at[row], self._failed[row] = work.point, int(self._probes[row]) >> work.point & 1
        self._failed[row] |= 1 << work.unit
        self._probes[row] |= (work.unit == 0) << work.point
        self._probed[row] = max(self._probed[row], work.point)
        if int(self._failed[row]) == (1 << self.units) - 1:
            self._held[row] |= 1 << work.point
            self._agree(row)

    def break_at(self, row: int, work: Work, point: int) -> None:
        """The unit found an adversarial image that lies within the given grid point, at most that of the work.

        An image counts for more than the failure to find one: where the suite had failed at that point before, the
        verdict falls back to the largest point below at which it failed as well.
        """
        if not 1 <= point <= work.point:
            raise ValueError(f"an attack at grid point {work.point} found an image at {point}, outside 1..{work.point}")
        self.broken_from[row] = min(self.broken_from[row], point)
        self.broken_by[row] = work.unit
        self._probed[row] = min(self._probed[row], point - 1)
        self._agree(row)

    def _agree(self, row: int) -> None:
        """The largest point at which the whole suite failed, below all at which an adversarial image is known."""
        held = int(self._held[row]) & ((1 << int(self.broken_from[row])) - 1)
        self.robust_to[row] = held.bit_length() - 1
