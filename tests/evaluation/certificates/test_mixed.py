"""Certificates of the mixtures that `poise mix` makes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise.core.misuse import Misuse
from poise.evaluation.certificates.certification import Certification, certify
from poise.evaluation.certificates.mixture import core_of
from poise.evaluation.certificates.sampling import Sampling
from poise.models import smooth
from poise.models.mixing.blend import Blend
from poise.models.mixing.gate import Gate, plan_gate
from poise.models.mixing.mixed import MixedClassifier
from poise.models.mixing.sharpening import Sharpening
from tests.evaluation.certificates.networks import mixed, named
from tests.evaluation.certificates.test_certification import _attacked
from tests.models_for_tests import random_images


@pytest.fixture(scope="module")
def subject():
    robust = named("convolutional")
    return robust, random_images(robust, 30)


def _mixture(robust, alpha: float = 0.8, scale: float = 4.0) -> MixedClassifier:
    return MixedClassifier.of(named("dense"), robust, replace(Blend.constant(alpha), scale_robust=scale)).eval()


def test_what_is_bounded_is_the_robust_branch_at_its_least_weight_and_its_scale(subject):
    robust, _ = subject
    core = core_of(_mixture(robust, 0.8, 4.0))
    assert (core.robust, core.alpha, core.scale) == (robust, 0.8, 4.0)


@pytest.mark.parametrize("method", ["lipschitz", "local"])
def test_radii_are_those_of_the_plainly_written_mixture_and_no_attack_breaks_them(subject, method):
    robust, images = subject
    options = Certification(method=method, norm="linf")
    found = certify(_mixture(robust), images, options)
    plain = certify(mixed(named("dense"), robust, 0.8, 0.8, scale=4.0), images, options)
    assert (found.radii > 0).sum() > 5
    np.testing.assert_array_equal(found.radii, plain.radii)
    assert _attacked(_mixture(robust), images, "linf", found.radii) == 0


def test_a_smoothed_branch_is_certified_by_sampling_within_its_own_radius(subject):
    robust, images = subject
    smoothed = smooth(robust, sigma=0.05, vote="hard")
    options = Certification(method="smoothing", norm="l2", sampling=Sampling(samples=200, selection=20))
    mixture, alone = (certify(model, images, options) for model in (_mixture(smoothed, scale=1.0), smoothed))
    assert (mixture.radii > 0).any()
    assert (mixture.radii <= alone.radii).all()


def test_a_gate_counts_with_its_lower_bound(subject):
    _, images = subject
    standard, robust = named("convolutional"), named("convolutional")
    layers = (("0", "2"), ("0", "2"))
    plan = plan_gate(standard, robust, standard_layers=layers[0], robust_layers=layers[1])
    gated = MixedClassifier.of(standard, robust, Blend(alpha_low=0.75, alpha_high=0.99), Gate(plan)).eval()
    assert core_of(gated).alpha == 0.75
    low = certify(_mixture(robust, 0.75, 1.0), images, Certification(method="lipschitz", norm="linf"))
    found = certify(gated, images, Certification(method="lipschitz", norm="linf"))
    with torch.no_grad():
        both = [model(images.images(torch.arange(30))).argmax(1) for model in (gated, _mixture(robust, 0.75, 1.0))]
    same = (both[0] == both[1]).numpy()
    np.testing.assert_array_equal(found.radii[same], low.radii[same])


def test_a_mixture_with_a_nonlinearity_is_refused(subject):
    robust, images = subject
    blend = replace(Blend.constant(0.9), sharpening=Sharpening(scale=1.0, power=2.0, shift=-0.5))
    mixture = MixedClassifier.of(named("dense"), robust, blend).eval()
    with pytest.raises(Misuse, match="nothing is proven of a mixture with a nonlinearity"):
        certify(mixture, images, Certification(method="local", norm="linf"))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_mixture_that_is_mixed_again_is_certified_at_the_product_of_both_weights(subject, norm):
    robust, images = subject
    inner = _mixture(robust, 0.9, 4.0)
    twice = MixedClassifier.of(named("dense"), inner, 0.85).eval()
    core = core_of(twice)
    assert (core.robust, core.scale) == (robust, 4.0)
    assert core.alpha == pytest.approx(0.765)
    options = Certification(method="local", norm=norm)
    found, once = (certify(model, images, options) for model in (twice, inner))
    assert (found.radii > 0).sum() > 5
    assert (found.radii <= once.radii).all()
    assert _attacked(twice, images, norm, found.radii) == 0


def test_the_whole_is_the_mean_that_its_proof_says(subject):
    robust, images = subject
    standard, inner = named("residual"), _mixture(robust, 0.9, 4.0)
    gated = mixed(standard, inner, 0.7, 0.95)
    pixels = images.images(torch.arange(30))
    with torch.no_grad():
        whole = gated.double()(pixels.double()).exp()
        core = core_of(gated)
        own = (core.scale * core.robust(pixels.double())).softmax(1)
    rest = whole - core.alpha * own
    assert core.alpha == pytest.approx(0.63)
    assert (rest >= -1e-12).all()
    assert torch.allclose(rest.sum(1), torch.full((30,), 1 - core.alpha, dtype=torch.float64))
    robust.float()


def test_weights_whose_product_is_below_one_half_prove_nothing(subject):
    robust, images = subject
    twice = MixedClassifier.of(named("dense"), _mixture(robust, 0.7, 1.0), 0.7).eval()
    assert not certify(twice, images, Certification(method="local", norm="l2")).radii.any()


def test_a_smoothed_branch_of_a_mixture_in_a_mixture_is_certified(subject):
    robust, images = subject
    smoothed = smooth(robust, sigma=0.05, vote="hard")
    options = Certification(method="smoothing", norm="l2", sampling=Sampling(samples=200, selection=20))
    twice = MixedClassifier.of(named("dense"), _mixture(smoothed, 0.9, 1.0), 0.9).eval()
    found, product = (certify(model, images, options) for model in (twice, _mixture(smoothed, 0.9 * 0.9, 1.0)))
    assert (found.radii > 0).any()
    np.testing.assert_array_equal(found.facts["alpha"], 0.81)
    right = (found.radii > 0) & (product.radii > 0)
    np.testing.assert_allclose(found.radii[right], product.radii[right], rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.8, 1.0])
def test_a_scale_over_a_mixture_is_refused(subject, alpha):
    robust, images = subject
    twice = MixedClassifier.of(
        named("dense"), _mixture(robust, alpha), replace(Blend.constant(0.9), scale_robust=3.0)
    ).eval()
    with pytest.raises(Misuse, match="a mixture itself, by 3, after which they are no mean of its branches"):
        certify(twice, images, Certification(method="local", norm="l2"))


def test_a_nonlinearity_inside_is_refused_too(subject):
    robust, images = subject
    blend = replace(Blend.constant(0.9), sharpening=Sharpening(scale=1.0, power=2.0, shift=-0.5))
    inner = MixedClassifier.of(named("dense"), robust, blend).eval()
    with pytest.raises(Misuse, match="nothing is proven of a mixture with a nonlinearity"):
        certify(MixedClassifier.of(named("dense"), inner, 0.9), images, Certification(method="local", norm="linf"))
