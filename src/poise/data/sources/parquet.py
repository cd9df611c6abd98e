"""``parquet:FOLDER``: tables in the image layout of Hugging Face, a column of {bytes, path} and one of labels."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from poise.core.misuse import Misuse
from poise.data.pictures import finished, pictures
from poise.data.request import Request
from poise.data.sources.columns import IMAGE_NAMES, LABEL_NAMES, class_names, column, identities, whole_labels
from poise.data.splits import Parts, Split, Splits, split_called
from poise.data.store import Encoded

_PREFIXES: Mapping[str, Split] = {"train": "train", "val": "validation", "test": "test"}
_BATCH_ROWS = 1024


def open_source(request: Request) -> Splits:
    """The images of a folder's ``train*``, ``val*`` and ``test*`` files, or of all where none is called so.

    Splits may be called otherwise, as `SPLIT_NAMES` says.

    The encoded images are held in memory. Ids are the split and the image's path where all paths of the split
    are present and distinct, else the split and the row number; class names come from the schema where it has them.
    """
    files = _files(request)
    schema = _schema(files["train"][0], request.address)
    kinds = _features(schema)
    image = column(schema.names, [name for name in kinds if kinds[name] == "Image"], IMAGE_NAMES, request.address)
    label = column(
        schema.names, [name for name in kinds if isinstance(kinds[name], list)], LABEL_NAMES, request.address
    )
    tables = {split: Table(paths, image, label, request.address) for split, paths in files.items()}
    labels = {split: table.labels() for split, table in tables.items()}
    ids = {split: identities(split, table.paths()) for split, table in tables.items()}
    named = kinds.get(label)
    present = {value for part in labels.values() for value in part}
    classes = class_names(named if isinstance(named, list) else None, present, request.address)
    parts = {split: pictures(tables[split], ids[split], torch.tensor(labels[split])) for split in tables}
    return finished(Parts(**parts), classes, request)


def _files(request: Request) -> dict[str, list[Path]]:
    folder = Path(request.target).expanduser()
    if not folder.is_dir():
        raise Misuse(f"{request.address}: there is no folder {folder}; looked from {Path.cwd()}")
    every = sorted(folder.glob("*.parquet"))
    if not every:
        raise Misuse(f"{request.address}: no .parquet files in {folder}; expected train*.parquet and test*.parquet")
    found: dict[str | None, list[Path]] = defaultdict(list)
    for path in every:
        found[_split_of(path.name)].append(path)
    if set(found) == {None}:
        return {"train": every}
    if "train" not in found:
        named = next(path for path in every if _split_of(path.name))
        raise Misuse(f"{request.address}: there is {named.name} and no train*.parquet to learn from")
    if strange := found.pop(None, []):
        raise Misuse(
            f"{request.address}: {strange[0].name} belongs to no split, beside {found['train'][0].name}; begin its "
            "name with train, val or test, or keep it elsewhere"
        )
    return {split: paths for split, paths in found.items() if split is not None}


def _split_of(name: str) -> Split | None:
    """The split that a file belongs to: its first letters are one's name, or it begins like one."""
    called = split_called(re.split(r"[^a-z]", name.lower())[0])
    return called or next((split for prefix, split in _PREFIXES.items() if name.lower().startswith(prefix)), None)


def _schema(file: Path, address: str) -> pa.Schema:
    try:
        return pq.read_schema(file)
    except (pa.ArrowException, OSError) as error:
        raise Misuse(f"{address}: cannot read {file}: {error}") from None


def _features(schema: pa.Schema) -> dict[str, str | list[str]]:
    """What Hugging Face's metadata says of each column: its type, or for class labels their names."""
    metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features: dict[str, Any] = metadata.get("info", {}).get("features", {})
    return {
        name: feature["names"] if feature.get("_type") == "ClassLabel" and feature.get("names") else feature["_type"]
        for name, feature in features.items()
        if isinstance(feature, dict) and "_type" in feature
    }


class Table(Encoded):
    """The image and label columns of parquet files, read into memory.

    Args:
        files: the files, in order.
        image: name of the column of images.
        label: name of the column of labels.
        address: the data's address, for messages.
    """

    def __init__(self, files: list[Path], image: str, label: str, address: str) -> None:
        self._image, self._label, self._address = image, label, address
        self._batches: list[pa.RecordBatch] = []
        self._origins: list[tuple[Path, int]] = []
        for file in files:
            self._read(file)
        self._ends = list(accumulate(batch.num_rows for batch in self._batches))

    def _read(self, file: Path) -> None:
        start = 0
        try:
            with pq.ParquetFile(file) as table:
                # Batch by batch: one column of more than 2 GiB of nested bytes cannot be read in one piece.
                for batch in table.iter_batches(_BATCH_ROWS, columns=[self._image, self._label]):
                    self._batches.append(batch)
                    self._origins.append((file, start))
                    start += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            raise Misuse(f"{self._address}: cannot read {file}: {error}") from None
        if start and not pa.types.is_struct(self._batches[-1][self._image].type):
            raise Misuse(f"{self._address}: the column {self._image} of {file} must be a struct of bytes and path")

    def labels(self) -> list[int]:
        """The label of every row."""
        values = (value for batch in self._batches for value in batch[self._label].to_pylist())
        return whole_labels(values, self.name)

    def paths(self) -> list[str | None]:
        """The path that each row gives for its image."""
        return [path for batch in self._batches for path in batch[self._image].field("path").to_pylist()]

    def name(self, row: int) -> str:
        """File and row."""
        batch, inside = self._place(row)
        file, start = self._origins[batch]
        return f"{file} row {start + inside}"

    def content(self, row: int) -> bytes:
        """The encoded image."""
        batch, inside = self._place(row)
        found = self._batches[batch][self._image].field("bytes")[inside].as_py()
        if found is None:
            raise OSError("the row has no bytes")
        return bytes(found)

    def _place(self, row: int) -> tuple[int, int]:
        batch = bisect_right(self._ends, row)
        return batch, row - (self._ends[batch - 1] if batch else 0)
