from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poise.evaluation.soundness.verdicts import BlackBox, Monotone
from tests.evaluation.profiles import profile


def _with_square(count: int, square: int):
    made = profile([2] * count)
    return replace(made, broken_by=("square",) * square + made.broken_by[square:])


@pytest.mark.parametrize(("square", "status"), [(0, "pass"), (1, "pass"), (2, "warn")])
def test_more_than_two_in_a_thousand_by_square_alone_are_warned_of(square, status):
    assert BlackBox().inspect(_with_square(500, square)).status == status


def test_what_square_broke_is_listed_up_to_ten():
    few = BlackBox().inspect(_with_square(20, 2)).evidence
    assert few == "2 of 20 examples (20 broken in all) fell to square alone: image/0, image/1"
    assert BlackBox().inspect(_with_square(20, 13)).evidence.endswith("image/8, image/9 and 3 more")


@pytest.mark.parametrize("robust_to", [None, [-1, 0, 0, 1]])
def test_consistent_verdicts_pass_settled_or_not(robust_to):
    assert Monotone().inspect(profile([0, 1, 2, 3], robust_to=robust_to)).status == "pass"


@pytest.mark.parametrize(
    "fault",
    [
        {"robust_to": np.array([-1, 2, 1])},
        {"robust_to": np.array([-2, 0, 1])},
        {"broken_from": np.array([-1, 1, 2])},
        {"broken_from": np.array([0, 1, 4])},
        {"predictions": np.array([1, 0, 0])},
        {"predictions": np.array([0, 1, 0])},
        {"broken_by": ("clean", "", "pgd")},
    ],
)
def test_one_contradiction_blocks_and_is_named(fault):
    found = Monotone().inspect(replace(profile([0, 1, 2]), **fault))
    assert found.status == "block"
    assert found.evidence.startswith("1 of 3 rows contradict themselves: image/")


@pytest.mark.parametrize(("prediction", "broken", "status"), [(0, 0, "pass"), (0, 1, "pass"), (1, 1, "block")])
def test_an_answer_that_is_no_number_may_count_as_wrong_whatever_its_class(prediction, broken, status):
    made = replace(profile([broken]), predictions=np.array([prediction]), margins=np.array([np.nan]))
    assert Monotone().inspect(made).status == status


def test_a_robust_example_with_an_attack_is_a_contradiction():
    assert Monotone().inspect(replace(profile([3]), broken_by=("pgd",))).status == "block"
