from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.evaluation.soundness.stability import BatchDependence, RandomisedOutput, TrainMode
from tests.evaluation.soundness.subjects import Around, StuckDropout, StuckNorm, healthy, subject


@pytest.mark.parametrize("check", [TrainMode(), BatchDependence(), RandomisedOutput()])
def test_a_healthy_network_passes(check):
    assert check.inspect(subject(healthy())).status == "pass"


def test_a_model_handed_over_in_train_mode_is_noted_and_judged_in_eval_mode():
    model = healthy()
    model.network.features[1].train()
    found = TrainMode().inspect(subject(model))
    assert found.status == "note"
    assert "BatchNorm2d, Conv2d, ReLU, Sequential" in found.evidence
    assert [check.inspect(subject(model)).status for check in (BatchDependence(), RandomisedOutput())] == ["pass"] * 2
    assert model.network.features[1].training
    assert not model.network.features[0].training


def test_dropout_that_stays_active_blocks():
    model = Around(before=StuckDropout())
    found = TrainMode().inspect(subject(model))
    assert (found.status, "Dropout, StuckDropout" in found.evidence) == ("block", True)
    assert RandomisedOutput().inspect(subject(model)).status == "block"


def test_batch_normalisation_that_stays_in_train_mode_blocks_and_keeps_its_statistics():
    model = Around(before=StuckNorm())
    statistics = model.before.inner.running_mean.clone()
    assert TrainMode().inspect(subject(model)).status == "block"
    assert BatchDependence().inspect(subject(model)).status == "block"
    assert torch.equal(model.before.inner.running_mean, statistics)


def test_batch_normalisation_without_running_statistics_is_named():
    model = Around(before=nn.BatchNorm2d(1, track_running_stats=False))
    found = BatchDependence().inspect(subject(model))
    assert found.status == "block"
    assert found.evidence.endswith("without running statistics: before")
    assert TrainMode().inspect(subject(model)).status == "pass"


def test_a_model_that_takes_no_single_image_blocks():
    found = BatchDependence().inspect(subject(Around(after=nn.BatchNorm1d(10, track_running_stats=False))))
    assert found.status == "block"
    assert "takes no single image: Expected more than 1 value per channel" in found.evidence


@pytest.mark.parametrize("size", [1, 64])
def test_logits_that_change_alone_or_in_a_crowd_block(size):
    picky = Around(after=lambda logits: logits + 0.1 * (len(logits) == size))
    assert BatchDependence().inspect(subject(picky)).status == "block"


def test_logits_that_look_at_the_neighbouring_row_block():
    mixed = Around(after=lambda logits: logits + 0.1 * logits.roll(1, 0))
    assert BatchDependence().inspect(subject(mixed)).status == "block"
    assert RandomisedOutput().inspect(subject(mixed)).status == "pass"


@pytest.mark.parametrize(
    "after",
    [
        lambda logits: logits + 0.05 * torch.randn_like(logits),
        lambda logits: logits * (1 + 0.01 * torch.rand(1)),
        lambda logits: functional.dropout(logits, 0.1, training=True),
    ],
)
def test_noise_blocks_and_is_not_mistaken_for_company(after):
    assert RandomisedOutput().inspect(subject(Around(after=after))).status == "block"
    company = BatchDependence().inspect(subject(Around(after=after)))
    assert company.status == "note"
    assert company.evidence.endswith("see randomised-output")


def test_a_model_that_changes_with_every_call_blocks():
    calls = iter(range(10**6))
    model = Around(after=lambda logits: logits + 0.1 * next(calls))
    assert RandomisedOutput().inspect(subject(model)).status == "block"


def test_rounding_does_not_block():
    model = Around(after=lambda logits: logits * (1 + 1e-6 * torch.rand(1)))
    assert [check.inspect(subject(model)).status for check in (BatchDependence(), RandomisedOutput())] == ["pass"] * 2


def test_outputs_that_are_infinite_in_the_same_places_are_the_same():
    model = Around(after=lambda logits: torch.cat([logits[:, 1:], torch.full_like(logits[:, :1], -torch.inf)], 1))
    assert [check.inspect(subject(model)).status for check in (BatchDependence(), RandomisedOutput())] == ["pass"] * 2
