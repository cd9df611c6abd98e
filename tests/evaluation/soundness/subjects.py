"""What soundness checks look at in tests: a healthy network, and networks with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, InMemory, open_data
from poise.evaluation.soundness.check import Subject
from poise.evaluation.soundness.examined import Examined
from poise.models import Blueprint, Classifier
from poise.models.small import SmallNetwork
from tests.evaluation.profiles import profile

STREAM = Stream.seeded(0)
THREAT = Threat(epsilon="8/255")


@cache
def _trained() -> tuple[Classifier, ImageSet]:
    splits = open_data("digits")
    train = splits.train
    images, labels = train.images(torch.arange(len(train))), train.labels
    with torch.random.fork_rng():
        torch.manual_seed(0)
        blueprint = Blueprint(address="small", classes=train.classes, shape=(1, 8, 8))
        classifier = Classifier(SmallNetwork(10), blueprint)
        optimizer = torch.optim.Adam(classifier.parameters(), 1e-2)
        for _ in range(5):
            for rows in torch.randperm(len(labels)).split(128):
                optimizer.zero_grad()
                functional.cross_entropy(classifier(images[rows]), labels[rows]).backward()
                optimizer.step()
    classifier.zero_grad()
    return classifier.eval().requires_grad_(), splits.test


def healthy() -> Classifier:
    """A convolutional network with batch normalisation that knows its digits, in eval mode; the same one every time."""
    return _trained()[0].eval()


def digits(count: int = 64) -> ImageSet:
    """Images that `healthy` was not trained on."""
    return _trained()[1].select(torch.arange(count))


def batch(images: ImageSet) -> Batch:
    return Batch(images.images(torch.arange(len(images))), images.labels, images.keys)


def subject(model: nn.Module, threat: Threat = THREAT, data: Batch | None = None) -> Subject:
    return Subject(model, batch(digits(32)) if data is None else data, threat, STREAM)


def made(images: torch.Tensor, labels: torch.Tensor, classes: int = 2) -> InMemory:
    names = tuple(f"class {index}" for index in range(classes))
    return InMemory("made", names, tuple(f"image/{index}" for index in range(len(images))), labels, images)


def examined(model, images, epsilon=4 / 255, broken_from=None, norm="linf", suite="pgd", **options):
    """A profile that says that all images hold at epsilon, unless it is told otherwise."""
    with torch.no_grad():
        right = (model(images.images(torch.arange(len(images)))).argmax(1) == images.labels).numpy()
    broken = np.where(right, 2, 0) if broken_from is None else np.asarray(broken_from)
    found = profile(broken, (0.0, epsilon), norm=norm, suite=suite, classes=images.classes)
    labels = images.labels.numpy()
    predictions = np.where(broken == 0, (labels + 1) % len(images.classes), labels)
    found = replace(found, ids=images.ids, labels=labels, predictions=predictions)
    return Examined(profile=found, model=model, images=images, **options)


class Around(nn.Module):
    """The healthy network with something done to the images before it and to the logits after it."""

    def __init__(self, before=nn.Identity(), after=nn.Identity(), model: nn.Module | None = None):  # noqa: B008
        super().__init__()
        self.model = healthy() if model is None else model
        self.before, self.after = before, after
        self.eval()

    def forward(self, images):
        return self.after(self.model(self.before(images)))


class Stuck(nn.Module):
    """A module that stays in train mode whatever it is told, like dropout kept alive on purpose."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def train(self, mode: bool = True):
        return super().train()


class StuckDropout(Stuck):
    def __init__(self):
        super().__init__(nn.Dropout(0.5))

    def forward(self, images):
        return self.inner(images)


class StuckNorm(StuckDropout):
    def __init__(self):
        Stuck.__init__(self, nn.BatchNorm2d(1))
