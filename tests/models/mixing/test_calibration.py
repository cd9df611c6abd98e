"""Choices from margins, against counting and against a search written out."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch.nn import functional

from poise.core.misuse import Misuse
from poise.models.mixing import Blend, MixedClassifier, Sharpening
from poise.models.mixing.calibration import HeldOut, calibrated_scale, calibrated_sharpening
from tests.models.mixing.branches import given, ones


def _known(seed: int = 0, count: int = 80) -> HeldOut:
    """A branch that is surer where it is right."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, count, 5, generator=generator)
    sure, unsure = torch.zeros(count, 5), torch.zeros(count, 5)
    sure[:, 0], unsure[:, 0] = 3.0, 1.0
    return HeldOut(kept=sure + noise[0], lost=unsure + noise[1])


def _sharpened(logits, s, c, p):
    z = logits.double()
    z = functional.gelu((z - z.mean(1, keepdim=True)) / (z.var(1, keepdim=True) + 1e-8).sqrt() + c)
    return (s * z.abs() ** p * z.sign()).softmax(1)


def _margins(logits, s, c, p):
    top = _sharpened(logits, s, c, p).sort(dim=1, descending=True).values
    return (top[:, 0] - top[:, 1]).numpy()


def _leads(logits, s, c, p):
    """As the margins, but of the class that the branch chose: the source does not ask whether it still leads."""
    own = functional.one_hot(logits.argmax(1), logits.shape[1]).bool()
    vote = _sharpened(logits, s, c, p)
    return (vote[own] - vote.masked_fill(own, 0).amax(1)).numpy()


def test_the_sharpening_is_that_of_the_published_search():
    known = _known()
    best = (2.0, None)
    for s, c, p in itertools.product(np.geomspace(0.05, 5, 8), np.linspace(-1.1, 0, 8), np.linspace(1, 4, 8)):
        cutoff = max(np.percentile(_leads(known.kept, s, c, p), 5), 0)
        objective = (_margins(known.lost, s, c, p) >= cutoff).mean()
        if objective < best[0] - 1e-12:
            best = (objective, (s, c, p, 1 / (1 + cutoff)))
    found = calibrated_sharpening(known, 0.95)
    made = found.blend.sharpening
    assert (made.scale, made.shift, made.power, found.blend.alpha_low) == pytest.approx(best[1], rel=1e-5)
    assert found.fixable == pytest.approx(1 - best[0])
    assert found.kept == pytest.approx(0.95, abs=1 / 80)


def test_alpha_keeps_and_fixes_what_calibration_says():
    """Beside a standard branch that votes against every prediction under attack and for every label on clean images."""
    known = _known()
    found = calibrated_sharpening(known, 0.9)
    adversary = functional.one_hot(known.kept.argmax(1).add(1) % 5, 5) * 9.0
    runner_up = functional.one_hot(known.kept.topk(2, dim=1).indices[:, 1], 5) * 9.0
    for votes in (adversary, runner_up):
        mixed = MixedClassifier.of(given(votes), given(known.kept), found.blend)
        held = (mixed(ones(80, torch.float32)).argmax(1) == known.kept.argmax(1)).float().mean()
        assert held >= found.kept - 1e-6
    labels = known.lost.topk(2, dim=1).indices[:, 1]
    mixed = MixedClassifier.of(given(functional.one_hot(labels, 5) * 9.0), given(known.lost), found.blend)
    fixed = (mixed(ones(80, torch.float32)).argmax(1) == labels).float().mean()
    assert float(fixed) == pytest.approx(found.fixable, abs=1e-6)


@pytest.mark.parametrize("classes", [3, 4])
def test_votes_that_the_nonlinearity_gives_to_another_class_are_not_kept(classes):
    """Of few classes a GELU behind a shift of -1.1 often makes the least likely one the first."""
    generator = torch.Generator().manual_seed(classes)
    known = HeldOut(
        kept=torch.randn(300, classes, generator=generator), lost=0.5 * torch.randn(60, classes, generator=generator)
    )
    found = calibrated_sharpening(known, 0.95)
    chosen, bent = known.kept.argmax(1), found.blend.robust_logits(known.kept)
    assert (bent.argmax(1) == chosen).double().mean() >= 0.95
    rival = functional.one_hot(bent.scatter(1, chosen[:, None], -torch.inf).argmax(1), classes) * 9.0
    mixed = MixedClassifier.of(given(rival), given(known.kept), found.blend)
    assert (mixed(ones(300, torch.float32)).argmax(1) == chosen).double().mean() >= found.kept - 1e-6


def test_the_scale_beats_every_other():
    known = _known(1)
    found = calibrated_scale(known, 0.95)
    assert found.blend.sharpening is None
    for scale in (0.05, 0.5, 1.0, 3.0, 10.0):
        kept, lost = ((scale * logits.double()).softmax(1).topk(2, dim=1).values for logits in (known.kept, known.lost))
        cutoff = (kept[:, 0] - kept[:, 1]).quantile(0.05)
        assert ((lost[:, 0] - lost[:, 1]) < cutoff).double().mean() <= found.fixable + 0.03


def test_of_equal_scales_the_mildest_is_taken():
    """One mistake, which every scale lets be put right."""
    known = HeldOut(kept=torch.tensor([[4.0, 0.0]] * 20), lost=torch.tensor([[0.1, 0.0]]))
    found = calibrated_scale(known, 0.95)
    assert found.fixable == 1.0
    assert found.blend.scale_robust == pytest.approx(1, abs=0.15)


def test_nothing_to_learn_from_is_refused():
    with pytest.raises(Misuse, match="0 are the first and 3 the second kind"):
        HeldOut(kept=torch.zeros(0, 2), lost=torch.zeros(3, 2))
    with pytest.raises(Misuse, match=r"above 0 and below 1; got 1\.0"):
        calibrated_scale(_known(), 1.0)


def test_two_classes_are_never_sharpened():
    """Standardised, two logits are 0.7071 and -0.7071 for a sure row and an unsure one alike."""
    known = HeldOut(kept=torch.tensor([[4.0, 0.0]] * 20), lost=torch.tensor([[0.1, 0.0]]))
    with pytest.raises(Misuse, match=r"at least 3 classes.*got 2.*--method constant --calibrate"):
        calibrated_sharpening(known)
    bent = Blend(alpha_low=0.8, alpha_high=0.8, sharpening=Sharpening(scale=1.0, power=2.0, shift=0.0, largest=3))
    two, three = ([given(torch.randn(4, classes)) for _ in range(2)] for classes in (2, 3))
    assert MixedClassifier.of(*three, bent).sharpened
    with pytest.raises(Misuse, match="at least 3 classes"):
        MixedClassifier.of(*two, bent)
    with pytest.raises(Misuse, match="looks at 3 logits or more"):
        Sharpening(scale=1.0, power=1.0, shift=0.0, largest=2)
