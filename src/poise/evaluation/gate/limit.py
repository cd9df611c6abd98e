"""What a release must keep to: limits on figures of a comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from poise.core.misuse import Misuse, check_choice
from poise.core.threat import Epsilon
from poise.data import Split
from poise.evaluation.gate.evidence import Side
from poise.evaluation.gate.figures import FIGURES
from poise.evaluation.soundness.catalogue import CHECKS

By = Literal["bound", "estimate"]
Joint = Literal["none", "bonferroni", "holm"]
Grid = Literal["old", "common"]
Unchecked = Literal["refuse", "allow"]
EVERY = "every"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit on one figure.

    Args:
        figure: its name in `FIGURES`.
        value: the limit itself, a share in [0, 1], or a change in [-1, 1].
        side: on which side of it the figure must stay: at_most or at_least, whichever makes sense for the figure.
        at: the epsilon, "every" for all of the gate's grid beyond 0, None for figures that have none.
        of: the class whose examples count, "" for all examples.
        every_class: whether each class must keep the limit by itself.
        by: bound (the one-sided confidence bound must keep it) or estimate (the measured value must).

    Raises:
        Misuse: for an unknown figure, a side, an epsilon or a class that does not fit it, and values out of range.
    """

    figure: str
    value: float
    side: Side
    at: Epsilon | Literal["every"] | None = None
    of: str = ""
    every_class: bool = False
    by: By = "bound"

    def __post_init__(self) -> None:
        check_choice("figure", self.figure, FIGURES)
        kind = FIGURES[self.figure]
        if self.side != kind.side:
            raise Misuse(f"{self.figure} is limited by {kind.side}, {kind.meaning}; got {self.side}")
        if not kind.lowest <= self.value <= kind.highest:
            hint = f"; did you mean {self.value:g} %?" if kind.highest < abs(self.value) <= 100 else ""
            raise Misuse(
                f"{self.figure} lies between {kind.lowest:g} and {kind.highest:g}, or stands in %; "
                f"got {self.value:g}{hint}"
            )
        if kind.at_epsilon and self.at is None:
            raise Misuse(f"{self.figure} needs the epsilon that it is judged at, such as at: 8/255, or at: every")
        if not kind.at_epsilon and self.at is not None:
            raise Misuse(f"{self.figure} has no epsilon; got at {self.at}")
        if self.of and self.every_class:
            raise Misuse(f"{self.figure} is limited for one class or for every_class; got both")
        check_choice("by", self.by, get_args(By))
        if self.by == "bound" and not kind.bounded:
            raise Misuse(f"{self.figure} is a ratio without an exact bound; limit the estimate, with by: estimate")

    def __str__(self) -> str:
        at = "" if self.at is None else " at every epsilon" if self.at == EVERY else f" at {self.at}"
        of = " of every class" if self.every_class else f" of class {self.of}" if self.of else ""
        return f"{self.figure.replace('_', ' ')}{at}{of} {self.side.replace('_', ' ')} {self.shown(self.value)}"

    @property
    def over_grid(self) -> bool:
        """Whether it is about the grid as a whole: at every epsilon, or averaged over them."""
        return self.at == EVERY or FIGURES[self.figure].over_grid

    def shown(self, value: float) -> str:
        """A value of the figure as people read it: in percent, changes with their sign."""
        return FIGURES[self.figure].shown(value)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """Limits, all of which a release must keep.

    Args:
        limits: at least one.
        confidence: for limits on bounds: a figure that breaks its limit passes with a probability of at most
            1 - confidence.
        joint: whether that holds for each limit by itself (none), or for all of them together, so that with this
            confidence not one is passed wrongly: bonferroni, or holm, which passes whatever bonferroni does and more.
            The gate as a whole needs neither: to pass wrongly it must pass the broken limit too.
        grid: which epsilons limits at every one of them, and on averages over them, are about: those of the old profile
            (old), so that they cannot be judged where the new one lacks some, or those that both profiles have
            (common), whatever the new one leaves out.
        unchecked: what becomes of profiles at which some soundness check has not looked, be it because it was switched
            off or because they are of another tool: refuse (nothing can be judged) or allow.
        suites: names of the attack suites of which profiles must be, so that a weak one cannot pass for robust; of one
            of your own the address, for any version of it, or the name that profiles give it, for that version; empty
            for any.
        splits: names of the splits of which profiles may be; what does not say is taken on trust. By default not of
            training images, on which every figure flatters.
        overridden: soundness checks whose objection was overridden when a profile was made, and that the gate accepts
            so; of profiles with any other nothing can be judged.

    Raises:
        Misuse: for no limits, a limit given twice, a confidence outside [0.5, 1), and unknown splits and checks.
    """

    limits: tuple[Limit, ...]
    confidence: float = 0.95
    joint: Joint = "none"
    grid: Grid = "old"
    unchecked: Unchecked = "refuse"
    suites: tuple[str, ...] = ()
    splits: tuple[str, ...] = ("test", "validation")
    overridden: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.limits:
            raise Misuse("a gate needs at least one limit")
        if len(set(self.limits)) < len(self.limits):
            twice = next(limit for place, limit in enumerate(self.limits) if limit in self.limits[:place])
            raise Misuse(f"the limit '{twice}' stands there twice")
        if not 0.5 <= self.confidence < 1:
            raise Misuse(f"confidence must be at least 0.5 and below 1, such as 0.95; got {self.confidence:g}")
        check_choice("joint", self.joint, get_args(Joint))
        check_choice("grid", self.grid, get_args(Grid))
        check_choice("unchecked", self.unchecked, get_args(Unchecked))
        for split in self.splits:
            check_choice("split", split, get_args(Split))
        for check in self.overridden:
            check_choice("check", check, CHECKS)

    @property
    def promise(self) -> str:
        """What the confidence means here, in a sentence."""
        share = f"{100 * (1 - self.confidence):.3g} %"
        if self.joint == "none":
            return (
                f"A limit that is broken passes in at most {share} of cases, and so does the gate as a whole. Where "
                "some limits pass and others do not, this holds for each by itself; joint: holm promises it for all."
            )
        return f"In at most {share} of cases any limit at all passes that is broken ({self.joint})."
