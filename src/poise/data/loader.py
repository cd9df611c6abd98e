"""The batches of an epoch: the same examples in the same batches however many processes share them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.data.augment import augment, check_augmentation
from poise.data.dataset import ImageSet, as_float
from poise.data.memory import InMemory
from poise.data.threads import ahead

_FEWEST = 2
"""Examples that batch normalisation needs, in each process that works on a batch."""


def batches_per_epoch(count: int, batch_size: int, *, training: bool) -> int:
    """How many batches `batches` yields in an epoch, however many processes share them.

    An incomplete last batch counts, except in training when it is a single example.

    Args:
        count: examples in the set.
        batch_size: examples of a whole batch, over all processes.
        training: whether a stream is given.
    """
    whole, rest = divmod(count, batch_size)
    return whole + (rest >= _FEWEST if training else rest > 0)


def batches(
    images: ImageSet,
    *,
    batch_size: int,
    device: torch.device,
    stream: Stream | None = None,
    augmentation: str = "none",
    epoch: int = 0,
    rank: int = 0,
    world: int = 1,
    skip: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch, or this process's slices of them.

    With a stream (training) the order is a permutation drawn from it and the epoch; without one (evaluation) it is the
    order of the rows and nothing is left out. Every process cuts the same batches and takes a contiguous slice of each;
    slices differ in size by at most one. A last batch that is too small for all (in training each needs two examples)
    goes to the first processes and leaves the others an empty slice, so that all count the same batches. Sets that
    are not in memory are decoded ahead by background threads.

    Args:
        images: the set.
        batch_size: examples of a batch, over all processes.
        device: where the batches go; an `InMemory` set that is there already is indexed there.
        stream: source of order and augmentation, or None for evaluation.
        augmentation: an `Augmentation`; needs a stream.
        epoch: number of the epoch, at least 0.
        rank: number of this process, in 0 .. world - 1.
        world: number of processes.
        skip: how many batches to pass over without decoding them, to take up an interrupted epoch.

    Returns:
        An iterator over batches of float32 images in [0, 1] on `device`; an example's random change depends on stream,
        epoch and id alone.

    Raises:
        Misuse: for impossible arguments, at once; for images that cannot be decoded, when they are reached.
    """
    training = stream is not None
    _check(len(images), batch_size, rank=rank, world=world, skip=skip, training=training)
    check_augmentation(augmentation)
    if stream is None and augmentation != "none":
        raise Misuse(f"augmentation {augmentation!r} needs a stream to draw from; evaluation takes images as they are")
    count = batches_per_epoch(len(images), batch_size, training=training)
    order = stream.fold("order", epoch).permutation(len(images)) if stream else torch.arange(len(images))
    fewest = _FEWEST if training else 1
    slices = [_slice(order[index * batch_size :][:batch_size], rank, world, fewest) for index in range(skip, count)]
    plain = _plain(images, slices, device)
    if stream is None:
        return plain
    draws = stream.fold("augment", epoch)
    return (Batch(augment(each.images, each.ids, augmentation, draws), each.labels, each.ids) for each in plain)


def _slice(rows: Int[Tensor, " n"], rank: int, world: int, fewest: int) -> Int[Tensor, " m"]:
    """A process's part of a batch: the first processes share it, as many as get `fewest` rows each."""
    sharing = max(1, min(world, len(rows) // fewest))
    first = min(rank, sharing)
    return rows[len(rows) * first // sharing : len(rows) * min(rank + 1, sharing) // sharing]


def _plain(images: ImageSet, slices: list[Int[Tensor, " _"]], device: torch.device) -> Iterator[Batch]:
    """Batches of the rows in each slice, unchanged."""
    labels, keys = images.labels.to(device), images.keys.to(device)
    # One transfer for the whole epoch: then no batch of a set on the device waits for the host.
    sizes = [len(rows) for rows in slices]
    placed = torch.split(torch.cat(slices).to(device), sizes) if slices else ()
    pixels = _resident(images, slices, placed) if isinstance(images, InMemory) else _decoded(images, slices, device)
    for rows, found in zip(placed, pixels, strict=True):
        yield Batch(as_float(found.to(device, non_blocking=True)), labels[rows], keys[rows])


def _resident(images: InMemory, slices: list[Tensor], placed: tuple[Tensor, ...]) -> Iterator[Tensor]:
    return (
        images.pixels(here if here.device == images.device else rows) for rows, here in zip(slices, placed, strict=True)
    )


def _decoded(images: ImageSet, slices: list[Tensor], device: torch.device) -> Iterator[Tensor]:
    pinned = device.type == "cuda"
    return ahead(lambda rows: images.pixels(rows).pin_memory() if pinned else images.pixels(rows), slices)


def _check(count: int, batch_size: int, *, rank: int, world: int, skip: int, training: bool) -> None:
    if not 0 <= rank < world:
        raise Misuse(f"rank must be in 0 .. world - 1; got rank {rank} of world {world}")
    if batch_size < world:
        raise Misuse(f"batch size {batch_size} does not give each of {world} processes an example")
    if skip < 0:
        raise Misuse(f"the number of batches to skip must be at least 0; got {skip}")
    if not batches_per_epoch(count, batch_size, training=training) or (training and count < _FEWEST * world):
        raise Misuse(
            f"{count} examples are too few for a batch in {world} processes; "
            + (f"training needs at least {_FEWEST} each" if training else "the set is empty")
        )
