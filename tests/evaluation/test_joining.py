"""Parts of a data set, and profiles of them joined into one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.evaluation import Examination, Finding, Part, Profile, examine, join_profiles
from poise.evaluation.certificates.certificate import Certificate
from poise.evaluation.soundness.joining import join_findings
from tests.evaluation.profiles import profile
from tests.models_for_tests import linear_classifier, random_images

COLUMNS = ("labels", "predictions", "margins", "robust_to", "broken_from")


def _rows(made: Profile, rows) -> Profile:
    """Some rows of a profile, as a part of it."""
    return replace(
        made,
        header=replace(made.header, whole=len(made)),
        ids=tuple(made.ids[row] for row in rows),
        broken_by=tuple(made.broken_by[row] for row in rows),
        **{name: getattr(made, name)[rows] for name in COLUMNS},
    )


def _by_id(made: Profile):
    return {
        identity: (*(getattr(made, name)[row] for name in COLUMNS), made.broken_by[row])
        for row, identity in enumerate(made.ids)
    }


@settings(max_examples=25)
@given(st.lists(st.text(min_size=1), unique=True, min_size=1, max_size=20), st.integers(1, 20), st.randoms())
def test_parts_hold_every_example_once_and_are_of_one_size(ids, of, random):
    of = min(of, len(ids))
    parts = [[ids[row] for row in Part(number, of).rows(ids).tolist()] for number in range(1, of + 1)]
    assert sorted(identity for part in parts for identity in part) == sorted(ids)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    shuffled = random.sample(ids, len(ids))
    assert {shuffled[row] for row in Part(1, of).rows(shuffled).tolist()} == set(parts[0])


@pytest.mark.parametrize("words", ["0/5", "6/5", "2", "a/b", "1/0", "2/5/7", "", "-1/5", "1.5/2"])
def test_impossible_parts_are_refused(words):
    with pytest.raises(Misuse, match="such as 2/5; got"):
        Part.read(words)


def test_a_part_is_read_as_it_is_written_and_needs_examples():
    assert str(Part.read(" 2 / 5 ")) == "2/5"
    with pytest.raises(Misuse, match="3 examples cannot be dealt out into 4 parts"):
        Part(1, 4).rows(["a", "b", "c"])


@given(st.lists(st.integers(0, 3), min_size=2, max_size=30), st.data())
def test_joining_parts_in_any_order_gives_the_whole(broken, data):
    whole = profile(broken)
    owner = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(broken), max_size=len(broken))))
    parts = [_rows(whole, np.flatnonzero(owner == part)) for part in range(3) if (owner == part).any()]
    parts = data.draw(st.permutations(parts))
    joined = join_profiles({f"{index}.parquet": part for index, part in enumerate(parts)})
    assert _by_id(joined) == _by_id(whole)
    assert joined.ids == tuple(sorted(whole.ids))
    assert not joined.partial
    assert all(part.partial for part in parts if len(part) < len(whole))


def test_joining_some_parts_stays_a_part():
    whole = profile([1, 2, 3, 3])
    joined = join_profiles({"a": _rows(whole, [0]), "b": _rows(whole, [3])})
    assert joined.partial
    assert (len(joined), joined.header.whole) == (2, 4)


def test_parts_that_were_judged_apart_are_the_whole_that_was_judged_at_once():
    classifier = linear_classifier(3, (1, 3, 3), dtype=torch.float64)
    images = random_images(classifier, 23)
    examination = Examination(threat=Threat(epsilon=0.1), suite="pgd")
    whole = examine(classifier, images, examination, model_address="a")
    parts = {}
    for number in (1, 2, 3):
        some = images.select(Part(number, 3).rows(images.ids))
        parts[f"{number}"] = examine(classifier, some, examination, model_address=f"copy {number}", whole=images)
        assert parts[f"{number}"].partial
    joined = join_profiles(parts)
    order = [joined.ids.index(identity) for identity in whole.ids]
    # A matrix product rounds by how many rows it has, on some processors: margins may differ in the last place.
    np.testing.assert_allclose(joined.margins[order], whole.margins, rtol=1e-12)
    assert _by_id(replace(joined, margins=np.zeros(23))) == _by_id(replace(whole, margins=np.zeros(23)))
    assert joined.header == replace(whole.header, model_address="copy 1")
    assert (joined.header.data, joined.header.whole) == (images.digest(), 23)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "x" * 32}, "model digest"),
        ({"data": "x" * 32}, "data digest"),
        ({"norm": "l2"}, "norm"),
        ({"epsilons": (0.0, 0.1)}, "grid"),
        ({"suite": "apgd"}, "suite"),
        ({"mode": "ascending"}, "mode"),
        ({"seed": 1}, "seed"),
        ({"proposing": "bf16"}, "proposing"),
        ({"split": "train"}, "split"),
        ({"classes": ("a", "b")}, "classes"),
        ({"whole": 9}, "number of images of the whole data set"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(changes, named):
    part = profile([1, 2])
    other = replace(part, header=replace(part.header, **changes), ids=("x", "y"))
    with pytest.raises(Misuse, match=rf"a\.parquet and b\.parquet do not belong together: they differ in {named} \("):
        join_profiles({"a.parquet": part, "b.parquet": other})


def test_doubled_examples_are_refused_by_id():
    with pytest.raises(Misuse, match=r"a and b both hold the example 'image/0' and 1 more"):
        join_profiles({"a": profile([1, 2]), "b": profile([1, 1])})
    with pytest.raises(Misuse, match="nothing to merge"):
        join_profiles({})


def test_parts_may_come_from_several_machines():
    first = profile([1, 2], versions={"torch": "2.11", "poise": "1"}, model_address="run:a")
    second = replace(
        profile([1, 2], versions={"torch": "2.12", "poise": "1"}, model_address="run:/elsewhere/a"), ids=("x", "y")
    )
    joined = join_profiles({"a": first, "b": second}).header
    assert joined.versions == {"torch": "2.11, 2.12", "poise": "1"}
    assert joined.model_address == "run:a"


def _finding(status, check="convergence", evidence="", overridden=False):
    return Finding(check=check, status=status, evidence=evidence or f"evidence of {status}", overridden=overridden)


def _joined(*parts):
    return {found.check: found for found in join_findings(parts, profile([1, 2]))}["convergence"]


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [(("pass", "warn", "pass"), "warn"), (("note", "pass"), "note"), (("warn", "block"), "block"), (("pass",), "pass")],
)
def test_the_worst_finding_of_any_part_counts(statuses, worst):
    found = _joined(*([_finding(status)] for status in statuses))
    assert found.status == worst
    assert found.evidence.startswith(f"evidence of {worst}")


def test_a_block_is_overridden_only_where_every_part_overrode_it():
    over, plain = _finding("block", overridden=True), _finding("block")
    assert _joined([over], [over]).overridden
    assert not _joined([over], [plain]).overridden
    assert _joined([over], [_finding("pass")]).overridden


def test_what_was_not_checked_everywhere_does_not_pass():
    found = _joined([_finding("pass")], [], [_finding("pass")])
    assert found.status == "note"
    assert "not checked on 1 of 3 parts" in found.evidence
    assert (found.everywhere, _joined([_finding("pass")], [found]).everywhere) == (False, False)
    assert _joined([_finding("pass")], [_finding("pass")]).everywhere
    assert join_findings([[], []], profile([1])) == ()


def test_arithmetic_checks_look_at_the_whole():
    """One example of 400 that only Square broke is within what a profile may hold; on its part of 2 it was not."""
    joined = replace(profile([1] * 600), broken_by=("square", *["pgd"] * 599))
    parts = [[_finding("warn", "black-box"), _finding("pass")], [_finding("pass", "black-box"), _finding("pass")]]
    found = {finding.check: finding for finding in join_findings(parts, joined)}
    assert found["black-box"].status == "pass"
    assert found["monotone"].status == "pass"
    assert {"black-box", "convergence", "monotone"} <= set(found)


def test_certified_radii_are_joined_and_follow_their_examples():
    whole = profile([3, 1, 2], norm="l2")
    radii = Certificate(method="lipschitz", norm="l2", radii=np.array([0.3, 0.1, 0.2]))
    first, second = (
        replace(_rows(whole, rows), certificate=replace(radii, radii=radii.radii[rows])) for rows in ([2, 0], [1])
    )
    assert join_profiles({"a": first, "b": second}).certificate.radii.tolist() == [0.3, 0.1, 0.2]
    with pytest.raises(Misuse, match="a and b do not belong together: they differ in certificate"):
        join_profiles({"a": first, "b": replace(second, certificate=None)})
