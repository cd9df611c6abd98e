"""A straight line from the first step on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from poise.core.misuse import Misuse
from poise.schedules.schedule import Moment, Schedule, ramp


@dataclass(frozen=True, kw_only=True)
class Linear(Schedule):
    """Epsilon grows in a straight line from `first` at the first step to the target at `stop`, then stays.

    With `first` 0 this is the older linear warm-up: T1 = 0 in arXiv 2509.23325, where the ramp over the whole training
    comes close to the hinge and stays behind it.

    Args:
        first: share of the target that training begins with, in [0, 1].
        stop: share of the training from which epsilon is the target, in (0, 1].
        every: whether epsilon moves every "epoch" or every "step".
    """

    sooner: ClassVar[str] = "reach the target earlier (schedule.stop)"

    first: float = 0.0
    stop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.first <= 1:
            raise Misuse(f"a linear schedule begins with a share of the target in [0, 1]; got first {self.first}")
        if not 0 < self.stop <= 1:
            raise Misuse(f"a linear schedule stops at a share of the training in (0, 1]; got stop {self.stop}")

    def share(self, moment: Moment) -> float:
        """See `Schedule.share`."""
        return min(1.0, self.first + (1 - self.first) * ramp(moment, 0.0, self.stop))
