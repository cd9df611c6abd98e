from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon
from poise.evaluation import expected_robustness
from poise.evaluation.flips import join
from poise.evaluation.gate import FIGURES, Gate, Limit, judge, parse_gate, read_gate, unjudged
from tests.evaluation.flips.tables import checked, made, settled


def _join(old, new):
    return join(checked(old), checked(new))


OLD = settled([4] * 60 + [2] * 20 + [0] * 20, labels=[0] * 50 + [1] * 50)
NEW = settled([4] * 50 + [1] * 10 + [0] * 5 + [3] * 15 + [4] * 10 + [0] * 10, labels=[0] * 50 + [1] * 50)
PAIR = _join(OLD, NEW)


def _verdict(pair=PAIR, joint="none", confidence=0.95, **limit):
    return judge(Gate(limits=(Limit(**limit),), joint=joint, confidence=confidence), pair).verdicts[0]


@pytest.mark.parametrize(
    ("figure", "at", "value"),
    [
        ("clean_flips", None, 0.05),
        ("robust_flips", 0.1, 0.15),
        ("robust_flips", 0.3, 0.10),
        ("joint_flips", 0.1, 0.05),
        ("union_flips", 0.1, 0.15),
        ("union_flips", 0.3, 0.15),
        ("clean_gains", None, 0.10),
        ("robust_gains", 0.2, 0.25),
        ("clean_trust", None, 75 / 80),
        ("robust_trust", 0.3, 50 / 60),
        ("clean_relative_flips", None, 0.05 / (0.8 * 0.15)),
        ("clean_accuracy", None, 0.85),
        ("robust_accuracy", 0.3, 0.60),
        ("clean_accuracy_change", None, 0.05),
        ("robust_accuracy_change", 0.3, 0.0),
        ("expected_robustness", None, expected_robustness(NEW).value),
        ("expected_robustness_change", None, expected_robustness(NEW).value - expected_robustness(OLD).value),
    ],
)
def test_every_figure_by_hand(figure, at, value):
    side = FIGURES[figure].side
    epsilon = None if at is None else Epsilon(at)
    found = _verdict(figure=figure, side=side, value=0.5, at=epsilon, by="estimate")
    assert found.value == pytest.approx(value)
    assert found.examples == {"clean_trust": 80, "robust_trust": 60}.get(figure, 100)
    within, beyond = (value + step if side == "at_most" else value - step for step in (1e-6, -1e-6))
    assert _verdict(figure=figure, side=side, value=within, at=epsilon, by="estimate").outcome == "passed"
    assert _verdict(figure=figure, side=side, value=beyond, at=epsilon, by="estimate").outcome == "failed"


def test_a_limit_on_a_bound_passes_fails_or_asks_for_examples():
    robust = {"figure": "robust_flips", "side": "at_most", "at": Epsilon(0.3)}
    passed, open_, failed = (_verdict(value=value, **robust) for value in (0.17, 0.12, 0.09))
    assert [each.outcome for each in (passed, open_, failed)] == ["passed", "cannot be judged", "failed"]
    assert passed.bound == open_.bound == pytest.approx(0.1637, abs=1e-4)
    assert open_.needed > 100
    assert f"too few examples; about {open_.needed} examples are needed" in open_.reason
    assert "10 % of 100 examples, at most 16.4 % with 95 % confidence" in open_.reason
    tight = _verdict(value=0.1, **robust)
    assert (tight.outcome, tight.needed) == ("cannot be judged", None)
    assert "no number of examples is enough" in tight.reason


@pytest.mark.parametrize(
    ("figure", "at", "value"),
    [
        ("clean_flips", None, 1.0),
        ("robust_flips", 0.3, 1.0),
        ("clean_gains", None, 0.0),
        ("robust_accuracy", 0.3, 0.0),
        ("clean_accuracy_change", None, -1.0),
        ("robust_accuracy_change", 0.3, -1.0),
        ("expected_robustness", None, 0.0),
        ("expected_robustness_change", None, -1.0),
    ],
)
@pytest.mark.parametrize("joint", ["none", "holm"])
def test_a_limit_that_every_model_keeps_passes(figure, at, value, joint):
    """Even where everything is lost: nothing lies beyond the end of a figure's range."""
    epsilon = None if at is None else Epsilon(at)
    limit = {"figure": figure, "side": FIGURES[figure].side, "value": value, "at": epsilon}
    worst = _join(settled([4] * 30), settled([0] * 30))
    for pair in (worst, PAIR, _join(OLD, OLD)):
        assert _verdict(pair, joint=joint, **limit).outcome == "passed"


