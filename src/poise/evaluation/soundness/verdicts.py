"""What a finished profile says about itself, by arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from poise.evaluation.profile import Profile
from poise.evaluation.soundness.check import ProfileCheck
from poise.evaluation.soundness.finding import Finding

LISTED = 10
"""Ids that a finding lists at most."""
SQUARE_SHARE = 0.002
"""Share of all examples that Square alone may break; AutoAttack's figure."""


class BlackBox(ProfileCheck):
    """Examples that only the black-box attack broke.

    Square knows less than the attacks with gradients; where it wins, those were led astray (Carlini et al. 2019, sanity
    tests; fra31/auto-attack, autoattack/checks.py). As there, more than 0.2 % of all examples are warned of; here they
    are listed too.

    An example is named after Square only if all units that stand before it in the suite failed at the epsilon where it
    first succeeded.

    Limits: it relies on suites that try Square last; one without it always passes. Cost: none.
    """

    name = "black-box"
    meaning = "the black-box attack breaks what gradient attacks do not, so gradients are masked"

    def inspect(self, given: Profile) -> Finding:
        """See `Check.inspect`."""
        alone = np.array([by == "square" for by in given.broken_by], dtype=bool)
        broken = int((given.broken_from < len(given.epsilons)).sum())
        found = f"{alone.sum()} of {len(given)} examples ({broken} broken in all) fell to square alone"
        suspicious = alone.sum() > SQUARE_SHARE * len(given)
        return self.finding("warn" if suspicious else "pass", found + listed(given.ids, alone))


class Monotone(ProfileCheck):
    """Verdicts that contradict themselves: a bug, in poise or in what was done to the file.

    A tool that let accuracy rise with epsilon went unnoticed (Trusted-AI/adversarial-robustness-toolbox#687). Every row
    must have -1 <= robust_to < broken_from <= grid length, be broken at 0 exactly where the clean prediction is wrong
    or the model's answer is no number, and name an attack exactly where it is broken. A row that does not blocks.

    Limits: verdicts are carried from epsilon to epsilon, so this sees bugs and no masking; `more-budget` attacks anew.
    Cost: none.
    """

    name = "monotone"
    meaning = "the verdicts of some examples contradict themselves: a bug"

    def inspect(self, given: Profile) -> Finding:
        """See `Check.inspect`."""
        points, broken = len(given.epsilons), given.broken_from
        ordered = (given.robust_to >= -1) & (given.robust_to < broken) & (broken >= 0) & (broken <= points)
        no_number = np.isnan(given.margins)
        clean = np.where(given.predictions != given.labels, broken == 0, (broken > 0) | no_number)
        named = np.array([by != "" for by in given.broken_by], dtype=bool) == (broken < points)
        wrong = ~(ordered & clean & named)
        return self.finding(
            "block" if wrong.any() else "pass",
            f"{wrong.sum()} of {len(given)} rows contradict themselves" + listed(given.ids, wrong),
        )


def listed(ids: Sequence[str], mask: Bool[np.ndarray, " n"]) -> str:
    """A clause with the ids where the mask is true, at most ten; empty where it never is."""
    chosen = [ids[row] for row in np.flatnonzero(mask).tolist()]
    more = f" and {len(chosen) - LISTED} more" if len(chosen) > LISTED else ""
    return f": {', '.join(chosen[:LISTED])}{more}" if chosen else ""
