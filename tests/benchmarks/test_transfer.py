from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.tables import gains_table
from benchmarks.transfer import BEST, SCALES, Cell, compared
from tests.evaluation.profiles import profile

BROKEN_FROM = {"standard": [1, 1, 1, 1], "fixed": [0, 0, 3, 3], "hinge": [0, 1, 3, 3]}


HALF = {f"{name}{BEST}": broken for name, broken in (("fixed", [0, 2, 3, 3]), ("hinge", [0, 3, 3, 3]))}


def _compared(contenders):
    cells = [
        Cell(scale="quick", backbone="cnn", contender=name, epsilon="8/255", seed=seed, rate=1.0)
        for name in contenders
        for seed in (0, 1)
    ]
    rows = compared(cells, lambda cell: profile((BROKEN_FROM | HALF)[cell.contender]))
    return {(row["contender"] if row["rival"] == "fixed" else (row["contender"], row["rival"])): row for row in rows}


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


def test_the_best_weights_are_compared_with_the_last_and_with_the_best_of_the_fixed_epsilon():
    rows = _compared(["fixed", f"fixed{BEST}", "hinge", f"hinge{BEST}"])
    assert set(rows) == {
        *("fixed", "fixed, best", "hinge", "hinge, best"),
        *((name, "fixed, best") for name in ("fixed, best", "hinge, best")),
    }
    assert rows["hinge, best"]["clean over fixed"].value == pytest.approx(0.25)
    assert rows["hinge, best", "fixed, best"]["clean over fixed"].value == 0
    assert rows["hinge, best", "fixed, best"]["expected over fixed"].value == pytest.approx(0.25 / 4)
    told = gains_table({"gains": list(rows.values())}, "cnn", "8/255")
    assert [line.split(" | ")[0].removeprefix("| ") for line in told.splitlines()[2:]] == [
        *("fixed, best", "hinge", "hinge, best", "hinge, best, over fixed, best"),
    ]


def test_the_best_weights_are_those_of_the_same_training():
    best = Cell(scale="long", backbone="cnn", contender="hinge, best", epsilon="8/255", seed=3, rate=0.01)
    last = Cell(scale="long", backbone="cnn", contender="hinge", epsilon="8/255", seed=3, rate=0.01)
    assert best.twin == last == last.twin
    assert (best.keep, last.keep) == ("best", "last")
    assert best.schedule == last.schedule == "hinge"
    assert (str(best.place(Path())), str(last.place(Path()))) == ("cnn/hinge-best-8-0.01-3", "cnn/hinge-8-0.01-3")
