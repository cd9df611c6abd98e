"""Certificates in profiles: kept on disk, summed up as a curve, and compared with what attacks found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from poise.core.misuse import Misuse
from poise.evaluation import Certificate, certified_curve, read_profile, write_profile
from poise.evaluation.soundness.catalogue import CHECKS
from poise.evaluation.soundness.certified import CertifiedBroken
from tests.evaluation.profiles import profile


def _with(radii, broken_from=(0, 1, 2, 3), confidence=1.0, **changes):
    options = {"method": "local", "norm": "linf"} | changes
    certificate = Certificate(radii=np.asarray(radii), confidence=confidence, **options)
    return replace(profile(broken_from), certificate=certificate)


def test_radii_come_back_as_they_went(tmp_path):
    made = _with([0.0, 0.05, 1 / 3, 0.2], facts={"sigma": 0.25, "vote": "hard"}, confidence=0.999)
    write_profile(made, tmp_path / "p.parquet")
    back = read_profile(tmp_path / "p.parquet").certificate
    assert np.array_equal(back.radii, made.certificate.radii)
    assert back.description() == made.certificate.description()
    assert pq.read_table(tmp_path / "p.parquet")["radius"].to_pylist()[2] == 1 / 3


def test_certified_accuracy_is_the_share_of_radii_that_reach_and_lies_below_the_attacks():
    found = _with([0.0, 0.05, 0.1, 0.25])
    curve = certified_curve(found)
    assert [estimate.value for estimate in curve.accuracy] == [0.75, 0.5, 0.25]
    assert (np.array([e.value for e in curve.accuracy]) <= found.robust().mean(0)).all()
    with pytest.raises(Misuse, match="poise certify"):
        certified_curve(profile([0, 1]))


@pytest.mark.parametrize(
    ("radii", "confidence", "status", "count"),
    [
        ([0.0, 0.0999, 0.1999, 5.0], 1.0, "pass", 0),
        ([0.0, 0.1, 0.1999, 5.0], 1.0, "block", 1),
        ([0.01, 0.1, 0.3, 5.0], 1.0, "block", 3),
        ([0.0, 0.1, 0.1999, 5.0], 0.999, "warn", 1),
    ],
)
def test_an_example_that_is_broken_within_its_radius_raises_the_alarm(radii, confidence, status, count):
    """Broken from 0, 0.1, 0.2 and nowhere on; a radius of exactly epsilon is a contradiction."""
    finding = CertifiedBroken().inspect(_with(radii, confidence=confidence))
    assert finding.status == status
    assert finding.evidence.startswith(f"{count} of ")
    assert ("image/1" in finding.evidence) == (count > 0)
    assert "certified-broken" in CHECKS


@pytest.mark.parametrize("change", [{"norm": "l2"}, {"radii": [0.1]}])
def test_a_certificate_of_something_else_is_refused(change):
    with pytest.raises(Misuse, match="as many in this norm"):
        _with(change.pop("radii", [0.0, 0.1, 0.1, 0.1]), **change)
