"""A closed loop: epsilon follows what the network can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from poise.core.misuse import Misuse
from poise.schedules.schedule import Figures, Memory, Moment, Schedule

_TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class Adaptive(Schedule):
    """Raise epsilon while the network keeps its clean accuracy and has caught up at the epsilon it is trained at.

    After every epoch clean and robust accuracy on the validation images decide about the next:

    - clean accuracy has lost more than the share `margin` of its best, or two epochs at this very epsilon left robust
      accuracy within `tolerance` of nothing: epsilon is lowered by `move`;
    - else, robust accuracy at the current epsilon has not caught up: epsilon is held;
    - else it is raised, by what reaches the target at `stop` in equal moves, and by `move` at most.

    Robust accuracy has caught up where it is at least the share `kept` of clean accuracy, or where an epoch at this
    very epsilon moved it by less than `tolerance` either way; where it fell by more, the network is waited for. At
    epsilon 0 the two accuracies are one: the network learns its task until that stands still, or until `latest`, and
    for as long as clean accuracy is no better than chance. So the target is reached in time where the network allows
    it; otherwise the training ends below it, which the run's diagnosis says. There is no such schedule in arXiv
    2509.23325; it takes the place of tuning that paper's start and stop.

    Args:
        margin: largest share of its best that clean accuracy may lose, in (0, 1].
        kept: share of clean accuracy that, kept under attack, counts as caught up, in [0, 1].
        tolerance: change of robust accuracy in an epoch that is worth waiting for another, in [0, 1].
        latest: share of the training after which waiting at epsilon 0 ends, in [0, 1); the default is the paper's
            start.
        stop: share of the training by which the target is to be reached, in (0, 1].
        move: largest move between two epochs, as a share of the target, in (0, 1]; jumps to the target are unstable.
        every: "epoch", the only rhythm in which validation is heard.
    """

    hears: ClassVar[tuple[str, ...]] = ("clean", "robust_now", "learned")
    gentler: ClassVar[str] = "allow a smaller loss of clean accuracy (schedule.margin)"
    sooner: ClassVar[str] = "reach the target earlier (schedule.latest, schedule.stop, schedule.move)"
    farther: ClassVar[str] = (
        "the network could not take more in time; train longer, allow a larger loss of clean accuracy "
        "(schedule.margin) or larger moves (schedule.move)"
    )

    margin: float = 0.2
    kept: float = 0.5
    tolerance: float = 0.02
    latest: float = 0.25
    stop: float = 0.75
    move: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.every != "epoch":
            raise Misuse("an adaptive schedule moves every 'epoch', after validation")
        for name in ("margin", "stop", "move"):
            if not 0 < getattr(self, name) <= 1:
                raise Misuse(f"{name} of an adaptive schedule must be in (0, 1]; got {getattr(self, name)}")
        if not 0 <= self.latest < 1:
            raise Misuse(f"latest of an adaptive schedule must be in [0, 1); got {self.latest}")
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
        last = moment.memory["last"]
        if clean < (1 - self.margin) * best or self._in_vain(share, robust, last):
            share = share - self.move
        elif self._caught_up(moment, clean, robust) and (share > 0 or figures["learned"]):
            share = share + min(self.move, (1 - share) / self._moves_left(moment))
        share = _snapped(share)
        return {"share": share, "best": best, "last": robust if share == self.share(moment) else None}

    def _in_vain(self, share: float, robust: float, last: float | None) -> bool:
        """Whether the network has withstood nothing for two epochs at an epsilon above 0."""
        return share > 0 and last is not None and max(robust, last) <= self.tolerance

    def _caught_up(self, moment: Moment, clean: float, robust: float) -> bool:
        last = moment.memory["last"]
        if last is not None and abs(robust - last) < self.tolerance:
            return True
        return robust >= self.kept * clean if self.share(moment) > 0 else moment.progress >= self.latest

    def _moves_left(self, moment: Moment) -> float:
        """From the epoch that begins now to the one that begins at `stop`, both counted; at least 1."""
        epochs = moment.epoch / moment.progress
        return max(0.0, self.stop * epochs - moment.epoch) + 1


def _snapped(share: float) -> float:
    """Within [0, 1], and exactly 0 or 1 where rounding alone keeps it from there."""
    return 0.0 if share < _TINY else 1.0 if share > 1 - _TINY else share
