"""What a person is told while an examination runs."""

from __future__ import annotations

import numpy as np
import pytest

from poise.evaluation.brackets import Brackets, Work
from poise.evaluation.standing import Standing
from poise.evaluation.surrogate_brackets import brackets_of

RIGHT = np.array([True, True, True, False])


def withstood(standing, brackets, row):
    """The shares told while everything fails on an example."""
    shares = []
    while (work := brackets.next(row)) is not None:
        with standing.recounting(row):
            brackets.fail(row, work)
        shares.append(standing.told()[0])
    return shares


@pytest.mark.parametrize("mode", ["bisect", "ascending"])
@pytest.mark.parametrize("sizes", [(3, 3), (2, 6)])
def test_the_share_grows_to_the_whole_while_everything_fails(mode, sizes):
    brackets = brackets_of(RIGHT, 5, sizes, mode)
    standing = Standing(brackets, range(4), [1.0] * sizes[1])
    assert standing.told()[0] == 1 / 4  # the wrong one is settled from the start
    shares = [share for row in range(3) for share in withstood(standing, brackets, row)]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert standing.told()[1] == {"settled": "4/4", "robust": "75.0%..75.0%"}


def test_units_count_by_their_effort():
    brackets = Brackets(RIGHT[:1], 2, 3)
    standing = Standing(brackets, range(1), [100.0, 300.0, 600.0])
    assert withstood(standing, brackets, 0) == pytest.approx([0.1, 0.4, 1.0])


def test_a_late_image_makes_the_share_fall_back():
    brackets = Brackets(RIGHT[:1], 4, 2)
    standing = Standing(brackets, range(1), [1.0, 1.0])
    for work in (Work(0, 1), Work(0, 2), Work(0, 3)):
        with standing.recounting(0):
            brackets.fail(0, work)
    assert standing.told() == (0.5, {"settled": "0/1", "robust": "0.0%..100.0%"})
    with standing.recounting(0):
        brackets.break_at(0, Work(1, 3), 3)
    assert standing.told() == (0.5, {"settled": "0/1", "robust": "0.0%..0.0%"})
    with standing.recounting(0):
        brackets.break_at(0, Work(1, 2), 2)
    assert standing.told()[0] < 1.0
    withstood(standing, brackets, 0)
    assert standing.told() == (1.0, {"settled": "1/1", "robust": "0.0%..0.0%"})


def test_others_rows_are_not_counted():
    brackets = Brackets(RIGHT, 2, 1)
    standing = Standing(brackets, range(0, 4, 2), [1.0])
    for row in range(3):
        with standing.recounting(row):
            brackets.break_at(row, Work(0, 1), 1)
    assert standing.told() == (1.0, {"settled": "2/2", "robust": "0.0%..0.0%"})
