"""Small classifiers that tests judge and train."""

from __future__ import annotations

import torch
from torch import nn

from poise.data import InMemory
from poise.models import Blueprint, Classifier
from tests.linear import Linear


def linear_classifier(
    classes: int, shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float32
) -> Classifier:
    names = tuple(f"class {index}" for index in range(classes))
    return Classifier(
        Linear(classes, shape, seed, dtype), Blueprint(address="python:tests", classes=names, shape=shape)
    )


def random_images(classifier: Classifier, count: int, seed: int = 0, *, agree: float = 0.8) -> InMemory:
    """Images of the classifier's shape, most of them labelled as it predicts."""
    generator = torch.Generator().manual_seed(seed)
    tensor = torch.rand(count, *classifier.blueprint.shape, generator=generator)
    with torch.no_grad():
        predicted = classifier(tensor.to(next(classifier.parameters()).dtype)).argmax(1)
    other = torch.randint(classifier.num_classes, (count,), generator=generator)
    labels = torch.where(torch.rand(count, generator=generator) < agree, predicted, other)
    ids = tuple(f"image/{index:04d}" for index in range(count))
    return InMemory("made", classifier.classes, ids, labels, tensor)


def small_network(shape: tuple[int, ...] = (1, 6, 6), classes: int = 3, seed: int = 0) -> Classifier:
    """A convolutional network with batch norm and dropout, so that training is as random as it gets."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(shape[0], 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8 * shape[1] * shape[2], classes),
        )
    names = tuple(f"class {index}" for index in range(classes))
    return Classifier(network, Blueprint(address="python:tests", classes=names, shape=shape))
