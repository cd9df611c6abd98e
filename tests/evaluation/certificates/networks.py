"""Networks and mixtures that certificates are tried on."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from poise.models import Blueprint, Classifier


class Residual(nn.Module):
    """A block with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(self.inner(images) + images)


class GroupSort(nn.Module):
    """Pairs of channels in order."""

    def forward(self, images: Tensor) -> Tensor:
        return images.reshape(len(images), -1, 2, *images.shape[2:]).sort(dim=2).values.reshape(images.shape)


NETWORKS = {
    "dense": lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 12), nn.ReLU(), nn.Linear(12, 4)),
    "convolutional": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 4)
    ),
    "residual": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), Residual(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4)
    ),
    "sorting": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, groups=2), GroupSort(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 4)
    ),
    "pooling": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1), nn.Flatten(), nn.Linear(36, 4)
    ),
}


def classifier(network: nn.Module, shape=(2, 6, 6), classes: int = 4, **normalisation) -> Classifier:
    names = tuple(f"class {index}" for index in range(classes))
    blueprint = Blueprint(address="python:tests", classes=names, shape=shape, **normalisation)
    return Classifier(network, blueprint).eval()


def named(kind: str) -> Classifier:
    """A random network whose batch norms are not the identity."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = NETWORKS[kind]()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return classifier(network, mean=(0.4, 0.5), std=(0.25, 0.5))


class Mixed(nn.Module):
    """The mixture that certificates are about, written down as plainly as possible."""

    def __init__(self, standard: Classifier, robust: Classifier, low: float, high: float, scale: float = 1.0) -> None:
        super().__init__()
        self.standard, self.robust = standard, robust
        self.scales, self.alpha_low, self.alpha_high, self.sharpened = (1.0, scale), low, high, False

    def robust_probabilities(self, images: Tensor) -> Tensor:
        return (self.scales[1] * self.robust(images)).softmax(1)

    def forward(self, images: Tensor) -> Tensor:
        """An alpha that leans wherever it is allowed to, from image to image."""
        alpha = self.alpha_low + (self.alpha_high - self.alpha_low) * (7 * images.flatten(1).sum(1)).sin().square()
        return torch.logaddexp(
            (1 - alpha).clamp(min=1e-30).log()[:, None] + (self.scales[0] * self.standard(images)).log_softmax(1),
            alpha.log()[:, None] + (self.scales[1] * self.robust(images)).log_softmax(1),
        )


def mixed(standard: Classifier, robust: Classifier, low: float, high: float, scale: float = 1.0) -> Classifier:
    """The mixture as a classifier that hands images on as they are: each branch normalises for itself."""
    outside = replace(robust.blueprint, mean=(0.0,), std=(1.0,))
    return Classifier(Mixed(standard, robust, low, high, scale), outside).eval()
