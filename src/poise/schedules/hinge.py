"""Zero, then a straight line up to the target, then the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from poise.schedules.schedule import Moment, Schedule, check_ramp, ramp


@dataclass(frozen=True, kw_only=True)
class Hinge(Schedule):
    """Epsilon-Scheduling: clean until `start`, a linear ramp until `stop`, the target from there (arXiv 2509.23325).

    The paper counts epochs: T1 = 12 and T2 = 37 of 50, one pair for all its models and data sets. Here both are shares
    of the training, so they carry over to any length; the defaults round the paper's 0.24 and 0.74 to quarters. start =
    stop = 0 is `Fixed`; start = 0 alone is a linear warm-up; start = stop > 0 switches at once, which the paper found
    unstable. A stop that lies beyond the start of the last epoch means that start.

    Args:
        start: share of the training up to which epsilon is 0 (T1 / epochs), in [0, 1].
        stop: share of the training from which epsilon is the target (T2 / epochs), in [start, 1].
        every: whether epsilon moves every "epoch" (the paper) or every "step".
    """

    gentler: ClassVar[str] = "begin without attacks for longer (schedule.start)"
    sooner: ClassVar[str] = "reach the target earlier (schedule.stop)"

    start: float = 0.25
    stop: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ramp(self.start, self.stop, "hinge")

    def share(self, moment: Moment) -> float:
        """The paper's alpha(t) at t / epochs = progress."""
        return ramp(moment, self.start, self.stop)
