"""What every schedule promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from poise.core.misuse import Misuse

Every = Literal["epoch", "step"]


@dataclass(frozen=True, kw_only=True)
class Schedule(ABC):
    """The share of the target epsilon that each moment of a training run trains at.

    A schedule is a pure function of progress, so a resumed run sees the budgets that an uninterrupted one sees.

    Args:
        every: how often the budget moves. "epoch": constant within an epoch, as in the paper; "step": at every step.
    """

    every: Every = "epoch"

    def __post_init__(self) -> None:
        if self.every not in ("epoch", "step"):
            raise Misuse(f"a schedule moves every 'epoch' or every 'step'; got {self.every!r}")

    @abstractmethod
    def share(self, progress: float) -> float:
        """The share of the target epsilon, in [0, 1].

        Args:
            progress: part of the training that is done, in [0, 1); 0 at the first step.
        """
