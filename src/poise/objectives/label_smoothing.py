"""Labels that leave the other classes a little."""

from __future__ import annotations

from dataclasses import dataclass, replace

from poise.core.misuse import Misuse
from poise.objectives.objective import Step, Terms
from poise.objectives.wrapper import Wrapper, innermost


@dataclass(frozen=True, kw_only=True)
class LabelSmoothing(Wrapper):
    """Another objective, its cross-entropy against (1 - smoothing) * label + smoothing / classes for every class.

    In TRADES that is the term on clean images, in MART the first logarithm. Attacks raise what they raise without.

    Args:
        objective: what a step minimises; one with a cross-entropy of its own.
        smoothing: weight that is spread evenly over all classes, in [0, 1].
    """

    smoothing: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.smoothing <= 1:
            raise Misuse(f"label smoothing must be in [0, 1]; got {self.smoothing}")
        if not innermost(self.objective).smooths:
            name = type(innermost(self.objective)).__name__
            raise Misuse(
                f"{name} takes no smoothed labels; put labelsmoothing around standard, adversarial, trades, mart"
            )

    def terms(self, step: Step) -> Terms:
        """See `Objective.terms`."""
        return super().terms(replace(step, smoothing=self.smoothing))
