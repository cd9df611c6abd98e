"""``folder:PATH``: one folder per class, below PATH or below PATH/train, PATH/validation and PATH/test.

Splits may be called otherwise, as `SPLIT_NAMES` says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from unicodedata import normalize

import torch

from poise.core.misuse import Misuse
from poise.data.pictures import Pictures, finished, pictures
from poise.data.request import Request
from poise.data.splits import Parts, Splits, split_called
from poise.data.store import Files

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def open_source(request: Request) -> Splits:
    """The images below a folder; their ids are their paths below it, their classes the folders' names in order.

    Names beginning with a dot or two underscores, and files that are no images by their suffix, are passed over.
    """
    root = Path(request.target).expanduser()
    if not root.is_dir():
        raise Misuse(f"{request.address}: there is no folder {root}; looked from {Path.cwd()}")
    homes = _homes(root, request.address)
    found = {name: list(_labelled(home)) for name, home in homes.items()}
    for name, home in homes.items():
        if not found[name]:
            raise Misuse(
                f"{request.address}: no images in {home}; expected {home.name}/CLASS/IMAGE "
                f"with IMAGE ending in {', '.join(sorted(SUFFIXES))}"
            )
    classes = tuple(sorted({label for pairs in found.values() for label, _ in pairs}))
    parts = {name: _pictures(root, pairs, classes) for name, pairs in found.items()}
    return finished(Parts(**parts), classes, request)


def _homes(root: Path, address: str) -> dict[str, Path]:
    """The folder of each split; the root alone where there is no train folder with class folders in it.

    Raises:
        Misuse: for two folders of a split, for splits without one to train on, and for a folder beside the splits that
            looks like one more.
    """
    known = [path for path in _visible(root) if path.is_dir()]
    homes: dict[str, Path] = {}
    for path in known:
        split = split_called(path.name)
        if split is None or (split == "train" and not _folders_in(path)):
            continue
        if split in homes:
            raise Misuse(f"{address}: {homes[split].name} and {path.name} are both for {split}; keep one of them")
        homes[split] = path
    if "train" not in homes:
        if homes and len(homes) == len(known):
            raise Misuse(
                f"{address}: there is {', '.join(home.name for home in homes.values())} and no train to learn from"
            )
        return {"train": root}
    classes = _folders_in(homes["train"])
    for path in known:
        if path not in homes.values() and classes & _folders_in(path):
            raise Misuse(
                f"{address}: {path.name} holds classes too, beside {homes['train'].name}; "
                "call it train, validation or test, or keep it elsewhere"
            )
    return homes


def _folders_in(folder: Path) -> set[str]:
    """Names of the folders in a folder, in small letters."""
    return {path.name.lower() for path in _visible(folder) if path.is_dir()}


def _visible(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith((".", "__")))


def _labelled(home: Path) -> Iterator[tuple[str, Path]]:
    """Class name and path of every image, in the order of classes and paths."""
    for folder in _visible(home):
        if not folder.is_dir():
            continue
        paths = sorted(_images(folder, frozenset()))
        if not paths:
            raise Misuse(f"the class folder {folder} holds no images; add some or remove it")
        yield from ((_text(folder.name), path) for path in paths)


def _images(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Images at any depth; a link to a folder further up is not followed in circles."""
    here = folder.resolve()
    if here in above:
        return
    for path in _visible(folder):
        if path.is_dir():
            yield from _images(path, above | {here})
        elif path.suffix.lower() in SUFFIXES:
            yield path


def _text(name: str) -> str:
    """A file name as the same text on every machine: composed accents, and no undecodable bytes."""
    return normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def _pictures(root: Path, pairs: list[tuple[str, Path]], classes: tuple[str, ...]) -> Pictures:
    number = {name: label for label, name in enumerate(classes)}
    labels = torch.tensor([number[name] for name, _ in pairs], dtype=torch.int64)
    ids = tuple(_text(path.relative_to(root).as_posix()) for _, path in pairs)
    return pictures(Files([path for _, path in pairs]), ids, labels)
