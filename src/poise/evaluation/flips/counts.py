"""Flips: what the new model loses and gains against the old one, at every epsilon."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import special

from poise.evaluation.curve import CONFIDENCE, Estimate, share
from poise.evaluation.flips.pair import Pair
from poise.evaluation.flips.truth import Count, Rows, Truth


@dataclass(frozen=True, kw_only=True)
class Flips:
    """Old against new at one epsilon (arXiv 2402.17390; methods 2.1). Right means right under every attack up to it.

    Rates are over all examples. At epsilon 0 the flips are the clean ones, and joint and union are the same again.

    Args:
        epsilon: the grid point.
        stays_right: right under both models.
        stays_wrong: wrong under both.
        gained: positive flips, wrong under old and right under new.
        lost: negative flips, right under old and wrong under new; beyond epsilon 0, robustness negative flips.
        joint: lost here and on the clean image too.
        union: lost here, on the clean image, or both.
        old_right: right under old.
        new_right: right under new.
    """

    epsilon: float
    stays_right: Count
    stays_wrong: Count
    gained: Count
    lost: Count
    joint: Count
    union: Count
    old_right: Count
    new_right: Count

    @property
    def settled(self) -> bool:
        """Whether every verdict is in."""
        return self.old_right.settled and self.new_right.settled

    @property
    def trust(self) -> Count | None:
        """Backward-trust compatibility: of those right under old, how many stay right.

        None where old is never right, and while verdicts are open.
        """
        kept, total = self.stays_right.certain, self.old_right.certain
        return Count(kept, kept, total) if self.settled and total else None

    @property
    def relative(self) -> float | None:
        """Relative flip rate (arXiv 2011.09161): lost, over what independent models with these accuracies would lose.

        None where old is never right, new never wrong, or verdicts are open.
        """
        new_wrong = self.new_right.total - self.new_right.certain
        expected = self.old_right.certain * new_wrong / self.new_right.total
        return self.lost.certain / expected if self.settled and expected else None

    @property
    def mcnemar(self) -> float:
        """The p-value of McNemar's exact two-sided test that losses and gains are equally likely.

        While verdicts are open, the largest that they allow.
        """
        lost, gained = self.lost, self.gained
        if lost.certain > gained.possible:
            return _mcnemar(lost.certain, gained.possible)
        if gained.certain > lost.possible:
            return _mcnemar(lost.possible, gained.certain)
        return 1.0


def flips(pair: Pair, rows: Rows | None = None) -> tuple[Flips, ...]:
    """The flips at every point of the common grid.

    Args:
        pair: two joined profiles.
        rows: the examples to count; by default all.
    """
    old, new = Truth.of(pair.old, rows), Truth.of(pair.new, rows)
    lost = old & ~new
    statements = {
        "stays_right": old & new,
        "stays_wrong": ~old & ~new,
        "gained": ~old & new,
        "lost": lost,
        "joint": lost & lost.clean(),
        "union": lost | lost.clean(),
        "old_right": old,
        "new_right": new,
    }
    counts = {name: statement.counts() for name, statement in statements.items()}
    return tuple(
        Flips(epsilon=epsilon, **{name: each[point] for name, each in counts.items()})
        for point, epsilon in enumerate(pair.epsilons)
    )


def flips_by_class(pair: Pair) -> dict[str, tuple[Flips, ...]]:
    """The flips at every grid point for each class that has examples, by the class's name."""
    rows = {name: pair.rows_of(label) for label, name in enumerate(pair.classes)}
    return {name: flips(pair, chosen) for name, chosen in rows.items() if len(chosen)}


def rate(count: Count, confidence: float = CONFIDENCE) -> Estimate:
    """A share with its exact interval; where it is a range, the value is its middle and the interval holds all of it.

    Args:
        count: of at least one example.
        confidence: as in `share`.
    """
    low, high = (share(each, count.total, confidence) for each in (count.certain, count.possible))
    return Estimate((low.value + high.value) / 2, low.low, high.high)


def _mcnemar(lost: int, gained: int) -> float:
    """Exact and two-sided: of flips that go either way with equal chance."""
    return min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5)))
