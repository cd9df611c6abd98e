from __future__ import annotations

import pytest
import torch

from poise.core.batch import Batch
from poise.core.threat import Threat
from poise.evaluation.soundness.gradients import GradientGraph, GradientNoise, ZeroGradients
from tests.evaluation.soundness.subjects import Around, batch, digits, healthy, subject


@pytest.mark.parametrize("check", [GradientGraph(), ZeroGradients(), GradientNoise()])
def test_a_healthy_network_passes(check):
    assert check.inspect(subject(healthy())).status == "pass"


def _overwritten(images):
    images.clamp_(0.1, 0.9)
    return images


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (lambda: Around(after=torch.detach), "does not require grad"),
        (lambda: Around(before=torch.detach), "the images are not part of the graph"),
        (lambda: Around(before=lambda images: torch.from_numpy(images.numpy())), "Can't call numpy"),
        (lambda: Around(before=_overwritten), "in-place operation"),
    ],
)
def test_a_broken_graph_blocks_once(model, reason):
    found = GradientGraph().inspect(subject(model()))
    assert found.status == "block"
    assert reason in found.evidence
    assert ZeroGradients().inspect(subject(model())).status == "note"


def _offering(own, **surrogates):
    """A model that is the first of some, and offers the others."""
    model = Around(model=own)
    model.surrogates = lambda: surrogates
    return model


def test_a_surrogate_without_a_graph_neither_blocks_nor_hides_what_the_others_lack():
    broken = Around(after=torch.detach)
    sound = subject(_offering(healthy(), gone=broken, robust=healthy()))
    graph = GradientGraph().inspect(sound)
    assert graph.status == "pass"
    assert graph.evidence.endswith("2 of 3 outputs can be differentiated by the images, and these cannot: gone")
    assert ZeroGradients().inspect(sound).status == "pass"
    zeros = Around(before=torch.sign)
    flat = ZeroGradients().inspect(subject(_offering(zeros, gone=broken)))
    assert flat.status == "block"
    assert flat.evidence.endswith("32 through every surrogate too")


def test_a_model_without_a_graph_is_attacked_through_the_surrogate_that_has_one():
    broken = Around(after=torch.detach)
    given = subject(_offering(broken, soft=healthy()))
    graph, zero = GradientGraph().inspect(given), ZeroGradients().inspect(given)
    assert (graph.status, zero.status) == ("pass", "warn")
    assert graph.evidence.endswith("these cannot: the model itself")
    assert zero.evidence == (
        "32 of 32 examples have an unusable gradient (the model itself has none); 0 through every surrogate too"
    )
    nowhere = subject(_offering(broken, soft=broken))
    assert GradientGraph().inspect(nowhere).status == "block"
    assert ZeroGradients().inspect(nowhere).status == "note"


def _nan(images):
    return images + (0 * images).sqrt()


@pytest.mark.parametrize(
    ("model", "counts"),
    [
        (
            lambda: Around(before=lambda images: (16 * images).round() / 16),
            "cross-entropy: 32 zero, 0 not finite, margin: 32",
        ),
        (
            lambda: Around(before=lambda images: (images - 0.5).sign()),
            "cross-entropy: 32 zero, 0 not finite, margin: 32",
        ),
        (lambda: Around(before=_nan), "cross-entropy: 0 zero, 32 not finite, margin: 0 zero, 32 not finite"),
    ],
)
def test_gradients_without_use_block(model, counts):
    assert GradientGraph().inspect(subject(model())).status == "pass"
    found = ZeroGradients().inspect(subject(model()))
    assert found.status == "block"
    assert counts in found.evidence


def test_saturated_logits_block_by_cross_entropy_alone():
    found = ZeroGradients().inspect(subject(Around(after=lambda logits: 1e4 * logits)))
    assert found.status == "block"
    assert found.evidence.endswith("margin: 0 zero, 0 not finite)")


@pytest.mark.parametrize(("dark", "status"), [(0, "pass"), (1, "warn"), (2, "block")])
def test_one_in_thirty_two_is_warned_of_and_two_block(dark, status):
    """Black images are detached; a random neighbour of theirs is not black, so the image itself must be tried."""
    data = batch(digits(32))
    images = data.images.clone()
    images[:dark] = 0

    def blind(images):
        black = (images == 0).flatten(1).all(1)[:, None, None, None]
        return torch.where(black, images.detach(), images)

    found = ZeroGradients().inspect(subject(Around(before=blind), data=Batch(images, data.labels, data.ids)))
    assert (found.status, found.evidence.split()[0]) == (status, str(dark))


def test_a_gradient_that_vanishes_only_beside_the_image_blocks():
    """Digits have 17 grey levels; an image that leaves them gets no gradient."""

    def levels(images):
        on_level = (16 * images - (16 * images).round()).abs().flatten(1).amax(1) < 1e-3
        return torch.where(on_level[:, None, None, None], images, images.detach())

    assert ZeroGradients().inspect(subject(Around(before=levels))).status == "block"


@pytest.mark.parametrize(("amplitude", "status"), [(0.0, "pass"), (100.0, "warn")])
def test_waves_on_the_logits_are_warned_of(amplitude, status):
    def wavy(logits):
        return logits + amplitude * torch.sin(1e3 * logits)

    assert GradientNoise().inspect(subject(Around(after=wavy))).status == status


def test_noise_is_measured_within_the_budget():
    """A step at which all margins jump is noise for a budget that reaches it, and none for one that does not."""

    def stepped(images):
        off_level = (16 * images - (16 * images).round()).abs().flatten(1).amax(1) > 0.3
        return images + 5 * off_level[:, None, None, None]

    model = Around(before=stepped)
    statuses = [GradientNoise().inspect(subject(model, Threat(epsilon=epsilon))).status for epsilon in (0, 0.02, 0.1)]
    assert statuses == ["pass", "pass", "warn"]
