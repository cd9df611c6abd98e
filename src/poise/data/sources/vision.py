"""``torchvision:NAME[?root=FOLDER]``: a classification data set of torchvision, fetched once into a cache folder."""

from __future__ import annotations

import hashlib
import inspect
import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torchvision import datasets

from poise.core.misuse import Misuse, suggestion
from poise.data.pictures import finished, pictures
from poise.data.request import Request
from poise.data.sources.columns import class_names
from poise.data.splits import SPLIT_NAMES, Parts, Split, Splits
from poise.data.store import Store

_FAILURES = (OSError, RuntimeError, ValueError, TypeError, ImportError)


def open_source(request: Request) -> Splits:
    """The images of a torchvision data set; ids are ``<split>/<row number>``, in torchvision's order."""
    name, options = request.options("root")
    kind = getattr(datasets, name, None) if name in datasets.__all__ else None
    if kind is None:
        raise Misuse(f"torchvision has no data set {name!r}; {suggestion(name, datasets.__all__)}")
    root = Path(options.get("root") or _cache()).expanduser()
    try:
        found = _splits(kind, root)
    except _FAILURES as error:
        raise Misuse(
            f"{request.address}: torchvision could not open {name} in {root} nor fetch it ({error}); "
            "connect once to download it, or put its files there, or name their folder with ?root=FOLDER"
        ) from None
    labels = {split: _labels(found[split], request.address) for split in found}
    named = getattr(found["train"], "classes", None)
    classes = class_names([str(each) for each in named or ()], _present(labels), request.address)
    parts = {
        split: pictures(
            Items(found[split], f"{request.address} {split}"),
            tuple(f"{split}/{row:06d}" for row in range(len(labels[split]))),
            torch.tensor(labels[split]),
        )
        for split in found
    }
    return finished(Parts(**parts), classes, request)


def _cache() -> str:
    return str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "poise" / "torchvision")


def _present(labels: dict[str, list[int]]) -> set[int]:
    return {label for part in labels.values() for label in part}


def _splits(kind: Any, root: Path) -> dict[str, Any]:
    """The splits that a data set class offers: by a `train` flag, by a `split` argument, or none."""
    root.mkdir(parents=True, exist_ok=True)
    parameters = inspect.signature(kind).parameters
    common: dict[str, Any] = {"root": str(root)} | ({"download": True} if "download" in parameters else {})
    if "train" in parameters:
        return {"train": kind(train=True, **common), "test": kind(train=False, **common)}
    if "split" not in parameters:
        return {"train": kind(**common)}
    found = {"train": kind(split="train", **common)}
    rest: tuple[Split, Split] = ("validation", "test")
    for split in rest:
        for argument in SPLIT_NAMES[split]:
            try:
                found[split] = kind(split=argument, **common)
            except ValueError:  # the class has no split of this name
                continue
            break
    return found


def _labels(found: Any, address: str) -> list[int]:
    for attribute in ("targets", "labels", "_labels"):
        values = getattr(found, attribute, None)
        if values is not None:
            break
    else:
        values = [found[row][1] for row in range(len(found))]
    values = torch.as_tensor(values)
    if values.ndim != 1 or values.is_floating_point():
        raise Misuse(f"{address} does not have one class per image; choose a data set for classification")
    return [int(value) for value in values]


class Items(Store):
    """The images of a torchvision data set, which hands them out decoded.

    Args:
        found: the data set.
        title: what to call it in messages.
    """

    def __init__(self, found: Any, title: str) -> None:
        self._found, self._title = found, title

    def name(self, row: int) -> str:
        """Data set and row."""
        return f"{self._title} row {row}"

    def open(self, row: int) -> Image.Image:
        """The image."""
        image = self._found[row][0]
        if not isinstance(image, Image.Image):
            raise Misuse(f"{self.name(row)} is a {type(image).__name__}; choose a data set of images")
        return image

    def mark(self, row: int) -> str:
        """A digest of the pixels."""
        with self.open(row) as image:
            state = hashlib.blake2b(f"{image.mode} {image.size} ".encode(), digest_size=16)
            state.update(image.tobytes())
        return state.hexdigest()
