"""From bytes that a stranger sent to an image that the model takes, or to one line that says why not."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

from jaxtyping import Float32
from PIL import Image
from torch import Tensor

from poise.core.misuse import Misuse
from poise.data.dataset import as_float
from poise.data.decoding import tensor_of

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""What is read; Pillow knows more, some of which call other programs."""

_MILLION = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How large an upload may be.

    Args:
        megabytes: of the file, above 0, in units of 1,000,000 bytes.
        megapixels: of the image, above 0, in units of 1,000,000 pixels; told by its header, before it is decoded.

    Raises:
        Misuse: for values outside what is said above.
    """

    megabytes: float = 10.0
    megapixels: float = 25.0

    def __post_init__(self) -> None:
        for name in ("megabytes", "megapixels"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise Misuse(f"{name} must be a number above 0; got {getattr(self, name)}")

    @property
    def bytes(self) -> int:
        """The most bytes of a file."""
        return int(self.megabytes * _MILLION)

    @property
    def pixels(self) -> int:
        """The most pixels of an image."""
        return int(self.megapixels * _MILLION)


def read_upload(content: bytes, shape: tuple[int, ...], limits: Limits) -> Float32[Tensor, "1 c h w"]:
    """An uploaded image, upright and opaque, its centre cut and resized to the size of the data, in [0, 1].

    The file's name plays no part. Of moving images the first picture is taken.

    Args:
        content: the file.
        shape: channels (1 or 3), height and width of the data's images.
        limits: of bytes and pixels.

    Raises:
        Misuse: for everything that is no such image, with a reason that quotes nothing of the file.
    """
    if not content:
        raise Misuse("the file is empty")
    if len(content) > limits.bytes:
        raise Misuse(f"the file is larger than {limits.megabytes:g} MB")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if math.prod(image.size) > limits.pixels:
                raise Image.DecompressionBombError  # noqa: TRY301 - as Pillow says of still larger ones
            pixels = tensor_of(image, shape[0], (shape[1], shape[2]))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise Misuse(f"the image has more than {limits.megapixels:g} million pixels") from error
    except Exception as error:  # decoders refuse broken files in every way that Python has
        raise Misuse(f"this is no whole image in one of the formats {', '.join(FORMATS)}") from error
    return as_float(pixels[None])
