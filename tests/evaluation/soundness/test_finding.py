from __future__ import annotations

import json

import pytest

from poise.core.misuse import Misuse
from poise.evaluation.soundness.catalogue import CHECKS, overrule
from poise.evaluation.soundness.finding import Finding, blocked

FOUND = (
    Finding(check="vanishing", status="block", evidence="9 of 10 hold"),
    Finding(check="black-box", status="warn", evidence="2 of 10 fell"),
    Finding(check="planted", status="pass", evidence="0 missed"),
)


def test_a_finding_survives_json():
    for finding in overrule(FOUND, ["vanishing"]):
        assert Finding.from_dict(json.loads(json.dumps(finding.to_dict()))) == finding


def test_a_finding_reads_as_one_sentence():
    assert str(FOUND[1]) == "warn black-box: 2 of 10 fell"
    assert str(overrule(FOUND, ["vanishing"])[0]) == "block (overridden) vanishing: 9 of 10 hold"


def test_only_what_blocks_and_was_not_overridden_holds_a_figure_back():
    assert blocked(FOUND) == FOUND[:1]
    assert blocked(overrule(FOUND, ["vanishing"])) == ()
    assert blocked(overrule(FOUND, ["planted", "black-box"])) == FOUND[:1]


def test_an_override_changes_nothing_else():
    after = overrule(FOUND, ["vanishing", "black-box", "input-range"])
    assert after[1:] == FOUND[1:]
    assert (after[0].overridden, after[0].status, after[0].evidence) == (True, "block", "9 of 10 hold")


def test_an_unknown_check_is_refused_with_the_nearest():
    with pytest.raises(Misuse, match="no soundness check 'vanish' to override; did you mean 'vanishing'"):
        overrule(FOUND, ["vanish"])


@pytest.mark.usefixtures("unchecked")
def test_impossible_findings_are_refused():
    with pytest.raises(Misuse, match="unknown status 'blocked' of a finding; did you mean 'block'"):
        Finding(check="planted", status="blocked", evidence="")
    with pytest.raises(Misuse, match="planted has status warn; only what blocks can be overridden"):
        Finding(check="planted", status="warn", evidence="", overridden=True)
    with pytest.raises(Misuse, match="everywhere is true or false in a finding; got 'false'"):
        Finding.from_dict({"check": "planted", "status": "pass", "evidence": "", "everywhere": "false"})
    with pytest.raises(Misuse, match="not a finding of a soundness check"):
        Finding.from_dict({"check": "planted", "state": "pass"})


def test_every_check_is_listed_once_with_its_meaning():
    assert set(CHECKS) == {
        *("input-range", "train-mode", "batch-dependence", "randomised-output", "probabilities", "few-classes"),
        *("gradient-graph", "zero-gradients", "gradient-noise", "optimisation-in-inference"),
        *("monotone", "black-box", "vanishing", "single-step", "more-budget", "convergence", "planted"),
        *("certified-broken", "adaptive"),
    }
    assert all(meaning and "\n" not in meaning for meaning in CHECKS.values())
