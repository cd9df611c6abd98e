from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.evaluation import Finding
from poise.evaluation.flips import check_sound, flips, join
from tests.evaluation.flips.tables import BRACKET, made, settled


def _with_ids(*ids):
    return settled([1] * len(ids), ids=ids)


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (_with_ids("a", "b"), _with_ids("a"), "different images: 'b' is only in old"),
        (_with_ids("a"), _with_ids("a", "b", "c"), "'b', 'c' are only in new"),
        (_with_ids("a", "b"), _with_ids("a", "c"), "'b' is only in old; 'c' is only in new"),
        (_with_ids("a", "a"), _with_ids("a", "b"), "the old profile holds 'a' more than once"),
        (_with_ids("a", "b"), _with_ids("b", "b"), "the new profile holds 'b' more than once"),
        (_with_ids(*"abcdefghijklmn"), _with_ids("a"), "'b', .* and 3 more are only in old"),
        (settled([1, 1], labels=[0, 1]), settled([1, 1], labels=[0, 2]), "give 'image/1' different labels"),
        (settled([1]), settled([1], norm="l2"), "differ in norm: linf and l2"),
        (settled([1]), settled([1], data="e" * 32), "differ in images, by their digest"),
        (settled([1]), settled([1], suite="autoattack"), "differ in attack suite: pgd and autoattack"),
        (settled([1]), settled([1], classes=("cat", "dog", "elk")), "differ in classes: cat, dog, eel and"),
        (settled([]), settled([]), "the old profile is empty"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(old, new, line):
    with pytest.raises(Misuse, match=line):
        join(old, new)


@given(st.lists(BRACKET, min_size=1, max_size=20), st.sets(st.integers(1, 3)))
def test_a_common_grid_keeps_every_verdict_on_it(brackets, kept):
    """Whatever points are left out, each example is certainly robust, certainly broken or open where it was before."""
    full = made(*zip(*brackets, strict=True))
    grid = tuple(full.epsilons[point] for point in (0, *sorted(kept)))
    coarse = settled([1] * len(brackets), grid=grid)
    pair = join(full, coarse)
    assert pair.epsilons == grid
    assert set(pair.left_out) == set(full.epsilons) - set(grid)
    for place, point in enumerate((0, *sorted(kept))):
        assert np.array_equal(pair.old.robust_to >= place, full.robust_to >= point)
        assert np.array_equal(pair.old.broken_from > place, full.broken_from > point)
    assert any("left out" in note for note in pair.notes) == (len(grid) < 4)


def test_grids_of_which_neither_holds_the_other_meet_in_the_middle():
    old = settled([4, 1], grid=(0.0, 0.1, 0.2, 0.4))
    new = settled([2, 4], grid=(0.0, 0.2, 0.3, 0.4))
    pair = join(old, new)
    assert pair.epsilons == (0.0, 0.2, 0.4)
    assert (pair.only_old, pair.only_new, pair.left_out) == ((0.1,), (0.3,), (0.1, 0.3))
    assert [note for note in pair.notes if "left out" in note] == [
        "Compared on the common points of the grid; left out, as the new profile lacks them: 0.1.",
        "Compared on the common points of the grid; left out, as the old profile lacks them: 0.3.",
    ]
    assert [each.lost.certain for each in flips(pair)] == [0, 0, 1]
    assert [each.gained.certain for each in flips(pair)] == [0, 1, 1]


def test_notes_say_what_a_reader_must_know():
    old = replace(made([0], [2], suite="", data=""), findings=())
    pair = join(old, made([0], [1], model="n" * 32))
    assert pair.notes[0] == "The old profile does not say which images and attacks it was made with."
    assert "No soundness check has looked at the new profile." in pair.notes
    proof = Finding(check="certified-broken", status="pass", evidence="nothing is certified")
    unseen = join(old, replace(made([0], [1]), findings=(proof,)))
    assert "No soundness check has looked at the new profile." in unseen.notes
    assert any(note.startswith("1 of 1 examples of the old profile lack a verdict") for note in pair.notes)
    assert any("same model" in note for note in join(old, old).notes)
    assert not any("same model" in note for note in pair.notes)


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_blocked_profile_is_refused_unless_somebody_overrode_it(side):
    objection = Finding(check="zero-gradients", status="block", evidence="all 8 vanish")
    profiles = {"old": settled([1]), "new": settled([2])}
    blocked = profiles | {side: replace(profiles[side], findings=(objection,))}
    with pytest.raises(Misuse, match=f"the {side} profile: zero-gradients: all 8 vanish .*--allow zero-gradients"):
        check_sound(join(**blocked))
    allowed = profiles | {side: replace(profiles[side], findings=(replace(objection, overridden=True),))}
    check_sound(join(**allowed))
