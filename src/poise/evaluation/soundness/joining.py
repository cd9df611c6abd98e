"""What soundness checks found on parts of a data set, joined into findings on the whole."""

from __future__ import annotations

import re
from collections.abc import Sequence

from poise.evaluation.profile import Profile
from poise.evaluation.soundness.catalogue import PROFILE_CHECKS, overrule
from poise.evaluation.soundness.finding import Finding, Status

_ORDER: tuple[Status, ...] = ("pass", "note", "warn", "block")


def join_findings(parts: Sequence[Sequence[Finding]], joined: Profile) -> tuple[Finding, ...]:
    """One finding a check: none may pass on the whole that objected on a part.

    Checks that are arithmetic on a profile look at the joined one. Of every other check the worst finding counts, with
    the evidence of its part; it is overridden only if it was on every part on which it blocked. A check that did not
    run on every part does not pass.

    Args:
        parts: the findings on each part.
        joined: the profile of all parts.

    Returns:
        The findings, in the order in which checks first appear; none where no part was checked.
    """
    if not any(parts):
        return ()
    names = dict.fromkeys(finding.check for part in parts for finding in part)
    again = {check.name: check.inspect(joined) for check in PROFILE_CHECKS}
    allowed = [found.check for part in parts for found in part if found.overridden]
    return tuple(
        overrule((again[name],), allowed)[0]
        if name in again
        else _worst([finding for part in parts for finding in part if finding.check == name], len(parts))
        for name in (*names, *(check for check in again if check not in names))
    )


_OF_PARTS = re.compile(r" \(on the worst of \d+ parts; \d+ \w+\)")
"""What an earlier join said of its own parts."""


def _worst(found: Sequence[Finding], parts: int) -> Finding:
    status = max((finding.status for finding in found), key=_ORDER.index)
    worst = [finding for finding in found if finding.status == status]
    evidence = _OF_PARTS.sub("", worst[0].evidence)
    if any(finding.evidence != worst[0].evidence or finding.status != status for finding in found):
        evidence = f"{evidence} (on the worst of {parts} parts; {len(worst)} {status})"
    if len(found) < parts:
        evidence = f"{evidence} (not checked on {parts - len(found)} of {parts} parts)"
        status = "note" if status == "pass" else status
    return Finding(
        check=found[0].check,
        status=status,
        evidence=evidence,
        overridden=status == "block" and all(finding.overridden for finding in worst),
        everywhere=len(found) == parts and all(finding.everywhere for finding in found),
    )
