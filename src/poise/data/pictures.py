"""Encoded images on their way to a set: divided, limited and checked before any is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from poise.core.misuse import Misuse
from poise.data.decoding import UNREADABLE, Header, header, tensor_of
from poise.data.lazy import Lazy
from poise.data.request import Request
from poise.data.splits import Parts, Splits, divided, limited
from poise.data.store import Store
from poise.data.threads import ahead, chunks

Result = TypeVar("Result")

_CHUNK = 128


@dataclass(frozen=True)
class Pictures:
    """Encoded images with their ids and labels.

    Args:
        store: where the images are.
        rows: which of the store's rows they are.
        ids: one stable name per image.
        labels: class indices.
    """

    store: Store
    rows: Int[Tensor, " n"]
    ids: tuple[str, ...]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.ids)

    def select(self, rows: Int[Tensor, " m"]) -> Pictures:
        """The images at these positions."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        return Pictures(self.store, self.rows[rows], ids, self.labels[rows])


def pictures(store: Store, ids: tuple[str, ...], labels: Int[Tensor, " n"]) -> Pictures:
    """All images of a store."""
    return Pictures(store, torch.arange(len(ids)), ids, labels)


def finished(
    parts: Parts[Pictures], classes: tuple[str, ...], request: Request, unused: tuple[str, ...] = ()
) -> Splits:
    """The sets of a run, from what a source found.

    Args:
        parts: what it brought.
        classes: their names.
        request: how the images are wanted.
        unused: names of its further splits.

    Raises:
        Misuse: for labels that do not fit, sizes that differ, and images that cannot be read.
    """
    _check_classes(parts, classes, request.address)
    chosen = limited(divided(parts, request.validation, request.test), request.limit)
    skipped: list[str] = []
    if request.skip_unreadable:
        chosen = Parts(**{name: _readable(part, skipped) for name, part in chosen.named().items()})
    shape = _agreed_shape(chosen, request)
    sets = {name: _lazy(part, classes, shape, request) for name, part in chosen.named().items()}
    return Splits(**sets, skipped=tuple(skipped), unused=unused)


def _check_classes(parts: Parts[Pictures], classes: tuple[str, ...], address: str) -> None:
    present = {name: set(part.labels.tolist()) for name, part in parts.named().items()}
    every = set().union(*present.values())
    if not every <= set(range(len(classes))):
        raise Misuse(
            f"{address} has labels {min(every)} .. {max(every)}; "
            f"with {len(classes)} classes they must be 0 .. {len(classes) - 1}"
        )
    if len(present["train"]) == 1:
        only = classes[present["train"].pop()]
        raise Misuse(f"{address} has only the class {only!r} to train on; a classifier needs at least two")
    for name, labels in present.items():
        if unknown := sorted(labels - present["train"]):
            listed = ", ".join(repr(classes[label]) for label in unknown[:5])
            raise Misuse(f"the {name} split of {address} has classes that train has not: {listed}")


def _agreed_shape(parts: Parts[Pictures], request: Request) -> tuple[int, ...]:
    """The one shape of all images, from their headers."""
    first: tuple[str, Header] | None = None
    grey = True
    for part in parts.named().values():
        for row, found in zip(part.rows.tolist(), _each(part, header), strict=True):
            grey &= found.grey
            first = first or (part.store.name(row), found)
            if request.image_size is None and found[1:] != first[1][1:]:
                raise Misuse(
                    f"images differ in size: {first[0]} is {first[1].width}x{first[1].height}, "
                    f"{part.store.name(row)} is {found.width}x{found.height}; "
                    "to bring them to one size say --image-size 224"
                )
    if first is None:
        raise Misuse(f"{request.address} has no readable image")
    size = request.image_size
    return (1 if grey else 3, size or first[1].height, size or first[1].width)


def _readable(part: Pictures, skipped: list[str]) -> Pictures:
    """The images that can be decoded; the names of the others are added to `skipped`."""
    verdicts = list(_each(part, _decodes, missing=False))
    skipped += [part.store.name(row) for row, fine in zip(part.rows.tolist(), verdicts, strict=True) if not fine]
    return part.select(torch.tensor(verdicts, dtype=torch.bool).nonzero()[:, 0])


def _decodes(image: Image.Image) -> bool:
    tensor_of(image, channels=3, image_size=None)
    return True


def _each(part: Pictures, work: Callable[[Image.Image], Result], missing: Result | None = None) -> list[Result]:
    """`work` on every image, by several threads; `missing` stands for unreadable ones, which without it are errors."""

    def several(places: range) -> list[Result]:
        return [_opened(part.store, row, work, missing) for row in part.rows[places.start : places.stop].tolist()]

    return [result for results in ahead(several, chunks(len(part), _CHUNK)) for result in results]


def _opened(store: Store, row: int, work: Callable[[Image.Image], Result], missing: Result | None = None) -> Result:
    try:
        with store.open(row) as image:
            return work(image)
    except UNREADABLE as error:
        if missing is not None:
            return missing
        raise Misuse(
            f"cannot read the image {store.name(row)}: {error}; repair or remove it, or say --skip-unreadable"
        ) from None


def _lazy(part: Pictures, classes: tuple[str, ...], shape: tuple[int, ...], request: Request) -> Lazy:
    rows, store = part.rows.tolist(), part.store

    def decode(image: Image.Image) -> Tensor:
        return tensor_of(image, shape[0], request.image_size)

    return Lazy(
        request.address,
        classes,
        part.ids,
        part.labels,
        shape,
        read=lambda row: _opened(store, rows[row], decode),
        mark=lambda row: store.mark(rows[row]),
    )
