"""Small branches to mix."""

from __future__ import annotations

import torch
from torch import nn

from poise.models import Blueprint, Classifier, open_model
from poise.models.mixing import Blend, Gate, MixedClassifier, plan_gate

SHAPE = (3, 16, 16)
CLASSES = ("cat", "dog", "owl")


class Counting(nn.Module):
    """Logits that are handed in, and how often they were asked for; the image's first pixels scale them."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        return self.logits * images.flatten(1)[:, :1]


def given(logits: torch.Tensor) -> Classifier:
    """A classifier whose logits, on images of ones, are the given rows."""
    names = tuple(f"class {index}" for index in range(logits.shape[1]))
    return Classifier(Counting(logits), Blueprint(address="python:tests", classes=names, shape=(1, 1, 1)))


def ones(count: int, dtype=torch.float64) -> torch.Tensor:
    return torch.ones(count, 1, 1, 1, dtype=dtype)


def network(address: str = "small", seed: int = 0) -> Classifier:
    return open_model(address, weights="random", classes=CLASSES, shape=SHAPE, seed=seed)


def gated(standard: str = "small", robust: str = "resnet18", *, low: float = 0.2, high: float = 0.9) -> MixedClassifier:
    first, second = network(standard), network(robust, seed=1)
    torch.manual_seed(3)
    return MixedClassifier.of(first, second, Blend(alpha_low=low, alpha_high=high), Gate(plan_gate(first, second)))
