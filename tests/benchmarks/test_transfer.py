from __future__ import annotations

import pytest

from benchmarks.transfer import SCALES, Cell, compared
from tests.evaluation.profiles import profile

BROKEN_FROM = {"standard": [1, 1, 1, 1], "fixed": [0, 0, 3, 3], "hinge": [0, 1, 3, 3]}


def _compared(contenders):
    cells = [
        Cell(scale="quick", backbone="cnn", contender=name, epsilon="8/255", seed=seed, rate=1.0)
        for name in contenders
        for seed in (0, 1)
    ]
    return {row["contender"]: row for row in compared(cells, lambda cell: profile(BROKEN_FROM[cell.contender]))}


def test_contenders_are_compared_with_the_fixed_epsilon_and_with_standard_accuracy():
    rows = _compared(BROKEN_FROM)
    assert rows["hinge"]["clean over fixed"].value == pytest.approx(0.25)
    assert rows["hinge"]["robust over fixed"].value == 0
    assert rows["hinge"]["expected over fixed"].value == pytest.approx(0.25 / 4)  # the first of two trapezoids, halved
    assert rows["hinge"]["clean below standard"].value == pytest.approx(0.25)
    assert rows["fixed"]["clean below standard"].value == pytest.approx(0.5)


def test_a_scale_without_standard_fine_tuning_says_nothing_of_it():
    assert "standard" not in SCALES["long"].plans["cnn"].contenders
    assert "clean below standard" not in _compared(["fixed", "hinge"])["hinge"]
