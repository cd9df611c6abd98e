"""Networks written in unusual ways: captured as what they compute, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.evaluation.certificates.capture import captured
from poise.evaluation.certificates.certification import Certification, certify
from tests.evaluation.certificates.networks import classifier
from tests.evaluation.certificates.test_certification import _attacked
from tests.models_for_tests import random_images


class Written(nn.Module):
    """A convolution, whatever is done to its features or to the image, and a dense layer."""

    def __init__(self, features, image=None, count=288):
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.Linear(count, 4)
        self.norm, self.share = nn.BatchNorm2d(8), nn.Parameter(torch.full((8, 1, 1), 0.125))
        nn.init.uniform_(self.norm.weight, -0.2, 0.2)
        self.features, self.image = features, image or (lambda images: images)

    def forward(self, images):
        return self.head(self.features(self, self.first(self.image(images))).relu().flatten(1))


def _model(features=lambda self, x: x, image=None, count=288):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return classifier(Written(features, image, count), mean=(0.5, 0.5), std=(0.5, 0.5))


def _unbroken(model, norm="l2", **options):
    """Certify random images and attack them within their radii."""
    images = random_images(model, 24)
    found = certify(model, images, Certification(method="local", norm=norm, **options))
    assert (found.radii > 0).sum() > 10
    assert np.isfinite(found.radii).all()
    return _attacked(model, images, norm, found.radii) == 0


TWICE = {
    "clone": lambda self, x: x + self.share * x.clone(),
    "contiguous": lambda self, x: x + self.share * x.contiguous(),
    "cast": lambda self, x: self.share * x.to(x.dtype) + x,
    "dropout": lambda self, x: x + functional.dropout(x, 0.5, self.training) * 0.125,
    "clone of a clone": lambda self, x: x.clone() + self.share * x.clone().clone(),
    "batch norm": lambda self, x: x + self.norm(x.clone()),
    "in place": lambda self, x: x.clone().mul_(0.125).add_(x),
    "in place on a view": lambda self, x: x.clone().view(len(x), -1).mul_(0.125).view(x.shape) + x,
    "scaled once more": lambda self, x: self.norm(x) + self.norm(x) * 0.125,
}


@pytest.mark.parametrize("kind", TWICE)
def test_a_value_that_is_read_twice_is_scaled_for_one_reader_alone(kind):
    assert _unbroken(_model(TWICE[kind]))


def test_a_scaling_joins_the_layer_before_it_behind_a_copy_too():
    both = [len(captured(_model(each)).layers) for each in (lambda self, x: self.norm(x), _copied)]
    assert both[0] == both[1] == len(captured(_model()).layers)


def _copied(self, x):
    return self.norm(x.clone()) * self.share
