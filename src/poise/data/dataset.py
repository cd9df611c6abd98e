"""What poise takes for a data set: images in [0, 1] with labels and ids that mean the same on every machine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from poise.core.files import digest_tensors, digest_words
from poise.core.misuse import Misuse
from poise.core.streams import example_keys


def as_float(
    pixels: UInt8[Tensor, "m c h w"] | Float[Tensor, "m c h w"],
) -> Float32[Tensor, "m c h w"]:
    """Pixels as float32 in [0, 1], with the same bits on every device."""
    if pixels.dtype != torch.uint8:
        return pixels.float()
    # A Python number would be divided by on the CPU, but on CUDA its rounded reciprocal would be multiplied by.
    return pixels.float() / torch.full((), 255.0, device=pixels.device)


def texts(found: Iterable[str]) -> NDArray[Any]:
    """Short texts, in a form that takes little memory for millions of them."""
    return np.array([text.encode() for text in found], dtype=np.bytes_)


class ImageSet(ABC):
    """Labelled images of one shape, addressed by row.

    What every set promises:

    - `ids` are unique and belong to the images: the same image has the same id in every run, on every machine and in
      every view of the set. Random numbers, splits and profiles hang on them.
    - `labels` are int64 on the CPU, each in 0 .. len(classes) - 1; `classes` has at least two names.
    - `pixels` may be called from several threads at once, has no randomness, and returns for a row the same values
      whichever rows it is asked for with.
    - `select` is a view or a cheap copy; it decodes nothing.
    - `digest` changes when an id, a label, the shape or a pixel changes, and survives decoding, moving between devices
      and copying the files to another place. It is computed once.

    Args:
        address: where the set was found, as the user wrote it.
        classes: names of the classes, in the order of their labels.
        ids: one stable name per example.
        labels: one class index per example, on the CPU.
        shape: channels, height and width of every image.

    Raises:
        Misuse: for fewer than two classes, duplicated ids, labels that are no whole numbers in 0 .. K-1, and lengths
            that differ.
    """

    def __init__(
        self,
        address: str,
        classes: tuple[str, ...],
        ids: tuple[str, ...],
        labels: Int[Tensor, " n"],
        shape: tuple[int, ...],
    ) -> None:
        _check(address, classes, ids, labels)
        self.address = address
        self.classes = classes
        self.ids = ids
        self.labels = labels.long()
        self.shape = shape

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def device(self) -> torch.device:
        """Where `pixels` puts its result."""
        return torch.device("cpu")

    @cached_property
    def keys(self) -> Int[Tensor, " n"]:
        """The integer keys under which the examples draw random numbers, on the CPU."""
        return example_keys(self.ids)

    @abstractmethod
    def pixels(self, rows: Int[Tensor, " m"]) -> UInt8[Tensor, "m c h w"] | Float[Tensor, "m c h w"]:
        """The images at these rows, on `device`: bytes 0 .. 255, or floats in [0, 1].

        Raises:
            Misuse: when an image cannot be decoded; it is named.
        """

    @abstractmethod
    def select(self, rows: Int[Tensor, " m"]) -> ImageSet:
        """The set of the examples at these rows, in this order."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of what determines the pixels, cheaper than decoding them where that is possible."""

    def marks(self) -> NDArray[Any]:
        """For every row a short text; rows of one source whose texts are equal hold the same pixels."""
        rows = (self.pixels(torch.tensor([row])) for row in range(len(self)))
        return texts(digest_tensors([("pixels", image[0])]) for image in rows)

    def images(self, rows: Int[Tensor, " m"]) -> Float32[Tensor, "m c h w"]:
        """The images at these rows as float32 in [0, 1], on `device`."""
        return as_float(self.pixels(rows))

    def digest(self) -> str:
        """A digest of ids, labels, shape and pixels: 32 hexadecimal digits."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        labels = digest_tensors([("labels", self.labels)])
        return digest_words([*self.ids, labels, str(tuple(self.shape)), self.fingerprint()])


def _check(address: str, classes: tuple[str, ...], ids: tuple[str, ...], labels: Tensor) -> None:
    if len(ids) != len(labels):
        raise Misuse(f"{address} has {len(ids)} ids but {len(labels)} labels; there must be one of each per image")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise Misuse(f"{address} has labels of type {labels.dtype}; they must be whole numbers, one class index each")
    if len(classes) < 2:
        raise Misuse(f"{address} has {len(classes)} class ({', '.join(classes)}); a classifier needs at least two")
    if len(set(ids)) != len(ids):
        twice = next(identity for identity, count in Counter(ids).items() if count > 1)
        raise Misuse(f"{address} has two examples with the id {twice!r}; ids must be unique")
    if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < len(classes)):
        raise Misuse(
            f"{address} has labels {int(labels.min())} .. {int(labels.max())}; "
            f"with {len(classes)} classes they must be 0 .. {len(classes) - 1}"
        )
