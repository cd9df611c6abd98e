from __future__ import annotations

import pytest
import torch
from torch import nn

from poise.core.misuse import Misuse
from poise.data import InMemory
from poise.evaluation.flips import replay
from poise.models import Blueprint, Classifier
from tests.evaluation.flips.tables import settled


class _Bright(nn.Module):
    """Says class 1 of an image whose mean exceeds a half; the distance to that is known in closed form."""

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5, torch.full_like(mean, -9)], dim=1)


def _classifier():
    return Classifier(_Bright(), Blueprint(address="python:tests", classes=("cat", "dog", "eel"), shape=(1, 2, 2)))


def _images(*levels):
    tensor = torch.stack([torch.full((1, 2, 2), level) for level in levels])
    ids = tuple(f"image/{row}" for row in range(len(levels)))
    return InMemory("made", ("cat", "dog", "eel"), ids, torch.zeros(len(levels), dtype=torch.int64), tensor)


def test_old_adversarial_images_that_fool_the_new_model_are_measured_and_overlooked_ones_named():
    """Moving every pixel by t moves the mean by t: from 0.4, 0.11 is enough to cross a half and 0.05 is not."""
    images, profile = _images(0.4, 0.4, 0.4, 0.4), settled([4, 2, 4, 1], labels=[0] * 4)
    ids = ("image/3", "image/0", "image/1", "image/2")
    moves = torch.tensor([0.15, 0.15, 0.15, 0.05])[:, None, None, None]
    found = replay(_classifier(), profile, images, ids, images.images(torch.tensor([3, 0, 1, 2])) + moves)
    assert found.fooled.tolist() == [True, True, True, False]
    assert found.within.tolist() == [2, 2, 2, 1]
    assert found.transferred.value == 0.75
    assert found.overlooked == ("image/0",)


def test_a_callers_autocast_changes_no_verdict():
    """Brightness is a weighted sum, which bfloat16 rounds to the other side of a half."""

    class Weighted(_Bright):
        def __init__(self):
            super().__init__()
            self.sum = nn.Linear(4, 1, bias=False)
            nn.init.constant_(self.sum.weight, 0.25)

        def forward(self, images):
            return super().forward(self.sum(images.flatten(1)))

    images, profile = _images(0.4, 0.4), settled([4, 4], labels=[0, 0])
    classifier = Classifier(Weighted(), _classifier().blueprint)
    moved = torch.tensor([0.5004, 0.5008])[:, None, None, None].expand(2, 1, 2, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert classifier(moved).argmax(1).tolist() != [1, 1]
        assert replay(classifier, profile, images, images.ids, moved).fooled.tolist() == [True, True]


@pytest.mark.parametrize(
    ("ids", "images", "line"),
    [
        (("image/9",), torch.full((1, 1, 2, 2), 0.5), "'image/9' is unknown"),
        (("image/0", "image/0"), torch.full((2, 1, 2, 2), 0.5), "an id stands twice"),
        ((), torch.zeros(0, 1, 2, 2), "there are none"),
        (("image/0",), torch.full((1, 1, 2, 3), 0.5), "one for each id"),
        (("image/0",), torch.full((1, 1, 2, 2), 1.5), r"must lie in \[0, 1\]"),
        (("image/0",), torch.full((1, 1, 2, 2), torch.nan), r"must lie in \[0, 1\]"),
    ],
)
def test_images_that_belong_to_no_example_are_refused(ids, images, line):
    with pytest.raises(Misuse, match=line):
        replay(_classifier(), settled([1], labels=[0]), _images(0.4), ids, images)
