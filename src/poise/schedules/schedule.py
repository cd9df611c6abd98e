"""What every schedule promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from poise.core.misuse import Misuse
from poise.core.streams import Stream

Every = Literal["epoch", "step"]

Memory = Mapping[str, float | None]
"""What a schedule has concluded from validation so far, by name; it is part of every checkpoint."""

Figures = Mapping[str, float]
"""What validation measured after an epoch, in [0, 1]: "clean" and "robust" accuracy; "robust_now", that at the epsilon
which the epoch ended with; and "learned", 1 where clean accuracy shows that the task is taken up, else 0."""


@dataclass(frozen=True)
class Moment:
    """Where a training stands, as a schedule sees it.

    Args:
        progress: part of the training that is done, in [0, 1): 0 at the first step. With `Schedule.every` "epoch" it
            is that of the epoch's first step.
        epoch: number of the epoch, from 0.
        step: number of the step in the whole training, from 0; with "epoch" that of the epoch's first.
        ids: integer keys of the examples at hand.
        stream: randomness of the training.
        memory: what the schedule remembers.
        last: `progress` of the last move that the training has room for: the start of its last epoch or step.
    """

    progress: float
    epoch: int = 0
    step: int = 0
    ids: Int[Tensor, " n"] = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    stream: Stream = field(default_factory=lambda: Stream(0))
    memory: Memory = field(default_factory=dict)
    last: float = 1.0

    @classmethod
    def of(cls, every: Every, epoch: int, number: int, *, epochs: int, batches: int, **others: Any) -> Moment:
        """The moment that a schedule sees at a step: the step's own, or that of its epoch's first.

        Args:
            every: how often the schedule moves.
            epoch: of the step, from 0.
            number: of the step within the epoch, from 0.
            epochs: of the training.
            batches: steps of an epoch.
            others: what else the moment holds.
        """
        at, latest = (number, batches - 1) if every == "step" else (0, 0)
        return cls(
            progress=progress_at(epoch, at, epochs=epochs, batches=batches),
            epoch=epoch,
            step=epoch * batches + at,
            last=progress_at(epochs - 1, latest, epochs=epochs, batches=batches),
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The share of the target epsilon that each moment of a training run trains at.

    A schedule itself never changes: shares are a pure function of the moment. What it must remember of validation is a
    memory that the trainer carries and keeps in checkpoints: `begin` makes it, `heard` replaces it after an epoch. So a
    resumed run sees the budgets that an uninterrupted one sees.

    Args:
        every: how often the budget moves. "epoch": constant within an epoch, as in the paper; "step": at every step.
    """

    hears: ClassVar[tuple[str, ...]] = ()
    """Names of the validation figures that `heard` needs; with none the schedule trains without validation too."""

    gentler: ClassVar[str] = "begin without attacks (schedule hinge or automatic)"
    """How a person may spare the network at first."""

    sooner: ClassVar[str] = ""
    """How a person may have it reach its target earlier; empty where there is no way."""

    farther: ClassVar[str] = "train for more epochs, or let epsilon move at every step (schedule.every step)"
    """How a person may have it reach its target where it ended below; empty where it aims at none."""

    every: Every = "epoch"

    def __post_init__(self) -> None:
        if self.every not in ("epoch", "step"):
            raise Misuse(f"a schedule moves every 'epoch' or every 'step'; got {self.every!r}")

    @abstractmethod
    def share(self, moment: Moment) -> float | Float[Tensor, " n"]:
        """The share of the target epsilon, in [0, 1]: one for all examples, or one each."""

    def mean(self, moment: Moment) -> float:
        """The share as one number, which logs show and validation goes by; of shares that differ, what is expected."""
        share = share_at(self, moment)
        if isinstance(share, Tensor):
            name = type(self).__name__
            raise Misuse(
                f"the schedule {name} gives every example a share of its own, and must say their mean: {name}.mean"
            )
        return share

    def begin(self) -> Memory:
        """The memory before the first epoch; by default there is none."""
        return {}

    def heard(self, moment: Moment, figures: Figures) -> Memory:  # noqa: ARG002
        """The memory after an epoch.

        Args:
            moment: the end of the epoch, which is the start of the next; its progress may be 1.
            figures: at least those named in `hears`.
        """
        return moment.memory


def share_at(schedule: Schedule, moment: Moment) -> float | Float[Tensor, " n"]:
    """What a schedule says of a moment, if it is a share.

    Raises:
        Misuse: unless it is a number in [0, 1], or such a number for each of the moment's examples.
    """
    share = schedule.share(moment)
    if isinstance(share, Tensor):
        fits = share.shape == moment.ids.shape and bool(((share >= 0) & (share <= 1)).all())
    else:
        fits = bool(0 <= share <= 1)
    if not fits:
        raise Misuse(
            f"the schedule {type(schedule).__name__} must say which share of the target epsilon a moment trains at, in "
            f"[0, 1], for all examples or for each; at {100 * moment.progress:.3g} % of the training it said {share}"
        )
    return share if isinstance(share, Tensor) else float(share)


def progress_at(epoch: int, number: int, *, epochs: int, batches: int) -> float:
    """The part of a training that is done when a step begins.

    Args:
        epoch: of the step, from 0.
        number: of the step within the epoch, from 0.
        epochs: of the training.
        batches: steps of an epoch.
    """
    return (epoch + number / batches) / epochs


def ramp(moment: Moment, start: float, stop: float) -> float:
    """How much of the way from start to stop is done: 0 before start, 1 from stop on, a straight line between.

    A ramp that begins in time ends with the last move at the latest, so that a training sees its target: one that stops
    at 1 while epsilon moves every epoch would end an epoch's share below it.
    """
    progress = moment.progress
    stop = min(stop, moment.last) if start <= moment.last else stop
    if progress >= stop:
        return 1.0
    return 0.0 if progress < start else (progress - start) / (stop - start)


def check_ramp(start: float, stop: float, name: str) -> None:
    """Refuse impossible ends of a ramp.

    Raises:
        Misuse: unless 0 <= start <= stop <= 1.
    """
    if not 0 <= start <= stop <= 1:
        raise Misuse(
            f"a {name} needs 0 <= start <= stop <= 1, as shares of the training; got start {start} and stop {stop}"
        )
