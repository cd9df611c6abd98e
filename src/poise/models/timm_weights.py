"""Weights for a network of timm: of the hub, of a file, or none."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.misuse import Misuse, kind_and_line
from poise.models.checkpoints import Checkpoint, fits, lay_over, mismatch
from poise.models.heads import head_rows, replace_head
from poise.models.request import Request
from poise.models.timm_networks import built, known_weights

# What heads are called in original checkpoints that timm's own filters translate.
_FOREIGN_HEADS = ("head", "fc", "classifier", "head.fc", "last_linear")


def with_weights(request: Request, config: Any, channels: int) -> tuple[nn.Module, int]:
    """The network and the number of its classes, 0 where its weights have no head.

    Args:
        request: what was asked for.
        config: timm's configuration of the network.
        channels: channels of an image.

    Raises:
        Misuse: for weights that cannot be had, and for files of another architecture.
    """
    if request.random:
        count = len(request.class_names(config.num_classes))
        return built(request.name, count, channels, request.options), count
    if request.checkpoint is not None:
        return _of_file(request, request.checkpoint, config, channels)
    return _of_hub(request, config, channels), config.num_classes


def _of_hub(request: Request, config: Any, channels: int) -> nn.Module:
    if not config.has_weights:
        weights = known_weights(request.name.partition(".")[0])
        raise Misuse(f"timm has no weights for {request.name} ({weights}); give --weights FILE or --weights random")
    try:
        return built(request.name, config.num_classes, channels, request.options, pretrained=True)
    except Misuse:
        raise
    except Exception as error:  # every layer between here and the hub raises its own kinds
        raise Misuse(
            f"the weights of {request.address} could not be had from {config.hf_hub_id or config.url} on the hub "
            f"({kind_and_line(error)}), and are not in its local cache; "
            "give a file of them as --weights FILE"
        ) from error


def _of_file(request: Request, checkpoint: Checkpoint, config: Any, channels: int) -> tuple[nn.Module, int]:
    """Weights that fit as they are, or as timm's filters translate them: old names, other channels, other sizes."""
    network = built(request.name, config.num_classes, channels, request.options)
    tensors = checkpoint.fitted(network.state_dict())
    count = head_rows(tensors, (*_names(config.classifier), *_FOREIGN_HEADS))
    if count != config.num_classes:
        replace_head(network, count, request.address)
    if fits(network, tensors):
        lay_over(network, tensors, checkpoint.path)
        return network, count
    overlay = {
        "state_dict": tensors,
        "num_classes": count,
        "input_size": (_channels_of(tensors, config, channels), *config.input_size[1:]),
    }
    try:
        translated = built(
            request.name, count, channels, request.options, pretrained=True, pretrained_cfg_overlay=overlay
        )
    except Exception as error:  # a filter may stumble over foreign names in any way
        raise Misuse(mismatch(network, tensors, checkpoint.path)) from error
    # Some architectures load without insisting on every name; a foreign file then leaves no trace at all.
    if not _fingerprints(translated.state_dict()) & _fingerprints(tensors):
        raise Misuse(mismatch(network, tensors, checkpoint.path))
    translated.pretrained_cfg.pop("state_dict")  # type: ignore[operator, union-attr]  # a second copy of all weights
    return translated, count


def _names(layers: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (layers,) if isinstance(layers, str) else tuple(layers or ())


def _channels_of(tensors: Mapping[str, Tensor], config: Any, wanted: int) -> int:
    """The channels that weights were trained for: one, as many as are wanted, or what timm says of the architecture."""
    stem = next((tensors[f"{n}.weight"] for n in _names(config.first_conv) if f"{n}.weight" in tensors), None)
    if stem is not None and stem.ndim > 1 and stem.shape[1] in {1, wanted}:
        return stem.shape[1]
    return int(config.input_size[0])


def _fingerprints(tensors: Mapping[str, Tensor]) -> set[tuple[int, float]]:
    """Size and sum of every matrix and kernel; renaming and reshaping keep them."""
    return {(t.numel(), t.sum(dtype=torch.float64).item()) for t in tensors.values() if t.ndim > 1}
