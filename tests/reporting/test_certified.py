"""Certified accuracy in reports: below the empirical curve, and said in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poise.evaluation import Certificate, Finding
from poise.reporting import Subject, write_report
from poise.reporting.chart import accuracy_chart
from poise.reporting.conditions import comparable_groups
from poise.reporting.origin import origin_facts
from poise.reporting.palette import Style
from poise.reporting.sentences import sentences_of
from tests.reporting.samples import profile, subject

CONTRADICTED = Finding(check="certified-broken", status="block", evidence="1 of 5")


def _certified(held, radii, **changes) -> Subject:
    certificate = Certificate(method="local", norm=changes.get("norm", "linf"), radii=np.asarray(radii))
    return replace(subject(), profile=replace(profile(held, **changes), certificate=certificate))


def test_what_is_proven_is_drawn_below_what_attacks_leave():
    run = _certified((9, 8, 5), [2.5 / 255] * 2 + [1.5 / 255] * 3 + [0.0] * 5)
    group = comparable_groups([run])[0]
    empirical, certified = accuracy_chart([(run, Style.nth(0))], group.conditions).lines
    assert certified.name == "new, certified"
    assert certified.x == empirical.x == (0.0, 1.0, 2.0)
    assert certified.y == (0.5, 0.5, 0.2)
    assert all(low <= high for low, high in zip(certified.y, empirical.y, strict=True))
    assert certified.style.dash != empirical.style.dash
    said = sentences_of(group)[1].replace("\u00a0", " ")
    assert said.startswith("new is proven right (local, linf) on 50.0 %")
    assert "20.0 % [2.5, 55.6] at 2/255" in said or "20.0 % [2.5, 55.6] at 0.00784" in said


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_profile_without_attacks_is_drawn_over_its_radii(norm, tmp_path):
    run = _certified((9,), np.arange(10) / 10, epsilons=(0.0,), norm=norm)
    group = comparable_groups([run])[0]
    _, certified = accuracy_chart([(run, Style.nth(0))], group.conditions).lines
    assert certified.x == pytest.approx([0.9 * step / 8 for step in range(9)])
    assert certified.y[0] == 0.9
    assert certified.y[-1] == 0.1
    write_report([run], tmp_path / "r.html", title="t")
    assert "new, certified" in (tmp_path / "r.html").read_text()


def test_without_a_certificate_nothing_is_said():
    group = comparable_groups([subject()])[0]
    assert len(accuracy_chart([(subject(), Style.nth(0))], group.conditions).lines) == 1
    assert not any("proven" in line for line in sentences_of(group))


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ((), "not checked"),
        ((CONTRADICTED,), "not checked; block certified-broken: 1 of 5"),
        ((Finding(check="monotone", status="pass", evidence="none"), CONTRADICTED), "1 of 2 checks passed; block"),
    ],
    ids=["none", "that of the certificate", "both"],
)
def test_a_certificates_own_check_does_not_pass_for_soundness(findings, said):
    assert origin_facts(replace(profile((9, 8, 5)), findings=findings))["soundness"].startswith(said)
