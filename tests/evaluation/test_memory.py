"""The memory that an examination takes, as the set grows: a few bytes an example, and never an image."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from benchmarks.memory import IMAGE_BYTES, judged, measured
from poise.evaluation.brackets import Brackets
from poise.evaluation.waiting import Waiting


def test_the_stand_in_has_examples_of_every_kind():
    made = judged(300)
    assert [(made.broken_from == point).sum() for point in range(3)] == [38, 224, 38]


@pytest.mark.skipif(sys.platform != "linux", reason="peaks are counted in other units elsewhere")
def test_memory_grows_by_a_few_bytes_an_example_and_by_no_image():
    few, many = 2_000, 40_000
    growth = (measured(many)["peak"] - measured(few)["peak"]) / (many - few)
    print(f"{growth:.0f} bytes an example")  # noqa: T201
    assert growth < IMAGE_BYTES / 2


def test_every_row_is_taken_once_by_the_search_that_it_waits_for():
    rng = np.random.default_rng(0)
    waiting, expected = Waiting(200_000, 3), {0: set(), 1: set(), 2: set()}
    for row, search in enumerate(rng.integers(0, 3, size=200_000).tolist()):
        waiting.put(row, search)
        expected[search].add(row)
    for search in (0, 1, 2):
        assert waiting.first() == search
        taken = []
        while len(part := waiting.take(search, int(rng.integers(1, 30_000)))):
            taken += part.tolist()
        assert len(taken) == len(set(taken))
        assert set(taken) == expected[search]
    assert waiting.first() is None


def test_rows_that_wait_again_are_taken_again():
    waiting = Waiting(5, 2)
    for _ in range(50):
        for row in (4, 0, 2):
            waiting.put(row, 1)
        assert sorted(waiting.take(1, 2).tolist() + waiting.take(1, 9).tolist()) == [0, 2, 4]
        assert waiting.first() is None


def test_a_suite_may_have_hundreds_of_searches():
    """autoattack-plus through four surrogates has 166 units."""
    waiting = Waiting(400, 200)
    for row in range(400):
        waiting.put(row, row % 200)
    for search in range(200):
        assert waiting.first() == search
        assert sorted(waiting.take(search, 9).tolist()) == [search, search + 200]


def test_what_is_known_of_an_example_takes_few_bytes():
    brackets = Brackets(np.ones(1000, dtype=bool), 9, 20)
    arrays = [value for value in vars(brackets).values() if isinstance(value, np.ndarray)]
    assert sum(array.nbytes for array in arrays) <= 100 * 1000
