"""Adversarial images on disk, beside the profile whose verdicts rest on them: a parquet table with one row an image."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from poise.core.files import written_whole
from poise.core.misuse import Misuse, first_line
from poise.evaluation.pixel_formats import FORMATS, Format, Pixels, read_pixels
from poise.evaluation.profile_file import read_profile

_KEY = b"poise.adversarials"
_VERSION = 1
_GROUP = 64
_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("point", pa.int32()),
        ("epsilon", pa.float64()),
        ("format", pa.string()),
        ("pixels", pa.binary()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What adversarial images were made on; goes into their file.

    Args:
        model: digest of the model that they fool.
        data: digest of the data set that they come from.
        norm: norm of the ball that they lie in.
        epsilons: the grid.
        shape: channels, height and width.
    """

    model: str
    data: str
    norm: str
    epsilons: tuple[float, ...]
    shape: tuple[int, ...]


class Adversarials:
    """The adversarial images of a profile, read as they are asked for; ids, points and formats are in memory.

    Args:
        path: the file.

    Raises:
        Misuse: if there is no such file, or it is truncated or foreign; it is named.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise Misuse(f"there are no adversarial images at {path}; poise profile --keep-adversarials keeps them")
        self._path = path
        try:
            with pq.ParquetFile(path) as file:
                fields = json.loads((file.schema_arrow.metadata or {}).get(_KEY, b"null"))
                table = file.read(columns=["id", "point", "format"])
            if fields is None or fields.pop("version") != _VERSION:
                raise ValueError("it holds something else, or was written by a newer poise")  # noqa: TRY301
            lists = {name: tuple(fields[name]) for name in ("epsilons", "shape")}
            self.origin = Origin(**fields | lists)
            self.ids: tuple[str, ...] = tuple(table["id"].to_pylist())
            self.points: Int[np.ndarray, " n"] = table["point"].to_numpy()
            self.formats: tuple[Format, ...] = tuple(table["format"].to_pylist())
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Misuse(f"{path} cannot be read as adversarial images: {first_line(error)}") from error

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def digest(self) -> str:
        """A digest of the file, as profiles hold it."""
        return file_digest(self._path)

    def epsilon(self, row: int) -> float:
        """The radius of the ball that an image lies in."""
        return self.origin.epsilons[int(self.points[row])]

    def images(self, rows: Iterable[int] | None = None) -> Float32[Tensor, "m c h w"]:
        """The images at these rows, by default all, in [0, 1]; as many are in memory as are asked for."""
        wanted = list(range(len(self))) if rows is None else [int(row) for row in rows]
        images = torch.empty(len(wanted), *self.origin.shape)
        places: dict[int, list[int]] = {}
        for place, row in enumerate(wanted):
            if not 0 <= row < len(self):
                raise IndexError(f"there is no image {row}; {self._path} holds {len(self)}")
            places.setdefault(row, []).append(place)
        for row, (_, pixels) in self._at(sorted(places)):
            images[places[row]] = read_pixels(pixels, self.origin.shape)
        return images

    def batches(self, size: int = 128) -> Iterator[tuple[range, Float32[Tensor, "m c h w"]]]:
        """All images, so many at a time, with their rows."""
        for start in range(0, len(self), size):
            rows = range(start, min(start + size, len(self)))
            yield rows, self.images(rows)

    def records(self) -> Iterator[tuple[str, int, Pixels]]:
        """Every image as it is stored, with its id and grid point."""
        for row, (point, pixels) in self._at(range(len(self))):
            yield self.ids[row], point, pixels

    def _at(self, rows: Iterable[int]) -> Iterator[tuple[int, tuple[int, Pixels]]]:
        """Rows in ascending order, with what stands there; a group of rows is in memory at a time."""
        with pq.ParquetFile(self._path) as file:
            held, group = -1, None
            for row in rows:
                if row // _GROUP != held:
                    held = row // _GROUP
                    group = file.read_row_group(held, columns=["pixels"])["pixels"]
                assert group is not None  # noqa: S101 - read just now
                content = group[row % _GROUP].as_py()
                yield row, (int(self.points[row]), Pixels(self.formats[row], content))


def read_adversarials(path: Path | str) -> Adversarials:
    """The adversarial images that a profile kept, to look at them or to replay them on another model.

    Args:
        path: the file, or the profile beside it.

    Raises:
        Misuse: if there are none, or the file is truncated, foreign, or not the one that the profile was written with.
    """
    path = Path(path)
    if path.name.endswith(".adversarials.parquet") or not path.is_file():
        return Adversarials(path)
    kept = read_profile(path).adversarials
    if kept is None:
        raise Misuse(f"{path} was made without keeping adversarial images; see poise profile --keep-adversarials")
    found = Adversarials(path.with_name(kept.file))
    if found.digest != kept.digest:
        raise Misuse(f"{path.with_name(kept.file)} has digest {found.digest}; {path} was written with {kept.digest}")
    return found


def adversarials_path(profile: Path) -> Path:
    """Where the adversarial images of a profile stand.

    Args:
        profile: path of the profile.
    """
    return profile.with_name(f"{profile.name.removesuffix('.parquet')}.adversarials.parquet")


def write_adversarials(records: Iterable[tuple[str, int, Pixels]], origin: Origin, path: Path) -> dict[str, int]:
    """Write images whole, in place of an older file, a few of them in memory at a time.

    Args:
        records: id, grid point and image.
        origin: what they were made on.
        path: the file.

    Returns:
        The number of images by format.
    """
    counts: dict[str, int] = dict.fromkeys(FORMATS, 0)
    schema = _SCHEMA.with_metadata({_KEY: json.dumps({"version": _VERSION, **asdict(origin)}).encode()})
    with written_whole(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for group in _grouped(records):
            columns: Mapping[str, list[Any]] = {
                "id": [identity for identity, _, _ in group],
                "point": [point for _, point, _ in group],
                "epsilon": [origin.epsilons[point] for _, point, _ in group],
                "format": [pixels.format for _, _, pixels in group],
                "pixels": [pixels.content for _, _, pixels in group],
            }
            for kind in columns["format"]:
                counts[kind] += 1
            writer.write_table(pa.table(columns, schema=schema), row_group_size=_GROUP)
    return counts


def file_digest(path: Path) -> str:
    """A digest of a file's content: 32 hexadecimal digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def _grouped(records: Iterable[tuple[str, int, Pixels]]) -> Iterator[list[tuple[str, int, Pixels]]]:
    group: list[tuple[str, int, Pixels]] = []
    for record in records:
        group.append(record)
        if len(group) == _GROUP:
            yield group
            group = []
    if group:
        yield group
