from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from poise.core.misuse import Misuse
from poise.evaluation import share
from poise.reporting import Subject, summary_rows
from poise.reporting.conditions import comparable_groups, differences
from poise.reporting.sentences import sentences_of, warnings_of
from tests.reporting.samples import profile, subject


def _said(*subjects):
    (group,) = comparable_groups(subjects)
    return [sentence.replace("\u00a0", " ") for sentence in sentences_of(group)]


def test_a_row_holds_the_figures_of_the_profile():
    (row,) = summary_rows([subject(held=(9, 8, 5))])
    assert (row.name, row.seconds) == ("new", 4.5)
    assert row.clean == share(9, 10)
    assert row.robust == share(5, 10)
    assert row.expected is not None
    assert row.expected.value == pytest.approx((0.9 / 2 + 0.8 + 0.5 / 2) / 2)


def test_without_a_profile_there_are_no_figures():
    (row,) = summary_rows([Subject("new", None, [], "", None)])
    assert (row.clean, row.robust, row.expected, row.seconds) == (None, None, None, None)


def test_without_an_attack_there_is_clean_accuracy_only():
    (row,) = summary_rows([subject(held=(9,), epsilons=(0.0,))])
    assert row.clean == share(9, 10)
    assert (row.robust, row.expected) == (None, None)


def test_equal_conditions_make_one_group_whatever_the_model():
    (group,) = comparable_groups([subject("a"), subject("b", (10, 2, 0), model="b" * 32, seed=8, data_address="else")])
    assert [member.name for member in group.subjects] == ["a", "b"]
    assert str(group) == "linf 2/255, suite pgd, 10 images of digits:test"


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"norm": "l2"}, "threat"),
        ({"epsilons": (0.0, 1 / 255, 4 / 255)}, "threat"),
        ({"epsilons": (0.0, 0.5 / 255, 2 / 255)}, "epsilon grid"),
        ({"suite": "fast"}, "attack suite"),
        ({"data": "e" * 32}, "images"),
        ({"images": 20}, "images"),
        ({"norm": "l2", "suite": "fast", "data": "e" * 32}, "threat, attack suite and images"),
    ],
)
def test_unequal_conditions_are_set_apart_and_named(changes, difference):
    groups = comparable_groups([subject("a"), subject("b", **changes), subject("c")])
    assert [[member.name for member in group.subjects] for group in groups] == [["a", "c"], ["b"]]
    assert differences(groups) == difference


def test_those_without_a_profile_come_last_and_differ_in_nothing():
    groups = comparable_groups([Subject("none", None, [], "", None), subject("a")])
    assert [str(group) for group in groups] == [
        "linf 2/255, suite pgd, 10 images of digits:test",
        "not profiled yet",
    ]
    assert differences(groups) == ""


def test_no_subjects_are_refused():
    with pytest.raises(Misuse, match="at least one run"):
        comparable_groups([])


def test_sentences_name_the_best_and_say_where_intervals_overlap():
    held = {"a": (950, 500, 100), "b": (940, 700, 600), "c": (930, 300, 50)}
    said = _said(*(subject(name, counts, images=1000) for name, counts in held.items()))
    assert said[0].startswith("Clean accuracy is highest for a: 95.0 % [93.5, 96.3]; the intervals of b and c overlap")
    assert said[1].startswith("Robust accuracy at linf 2/255 is highest for b: 60.0 % [56.9, 63.1]; no other interval")
    assert said[2].startswith("Expected robustness is highest for b: 73.5 %")
    assert "do not tell the runs apart" in said[3]


def test_no_overlap_is_mentioned_where_there_is_none():
    said = _said(subject("a", (900, 800, 700), images=1000), subject("b", (500, 400, 300), images=1000))
    assert len(said) == 3
    assert all(sentence.endswith("no other interval reaches it.") for sentence in said)


def test_equal_figures_have_no_best():
    said = _said(subject("a", (9, 8, 5)), subject("b", (9, 8, 5)))
    assert said[0] == "Clean accuracy is the same for all: 90.0 % [55.5, 99.7]."
    tied = _said(subject("a", (9, 8, 5)), subject("b", (9, 8, 5)), subject("c", (1, 1, 1)))
    assert tied[0] == "Clean accuracy is highest for a and b: 90.0 % [55.5, 99.7]; no other interval reaches it."


def test_one_run_is_described_and_not_ranked():
    (sentence,) = _said(subject("a", (9, 8, 5)))
    assert sentence.startswith(
        "a: clean accuracy 90.0 % [55.5, 99.7], robust accuracy at linf 2/255 50.0 % [18.7, 81.3]"
    )


def test_images_without_a_verdict_are_counted():
    settled = profile((9, 8, 5))
    open_ended = replace(settled, robust_to=np.where(np.arange(10) < 3, 0, settled.robust_to))
    (group,) = comparable_groups([Subject("a", open_ended, [], "", None)])
    assert warnings_of(group) == [
        "a is not settled: 3 of 10 images lack a verdict at some epsilon and count as robust there."
    ]


def test_the_room_is_entered_without_plotly_and_rich():
    program = "import sys, poise.reporting; print(sorted({'plotly', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_name_that_the_room_does_not_hold_is_an_attribute_error():
    import poise.reporting

    with pytest.raises(AttributeError, match="print_tables"):
        _ = poise.reporting.print_tables
