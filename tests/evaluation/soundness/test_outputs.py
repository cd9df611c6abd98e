from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.core.batch import Batch
from poise.evaluation.soundness.outputs import FewClasses, InputRange, Probabilities
from tests.evaluation.soundness.subjects import Around, batch, digits, healthy, subject


def test_images_in_the_box_pass():
    found = InputRange().inspect(subject(healthy()))
    assert (found.status, found.evidence) == ("pass", "0 of 32 images leave [0, 1]; values span 0 to 1")


@pytest.mark.parametrize("value", [-0.01, 1.01, torch.nan])
def test_one_value_outside_the_box_blocks(value):
    data = batch(digits(32))
    images = data.images.clone()
    images[3, 0, 2, 2] = value
    found = InputRange().inspect(subject(healthy(), data=Batch(images, data.labels, data.ids)))
    assert found.status == "block"
    assert found.evidence.startswith("1 of 32 images leave [0, 1]")


@pytest.mark.parametrize(
    ("after", "status"),
    [
        (nn.Identity(), "pass"),
        (nn.Softmax(1), "warn"),
        (nn.LogSoftmax(1), "note"),
        (nn.Sigmoid(), "pass"),
        (lambda logits: 0.99 * logits.softmax(1), "pass"),
        (lambda logits: logits.log_softmax(1) + 0.01, "pass"),
    ],
)
def test_probabilities_are_told_from_logits(after, status):
    assert Probabilities().inspect(subject(Around(after=after))).status == status


@pytest.mark.parametrize(
    ("classes", "status", "evidence"),
    [
        (1, "block", "with a single class no prediction can be wrong"),
        (2, "note", "2 classes: targeted attacks aim at 1; apgd-dlr and apgd-t climb the margin in place of DLR"),
        (3, "note", "3 classes: targeted attacks aim at 2; apgd-t climbs the margin in place of DLR"),
        (4, "note", "4 classes: targeted attacks aim at 3"),
        (9, "note", "9 classes: targeted attacks aim at 8"),
        (10, "pass", "attacks aim at 9 of them"),
    ],
)
def test_few_classes_are_noted_with_what_stands_in(classes, status, evidence):
    found = FewClasses().inspect(subject(Around(after=lambda logits: logits[:, :classes])))
    assert found.status == status
    assert found.evidence.endswith(evidence)
