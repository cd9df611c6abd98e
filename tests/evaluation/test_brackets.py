from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.core.misuse import Misuse
from poise.evaluation.brackets import Brackets, Work

POINTS = 9


def _play(thresholds: list[int], units: int, mode: str) -> tuple[Brackets, list[tuple[int, Work]]]:
    """One example for which unit u succeeds exactly at grid points of at least thresholds[u]."""
    brackets, tried = Brackets(np.array([True]), POINTS, units, mode), []
    while (work := brackets.next(0)) is not None:
        tried.append((0, work))
        if work.point >= thresholds[work.unit]:
            brackets.break_at(0, work, work.point)
        else:
            brackets.fail(0, work)
        assert len(tried) < 500
    return brackets, tried


worlds = st.integers(1, 5).flatmap(lambda units: st.lists(st.integers(1, POINTS), min_size=units, max_size=units))


@pytest.mark.parametrize("mode", ["bisect", "ascending"])
@given(thresholds=worlds)
def test_the_verdict_is_the_smallest_point_at_which_any_unit_succeeds(mode, thresholds):
    brackets, tried = _play(thresholds, len(thresholds), mode)
    assert brackets.broken_from[0] == min(thresholds)
    assert brackets.robust_to[0] == min(thresholds) - 1
    assert len(tried) == len(set(tried)), "a unit ran twice at the same point"


@pytest.mark.parametrize("mode", ["bisect", "ascending"])
@given(thresholds=worlds)
def test_robust_means_that_every_unit_failed_there(mode, thresholds):
    brackets, tried = _play(thresholds, len(thresholds), mode)
    top = int(brackets.robust_to[0])
    if top > 0:
        assert {work.unit for _, work in tried if work.point == top} == set(range(len(thresholds)))


@given(at=st.integers(1, POINTS))
def test_bisecting_runs_the_late_units_once(at):
    """Where all units succeed from the same point on, the suite's later units run at one grid point only."""
    _, tried = _play([at] * 20, 20, "bisect")
    late = [work.point for _, work in tried if work.unit > 0]
    assert late == ([at - 1] * 19 if at > 1 else [])
    assert sum(work.unit == 0 for _, work in tried) <= 5


def test_the_unit_that_broke_an_example_leads_at_the_next_point():
    _, tried = _play([9, 9, 9, 5], 4, "bisect")
    broke = next(index for index, (_, work) in enumerate(tried) if work == Work(3, 8))
    assert tried[broke + 1][1] == Work(3, 7)


def test_wrong_clean_images_are_settled_from_the_start():
    brackets = Brackets(np.array([False]), POINTS, 3)
    assert brackets.next(0) is None
    assert (brackets.robust_to[0], brackets.broken_from[0]) == (-1, 0)


def test_an_image_found_far_below_moves_the_bracket_there():
    brackets = Brackets(np.array([True]), POINTS, 2)
    brackets.break_at(0, Work(0, 8), 3)
    assert brackets.broken_from[0] == 3
    with pytest.raises(ValueError, match=r"outside 1\.\.2"):
        brackets.break_at(0, Work(0, 2), 4)


def test_an_image_counts_for_more_than_an_attack_that_missed_it():
    """A single unit failed at points 2 and 6; then an image found at 7 turns out to be adversarial at 5 as well."""
    brackets = Brackets(np.array([True]), POINTS, 1)
    brackets.fail(0, Work(0, 2))
    brackets.fail(0, Work(0, 6))
    assert brackets.robust_to[0] == 6
    brackets.break_at(0, Work(0, 7), 5)
    assert (brackets.robust_to[0], brackets.broken_from[0]) == (2, 5)
    assert brackets.next(0) == Work(0, 3)


@pytest.mark.usefixtures("unchecked")
def test_impossible_brackets_are_refused():
    with pytest.raises(Misuse, match="'bisect' or 'ascending'; got 'down'"):
        Brackets(np.array([True]), POINTS, 3, "down")
    with pytest.raises(Misuse, match="at most 62 points"):
        Brackets(np.array([True]), 63, 3)


def test_a_suite_may_have_any_number_of_units():
    brackets = Brackets(np.array([True]), 2, 130)
    for unit in range(130):
        assert brackets.next(0) == Work(unit, 1)
        brackets.fail(0, Work(unit, 1))
    assert (brackets.next(0), int(brackets.robust_to[0])) == (None, 1)
