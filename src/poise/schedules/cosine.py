"""Half a cosine from zero up to the target."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from poise.schedules.schedule import Moment, Schedule, check_ramp, ramp


@dataclass(frozen=True, kw_only=True)
class Cosine(Schedule):
    """The hinge with a soft start and a soft end: (1 - cos(pi * x)) / 2, where x runs from 0 at start to 1 at stop.

    Midway it is as high as the hinge and pi / 2 times as steep. Not among the shapes that arXiv 2509.23325 tried.

    Args:
        start: share of the training up to which epsilon is 0, in [0, 1].
        stop: share of the training from which epsilon is the target, in [start, 1].
        every: whether epsilon moves every "epoch" or every "step".
    """

    gentler: ClassVar[str] = "begin without attacks for longer (schedule.start)"
    sooner: ClassVar[str] = "reach the target earlier (schedule.stop)"

    start: float = 0.25
    stop: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ramp(self.start, self.stop, "cosine ramp")

    def share(self, moment: Moment) -> float:
        """See `Schedule.share`."""
        return 0.5 * (1 - math.cos(math.pi * ramp(moment, self.start, self.stop)))
