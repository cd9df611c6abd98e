from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from poise.core.misuse import Misuse
from poise.evaluation import accuracy_curve, expected_robustness, share
from poise.evaluation.curve import withstood
from tests.evaluation.profiles import profile


def test_accuracies_by_hand():
    curve = accuracy_curve(profile([0, 1, 2, 3, 3]))
    assert [point.value for point in curve.accuracy] == [0.8, 0.6, 0.4]
    assert (curve.clean.value, curve.robust.value) == (0.8, 0.4)


def test_expected_robustness_by_hand():
    """Accuracies 0.8, 0.6, 0.4 on a grid of equal steps: (0.7 + 0.5) / 2."""
    assert expected_robustness(profile([0, 1, 2, 3, 3])).value == pytest.approx(0.6)


def test_expected_robustness_weighs_unequal_steps():
    """Accuracies 1, 1/2, 0 at 0, 0.1, 0.4: (0.75 * 0.1 + 0.25 * 0.3) / 0.4."""
    assert expected_robustness(profile([1, 2], (0.0, 0.1, 0.4))).value == pytest.approx(0.375)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_expected_robustness_is_the_papers_sum(broken_from):
    """(1/n) sum of (Acc_i + Acc_{i+1}) / 2 on the grid 0, 1/255, ..., 8/255 (methods.md 1.6)."""
    made = profile(broken_from, tuple(level / 255 for level in range(9)))
    accuracy = [sum(at > level for at in broken_from) / len(broken_from) for level in range(9)]
    paper = sum((low + high) / 2 for low, high in itertools.pairwise(accuracy)) / 8
    assert expected_robustness(made).value == pytest.approx(paper, abs=1e-12)
    assert accuracy == sorted(accuracy, reverse=True)


def test_the_range_withstood_is_per_example():
    assert withstood(profile([0, 1, 2, 3])).tolist() == pytest.approx([0, 0.25, 0.75, 1])


def test_a_grid_of_one_point_is_clean_accuracy():
    assert expected_robustness(profile([0, 1, 1], (0.0,))).value == pytest.approx(2 / 3)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_intervals_are_clopper_and_pearsons(counts):
    count, total = counts
    reference = binomtest(count, total).proportion_ci(0.95, method="exact")
    found = share(count, total)
    assert found.value == count / total
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_the_interval_of_expected_robustness_covers_its_mean():
    """Of 400 samples from a known law, 95 % intervals cover the mean 380 times but for chance."""
    rng, covered = np.random.default_rng(0), 0
    truth = 0.25 * (0 + 0.25 + 0.75 + 1)
    for _ in range(400):
        found = expected_robustness(profile(rng.integers(0, 4, size=60)))
        covered += found.low <= truth <= found.high
    assert covered >= 365


@pytest.mark.parametrize(("count", "total"), [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(count, total):
    with pytest.raises(Misuse, match="0 <= count <= total"):
        share(count, total)
