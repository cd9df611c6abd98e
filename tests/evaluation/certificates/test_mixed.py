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