def test_confidence_moves_the_bound():
    limit = {"figure": "robust_flips", "side": "at_most", "at": Epsilon(0.3), "value": 0.17}
    assert _verdict(confidence=0.99, **limit).outcome == "cannot be judged"
    assert _verdict(confidence=0.9, **limit).bound < _verdict(**limit).bound < _verdict(confidence=0.99, **limit).bound


def test_classes_and_every_epsilon_are_judged_by_their_worst():
    flips = {"figure": "robust_flips", "side": "at_most", "value": 0.2, "by": "estimate"}
    dog = _verdict(of="dog", at=Epsilon(0.1), **flips)
    assert (dog.outcome, dog.value, dog.examples) == ("failed", 0.3, 50)
    worst = _verdict(every_class=True, at=Epsilon(0.1), **flips)
    assert (worst.outcome, worst.value, worst.where) == ("failed", 0.3, "dog")
    everywhere = _verdict(at="every", **flips)
    assert (everywhere.outcome, everywhere.value, everywhere.where) == ("passed", 0.15, "epsilon 0.1")
    both = _verdict(every_class=True, at="every", **flips)
    assert both.where == "dog, epsilon 0.1"
    assert both.reason.startswith("dog, epsilon 0.1: 30 % of 50 examples")


def test_what_cannot_be_judged_says_why():
    flips = {"figure": "robust_flips", "side": "at_most", "value": 0.2}
    off = _verdict(at=Epsilon(0.25), **flips)
    assert off.outcome == "cannot be judged"
    assert off.reason == "epsilon 0.25 is not on the common grid: 0, 0.1, 0.2, 0.3"
    assert "no class 'dgo'; did you mean 'dog'?" in _verdict(of="dgo", at=Epsilon(0.1), **flips).reason
    empty = _verdict(every_class=True, at=Epsilon(0.1), **flips | {"value": 1.0})
    assert (empty.outcome, empty.where) == ("cannot be judged", "eel")
    assert "eel: there are no examples" in empty.reason
    clean = _join(settled([1, 0], grid=(0.0,)), settled([0, 1], grid=(0.0,)))
    assert "no epsilon in common beyond 0" in _verdict(clean, at="every", **flips).reason
    never = _join(settled([0, 0]), settled([1, 1]))
    assert "could be measured on" in _verdict(never, figure="clean_trust", side="at_least", value=0.5).reason


COARSE = {0.0: 0, 0.1: 1, 0.3: 3}
"""Where the points of a grid without 0.2 lie on the whole grid."""
OVER_GRID = (
    {"figure": "robust_flips", "side": "at_most", "value": 0.9, "at": "every"},
    {"figure": "robust_accuracy_change", "side": "at_least", "value": -0.9, "at": "every", "of": "dog"},
    {"figure": "expected_robustness", "side": "at_least", "value": 0.01},
    {"figure": "expected_robustness_change", "side": "at_least", "value": -0.9},
)


def _coarse(profile):
    """The same verdicts on a grid without 0.2."""
    broken = np.searchsorted([*COARSE.values()], profile.broken_from)
    return settled(broken, grid=tuple(COARSE), labels=profile.labels)


@pytest.mark.parametrize("limit", OVER_GRID, ids=lambda limit: limit["figure"])
def test_a_new_profile_that_lacks_epsilons_is_not_judged_over_the_grid(limit):
    limit = limit | {"by": "estimate"}
    lacking, finer = _join(OLD, _coarse(NEW)), _join(_coarse(OLD), NEW)
    found = _verdict(lacking, **limit)
    assert found.outcome == "cannot be judged"
    assert found.reason.startswith("the new profile lacks epsilon 0.2 of the old one's grid: profile it with the same")
    assert judge(Gate(limits=(Limit(**limit),), grid="common"), lacking).outcome != "cannot be judged"
    assert _verdict(finer, **limit).value == _verdict(_join(_coarse(OLD), _coarse(NEW)), **limit).value


def test_limits_at_an_epsilon_that_both_have_are_judged_on_any_grid():
    lacking = _join(OLD, _coarse(NEW))
    flips = {"figure": "robust_flips", "side": "at_most", "value": 0.3}
    assert [_verdict(lacking, at=Epsilon(at), **flips).outcome for at in (0.1, 0.3)] == ["passed"] * 2
    assert "0.2 is not on the common grid" in _verdict(lacking, at=Epsilon(0.2), **flips).reason
    assert _verdict(lacking, figure="clean_flips", side="at_most", value=0.3).outcome == "passed"


