"""A small exhibit of networks that nobody trained, on ten random images."""

from __future__ import annotations

import pytest
import torch

from poise.commands.page.exhibit import Exhibit
from poise.core.threat import Threat
from poise.data import InMemory
from poise.evaluation.certificates.certification import Certification
from poise.models import open_model
from poise.models.mixing import Blend, MixedClassifier

CLASSES = ("cat", "dog", "<b>owl</b>")


@pytest.fixture
def images():
    pixels = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return InMemory("random", CLASSES, tuple(f"image {row}" for row in range(10)), torch.arange(10) % 3, pixels)


def network(seed):
    found = open_model("small", weights="random", classes=CLASSES, shape=(1, 8, 8), seed=seed)
    found.network.head.weight.data.mul_(20)  # an untrained head hardly tells images apart
    return found


@pytest.fixture
def exhibit_of(images):
    def made(classifier, **options):
        options = {"threat": Threat(epsilon=0.2), "certification": Certification(method="local", norm="linf")} | options
        return Exhibit(classifier=classifier, images=images, **options)

    return made


@pytest.fixture
def mixed():
    return MixedClassifier.of(network(0), network(1), Blend(alpha_low=0.6, alpha_high=0.6, scale_robust=20.0))


@pytest.fixture
def exhibit(exhibit_of, mixed):
    return exhibit_of(mixed)
