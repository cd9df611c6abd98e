"""Bounds against closed forms and exact enumeration; their error rates stand in test_error_rates."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, multinomial

from poise.evaluation.flips import Count
from poise.evaluation.gate import Share
from poise.evaluation.gate.difference import Difference, Walk
from poise.evaluation.gate.mean import Mean

COUNTS = st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


def _difference(gained, lost, total, level=0.05):
    return Difference(Count(gained, gained, total), Count(lost, lost, total), level)


@given(COUNTS, st.sampled_from([0.05, 0.01]))
def test_bounds_of_shares_are_clopper_and_pearsons(counts, level):
    count, total = counts
    found = Share(Count(count, count, total))
    for side, alternative, end in (("at_most", "less", "high"), ("at_least", "greater", "low")):
        reference = binomtest(count, total, alternative=alternative).proportion_ci(1 - level, method="exact")
        assert found.bound(level, side) == pytest.approx(getattr(reference, end), abs=1e-9)
        for limit in (0.01, 0.3, 0.9):
            p = binomtest(count, total, limit, alternative=alternative).pvalue
            assert found.doubt(limit, side) == pytest.approx(p, abs=1e-12)


def test_open_verdicts_count_for_the_worst():
    found = Share(Count(3, 7, 100))
    assert (found.low, found.high) == (0.03, 0.07)
    assert found.bound(0.05, "at_most") == Share(Count(7, 7, 100)).bound(0.05, "at_most")
    assert found.bound(0.05, "at_least") == Share(Count(3, 3, 100)).bound(0.05, "at_least")
    change = Difference(Count(1, 4, 100), Count(2, 6, 100))
    assert (change.low, change.high) == (-0.05, 0.02)
    assert change.bound(0.05, "at_least") == _difference(1, 6, 100).bound(0.05, "at_least")
    assert change.bound(0.05, "at_most") == _difference(4, 2, 100).bound(0.05, "at_most")


@pytest.mark.parametrize(("limit", "level", "needed"), [(0.01, 0.05, 299), (0.005, 0.05, 598), (0.01, 0.01, 459)])
def test_without_a_single_flip_so_many_examples_are_needed(limit, level, needed):
    """(1 - limit)^n <= level: the rule of three."""
    assert needed == math.ceil(math.log(level) / math.log(1 - limit))
    assert Share(Count(0, 0, 50)).needed(limit, level, "at_most") == needed


def test_the_number_needed_is_the_least_that_is_enough():
    needed = Share(Count(1, 1, 200)).needed(0.01, 0.05, "at_most")
    rare = math.ceil(needed / 200)
    assert Share(Count(rare, rare, needed)).bound(0.05, "at_most") <= 0.01
    fewer = math.ceil((needed - 1) / 200)
    assert Share(Count(fewer, fewer, needed - 1)).bound(0.05, "at_most") > 0.01
    assert Share(Count(2, 2, 200)).needed(0.01, 0.05, "at_most") is None
    assert Share(Count(0, 0, 200)).needed(0.0, 0.05, "at_most") is None
    assert Share(Count(199, 199, 200)).needed(0.99, 0.05, "at_least") == needed


@pytest.mark.parametrize("side", ["at_least", "at_most"])
@pytest.mark.parametrize(
    ("gained", "lost", "total", "margin"),
    [
        *((30, 30, 1000, 0.01), (4, 9, 200, 0.01), (0, 0, 500, 0.005), (60, 10, 300, 0.01)),
        *((0, 0, 50, 0.02), (1, 0, 60, 0.047), (2, 1, 100, 0.03), (5, 3, 200, 0.03), (5, 295, 300, 0.01)),
    ],
)
def test_the_change_that_is_needed_examples_away_is_shown_by_so_many_and_not_by_clearly_fewer(
    gained, lost, total, margin, side
):
    gained, lost, sign = (gained, lost, -1) if side == "at_least" else (lost, gained, 1)
    found, limit = _difference(gained, lost, total), (gained - lost) / total + sign * margin
    needed = found.needed(limit, 0.05, side)
    assert needed > total
    enough, few = (
        _difference(round(gained * count / total), round(lost * count / total), count)
        for count in (needed, round(0.75 * needed))
    )
    assert enough.doubt(limit, side) <= 0.05 < few.doubt(limit, side)
    assert found.needed((gained - lost) / total, 0.05, side) is None


@pytest.mark.parametrize("side", ["at_least", "at_most"])
@pytest.mark.parametrize(
    ("loss", "losers", "total", "margin"), [(0.5, 1, 50, 0.01), (0.5, 9, 300, 0.005), (0.25, 0, 40, 0.02)]
)
def test_the_mean_that_is_needed_examples_away_is_shown_by_so_many_and_not_by_clearly_fewer(
    loss, losers, total, margin, side
):
    """In most orders in which the examples may come."""
    sign, rng = 1 if side == "at_most" else -1, np.random.default_rng(0)
    values = rng.permutation(np.where(np.arange(total) < losers, sign * loss, 0.0))
    found, limit = Mean(values, values, (-1.0, 1.0)), float(values.mean()) + sign * margin
    needed = found.needed(limit, 0.05, side)

    def shown(count):
        grown = np.where(np.arange(count) < round(losers * count / total), sign * loss, 0.0)
        drawn = (Mean(each, each, (-1.0, 1.0)) for each in (rng.permutation(grown) for _ in range(50)))
        return np.mean([each.doubt(limit, side) <= 0.05 for each in drawn])

    assert needed > total
    assert shown(round(1.1 * needed)) > 0.5 > shown(round(0.6 * needed))


def test_a_number_too_large_to_be_searched_for_grows_with_the_root():
    values = np.random.default_rng(0).choice([-0.5, 0.0, 0.25], size=1000, p=[0.2, 0.4, 0.4])
    for found in (Mean(values, values, (-1.0, 1.0)), _difference(90, 110, 1000)):
        near, far = (found.needed(found.low - margin, 0.05, "at_least") for margin in (1e-4, 1e-5))
        assert found.searched < near
        assert far == pytest.approx(100 * near, rel=0.1)


@given(st.integers(2, 9), st.data())
def test_the_doubt_about_a_change_is_at_least_the_exact_probability_at_every_nuisance(total, data):
    """For every pi up to the confidence limit the p-value covers P(D >= d), counted over all outcomes."""
    gained = data.draw(st.integers(0, total))
    lost = data.draw(st.integers(0, total - gained))
    change = data.draw(st.sampled_from([-0.6, -0.3, -0.1, 0.0, 0.1, 0.4]))
    doubt = Walk(gained, lost, total, 0.005).doubt(change)
    limit = Share(Count(gained + lost, gained + lost, total)).bound(0.005, "at_most")
    steps = np.array([ups - downs for ups, downs in _outcomes(total)])
    for differing in np.linspace(abs(change), 1, 15):
        if differing <= limit:
            up, down = (differing + change) / 2, (differing - change) / 2
            law = multinomial(total, [up, down, max(1 - up - down, 0)])
            exact = sum(law.pmf([*each, total - sum(each)]) for each in _outcomes(total)[steps >= gained - lost])
            assert doubt >= exact - 1e-9


def _outcomes(total):
    pairs = itertools.product(range(total + 1), repeat=2)
    return np.array([each for each in pairs if sum(each) <= total])


@settings(max_examples=15)
@given(st.integers(10, 400).flatmap(lambda n: st.tuples(st.integers(0, n // 2), st.integers(0, n // 2), st.just(n))))
def test_a_change_and_its_mirror_image_have_mirrored_bounds(counts):
    gained, lost, total = counts
    there, back = _difference(gained, lost, total), _difference(lost, gained, total)
    assert there.bound(0.05, "at_least") == pytest.approx(-back.bound(0.05, "at_most"))
    assert -1 <= there.bound(0.05, "at_least") <= there.low <= there.bound(0.05, "at_most") <= 1


def test_doubts_and_bounds_agree():
    values = np.random.default_rng(0).choice([-0.5, 0.0, 0.25], size=150, p=[0.05, 0.85, 0.1])
    for found in (_difference(20, 12, 400), Mean(values, values, (-1.0, 1.0)), Share(Count(9, 9, 120))):
        for side, inwards in (("at_least", -1e-6), ("at_most", 1e-6)):
            bound = found.bound(0.05, side)
            assert found.doubt(bound + inwards, side) <= 0.05 < found.doubt(bound - inwards, side)


def test_bounds_of_changes_are_close_to_the_normal_approximation_where_that_is_good():
    """With hundreds of flips the exact bound costs little: within a fifth of Wald's."""
    for gained, lost, total in ((300, 250, 10_000), (500, 450, 10_000), (100, 100, 1000)):
        change = (gained - lost) / total
        wald = 1.645 * math.sqrt((gained + lost) / total - change**2) / math.sqrt(total)
        assert wald < change - _difference(gained, lost, total).bound(0.05, "at_least") < 1.2 * wald


def test_a_mean_of_open_verdicts_counts_for_the_worst():
    low, high = np.array([-0.5, 0.0, 0.25]), np.array([-0.5, 0.5, 0.25])
    found = Mean(low, high, (-1.0, 1.0))
    assert (found.low, found.high) == pytest.approx((-0.25 / 3, 0.25 / 3))
    assert found.bound(0.05, "at_least") == Mean(low, low, (-1.0, 1.0)).bound(0.05, "at_least")
    assert found.bound(0.05, "at_most") == Mean(high, high, (-1.0, 1.0)).bound(0.05, "at_most")
    assert found.doubt(-1.0, "at_least") == 0
    assert found.doubt(1.0, "at_most") == 0
    assert found.doubt(1.0, "at_least") == 1
