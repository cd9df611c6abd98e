"""Random changes of training images, each a function of (stream, example) and of nothing else in the batch."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import grid_sample, pad

from poise.core.misuse import Misuse, suggestion
from poise.core.norms import per_example
from poise.core.streams import Stream

Augmentation = Literal["none", "flip", "crop", "finetune"]

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)

_PAD_SHARE = 8
_JITTER = 0.25
_DEGREES = 15.0
_LUMA = (0.299, 0.587, 0.114)
_FRACTION = 2.0**32


def augment(
    images: Float[Tensor, "n c h w"], ids: Int[Tensor, " n"], kind: str, stream: Stream
) -> Float[Tensor, "n c h w"]:
    """Change each image at random, on its device.

    none: nothing. flip: mirrored left to right with probability 1/2. crop: flip, then shifted by whole pixels, uniform
    in +-1/8 of each side, zeros moving in. finetune: flip, then brightness, contrast and saturation in this order, each
    factor uniform in 1 +- 0.25, then rotated about the centre, uniform in +-15 degrees, bilinear, zeros moving in.

    Args:
        images: values in [0, 1]; they are not changed.
        ids: integer keys of the examples, on the device of the images.
        kind: an `Augmentation`.
        stream: source of the draws; fold the epoch into it.

    Returns:
        Images of the same shape and dtype, in [0, 1].

    Raises:
        Misuse: for an unknown kind.
    """
    check_augmentation(kind)
    if kind == "none":
        return images
    images = _flipped(images, stream.fold("flip").uniform(ids) < 1 / 2)
    if kind == "crop":
        return _shifted(images, ids, stream)
    if kind == "finetune":
        wide = images if images.dtype == torch.float64 else images.float()
        return _rotated(_jittered(wide, ids, stream), ids, stream).clamp(0, 1).to(images.dtype)
    return images


def check_augmentation(kind: str) -> None:
    """Refuse a word that is no `Augmentation`."""
    if kind not in AUGMENTATIONS:
        raise Misuse(f"unknown augmentation {kind!r}; {suggestion(kind, AUGMENTATIONS)}")


def _flipped(images: Tensor, mask: Bool[Tensor, " n"]) -> Tensor:
    return torch.where(mask[:, None, None, None], images.flip(-1), images)


def _shifted(images: Tensor, ids: Tensor, stream: Stream) -> Tensor:
    """A window of the zero-padded image, copied by index so that every value stays exact."""
    count, channels, height, width = images.shape
    down, right = height // _PAD_SHARE, width // _PAD_SHARE
    padded = pad(images, (right, right, down, down))
    device = images.device
    rows = stream.fold("down").integers(ids, 2 * down + 1)[:, None] + torch.arange(height, device=device)
    columns = stream.fold("right").integers(ids, 2 * right + 1)[:, None] + torch.arange(width, device=device)
    example = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return padded[example, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _jittered(images: Tensor, ids: Tensor, stream: Stream) -> Tensor:
    draws = stream.fold("jitter").uniform(ids, (3,), dtype=images.dtype)
    brightness, contrast, saturation = (1 + _JITTER * (2 * draws - 1)).unbind(1)
    images = (images * per_example(brightness, images)).clamp(0, 1)
    grey = per_example(_exact_mean(_luminance(images)), images)
    images = (grey + per_example(contrast, images) * (images - grey)).clamp(0, 1)
    grey = _luminance(images)
    return (grey + per_example(saturation, images) * (images - grey)).clamp(0, 1)


def _luminance(images: Tensor) -> Float[Tensor, "n 1 h w"]:
    """Brightness as eyes see it for three channels, the mean of the channels for any other number."""
    channels = images.unbind(1)
    weights = _LUMA if len(channels) == len(_LUMA) else (1 / len(channels),) * len(channels)
    return sum((weight * channel for weight, channel in zip(weights, channels, strict=True)), start=0.0 * channels[0])[
        :, None
    ]


def _exact_mean(values: Float[Tensor, "n 1 h w"]) -> Float[Tensor, " n"]:
    """The mean of each example, summed as whole numbers: a float sum's rounding varies with the batch."""
    total = (values.double() * _FRACTION).round().long().flatten(1).sum(1)
    return (total.double() / (_FRACTION * values[0].numel() if len(values) else 1)).to(values.dtype)


def _rotated(images: Tensor, ids: Tensor, stream: Stream) -> Tensor:
    """Rotation in pixel distances, so that images that are not square are not sheared."""
    height, width = images.shape[-2:]
    # In float64: float32 sines may differ in the last bit with an example's place in the batch.
    angle = stream.fold("rotation").uniform(ids, dtype=torch.float64).mul(2).sub(1) * math.radians(_DEGREES)
    cosine, sine = (part.to(images.dtype)[:, None, None] for part in (angle.cos(), angle.sin()))
    y = (torch.arange(height, device=images.device, dtype=images.dtype) - (height - 1) / 2)[:, None]
    x = torch.arange(width, device=images.device, dtype=images.dtype) - (width - 1) / 2
    grid = torch.stack([(cosine * x + sine * y) * (2 / width), (cosine * y - sine * x) * (2 / height)], dim=-1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
