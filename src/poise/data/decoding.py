"""From an encoded image to a tensor: upright, opaque, grey or RGB, eight bits, one size."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from poise.core.misuse import Misuse

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow raises for files that are no images, or broken ones."""

_GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"})
_EXIF_KEYS = frozenset({"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"})
_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_FIRST_LYING = 5


class Header(NamedTuple):
    """What is known of an image without decoding it: whether it is grey, and its upright size."""

    grey: bool
    width: int
    height: int


def header(image: Image.Image) -> Header:
    """The header of an image that Pillow has opened but not decoded."""
    width, height = image.size
    if _orientation(image) >= _FIRST_LYING:
        width, height = height, width
    return Header(image.mode in _GREY_MODES, width, height)


def tensor_of(image: Image.Image, channels: int, image_size: int | tuple[int, int] | None) -> UInt8[Tensor, "c h w"]:
    """Decode an image.

    Args:
        image: opened by Pillow.
        channels: 1 for grey, 3 for RGB.
        image_size: side of the square it is cut and resized to, or height and width; None to keep its size.
    """
    orientation = _orientation(image)
    image = _plain(image, "L" if channels == 1 else "RGB")
    if orientation in _TRANSPOSITIONS:
        image = image.transpose(_TRANSPOSITIONS[orientation])
    if image_size is not None:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        image = image.crop(central_part(*image.size, width / height)).resize((width, height), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(image))
    return pixels[None] if channels == 1 else pixels.permute(2, 0, 1).contiguous()


def central_part(width: int, height: int, ratio: float = 1.0) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of the largest central rectangle that is `ratio` times as wide as high.

    Cutting before resizing shows the same part of the image as cutting after, and never builds the enlarged strip of a
    long panorama. At least a pixel is left in either direction.
    """
    wide, high = max(1, min(width, round(height * ratio))), max(1, min(height, round(width / ratio)))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 when there is none.

    Pillow turns TIFF files itself, and would decode a whole PNG in search of metadata behind its pixels: such late
    metadata is not looked for, here or when decoding, so that both agree on the size.
    """
    if image.format == "TIFF" or not _EXIF_KEYS & image.info.keys():
        return 1
    found = image.getexif().get(_ORIENTATION_TAG)
    return found if isinstance(found, int) else 1


def _plain(image: Image.Image, mode: str) -> Image.Image:
    """The image in mode L or RGB: 16-bit values scaled to 8 bits, transparent parts laid on white."""
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8)).convert(mode)
    if image.mode == "F":
        raise Misuse("its pixels are floating-point numbers of unknown range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        over = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    return image.convert(mode)
