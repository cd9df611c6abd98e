"""One run in a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from poise.core.run_folder import RunFolder
from poise.evaluation import Profile, profile_of
from poise.evaluation.frontier import Frontier, read_frontier
from poise.reporting.uptake import Uptake, read_uptake


@dataclass(frozen=True)
class Subject:
    """What a report knows of one run.

    Args:
        name: how tables and charts call it; names need not differ, but readers will wish they did.
        profile: verdicts on test images; None where it has not been profiled.
        history: one row an epoch, oldest first, as in `metrics.jsonl`; keys other than "epoch" are optional.
        recipe: the run's options as YAML; "" where there are none.
        seconds: duration of training; None where it is not known.
        frontier: what was tried, of a run that mixes two others.
        uptake: how it took up its task, of a fine-tuning.
    """

    name: str
    profile: Profile | None
    history: list[dict[str, Any]]
    recipe: str
    seconds: float | None
    frontier: Frontier | None = None
    uptake: Uptake | None = None


def read_subject(folder: Path, name: str | None = None) -> Subject:
    """The subject that a run folder holds.

    Args:
        folder: a run folder; profile and history may be absent.
        name: how the report calls it; by default the folder's own name.

    Raises:
        Misuse: if there is no run folder, or its profile cannot be read or is about another model.
    """
    run = RunFolder.open(folder)
    history = run.history()
    measured = [seconds for row in history if (seconds := finite_number(row.get("seconds"))) is not None]
    return Subject(
        name=folder.resolve().name if name is None else name,
        profile=profile_of(run),
        history=history,
        recipe=run.recipe.read_text(encoding="utf-8"),
        seconds=math.fsum(measured) if measured else None,
        frontier=read_frontier(run.frontier) if run.frontier.is_file() else None,
        uptake=read_uptake(run.adaptation) if run.adaptation.is_file() else None,
    )


def finite_number(value: object) -> float | None:
    """A value of a history as a number; None for what is none, and for infinities and NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
