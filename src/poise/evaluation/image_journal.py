"""Adversarial images of an evaluation in progress: a file a process, appended to as they are found.

An image is written before the outcome that rests on it, so that an outcome in the journal has its image; where a file
was damaged all the same, the outcome is taken back and its example attacked again. An image that no format holds leaves
a record without one, and its outcome stands.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from glob import escape
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from poise.core.misuse import Misuse
from poise.evaluation.pixel_formats import FORMATS, Pixels

_RECORD = struct.Struct("<qBBII")
"""Row, grid point, format, length of the content, checksum of all that."""
_UNKNOWN = -1
_LARGEST = 2**30
_NO_FORMAT = 255
"""In the format's place: no format holds the image, and there is no content."""


class Found(NamedTuple):
    """An adversarial image.

    Args:
        row: the example's row.
        point: the grid point within which the image lies.
        pixels: the image; None where no format holds it.
    """

    row: int
    point: int
    pixels: Pixels | None


class ImageJournal:
    """Images on disk; those of all processes that worked on a profile are read together.

    Args:
        path: the profile's path; the files stand beside it.
        mark: 32 hexadecimal digits that say which examination they belong to.
        count: number of examples.
        rank: number of this process, which writes a file of its own.
    """

    def __init__(self, path: Path, mark: str, count: int, rank: int = 0) -> None:
        self._path, self._mark = path, mark.encode()
        self._own = path.with_name(f"{path.name}.images.{rank}")
        self._points = np.zeros(count, dtype=np.int64)
        self._smallest = np.full(count, _UNKNOWN, dtype=np.int8)
        self._file = np.zeros(count, dtype=np.int16)
        self._offset = np.zeros(count, dtype=np.int64)

    def scan(self) -> None:
        """Learn which images are there; of each example the one within the smallest ball counts, the newest of these.

        Raises:
            Misuse: for a file of another examination; it is named.
        """
        self._points[:], self._smallest[:] = 0, _UNKNOWN
        for number, file in enumerate(image_journals(self._path)):
            with file.open("rb") as handle:
                if not self._belongs(file, handle):
                    continue
                for offset, image in _records(handle):
                    self._learn(number, offset, image)

    def open(self) -> None:
        """Make this process's file ready to be appended to: whatever was torn at its end is cut off."""
        self._own.parent.mkdir(parents=True, exist_ok=True)
        with self._own.open("a+b", buffering=0) as handle:
            handle.seek(0)
            if self._belongs(self._own, handle):
                end = handle.tell()
                for offset, image in _records(handle):
                    end = offset + _RECORD.size + len(_content(image))
                handle.truncate(end)
            else:
                handle.truncate(0)
                handle.write(self._mark)

    def write(self, images: Iterable[Found]) -> None:
        """Append images; they survive the end of the process at any instant from when this returns."""
        with self._own.open("ab") as handle:  # which writes on where the system took a part
            handle.write(b"".join(map(_packed, images)))

    def holds(self, row: int, point: int) -> bool:
        """Whether that example's image within that grid point was there at the last scan, or known to fit no format."""
        return bool(self._points[row] >> point & 1)

    def read(self, rows: Iterable[int]) -> Iterator[Found | None]:
        """Of each example the image that counts; None where there is none."""
        files = [file.open("rb") for file in image_journals(self._path)]
        try:
            for row in rows:
                if self._smallest[row] == _UNKNOWN:
                    yield None
                    continue
                handle = files[self._file[row]]
                handle.seek(self._offset[row])
                yield next(_records(handle))[1]
        finally:
            for handle in files:
                handle.close()

    def _belongs(self, file: Path, handle: BinaryIO) -> bool:
        """Whether a file was begun; False where not even its first line is whole."""
        found = handle.read(len(self._mark))
        if len(found) == len(self._mark) and found != self._mark:
            raise Misuse(f"{file} holds images of another examination; move it away, or write elsewhere with --out")
        return found == self._mark

    def _learn(self, number: int, offset: int, image: Found) -> None:
        row, point = image.row, image.point
        if not 0 <= row < len(self._points):
            return
        self._points[row] |= 1 << point
        if image.pixels is None:
            return
        if self._smallest[row] == _UNKNOWN or point <= self._smallest[row]:
            self._smallest[row], self._file[row], self._offset[row] = point, number, offset


def image_journals(path: Path) -> list[Path]:
    """The files of all processes, in a fixed order.

    Args:
        path: the profile.
    """
    return sorted(path.parent.glob(f"{escape(path.name)}.images.*"))


def _packed(image: Found) -> bytes:
    content, kind = _content(image), _NO_FORMAT if image.pixels is None else FORMATS.index(image.pixels.format)
    place = (image.row, image.point, kind, len(content))
    return _RECORD.pack(*place, _checksum(*place, content)) + content


def _content(image: Found) -> bytes:
    return b"" if image.pixels is None else image.pixels.content


def _records(handle: BinaryIO) -> Iterator[tuple[int, Found]]:
    """The whole records from where the file stands, with their offsets; ends at the first that is not whole."""
    while len(head := handle.read(_RECORD.size)) == _RECORD.size:
        row, point, kind, size, checksum = _RECORD.unpack(head)
        offset = handle.tell() - _RECORD.size
        if size > _LARGEST:
            return
        content = handle.read(size)
        known = kind < len(FORMATS) or (kind == _NO_FORMAT and not size)
        if len(content) < size or not known or checksum != _checksum(row, point, kind, size, content):
            return
        yield offset, Found(row, point, None if kind == _NO_FORMAT else Pixels(FORMATS[kind], content))


def _checksum(row: int, point: int, kind: int, size: int, content: bytes) -> int:
    return zlib.crc32(content, zlib.crc32(struct.pack("<qBBI", row, point, kind, size)))
