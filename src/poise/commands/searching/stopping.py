"""When a trial is stopped: where it falls behind those that it competes with."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

_FEWEST = 4
"""Rivals that are needed before a trial may be stopped."""


@dataclass(frozen=True)
class Course:
    """How a trial went.

    Args:
        values: what the search maximises, by epoch.
        epsilons: what the epoch ended with, by epoch.
    """

    values: Mapping[int, float]
    epsilons: Mapping[int, float]

    def alike(self, epoch: int, epsilon: float) -> bool:
        """Whether the trial had a figure after an epoch, and trained at this epsilon then."""
        return epoch in self.values and math.isclose(self.epsilons.get(epoch, math.nan), epsilon)


def behind(course: Course, epoch: int, rivals: Iterable[Course]) -> bool:
    """Whether a trial is below the middle of its rivals.

    Its best figure so far is compared with the median of theirs after the same epoch. A figure depends on the epsilon
    that is trained at: only epochs at the same one are compared, so that a late ramp is not measured by an early one,
    and none at epsilon 0, which says nothing of what a ramp will come to.

    Args:
        course: of the trial.
        epoch: the one that has just ended.
        rivals: trials that were finished within the bounds; with fewer than four to compare with the answer is no.
    """
    epsilon = course.epsilons[epoch]
    theirs = [rival.values[epoch] for rival in rivals if epsilon > 0 and rival.alike(epoch, epsilon)]
    ours = [value for at, value in course.values.items() if course.alike(at, epsilon)]
    return len(theirs) >= _FEWEST and max(ours) < median(theirs)
