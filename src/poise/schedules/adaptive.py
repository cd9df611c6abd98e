"""A closed loop: epsilon follows what the network can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from poise.core.misuse import Misuse
from poise.schedules.schedule import Figures, Memory, Moment, Schedule


@dataclass(frozen=True, kw_only=True)
class Adaptive(Schedule):
    """Raise epsilon while the network keeps its clean accuracy and has caught up at the epsilon it is trained at.

    After every epoch clean and robust accuracy on the validation images decide about the next:

    - clean accuracy has lost more than the share `margin` of its best: epsilon is lowered by `move`;
    - else, robust accuracy at the current epsilon has not caught up: epsilon is held;
    - else it is raised, by what reaches the target at `stop` in equal moves, and by `move` at most.

    Robust accuracy has caught up where it is at least the share `kept` of clean accuracy, which says nothing at
    epsilon 0, or where an epoch at this very epsilon gained less than `tolerance`. So the target is reached in time
    where the network allows it; otherwise the training ends below it, which the run's diagnosis says. There is no such
    schedule in arXiv 2509.23325; it takes the place of tuning that paper's start and stop.

    Args:
        margin: largest share of its best that clean accuracy may lose, in (0, 1].
        kept: share of clean accuracy that, kept under attack, counts as caught up, in [0, 1].
        tolerance: gain of an epoch, in accuracy, that is worth waiting for another, in [0, 1].
        stop: share of the training by which the target is to be reached, in (0, 1].
        move: largest move between two epochs, as a share of the target, in (0, 1]; jumps to the target are unstable.
        every: "epoch", the only rhythm in which validation is heard.
    """

    hears: ClassVar[tuple[str, ...]] = ("clean", "robust_now")
    may_fall_short: ClassVar[bool] = True

    margin: float = 0.2
    kept: float = 0.5
    tolerance: float = 0.02
    stop: float = 0.75
    move: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every != "epoch":
            raise Misuse("an adaptive schedule moves every 'epoch', after validation")
        for name in ("margin", "stop", "move"):
            if not 0 < getattr(self, name) <= 1:
                raise Misuse(f"{name} of an adaptive schedule must be in (0, 1]; got {getattr(self, name)}")
        for name in ("kept", "tolerance"):
            if not 0 <= getattr(self, name) <= 1:
                raise Misuse(f"{name} of an adaptive schedule must be in [0, 1]; got {getattr(self, name)}")

    def share(self, moment: Moment) -> float:
        """See `Schedule.share`."""
        return moment.memory.get("share") or 0.0

    def begin(self) -> Memory:
        """Epsilon 0; no accuracy has been heard yet, in general ("best") or at this epsilon ("last")."""
        return {"share": 0.0, "best": None, "last": None}

    def heard(self, moment: Moment, figures: Figures) -> Memory:
        """Lower, hold or raise."""
        clean, robust, share = figures["clean"], figures["robust_now"], self.share(moment)
        best = max(clean, moment.memory["best"] or 0.0)
        if clean < (1 - self.margin) * best:
            lower = max(0.0, share - self.move)
            return {"share": lower, "best": best, "last": None if lower < share else robust}
        if not self._caught_up(share, clean, robust, moment.memory["last"]):
            return {"share": share, "best": best, "last": robust}
        higher = min(1.0, share + min(self.move, (1 - share) / self._moves_left(moment)))
        return {"share": higher, "best": best, "last": None if higher > share else robust}

    def _caught_up(self, share: float, clean: float, robust: float, last: float | None) -> bool:
        if share > 0 and robust >= self.kept * clean:
            return True
        return last is not None and robust - last < self.tolerance

    def _moves_left(self, moment: Moment) -> float:
        """From the epoch that begins now to the one that begins at `stop`, both counted; at least 1."""
        epochs = moment.epoch / moment.progress
        return max(0.0, self.stop * epochs - moment.epoch) + 1
