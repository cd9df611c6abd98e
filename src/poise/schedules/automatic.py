"""A ramp that begins when clean accuracy stops improving."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from poise.core.misuse import Misuse
from poise.schedules.schedule import Figures, Memory, Moment, Schedule, ramp


@dataclass(frozen=True, kw_only=True)
class Automatic(Schedule):
    """Clean training until validation accuracy stops improving, then a linear ramp to the end (arXiv 2509.23325).

    Accuracy improves where it exceeds its best by more than `tolerance`, in absolute terms; the ramp begins after
    `patience` epochs in a row without (table 4 of the paper: 5 epochs and 2 %). What to do where accuracy improves to
    the last the paper does not say; here the ramp begins at `latest` all the same.

    Args:
        patience: epochs without improvement, at least 1.
        tolerance: gain in clean validation accuracy that counts as an improvement, in [0, 1].
        latest: share of the training at which the ramp begins at the latest, in [0, 1).
        every: whether epsilon moves every "epoch" (the paper) or every "step".
    """

    hears: ClassVar[tuple[str, ...]] = ("clean",)
    gentler: ClassVar[str] = "wait longer before the ramp (schedule.patience)"
    sooner: ClassVar[str] = "begin the ramp earlier (schedule.patience, schedule.latest)"

    patience: int = 5
    tolerance: float = 0.02
    latest: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.patience < 1:
            raise Misuse(f"patience is counted in epochs, at least 1; got {self.patience}")
        if not 0 <= self.tolerance <= 1:
            raise Misuse(f"tolerance is a gain in accuracy in [0, 1]; got {self.tolerance}")
        if not 0 <= self.latest < 1:
            raise Misuse(f"latest is a share of the training in [0, 1); got {self.latest}")

    def share(self, moment: Moment) -> float:
        """See `Schedule.share`."""
        found = moment.memory.get("start")
        return ramp(moment, self.latest if found is None else min(found, self.latest), 1.0)

    def begin(self) -> Memory:
        """No accuracy yet, and no start."""
        return {"best": None, "waited": 0.0, "start": None}

    def heard(self, moment: Moment, figures: Figures) -> Memory:
        """Notice an improvement or count the epoch as without one; the start, once found, stays."""
        memory, clean = moment.memory, figures["clean"]
        if memory["start"] is not None or moment.progress >= self.latest:
            return memory
        best = memory["best"]
        if best is None or clean > best + self.tolerance:
            return {"best": clean, "waited": 0.0, "start": None}
        waited = (memory["waited"] or 0.0) + 1
        return {"best": best, "waited": waited, "start": moment.progress if waited >= self.patience else None}
