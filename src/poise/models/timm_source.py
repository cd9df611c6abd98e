"""Networks of timm as classifiers: `timm:NAME`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from poise.models.blueprint import Blueprint, Option
from poise.models.classifier import Classifier
from poise.models.probing import accepts
from poise.models.request import Request, with_wanted_head
from poise.models.timm_networks import built, configuration
from poise.models.timm_weights import with_weights


def open_timm(request: Request) -> Classifier:
    """A network of timm inside its own normalisation, with as many channels as the images have.

    Where channels differ from those of the weights, timm adapts the first convolution, and images are normalised by
    the means of the weights' mean and std. Networks bound to one image size get images resized to it inside.

    Raises:
        Misuse: for an unknown name, weights that cannot be had, and files of another architecture.
    """
    config = configuration(request.name)
    shape = request.shape or tuple(config.input_size)
    network, found = with_weights(request, config, shape[0])
    size = _inner_size(network, config, shape, request.options)
    blueprint = Blueprint(
        address=request.address,
        classes=request.class_names(found),
        shape=shape,
        mean=_per_channel(config.mean, shape[0]),
        std=_per_channel(config.std, shape[0]),
        size=size,
        options=dict(request.options),
    )
    return with_wanted_head(network, found, request, blueprint)


def rebuild_timm(blueprint: Blueprint) -> nn.Module:
    """The network of a blueprint, its weights still to come.

    Raises:
        Misuse: for a name or options that the installed timm does not know.
    """
    name = blueprint.address.partition(":")[2]
    configuration(name)
    return built(name, len(blueprint.classes), blueprint.channels, blueprint.options)


def _inner_size(
    network: nn.Module, config: Any, shape: tuple[int, ...], options: Mapping[str, Option]
) -> tuple[int, int] | None:
    """The size to which images must be resized: the network's own where it is bound to one or cannot take theirs."""
    bound = config.fixed_input_size and not options.get("dynamic_img_size")
    if not bound and accepts(network, shape):
        return None
    size = options.get("img_size") or list(config.input_size[1:])
    return (size[0], size[1]) if isinstance(size, list) else (int(size), int(size))


def _per_channel(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return tuple(values) if len(values) == channels else (sum(values) / len(values),)
