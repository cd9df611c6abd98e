"""Whether proofs and attacks agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from poise.evaluation.certificates.certificate import Certificate
from poise.evaluation.profile import Profile
from poise.evaluation.soundness.check import ProfileCheck
from poise.evaluation.soundness.finding import Finding, Status
from poise.evaluation.soundness.verdicts import listed


class CertifiedBroken(ProfileCheck):
    """Examples that are broken within their certified radius.

    A certified radius of at least epsilon implies that no attack succeeds at epsilon. A deterministic certificate that
    an attack contradicts is a bug in one of the two and blocks. A radius by sampling holds with a stated confidence and
    for the exact average over the noise, while attacks see an average over finitely many patterns; a contradiction is
    then warned of.

    Limits: it sees only what attacks find. Cost: none.
    """

    name = "certified-broken"
    meaning = "an attack succeeded within a certified radius: proof or attack is wrong, or a smoothing too coarse"

    def inspect(self, given: Profile) -> Finding:
        """See `Check.inspect`."""
        certificate = given.certificate
        if certificate is None:
            return self.finding("pass", "nothing is certified")
        grid = np.append(np.asarray(given.epsilons), np.inf)
        wrong = certificate.radii >= grid[given.broken_from]
        wrong &= certificate.radii > 0
        found = f"{wrong.sum()} of {(certificate.radii > 0).sum()} certified examples are broken within their radius"
        status: Status = "pass" if not wrong.any() else "warn" if certificate.confidence < 1 else "block"
        return self.finding(status, found + listed(given.ids, wrong))


def checked(profile: Profile) -> bool:
    """Whether soundness checks have looked at a profile, other than the one that comes with its certificate.

    Args:
        profile: verdicts.
    """
    return any(finding.check != CertifiedBroken.name for finding in profile.findings)


def certified(profile: Profile, certificate: Certificate) -> Profile:
    """A profile with a certificate, and with the finding on whether its attacks contradict that.

    Args:
        profile: verdicts.
        certificate: a radius for each of its examples, in its norm.

    Raises:
        Misuse: for a certificate of other examples or in another norm.
    """
    joined = replace(profile, certificate=certificate)
    finding = CertifiedBroken().inspect(joined)
    others = tuple(found for found in profile.findings if found.check != finding.check)
    return replace(joined, findings=(*others, finding))
