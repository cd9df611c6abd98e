"""poise's own networks, `small`, `resnet18` and `lipschitz`: trained from scratch, or from a file of weights."""

from __future__ import annotations

from torch import nn

from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint
from poise.models.checkpoints import lay_over
from poise.models.classifier import Classifier
from poise.models.heads import head_rows
from poise.models.lipschitz import LipschitzNetwork
from poise.models.request import Request, with_wanted_head
from poise.models.resnet import ResNet18
from poise.models.small import SmallNetwork

_NETWORKS: dict[str, tuple[type[SmallNetwork | ResNet18 | LipschitzNetwork], str]] = {
    "small": (SmallNetwork, "head"),
    "resnet18": (ResNet18, "linear"),
    "lipschitz": (LipschitzNetwork, "head"),
}
# Centred, and spread about as wide as natural images and scans are, so that no data set has to be measured first.
_MEAN, _STD = (0.5,), (0.25,)

_IMAGE_DIMENSIONS = 3


def open_own(request: Request) -> Classifier:
    """One of poise's networks, with the weights of a file or randomly initialised from PyTorch's global generator.

    Images are normalised with mean 0.5 and standard deviation 0.25 in every channel.

    Raises:
        Misuse: without a shape, without classes (a file of weights knows their count), or for a file that does not fit.
    """
    shape = request.needed_shape()
    if len(shape) != _IMAGE_DIMENSIONS:
        raise Misuse(f"{request.address} takes images of shape (channels, height, width); got {shape}")
    build, head = _NETWORKS[request.address]
    if request.checkpoint is None:
        network: nn.Module = build(len(request.needed_classes()), shape[0])
        found = len(request.needed_classes())
    else:
        tensors = request.checkpoint.fitted(build(1, shape[0]).state_dict())
        found = head_rows(tensors, [head])
        network = build(max(found, 1), shape[0])
        lay_over(network, tensors, request.checkpoint.path)
    classes = request.class_names(found)
    blueprint = Blueprint(address=request.address, classes=classes, shape=shape, mean=_MEAN, std=_STD)
    return with_wanted_head(network, found, request, blueprint)


def rebuild_own(blueprint: Blueprint) -> nn.Module:
    """The network of a blueprint, its weights still to come."""
    build, _ = _NETWORKS[blueprint.address]
    return build(len(blueprint.classes), blueprint.channels)
