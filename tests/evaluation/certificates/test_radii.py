"""Radii against closed forms and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from poise.core.misuse import Misuse
from poise.evaluation.certificates.certificate import Certificate, converted
from poise.evaluation.certificates.radii import (
    lipschitz_radius,
    needed_margin,
    smoothing_radius,
    softmax_constant,
    worst_lead,
)


def _double(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("alpha", "margin"), [(0.84, 0.190476), (0.815, 0.226994), (0.96, 0.041667), (1.0, 0.0)])
def test_the_margin_needed_is_that_of_the_lemma(alpha, margin):
    assert needed_margin(alpha) == pytest.approx(margin, abs=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.4999])
def test_a_mixture_below_one_half_is_never_certified(alpha):
    sure = _double([1.0, 0.0])
    assert needed_margin(alpha) == math.inf
    assert lipschitz_radius(sure, torch.tensor([0]), _double(1.0, 1.0), alpha) == 0
    assert smoothing_radius(_double(1.0), _double([0.0]), 1.0, alpha) == 0


def test_at_one_half_even_certainty_proves_nothing():
    assert lipschitz_radius(_double([1.0, 0.0]), torch.tensor([0]), _double(1.0, 1.0), 0.5) == 0
    assert smoothing_radius(_double(1.0), _double([0.0]), 1.0, 0.5) == 0


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan])
def test_an_alpha_that_is_no_weight_is_refused(alpha):
    with pytest.raises(Misuse, match="weight in"):
        needed_margin(alpha)


def test_the_lipschitz_radius_takes_the_worst_class_and_constants_of_both():
    """Rival 1 is nearer in probability, rival 2 changes faster: 0.9 * 0.5 - 0.1 over 0.9 * 1.2, 0.9 * 0.65 - 0.1 over
    0.9 * 3."""
    found = lipschitz_radius(_double([0.7, 0.2, 0.05]), torch.tensor([0]), _double(1.0, 0.2, 2.0), 0.9)
    assert found == pytest.approx(min((0.45 - 0.1) / (0.9 * 1.2), (0.585 - 0.1) / (0.9 * 3.0)), abs=1e-12)


@pytest.mark.parametrize("p", [0.6, 0.9, 0.999])
def test_alone_the_smoothing_radius_is_cohens(p):
    assert smoothing_radius(_double(p), _double([1 - p]), 0.5) == pytest.approx(0.5 * stats.norm.ppf(p), abs=1e-9)


def test_the_smoothing_radius_is_that_of_the_official_notebook():
    p1, p2, alpha, sigma = 0.95, 0.03, 0.76, 1.0
    m = (1 - alpha) / alpha
    expected = sigma / 2 * (stats.norm.ppf(p1 / (1 + m)) - stats.norm.ppf((p2 + m) / (1 + m)))
    assert smoothing_radius(_double(p1), _double([p2, 0.02]), sigma, alpha) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("sigma", "alpha"), [(0.25, 1.0), (0.25, 0.8), (1.0, 0.76)])
def test_the_radius_of_a_smoothed_half_space_is_where_the_worst_mixture_flips(sigma, alpha):
    """h_c(x + t) = Phi((d - t) / sigma) for a half-space at distance d. The formula's radius must be where the lemma's
    margin is met or nearer, and for alpha = 1 exactly d."""
    distance = 0.9
    own = stats.norm.cdf(distance / sigma)
    radius = float(smoothing_radius(_double(own), _double([1 - own]), sigma, alpha))
    lead = 2 * stats.norm.cdf((distance - radius) / sigma) - 1
    assert lead >= needed_margin(alpha) - 1e-9
    if alpha == 1:
        assert radius == pytest.approx(distance, abs=1e-6)
    flip = distance - sigma * stats.norm.ppf((1 + needed_margin(alpha)) / 2)
    assert radius <= flip + 1e-9


@given(st.lists(st.floats(0.01, 8), min_size=1, max_size=5), st.floats(0.1, 3))
def test_no_larger_gaps_have_a_smaller_lead_than_the_worst(gaps, scale):
    least = float(worst_lead(_double(gaps), scale))
    random = np.random.default_rng(0)
    wider = np.asarray(gaps) + random.exponential(0.5, (200, len(gaps))) * (random.random((200, len(gaps))) < 0.7)
    logits = np.concatenate([np.zeros((200, 1)), -wider], axis=1) * scale
    h = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert (h[:, 0] - h[:, 1:].max(1)).min() >= least - 1e-12
    exact = np.exp(-scale * np.asarray(gaps))
    assert least == pytest.approx((1 - exact.max()) / (1 + exact.sum()), abs=1e-12)


def test_a_lost_gap_has_no_lead():
    assert worst_lead(_double([1.0, -0.5])) < 0
    assert worst_lead(_double([1.0, 0.0])) == 0


def test_probabilities_change_no_faster_than_their_constant():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2000, 4, generator=generator, dtype=torch.float64) * 2
    moves = torch.randn(2000, 4, generator=generator, dtype=torch.float64) * 1e-4
    change = ((logits + moves) * 1.7).softmax(1) - (logits * 1.7).softmax(1)
    widest = (moves[:, :, None] - moves[:, None]).abs().amax((1, 2))
    share = (change.abs().amax(1) / widest).max()
    assert share <= softmax_constant(1.7) * (1 + 1e-3)
    assert share > 0.8 * softmax_constant(1.7)


@pytest.mark.parametrize(
    ("known", "wanted", "shrinkage"),
    [("l2", "l2", 1), ("l2", "linf", 4), ("l2", "l1", 1), ("linf", "l2", 1), ("l1", "linf", 16), ("l1", "l2", 4)],
)
def test_radii_of_another_norm_are_of_balls_that_lie_inside(known, wanted, shrinkage):
    assert converted(np.array([0.8]), known, wanted, 16) == pytest.approx(0.8 / shrinkage, rel=1e-12)
    assert converted(np.array([0.8]), known, wanted, 16) <= 0.8 / shrinkage


@pytest.mark.parametrize("radius", [-0.1, math.inf, math.nan])
def test_a_certificate_holds_radii_only(radius):
    with pytest.raises(Misuse, match="finite and at least 0"):
        Certificate(method="local", norm="l2", radii=np.array([radius]))
