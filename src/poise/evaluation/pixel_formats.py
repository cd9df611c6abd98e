"""Formats in which an adversarial image may be stored, from the smallest up, and rounding that gives nothing away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from poise.data.dataset import as_float

Format = Literal["uint8", "float16", "float32"]

FORMATS: tuple[Format, ...] = get_args(Format)

Accepts = Callable[[Int[Tensor, " m"], Float32[Tensor, "m c h w"]], Bool[Tensor, " m"]]
"""Which images, as they would be read back, may be stored; given with their rows in the batch."""

_LEVELS = 255
_ROUNDING = 1e-3


class Pixels(NamedTuple):
    """A stored image.

    Args:
        format: of the values.
        content: the values, in the order of the image's dimensions, little-endian.
    """

    format: Format
    content: bytes


def stored(images: Float[Tensor, "n c h w"], clean: Float[Tensor, "n c h w"], accepts: Accepts) -> list[Pixels | None]:
    """Each image in the smallest format that is accepted; None where not even float32 is.

    Bytes are tried rounded to the nearest level, then towards the clean image; float16 is rounded towards the clean
    image, as the nearest value may lie outside the ball.

    Args:
        images: values in [0, 1], at most as far from the clean images as allowed.
        clean: the clean images.
        accepts: decides about images that were stored and read back.
    """
    found: list[Pixels | None] = [None] * len(images)
    left = torch.arange(len(images), device=images.device)
    for kind, rounded in _WAYS:
        values = rounded(images[left], clean[left])
        accepted = accepts(left, as_float(values))
        for row, value in zip(left[accepted].tolist(), values[accepted].cpu(), strict=True):
            found[row] = Pixels(kind, value.numpy().astype(_on_disk(kind)).tobytes())
        left = left[~accepted]
        if not len(left):
            break
    return found


def read_pixels(pixels: Pixels, shape: tuple[int, ...]) -> Float32[Tensor, "c h w"]:
    """A stored image as float32 in [0, 1]."""
    values = np.frombuffer(pixels.content, dtype=_on_disk(pixels.format)).reshape(shape)
    return as_float(torch.from_numpy(values.astype(pixels.format))[None])[0]


def _on_disk(kind: Format) -> np.dtype[Any]:
    return np.dtype(kind).newbyteorder("<")


def _nearest_level(images: Tensor, clean: Tensor) -> Tensor:  # noqa: ARG001 - as the others
    return (images * _LEVELS).round().to(torch.uint8)


def _level_towards(images: Tensor, clean: Tensor) -> Tensor:
    level = images * _LEVELS
    return torch.where(images > clean, (level + _ROUNDING).floor(), (level - _ROUNDING).ceil()).to(torch.uint8)


def _half_towards(images: Tensor, clean: Tensor) -> Tensor:
    """The nearest float16; where that lies further from the clean image, the next one towards it: their bits ascend."""
    half = images.half()
    step = torch.where(half > clean, -1, 1) * ((half - clean).abs() > (images - clean).abs())
    return (half.view(torch.int16) + step.to(torch.int16)).view(torch.float16)


def _single(images: Tensor, clean: Tensor) -> Tensor:  # noqa: ARG001 - as the others
    return images.float()


_WAYS: tuple[tuple[Format, Callable[[Tensor, Tensor], Tensor]], ...] = (
    ("uint8", _nearest_level),
    ("uint8", _level_towards),
    ("float16", _half_towards),
    ("float32", _single),
)
