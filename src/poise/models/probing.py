"""What a network does with one blank image, tried before anybody relies on it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from poise.core.misuse import Misuse, kind_and_line
from poise.core.modes import evaluating
from poise.models.classifier import Classifier


def accepts(network: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether the network can take images of this shape."""
    try:
        _probed(network, shape)
    except Exception:  # noqa: BLE001  networks refuse a size in every way that Python has
        return False
    return True


def class_count(network: nn.Module, shape: tuple[int, ...], address: str) -> int:
    """The number of logits that a network gives for one image.

    Raises:
        Misuse: when it cannot take images of this shape or does not return one row of logits per image.
    """
    try:
        logits = _probed(network, shape)
    except Exception as error:
        reason = kind_and_line(error)
        raise Misuse(f"{address} cannot take images of shape {shape} ({reason})") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise Misuse(f"{address} must return logits of shape (images, classes); for one image it returned {found}")
    return logits.shape[1]


def checked(classifier: Classifier) -> Classifier:
    """The classifier itself, once it has given one logit per class for one image of its shape.

    Raises:
        Misuse: when it has not.
    """
    blueprint = classifier.blueprint
    count = class_count(classifier, blueprint.shape, blueprint.address)
    if count != classifier.num_classes:
        raise Misuse(f"{blueprint.address} gives {count} logits, but there are {classifier.num_classes} classes")
    return classifier


def _probed(network: nn.Module, shape: tuple[int, ...]) -> object:
    with evaluating(network), torch.no_grad():
        dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), torch.float32)
        return network(torch.zeros(1, *shape, dtype=dtype))
