"""The target epsilon from the first step to the last."""

from __future__ import annotations

from dataclasses import dataclass

from poise.schedules.schedule import Moment, Schedule


@dataclass(frozen=True, kw_only=True)
class Fixed(Schedule):
    """Train at the target epsilon throughout: plain adversarial fine-tuning (RFT-fix of arXiv 2509.23325)."""

    def share(self, moment: Moment) -> float:  # noqa: ARG002 - the same at every moment
        """Always 1."""
        return 1.0
