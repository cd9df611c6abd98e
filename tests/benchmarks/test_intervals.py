from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from benchmarks.intervals import cut, difference, mean, resampled, shown


@dataclass
class _Profile:
    """What intervals look at in a profile."""

    values: np.ndarray
    ids: tuple[str, ...] = ()


def _values(profile):
    return profile.values


def test_the_interval_of_a_mean_is_students():
    values = np.random.default_rng(0).normal(size=12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert mean(values) == pytest.approx((values.mean(), expected.low, expected.high))
    assert mean([0.5]) == (0.5, -np.inf, np.inf)


def test_a_difference_is_paired_by_image_and_averaged_over_seeds():
    """What all networks share of an image's difficulty drops out; unpaired it would hide the difference."""
    random = np.random.default_rng(1)
    difficulty = random.normal(scale=10, size=200)
    ones = [_Profile(difficulty + 0.3 + random.normal(scale=0.1, size=200)) for _ in range(3)]
    others = [_Profile(difficulty + random.normal(scale=0.1, size=200)) for _ in range(3)]
    value, low, high = difference(ones, others, _values)
    assert low < 0.3 < high
    assert high - low < 0.05
    apart = np.mean([one.values - other.values for one, other in zip(ones, others, strict=True)], axis=0)
    expected = stats.ttest_1samp(apart, 0).confidence_interval(0.95)
    assert (value, low, high) == pytest.approx((apart.mean(), expected.low, expected.high))


def test_profiles_of_different_images_are_not_paired():
    with pytest.raises(ValueError, match="different images"):
        difference([_Profile(np.ones(2), ("a", "b"))], [_Profile(np.ones(2), ("a", "c"))], _values)


def test_a_bootstrap_interval_covers_a_ratio_as_often_as_it_says():
    random, covered = np.random.default_rng(2), 0
    for _ in range(200):
        both = random.random((2, 300)) < np.array([[0.8], [0.4]])
        _, low, high = resampled([_Profile(each.astype(float)) for each in both], lambda m: float(m[1] / m[0]), _values)
        covered += low <= 0.5 <= high
    assert stats.binomtest(covered, 200, 0.95).pvalue > 1e-3


def test_a_cut_where_the_naive_swap_loses_nothing():
    assert cut(0.04, 0.03) == pytest.approx(0.25)
    assert (cut(0.0, 0.0), cut(0.0, 0.1)) == (1.0, -1.0)


def test_estimates_are_shown_in_percent():
    assert shown((0.1234, 0.1, 0.2)) == "12.3 [10.0, 20.0]"
