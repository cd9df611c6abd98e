"""Where encoded images are kept, by row: in files, in columns, in someone else's data set."""

from __future__ import annotations

import hashlib
import io
from abc import ABC, abstractmethod
from pathlib import Path

from PIL import Image


class Store(ABC):
    """Encoded images by row. Every method may be called from several threads at once."""

    @abstractmethod
    def name(self, row: int) -> str:
        """What to call the image in a message, so that its reader can find it."""

    @abstractmethod
    def open(self, row: int) -> Image.Image:
        """The image with its header read and its pixels not yet decoded where that is possible."""

    @abstractmethod
    def mark(self, row: int) -> str:
        """A text that determines the pixels: a digest of the encoded image."""


class Encoded(Store):
    """Images that are bytes."""

    @abstractmethod
    def content(self, row: int) -> bytes:
        """The encoded image."""

    def open(self, row: int) -> Image.Image:
        """The image, its header read."""
        return Image.open(io.BytesIO(self.content(row)))

    def mark(self, row: int) -> str:
        """A digest of the encoded image."""
        return hashlib.blake2b(self.content(row), digest_size=16).hexdigest()


class Files(Encoded):
    """Images that are files.

    Args:
        paths: one per row.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths

    def name(self, row: int) -> str:
        """The path."""
        return str(self._paths[row])

    def content(self, row: int) -> bytes:
        """The whole file."""
        return self._paths[row].read_bytes()

    def open(self, row: int) -> Image.Image:
        """The image, no more of its file read than the header."""
        return Image.open(self._paths[row])
