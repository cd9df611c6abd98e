"""Bounds of means: exact where they can be, and true as often as they say in 10,000 simulated draws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from poise.core.misuse import Misuse
from poise.evaluation.certificates.confidence import mean_lower, mean_upper, vote_lower, vote_upper

DRAWS = 10_000
ERROR = 0.05


def _errors(shape=(DRAWS,), error=ERROR):
    return np.full(shape, error)


@pytest.mark.parametrize("count", [0, 1, 37, 99, 100])
def test_vote_bounds_are_the_exact_interval(count):
    expected = stats.binomtest(count, 100).proportion_ci(1 - 2 * ERROR, method="exact")
    given = np.array([float(count)]), np.array([100.0]), _errors((1,))
    assert vote_lower(*given) == pytest.approx([expected.low], abs=1e-9)
    assert vote_upper(*given) == pytest.approx([expected.high], abs=1e-9)


@pytest.mark.parametrize("truth", [0.02, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("total", [20, 1000])
def test_vote_bounds_cover_the_truth_as_often_as_they_say(truth, total):
    counts = np.random.default_rng(0).binomial(total, truth, DRAWS).astype(float)
    given = counts, np.full(DRAWS, float(total)), _errors()
    assert (vote_lower(*given) <= truth).mean() >= 1 - ERROR
    assert (vote_upper(*given) >= truth).mean() >= 1 - ERROR


@pytest.mark.parametrize("kind", ["votes", "even", "steady", "rare"])
@pytest.mark.parametrize("total", [30, 300])
def test_mean_bounds_cover_the_truth_as_often_as_they_say(kind, total):
    random = np.random.default_rng(1)
    values, truth = {
        "votes": lambda: (random.random((DRAWS, total)) < 0.97, 0.97),
        "even": lambda: (random.random((DRAWS, total)), 0.5),
        "steady": lambda: (random.beta(90, 10, (DRAWS, total)), 0.9),
        "rare": lambda: (random.beta(0.05, 0.95, (DRAWS, total)), 0.05),
    }[kind]()
    values = values.astype(float)
    given = values.sum(1), np.square(values).sum(1), np.full(DRAWS, float(total)), _errors()
    lower, upper = mean_lower(*given), mean_upper(*given)
    assert (lower <= truth).mean() >= 1 - ERROR
    assert (upper >= truth).mean() >= 1 - ERROR
    assert (lower > 0).mean() > 0.3


def test_the_divergence_of_a_lower_bound_is_the_budget():
    """Where every draw is a vote the variance is no help, and the bound solves KL(mean || q) = log(2 / error) / n."""
    sums, total = np.array([900.0]), np.array([1000.0])
    low = float(mean_lower(sums, sums, total, _errors((1,)))[0])
    divergence = special.rel_entr(0.9, low) + special.rel_entr(0.1, 1 - low)
    assert divergence == pytest.approx(np.log(2 / ERROR) / 1000, rel=1e-6)


def test_steady_probabilities_are_bounded_more_tightly_than_votes_of_the_same_mean():
    total = np.array([10_000.0])
    sums = 0.7 * total
    steady = mean_lower(sums, total * (0.7**2 + 0.01**2), total, _errors((1,)))
    votes = mean_lower(sums, sums, total, _errors((1,)))
    assert 0.699 - 0.002 < steady < 0.7
    assert votes < steady - 0.004


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1])
def test_an_impossible_error_is_refused(error):
    with pytest.raises(Misuse, match="strictly between 0 and 1"):
        vote_lower(np.array([1.0]), np.array([2.0]), np.array([error]))
