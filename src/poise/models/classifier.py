"""The contract of all models: images in [0, 1] in, logits out, at a fixed class count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from poise.core.files import digest_tensors, digest_words
from poise.models.blueprint import Blueprint
from poise.models.heads import head_modules


class Classifier(nn.Module):
    """A network with its normalisation and resizing inside.

    Args:
        network: maps normalised images to logits, one column for each of the blueprint's classes.
        blueprint: how to rebuild the network, and what surrounds it.
        notes: what a person should know about how this classifier came to be, one line each.
    """

    # Derived from the blueprint, hence never saved: a saved copy could only disagree with it.
    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, blueprint: Blueprint, notes: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.network = network
        self.blueprint = blueprint
        self.notes = notes
        trailing = (1,) * (len(blueprint.shape) - 1)
        self.register_buffer("mean", torch.tensor(blueprint.mean).view(-1, *trailing), persistent=False)
        self.register_buffer("std", torch.tensor(blueprint.std).view(-1, *trailing), persistent=False)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""
        return self.blueprint.classes

    @property
    def num_classes(self) -> int:
        """Number of logits per image."""
        return len(self.blueprint.classes)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width to which images are resized inside; None leaves them as they are."""
        return self.blueprint.size

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits, one row per image; differentiable in the images.

        Args:
            images: values in [0, 1].
        """
        logits: Tensor = self.network(self.prepared(images))
        return logits

    def prepared(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *inner"]:
        """What the network gets to see of images in [0, 1]: normalised and resized."""
        dtype = self.dtype
        return _resized((images.to(dtype) - self.mean.to(dtype)) / self.std.to(dtype), self.size)

    def surrogates(self) -> Mapping[str, nn.Module]:
        """Further modules from images to logits through which this classifier must be attacked as well, by name.

        Empty where its own gradients tell all there is to know; what the network inside offers, if it is a classifier
        itself. Attacks follow the surrogate's gradient; whether they succeeded, this classifier alone decides.
        """
        if not isinstance(self.network, Classifier):
            return {}
        return {name: _Through(self, module) for name, module in self.network.surrogates().items()}

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return self.mean.device

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in; images are converted to it."""
        return next((each.dtype for each in self.network.parameters() if each.is_floating_point()), self.mean.dtype)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the last layer, whose rows are the classes; none where it cannot be told apart."""
        head = {id(parameter) for module in head_modules(self.network) for parameter in module.parameters()}
        yield from (parameter for parameter in self.parameters() if id(parameter) in head)

    def digest(self) -> str:
        """A digest of blueprint, weights and buffers, the same on every machine and device: 32 hexadecimal digits."""
        return digest_words([self.blueprint.to_json(), digest_tensors(self.network.state_dict().items())])


class _Through(nn.Module):
    """What a network offers to be attacked through, behind the changes that a classifier around it makes to images.

    Args:
        classifier: the one around.
        module: what the network offers.
    """

    def __init__(self, classifier: Classifier, module: nn.Module) -> None:
        super().__init__()
        self.classifier, self.module = classifier, module

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits to attack."""
        logits: Tensor = self.module(self.classifier.prepared(images))
        return logits


def classifier_around(network: nn.Module, blueprint: Blueprint, notes: tuple[str, ...] = ()) -> Classifier:
    """The classifier of a network: of the class that the network names as its `face`, an ordinary one by default."""
    face: type[Classifier] = getattr(network, "face", Classifier)
    return face(network, blueprint, notes)


def _resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Bilinear resizing; low-pass filtered only where it shrinks, as enlarging has nothing to filter."""
    found = tuple(images.shape[-2:])
    if size is None or found == size:
        return images
    shrinks = found[0] > size[0] or found[1] > size[1]
    return functional.interpolate(images, size=size, mode="bilinear", antialias=shrinks)