@pytest.mark.parametrize("side", ["old", "new"])
def test_profiles_that_were_not_checked_are_judged_only_where_the_gate_allows_it(side):
    kept = Limit(figure="clean_flips", side="at_most", value=0.5)
    profiles = {"old": checked(OLD), "new": checked(NEW)}
    proof = [found for found in profiles[side].findings if found.check == "certified-broken"]
    partly = [replace(found, everywhere=found.check != "adaptive") for found in profiles[side].findings]
    for findings, reason in (
        ((), f"no soundness check has looked at the {side} profile"),
        (proof, f"soundness checks that have not looked at the {side} profile: input-range, train-mode, "),
        (partly, f"soundness checks that have not looked at the {side} profile: adaptive ("),
    ):
        pair = join(**profiles | {side: replace(profiles[side], findings=tuple(findings))})
        refused = judge(Gate(limits=(kept,)), pair)
        assert (refused.outcome, refused.exit_code) == ("cannot be judged", 2)
        assert reason in refused.verdicts[0].reason
        assert judge(Gate(limits=(kept,), unchecked="allow"), pair).outcome == "passed"


def test_a_gate_may_ask_for_attacks_and_judges_no_others():
    kept = Limit(figure="robust_flips", side="at_most", value=0.5, at=Epsilon(0.2), by="estimate")
    pair = _join(settled([4] * 10), settled([4] * 10))
    suite = pair.old.header.suite
    assert judge(Gate(limits=(kept,), unchecked="allow", suites=("mine", suite)), pair).outcome == "passed"
    refused = judge(Gate(limits=(kept,), unchecked="allow", suites=("stronger", "mine")), pair)
    assert refused.exit_code == 2
    assert refused.verdicts[0].reason == (
        f"the old profile is by {suite} and the new profile is by {suite}; the gate asks for stronger or mine"
    )


@pytest.mark.parametrize(
    ("wanted", "outcome"),
    [
        ("python:mine:suite", "passed"),
        ("python:mine:suite@1a2b3c4d", "passed"),
        ("python:mine:suite@0", "cannot be judged"),
    ],
)
def test_a_gate_takes_any_version_of_somebodys_suite_or_one(wanted, outcome):
    kept = Limit(figure="robust_flips", side="at_most", value=0.5, at=Epsilon(0.2), by="estimate")
    old, new = (
        replace(one, header=replace(one.header, suite="python:mine:suite@1a2b3c4d"))
        for one in (settled([4] * 10), settled([4] * 10))
    )
    assert judge(Gate(limits=(kept,), unchecked="allow", suites=(wanted,)), _join(old, new)).outcome == outcome


def test_open_verdicts_decide_only_where_they_can():
    """Of ten examples, one is lost, and two may be."""
    pair = _join(settled([4] * 10), made([0, 1, 1] + [3] * 7, [1, 3, 3] + [4] * 7))
    flips = {"figure": "robust_flips", "side": "at_most", "at": Epsilon(0.2), "by": "estimate"}
    outcomes = [_verdict(pair, value=value, **flips).outcome for value in (0.05, 0.1, 0.2, 0.3)]
    assert outcomes == ["failed", "cannot be judged", "cannot be judged", "passed"]
    assert "finish the profiles" in _verdict(pair, value=0.2, **flips).reason
    bound = _verdict(pair, value=0.2, **flips | {"by": "bound"})
    assert (bound.outcome, bound.value) == ("cannot be judged", 0.3)
    assert "finish the profiles" in bound.reason
    trust = _verdict(pair, figure="robust_trust", side="at_least", value=0.1, at=Epsilon(0.2))
    assert trust.outcome == "cannot be judged"
    assert trust.reason == "the profiles: verdicts are open that this figure needs: finish the profiles"


def test_the_gate_passes_only_if_every_limit_does():
    kept = Limit(figure="clean_flips", side="at_most", value=0.5)
    broken = Limit(figure="clean_flips", side="at_most", value=0.01)
    close = Limit(figure="clean_flips", side="at_most", value=0.06)
    for limits, outcome, code in (
        ((kept,), "passed", 0),
        ((kept, broken), "failed", 1),
        ((kept, close), "cannot be judged", 2),
        ((close, broken), "failed", 1),
    ):
        judgement = judge(Gate(limits=limits), PAIR)
        assert (judgement.outcome, judgement.exit_code) == (outcome, code)
    none = unjudged(Gate(limits=(kept, broken)), "the profiles are of different images")
    assert (none.outcome, none.exit_code) == ("cannot be judged", 2)
    assert {verdict.reason for verdict in none.verdicts} == {"the profiles are of different images"}


