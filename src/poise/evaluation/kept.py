"""What a profile knows of the adversarial images that were kept beside it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What a profile says of the adversarial images beside it.

    Args:
        file: name of the file, in the profile's folder.
        digest: of the file's content, 32 hexadecimal digits.
        counts: number of images by format, and under "missing" of broken examples without one.
    """

    file: str
    digest: str
    counts: dict[str, int]
