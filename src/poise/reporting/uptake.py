"""How a run took up its task, as it concluded itself after training, in sentences."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from poise.core.misuse import Misuse


@dataclass(frozen=True)
class Uptake:
    """What a report tells of a run's adaptation.json.

    Args:
        delay: the first epoch, from 1, after which the task counted as taken up; None for never.
        threshold: clean validation accuracy from which on it does; None where nothing was validated.
        kept: the epoch, from 1, whose weights are the run's; None where that is not known.
        remarks: what was the matter.
    """

    delay: int | None
    threshold: float | None
    kept: int | None
    remarks: tuple[str, ...]

    def sentences(self, name: str, epochs: int) -> list[str]:
        """How a run of so many epochs went, without what gives reason to worry; nothing where nothing was validated."""
        if self.threshold is None:
            return []
        accuracy, level = "clean accuracy on the validation images", f"{100 * self.threshold:.3g} %"
        told = (
            f"{name} never took up its task: {accuracy} was never above {level}."
            if self.delay is None
            else f"{name} had taken up its task after epoch {self.delay}: {accuracy} was above {level}."
        )
        if self.kept is not None and self.kept < epochs:
            told += f" Its weights are those of epoch {self.kept} of {epochs}, the best ones there."
        return [told]

    def warnings(self, name: str) -> list[str]:
        """What a reader should worry about."""
        return [f"{name}: {remark}." for remark in self.remarks]


def read_uptake(path: Path) -> Uptake:
    """What a run's adaptation.json says.

    Raises:
        Misuse: for a file of anything else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return Uptake(
            delay=_epoch(found["delay"]),
            threshold=None if found["clean"] is None else float(found["threshold"]),
            kept=_epoch(found.get("kept")),
            remarks=tuple(str(remark["text"]) for remark in found["remarks"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise Misuse(f"{path} cannot be read as what a training says of itself: {error}") from None


def _epoch(value: object) -> int | None:
    if value is None or (isinstance(value, int) and value >= 1):
        return value
    raise ValueError(f"{value!r} is no epoch")
