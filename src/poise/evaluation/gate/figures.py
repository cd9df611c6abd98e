"""The figures of a comparison that a gate can limit, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float

from poise.core.streams import hashed
from poise.evaluation.curve import part_of_range
from poise.evaluation.flips.counts import Flips, flips
from poise.evaluation.flips.pair import Pair
from poise.evaluation.flips.truth import Count, Rows, Truth
from poise.evaluation.gate.difference import Difference
from poise.evaluation.gate.evidence import Evidence, Ratio, Share, Side
from poise.evaluation.gate.mean import Mean
from poise.evaluation.profile import Profile


@dataclass(frozen=True)
class Group:
    """Some examples of a pair.

    Args:
        pair: two joined profiles.
        rows: the examples, at least one.
    """

    pair: Pair
    rows: Rows

    @cached_property
    def flips(self) -> tuple[Flips, ...]:
        """Their flips at every grid point."""
        return flips(self.pair, self.rows)


Measure = Callable[[Group, int, float], Evidence | None]
"""What a group says of a figure at a grid point, with bounds that are sharpest at an error rate; None for nothing."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure that can be limited.

    Args:
        meaning: what it is, as a clause.
        side: the side on which a limit makes sense.
        measure: where it comes from.
        at_epsilon: whether it belongs to one epsilon; figures of clean images are measured at 0.
        over_grid: whether it is an average over the grid.
        lowest: the least value that it can take.
        highest: the largest.
        bounded: whether it has confidence bounds.
    """

    meaning: str
    side: Side
    measure: Measure
    at_epsilon: bool
    over_grid: bool = False
    lowest: float = 0.0
    highest: float = 1.0
    bounded: bool = True

    def shown(self, value: float) -> str:
        """A value as people read it: in percent, changes with their sign, ratios as they are."""
        if not self.bounded:
            return f"{value:.3g}"
        return f"{100 * value:{'+' if self.lowest < 0 else ''}.3g} %"


def _counted(read: Callable[[Flips], Count | None]) -> Measure:
    """The measure of a figure that is a share of examples."""

    def measure(group: Group, point: int, _level: float) -> Evidence | None:
        count = read(group.flips[point])
        return None if count is None else Share(count)

    return measure


def _relative(group: Group, point: int, _level: float) -> Evidence | None:
    ratio = group.flips[point].relative
    return None if ratio is None else Ratio(ratio, len(group.rows))


def _change(group: Group, point: int, level: float) -> Evidence:
    return Difference(group.flips[point].gained, group.flips[point].lost, level)


def _expected(group: Group, _point: int, level: float) -> Evidence:
    low, high = _withstood(group, group.pair.new)
    return Mean(low, high, (0.0, 1.0), level)


def _expected_change(group: Group, _point: int, level: float) -> Evidence:
    (old_low, old_high), (low, high) = _withstood(group, group.pair.old), _withstood(group, group.pair.new)
    return Mean(low - old_high, high - old_low, (-1.0, 1.0), level)


def _withstood(group: Group, profile: Profile) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The part of the epsilon range that each example withstands at least and at most, in an order of their ids."""
    order = sorted(group.rows.tolist(), key=lambda row: hashed("order of bets", group.pair.old.ids[row]))
    held = Truth.of(profile, np.array(order))
    return part_of_range(held.certain, profile.epsilons), part_of_range(held.possible, profile.epsilons)


def _clean_and_robust(name: str, meaning: str, side: Side, measure: Measure, **options: Any) -> dict[str, Figure]:
    """A figure of clean images, and the same under attack."""
    figure = Figure(meaning=meaning, side=side, measure=measure, at_epsilon=True, **options)
    return {f"clean_{name}": replace(figure, at_epsilon=False), f"robust_{name}": figure}


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        **_clean_and_robust(
            "flips", "the share that old gets right and new wrong", "at_most", _counted(lambda found: found.lost)
        ),
        "joint_flips": Figure(
            meaning="the share lost both clean and under attack",
            side="at_most",
            measure=_counted(lambda found: found.joint),
            at_epsilon=True,
        ),
        "union_flips": Figure(
            meaning="the share lost clean, under attack, or both",
            side="at_most",
            measure=_counted(lambda found: found.union),
            at_epsilon=True,
        ),
        **_clean_and_robust(
            "gains", "the share that old gets wrong and new right", "at_least", _counted(lambda found: found.gained)
        ),
        **_clean_and_robust(
            "trust",
            "of what old gets right, the share that new does too",
            "at_least",
            _counted(lambda found: found.trust),
        ),
        **_clean_and_robust(
            "relative_flips",
            "flips over those of independent models",
            "at_most",
            _relative,
            highest=math.inf,
            bounded=False,
        ),
        **_clean_and_robust(
            "accuracy", "the share that new gets right", "at_least", _counted(lambda found: found.new_right)
        ),
        **_clean_and_robust("accuracy_change", "new accuracy minus old", "at_least", _change, lowest=-1.0),
        "expected_robustness": Figure(
            meaning="new accuracy, averaged over epsilon",
            side="at_least",
            measure=_expected,
            at_epsilon=False,
            over_grid=True,
        ),
        "expected_robustness_change": Figure(
            meaning="new accuracy minus old, averaged over epsilon",
            side="at_least",
            measure=_expected_change,
            at_epsilon=False,
            over_grid=True,
            lowest=-1.0,
        ),
    }
)
"""What a gate can limit. Shares are of all examples unless said otherwise."""
