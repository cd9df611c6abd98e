"""Everything that two profiles say of a new model against an old one, and what a gate makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from poise.evaluation.curve import CONFIDENCE, Estimate
from poise.evaluation.flips import Change, Flips, NoiseFloor, Pair, Replay, changes, flips, flips_by_class
from poise.evaluation.gate import FIGURES, Bounded, Group, Judgement


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """An old model and the one that would replace it.

    Args:
        old: how reports call the old model.
        new: how they call the new one.
        pair: their profiles, joined; None where they cannot be compared, which only a gate can say without an error.
        noise: flips of either model against itself.
        judgement: what became of the gate; None without one.
        obstacle: why the profiles cannot be compared; "" where they can.
        replayed: what the new model makes of images that broke the old one; None where it was not asked.
    """

    old: str
    new: str
    pair: Pair | None
    noise: tuple[NoiseFloor, ...] = ()
    judgement: Judgement | None = None
    obstacle: str = ""
    replayed: Replay | None = None

    @property
    def exit_code(self) -> int:
        """0 where the gate passes or there is none, 1 where it fails, 2 where it cannot be judged."""
        return self.judgement.exit_code if self.judgement else 0

    @cached_property
    def flips(self) -> tuple[Flips, ...]:
        """The flips at every epsilon; empty without a pair."""
        return flips(self.pair) if self.pair else ()

    @cached_property
    def by_class(self) -> dict[str, tuple[Flips, ...]]:
        """The same for each class; empty without a pair."""
        return flips_by_class(self.pair) if self.pair else {}

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The examples that flipped; empty without a pair."""
        return changes(self.pair) if self.pair else ()

    @cached_property
    def accuracy_changes(self) -> tuple[Estimate, ...]:
        """New accuracy minus old at every epsilon, with two-sided intervals that hold for any number of examples."""
        return tuple(self._change("robust_accuracy_change", point) for point in range(len(self.flips)))

    @cached_property
    def expected_change(self) -> Estimate | None:
        """New expected robustness minus old, likewise; None without a pair."""
        return self._change("expected_robustness_change", 0) if self.pair else None

    def _change(self, figure: str, point: int) -> Estimate:
        assert self.pair is not None  # noqa: S101 - there is no point without it
        tail = (1 - CONFIDENCE) / 2
        evidence = FIGURES[figure].measure(Group(self.pair, np.arange(len(self.pair))), point, tail)
        assert isinstance(evidence, Bounded)  # noqa: S101 - changes have bounds
        value = (evidence.low + evidence.high) / 2
        return Estimate(value, evidence.bound(tail, "at_least"), evidence.bound(tail, "at_most"))


def worst_classes(comparison: Comparison, point: int) -> list[tuple[str, Flips, Flips]]:
    """Classes with their clean flips and those at a grid point, the largest union rate first, then by name."""
    rows = [(name, found[0], found[point]) for name, found in comparison.by_class.items()]
    return sorted(rows, key=lambda row: (-row[2].union.possible / row[2].union.total, row[0]))
