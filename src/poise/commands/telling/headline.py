"""What a finished profile says in a line."""

from __future__ import annotations

from pathlib import Path

from poise.commands.telling.terminal import say
from poise.core.threat import Epsilon
from poise.evaluation import Profile, accuracy_curve, blocked, expected_robustness
from poise.evaluation.soundness.certified import checked


def tell(result: Profile, target: Path) -> None:
    """The headline, unless a check objects to it, and what checks object to; it says where none has looked.

    Args:
        result: the profile.
        target: where it was written.
    """
    for finding in result.findings:
        if finding.status in {"warn", "block"}:
            say(str(finding))
    if result.unsettled:
        say(f"{result.unsettled} of {len(result)} images lack a verdict at some epsilon and count as robust there")
    if objections := blocked(result.findings):
        say(f"{target}: written, but no figure is shown: {', '.join(found.check for found in objections)}")
        return
    curve, expected = accuracy_curve(result), expected_robustness(result)
    header = result.header
    count = f"a part, {len(result)} of {header.whole} images" if result.partial else f"{len(result)} images"
    say(
        f"{target}: {count}, {header.norm} {Epsilon(header.epsilons[-1])}, {header.suite}: "
        f"clean {curve.clean.value:.1%}, robust {curve.robust.value:.1%}, expected robustness {expected.value:.1%}"
        f"{'' if checked(result) else '; soundness not checked'}"
    )
