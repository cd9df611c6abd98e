"""What a comparison says, in plain sentences."""

from __future__ import annotations

from poise.evaluation.comparison import Comparison
from poise.evaluation.flips import Flips, spelled
from poise.evaluation.gate import Judgement
from poise.reporting.comparison.rows import counted, figure

_NAMED = 5


def headline(judgement: Judgement) -> str:
    """What became of the gate."""
    total = len(judgement.verdicts)
    failed, unjudged = (
        sum(verdict.outcome == outcome for verdict in judgement.verdicts) for outcome in ("failed", "cannot be judged")
    )
    limits = f"{total} limit{'s' * (total > 1)}"
    if judgement.outcome == "passed":
        return f"The gate passes: {'the limit is' if total == 1 else f'all {limits} are'} kept."
    if judgement.outcome == "failed":
        more = f", and {unjudged} cannot be judged" if unjudged else ""
        return f"The gate fails: {failed} of {limits} {'is' if failed == 1 else 'are'} broken{more}."
    return f"The gate cannot be judged: for {unjudged} of {limits} the evidence is not enough."


def summary(comparison: Comparison) -> list[str]:
    """The flips of clean images, those at the largest epsilon, how they compare with attack noise, and a replay."""
    if comparison.pair is None:
        return [f"The profiles cannot be compared: {comparison.obstacle}."]
    clean, robust = comparison.flips[0], comparison.flips[-1]
    said = [_told(comparison, 0, clean, "On clean images")]
    if len(comparison.flips) > 1:
        at = f"Under attack at {comparison.pair.old.header.norm} {spelled(robust.epsilon)}"
        said.append(_told(comparison, len(comparison.flips) - 1, robust, at))
        if comparison.expected_change is not None:
            said.append(f"Expected robustness changes by {figure(comparison.expected_change, signed=True)} points.")
    noise = [
        f"Attack noise of the {floor.of} model (seeds {floor.seeds[0]} and {floor.seeds[1]}) alone makes "
        f"{figure(floor.rate(-1))} % of the images look lost at {spelled(robust.epsilon)}; nowhere is it subtracted."
        for floor in comparison.noise
    ]
    return said + noise + _replay(comparison)


def _replay(comparison: Comparison) -> list[str]:
    found = comparison.replayed
    if found is None:
        return []
    said = [
        f"Of {len(found.ids)} images that break the old model, {figure(found.transferred)} % break the new one as well."
    ]
    if found.overlooked:
        named = ", ".join(found.overlooked[:_NAMED]) + (", ..." if len(found.overlooked) > _NAMED else "")
        said.append(
            f"The profile of the new model is too kind: {len(found.overlooked)} of these images break it where it "
            f"counts as robust ({named}). Profile it with a stronger suite."
        )
    return said


def _told(comparison: Comparison, point: int, found: Flips, where: str) -> str:
    change = figure(comparison.accuracy_changes[point], signed=True)
    return (
        f"{where}, {counted(found.lost)} of {found.lost.total} images are lost and {counted(found.gained)} gained; "
        f"accuracy changes by {change} points."
    )
