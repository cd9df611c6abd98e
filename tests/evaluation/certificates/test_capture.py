"""Networks written in unusual ways: captured as what they compute, or refused by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from poise.core.misuse import Misuse
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


def _unbroken(model):
    """Certify random images and attack them within their radii."""
    images = random_images(model, 16)
    found = certify(model, images, Certification(method="local", norm="l2"))
    assert (found.radii > 0).sum() > 8
    assert np.isfinite(found.radii).all()
    return _attacked(model, images, "l2", found.radii) == 0


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


def _in_groups(dim, **options):
    return lambda self, x: x.view(len(x), 4, 2, 6, 6).sort(dim=dim, **options).values.view(x.shape)


def _scaled_without_gradients(self, x):
    with torch.no_grad():
        factor = self.share * self.first.weight.abs().mean()
    return x * factor


SUPPORTED = {
    "stable sort along pairs": _in_groups(2, stable=True),
    "stable sort along groups": _in_groups(-4, stable=True, descending=False),
    "a common constant": lambda self, x: (x * 0.1 + 1 / 3) / 0.7 - 0.1,
    "a constant first": lambda self, x: 0.3 + 1.7 * x,
    "a float32 constant": lambda self, x: x * torch.tensor(0.1) - torch.full((8, 1, 1), 0.2),
    "same padding": lambda self, x: functional.conv2d(x, torch.full((8, 8, 3, 3), 0.1).to(x), padding="same"),
    "valid padding": lambda self, x: functional.conv2d(x, torch.full((8, 8, 1, 1), 0.1).to(x), padding="valid"),
    "same padding, dilated": lambda self, x: functional.conv2d(
        x, torch.full((8, 8, 2, 3), 0.1).to(x), padding="same", dilation=(2, 1)
    ),
    "weights made without gradients": _scaled_without_gradients,
    "the same layer twice": lambda self, x: self.norm(functional.conv2d(self.norm(x), self.twice, padding=1)),
    "inference": lambda self, x: functional.dropout2d(functional.dropout(x, 0.5, training=False), training=False),
    "in place": lambda self, x: x.mul_(-0.5).add_(0.1).relu_(),
}


@pytest.mark.parametrize("kind", SUPPORTED)
def test_what_is_supported_is_captured_as_what_it_is(kind):
    model = _model(SUPPORTED[kind])
    model.network.register_buffer("twice", 0.3 * torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert _unbroken(model)


REFUSED = {
    "descending sort": (_in_groups(2, descending=True), "through sort of"),
    "stable descending sort": (_in_groups(2, descending=True, stable=True), "through sort of"),
    "a mean of another type": (
        lambda self, x: x + x.mean((2, 3), keepdim=True, dtype=torch.float32),
        "through mean of",
    ),
    "rounding division": (lambda self, x: torch.div(x, 0.25, rounding_mode="floor"), "through div of"),
    "a scaled sum": (lambda self, x: torch.add(x, x, alpha=2), "through add of"),
    "uneven same padding": (
        lambda self, x: functional.conv2d(x, torch.ones(8, 8, 2, 2).to(x), padding="same"),
        "through conv2d of",
    ),
    "a cast to integers": (lambda self, x: (x * 2).to(torch.int32).to(x.dtype) / 2, "torch.int32"),
    "a cast to fewer digits": (lambda self, x: x.half().to(x.dtype), "torch.float16"),
    "a cast to single precision": (lambda self, x: x.float().to(x.dtype), "torch.float32"),
    "the bits of numbers": (lambda self, x: x.view(torch.int64).view(x.dtype), "torch.int64"),
    "active dropout": (lambda self, x: functional.dropout(x, 0.5), "through native_dropout of"),
    "random numbers": (lambda self, x: x + torch.rand(8, 1, 1), r"draws random numbers \(rand\)"),
    "weights from the image": (
        lambda self, x: functional.linear(x.flatten(1), x.flatten(1)) * torch.ones(288),
        "through linear of",
    ),
    "a constant first in a product": (lambda self, x: torch.ones(1, 8, 6, 6).to(x) @ x, "through matmul of"),
    "a bias from the image": (lambda self, x: functional.linear(x, torch.eye(6).to(x), x), "through linear"),
    "a decision on the image": (lambda self, x: x if x.sum() > 0 else -x, "torch.export can trace"),
    "a number from the image": (lambda self, x: x * x.sum().item(), "through sum of|through item of"),
    "a constant with rows": (lambda self, x: (x + torch.ones(3, 1, 1, 1))[:1], "which is not one row an image"),
    "its own memory": (lambda self, x: x + self.norm.running_mean.add_(1)[:, None, None], "changes something"),
    "the other images": (lambda self, x: x - x.mean(0, keepdim=True), "through mean of"),
    "the number of images": (lambda self, x: x * len(x), "on several images it is not"),
    "calls so far": (lambda self, x: x * _counted(self), "on several images it is not"),
    "an exact batch": (lambda self, x: x.view(1, -1).view(1, 8, 6, 6), "together they end in"),
}


def _counted(self):
    self.calls = getattr(self, "calls", 0) + 1
    return self.calls


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_fixed_piecewise_linear_function_of_an_image_is_refused(kind):
    features, line = REFUSED[kind]
    with pytest.raises(Misuse, match=line):
        captured(_model(features))


def test_a_quantiser_before_the_first_layer_is_refused():
    with pytest.raises(Misuse, match=r"_to_copy of \(2, 6, 6\).*torch.int32"):
        captured(_model(image=lambda x: (x * 4).to(torch.int32).to(x.dtype) / 4))


def test_what_was_captured_is_confirmed_on_the_images_that_are_certified():
    """A network that behaves on the images of the capture, and otherwise on 24 at once."""
    model = _model(lambda self, x: x * (1 + (len(x) == 24)))
    images = random_images(model, 24)
    with pytest.raises(Misuse, match="on several images it is not"):
        certify(model, images, Certification(method="lipschitz", norm="l2", batch_size=24))
    assert (certify(model, images, Certification(method="lipschitz", norm="l2", batch_size=23)).radii > 0).any()
