"""``hf:NAME``: a data set of the Hugging Face hub, or a folder written by `datasets`' ``save_to_disk``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import torch
from pyarrow.compute import struct_field

from poise.core.misuse import Misuse
from poise.data.pictures import finished, pictures
from poise.data.request import Request
from poise.data.sources.columns import IMAGE_NAMES, LABEL_NAMES, class_names, column, identities, whole_labels
from poise.data.splits import Parts, Splits, split_called
from poise.data.store import Encoded

_BATCH_ROWS = 1024
_FAILURES = (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError)


def open_source(request: Request) -> Splits:
    """The images of a data set with an image and a class label column; ``hf:NAME?config=CONFIG`` picks a configuration.

    Ids are the split and the image's path where all paths of the split are relative and distinct, else the split and
    the row number. Further splits, as `unsupervised` or `extra`, are named in `Splits.unused`.
    """
    tables, unused = _tables(request)
    features = tables["train"].features
    images = [name for name, kind in features.items() if isinstance(kind, datasets.Image)]
    named = [name for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)]
    image = column(list(features), images, IMAGE_NAMES, request.address)
    label = column(list(features), named, LABEL_NAMES, request.address)
    stores = {split: Rows(table, image, f"{request.address} {split}") for split, table in tables.items()}
    labels = {split: whole_labels(table[label], stores[split].name) for split, table in tables.items()}
    ids = {split: identities(split, store.paths()) for split, store in stores.items()}
    present = {value for part in labels.values() for value in part}
    classes = class_names(getattr(features[label], "names", None), present, request.address)
    parts = {split: pictures(stores[split], ids[split], torch.tensor(labels[split])) for split in stores}
    return finished(Parts(**parts), classes, request, unused)


def _tables(request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The table of each split that poise knows, and the names of others; a single table is taken as train."""
    name, options = request.options("config")
    local = Path(name).expanduser()
    try:
        found = (
            datasets.load_from_disk(str(local)) if local.is_dir() else datasets.load_dataset(name, **_config(options))
        )
    except _FAILURES as error:
        raise Misuse(
            f"{request.address}: {local} is no folder written by save_to_disk, and {name} could not be "
            "loaded from the Hugging Face hub "
            f"({' '.join(str(error).split())[:200]}); check the name and the connection, or give such a folder, or say "
            "parquet:FOLDER"
        ) from None
    if isinstance(found, datasets.Dataset):
        return {"train": found}, ()
    tables: dict[str, Any] = {}
    for called, table in found.items():
        split = split_called(called)
        if split in tables:
            raise Misuse(f"{request.address} has two splits for {split}: {', '.join(found)}; keep one of them")
        if split is not None:
            tables[split] = table
    if "train" not in tables:
        raise Misuse(f"{request.address} has the splits {', '.join(found)}; one of them must be called train")
    return tables, tuple(called for called in found if split_called(called) is None)


def _config(options: dict[str, str]) -> dict[str, str]:
    return {"name": options["config"]} if "config" in options else {}


class Rows(Encoded):
    """The images of a `datasets.Dataset`, as the encoded bytes it keeps.

    Args:
        table: the data set.
        image: name of its column of images.
        title: what to call the table in messages.
    """

    def __init__(self, table: Any, image: str, title: str) -> None:
        self._cells = table.select_columns(image).cast_column(image, datasets.Image(decode=False))
        self._image, self._title = image, title

    def paths(self) -> list[str | None]:
        """The path that each row gives for its image."""
        tables = self._cells.with_format("arrow").iter(_BATCH_ROWS)  # maps the file; the images' bytes are not read
        return [path for table in tables for path in struct_field(table[self._image], "path").to_pylist()]

    def name(self, row: int) -> str:
        """Table and row."""
        return f"{self._title} row {row}"

    def content(self, row: int) -> bytes:
        """The encoded image, from the table or from the file it points to."""
        cell = self._cells[row][self._image]
        return bytes(cell["bytes"]) if cell["bytes"] is not None else Path(cell["path"]).read_bytes()
