"""A budget drawn anew for every epoch, every step, or every example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.misuse import Misuse
from poise.schedules.schedule import Moment, Schedule


@dataclass(frozen=True, kw_only=True)
class Random(Schedule):
    """Epsilon uniform on [low, high] times the target, so that the mean loss is expected robustness by sampling.

    Drawn once an epoch this is the random budget of arXiv 2509.23325 (table 8), which fell behind the hinge wherever
    adaptation is hard. Draws depend on the run's seed and on the epoch or step, and an example's own on its id besides.

    Args:
        low: least share of the target, in [0, 1].
        high: largest share of the target, in [low, 1].
        per_example: draw one budget for each example instead of one for all.
        every: whether budgets are drawn anew every "epoch" or every "step".
    """

    sooner: ClassVar[str] = "draw larger budgets (schedule.low)"
    farther: ClassVar[str] = ""

    low: float = 0.0
    high: float = 1.0
    per_example: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.low <= self.high <= 1:
            raise Misuse(
                f"random budgets need 0 <= low <= high <= 1, as shares of the target; got {self.low} and {self.high}"
            )

    def share(self, moment: Moment) -> float | Float[Tensor, " n"]:
        """See `Schedule.share`."""
        ids = moment.ids if self.per_example else torch.zeros(1, dtype=torch.int64)
        draw = moment.epoch if self.every == "epoch" else moment.step
        part = moment.stream.fold("budget", self.every).uniform(ids, step=draw, dtype=torch.float64)
        shares = self.low + (self.high - self.low) * part
        return shares if self.per_example else float(shares)

    def mean(self, moment: Moment) -> float:
        """What was drawn for all, or the middle of the range that each example draws from."""
        return (self.low + self.high) / 2 if self.per_example else float(self.share(moment))