def test_the_order_of_rows_changes_no_verdict():
    """Bets on the expected robustness are placed in an order of the ids, whatever order the rows are in."""
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 5, 80), rng.integers(0, 5, 80)
    ids, order = [f"x{row}" for row in range(80)], rng.permutation(80)
    labels = np.zeros(80, dtype=np.int64)
    there = _join(settled(old, ids=ids, labels=labels), settled(new, ids=ids, labels=labels))
    moved = [ids[row] for row in order]
    back = _join(settled(old[order], ids=moved, labels=labels), settled(new[order], ids=moved, labels=labels))
    limit = {"figure": "expected_robustness_change", "side": "at_least", "value": -0.2}
    assert _verdict(there, **limit) == _verdict(back, **limit)
    assert _verdict(there, **limit).bound is not None


GATE = """
confidence: 0.9
joint: holm
grid: common
unchecked: allow
suites: [autoattack, pgd]
limits:
  - {figure: clean_flips, at_most: 1 %}
  - {figure: robust_flips, at: 8/255, at_most: 0.02, every_class: true}
  - {figure: union_flips, at: every, at_most: .5%, class: 3, by: estimate}
  - {figure: clean_accuracy_change, at_least: -0.5 %}
"""


def test_a_gate_is_read_as_it_was_written(tmp_path):
    (tmp_path / "gate.yaml").write_text(GATE)
    gate = read_gate(tmp_path / "gate.yaml")
    assert (gate.confidence, gate.joint, gate.grid, gate.unchecked) == (0.9, "holm", "common", "allow")
    assert gate.suites == ("autoattack", "pgd")
    assert gate.limits == (
        Limit(figure="clean_flips", side="at_most", value=0.01),
        Limit(figure="robust_flips", side="at_most", value=0.02, at=Epsilon("8/255"), every_class=True),
        Limit(figure="union_flips", side="at_most", value=0.005, at="every", of="3", by="estimate"),
        Limit(figure="clean_accuracy_change", side="at_least", value=-0.005),
    )
    assert [str(limit) for limit in gate.limits] == [
        "clean flips at most 1 %",
        "robust flips at 8/255 of every class at most 2 %",
        "union flips at every epsilon of class 3 at most 0.5 %",
        "clean accuracy change at least -0.5 %",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("limits: []", "a list of at least one"),
        ("- a", "a gate is a mapping"),
        ("", "a gate is a mapping"),
        ("limit: []", "a gate has no 'limit'; did you mean 'limits'"),
        ("limits: [clean_flips]", "limit 1: a limit is a mapping"),
        ("limits: [{at_most: 100 %}]", "limit 1: a limit names its figure"),
        ("limits: [{figure: clean_flip, at_most: 100 %}]", "unknown figure 'clean_flip'; did you mean 'clean_flips'"),
        ("limits: [{figure: clean_flips, at_mots: 1}]", "a limit has no 'at_mots'; did you mean 'at_most'"),
        ("limits: [{figure: clean_flips}]", "either at_most or at_least; got neither"),
        ("limits: [{figure: clean_flips, at_most: 100 %, at_least: 0}]", "got at_most and at_least"),
        ("limits: [{figure: clean_flips, at_least: 1}]", "clean_flips is limited by at_most"),
        (
            "limits: [{figure: clean_flips, at_most: 2}]",
            "lies between 0 and 1, or stands in %; got 2; did you mean 2 %",
        ),
        ("limits: [{figure: clean_flips, at_most: .nan}]", "lies between 0 and 1"),
        ("limits: [{figure: clean_flips, at_most: true}]", "at_most is a number such as"),
        ("limits: [{figure: clean_flips, at_most: one}]", "at_most is a number such as"),
        ("limits: [{figure: clean_flips, at_most: 100 %, at: 8/255}]", "clean_flips has no epsilon"),
        ("limits: [{figure: robust_flips, at_most: 100 %}]", "robust_flips needs the epsilon"),
        (
            "limits: [{figure: robust_flips, at_most: 100 %, at: 8/25x}]",
            "limit 1: epsilon must be a number or a fraction",
        ),
        ("limits: [{figure: robust_flips, at_most: 100 %, at: [1]}]", "at is an epsilon"),
        ("limits: [{figure: clean_flips, at_most: 100 %, by: bounds}]", "unknown by 'bounds'; did you mean 'bound'"),
        ("limits: [{figure: clean_flips, at_most: 100 %, every_class: 1}]", "every_class is true or false"),
        ("limits: [{figure: clean_flips, at_most: 100 %, every_class: true, class: a}]", "got both"),
        ("limits: [{figure: clean_relative_flips, at_most: 100 %}]", "limit the estimate, with by: estimate"),
        ("limits: [{figure: clean_flips, at_most: 100 %, at_most: 0}]", "'at_most' stands there twice"),
        ("limits: [&a {figure: clean_flips, at_most: 100 %}, *a]", "'clean flips at most 100 %' stands there twice"),
        (
            "limits: [{figure: clean_flips, at_most: 100 %}]\nconfidence: 95",
            "confidence must be at least 0.5 and below 1",
        ),
        ("limits: [{figure: clean_flips, at_most: 100 %}]\njoint: hulm", "unknown joint 'hulm'; did you mean 'holm'"),
        (
            "limits: [{figure: clean_flips, at_most: 100 %}]\ngrid: commons",
            "unknown grid 'commons'; did you mean 'common'",
        ),
        ("limits: [{figure: clean_flips, at_most: 100 %}]\nunchecked: yes", "unknown unchecked True"),
        ("limits: [{figure: clean_flips, at_most: 100 %, class: no}]", "class is a name, in quotes"),
        (
            "limits: [{figure: clean_flips, at_most: 100 %}]\nsuites: [1]",
            "suites is a name such as autoattack, or a list",
        ),
        ("limits: [{figure: clean_flips, at_most: 100 %}]\nconfidence: yes", "such as 0.95, or 95 %; got True"),
        ("limits: [{figure: clean_flips, at_most: 100 %}]\nsuites: AutoAttack", "did you mean 'autoattack'?"),
        (
            "limits: [{figure: clean_flips, at_most: 100 %}]\nsplits: [tests]",
            "unknown split 'tests'; did you mean 'test'",
        ),
        ("limits: [{figure: clean_flips, at_most: 100 %}]\noverridden: [vanish]", "unknown check 'vanish'"),
        ("limits: [{figure: clean_flips, at_most: 1}]", "nothing breaks at_most: 1; did you mean 1 %?"),
        ("limits: [{figure: clean_accuracy_change, at_least: -1}]", "did you mean -1 %?"),
        (
            "limits: [{figure: [clean_flips], at_most: 2 %}]",
            "figure is a name such as clean_flips; got ['clean_flips']",
        ),
        ("limits: [{figure: clean_flips, at_most: 1" + 400 * "0" + "}]", "got one of 401 digits"),
        ("limits: " + 3000 * "[", "cannot be read as a gate"),
        ("limits: [{figure: clean_flips, at_most: 2 %, class: ''}]", "class is a name; got an empty one"),
        ("limits: [", "cannot be read as a gate"),
        ("limits: !!python/object:os.system {}", "cannot be read as a gate"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_not_understood_is_refused_with_its_place(tmp_path, text, line):
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(Misuse) as refused:
        read_gate(path)
    assert line in str(refused.value)
    assert "gate.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_missing_gate_is_refused_by_name(tmp_path):
    with pytest.raises(Misuse, match="there is no gate at"):
        read_gate(tmp_path / "gate.yaml")
    assert parse_gate({"limits": [{"figure": "clean_flips", "at_most": 0}]}).confidence == 0.95


def _of_split(profile, split):
    return replace(profile, header=replace(profile.header, split=split))


@pytest.mark.parametrize(
    ("split", "outcome"), [("test", "passed"), ("validation", "passed"), ("train", "cannot be judged")]
)
def test_training_images_decide_nothing_unless_the_gate_says_so(split, outcome):
    pair = _join(OLD, _of_split(NEW, split))
    limits = (Limit(figure="clean_flips", side="at_most", value=1.0),)
    found = judge(Gate(limits=limits), pair)
    assert found.outcome == outcome
    if outcome != "passed":
        assert (
            found.verdicts[0].reason
            == "the new profile is of train images; the gate judges by test or validation images"
        )
        assert judge(Gate(limits=limits, splits=("train", "test")), pair).outcome == "passed"
    assert any(f"is of {split} images" in note for note in pair.notes) == (split != "test")


def test_a_part_is_called_one():
    part = replace(NEW, header=replace(NEW.header, whole=len(NEW) + 5))
    assert f"The new profile is a part: {len(NEW)} of {len(NEW) + 5} images." in _join(OLD, part).notes
