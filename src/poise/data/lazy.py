"""Sets that decode their images when they are asked for, and so may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from poise.core.files import digest_tensors, digest_words
from poise.data.dataset import ImageSet, texts
from poise.data.threads import ahead, chunks

_CHUNK = 256


class Lazy(ImageSet):
    """A set that decodes an image each time it is asked for.

    Args:
        address: where the set was found.
        classes: names of the classes.
        ids: one stable name per example.
        labels: class indices, on the CPU.
        shape: channels, height and width of every image.
        read: decodes one image, given its row; called from several threads.
        mark: a text that determines the pixels of a row (a digest of the encoded bytes); by default they are decoded.
    """

    def __init__(
        self,
        address: str,
        classes: tuple[str, ...],
        ids: tuple[str, ...],
        labels: Int[Tensor, " n"],
        shape: tuple[int, ...],
        read: Callable[[int], Tensor],
        mark: Callable[[int], str] | None = None,
    ) -> None:
        super().__init__(address, classes, ids, labels, shape)
        self._read = read
        self._mark = mark or (lambda row: digest_tensors([("pixels", read(row))]))

    def pixels(self, rows: Int[Tensor, " m"]) -> UInt8[Tensor, "m c h w"] | Float[Tensor, "m c h w"]:
        """The images at these rows, decoded one after the other in the calling thread."""
        images = [self._read(row) for row in rows.tolist()]
        return torch.stack(images) if images else torch.empty(0, *self.shape, dtype=torch.uint8)

    def select(self, rows: Int[Tensor, " m"]) -> Lazy:
        """A view of the examples at these rows."""
        chosen, read, mark = rows.tolist(), self._read, self._mark
        ids = tuple(self.ids[row] for row in chosen)
        labels = self.labels[rows.cpu()]
        return Lazy(
            self.address,
            self.classes,
            ids,
            labels,
            self.shape,
            lambda row: read(chosen[row]),
            lambda row: mark(chosen[row]),
        )

    def fingerprint(self) -> str:
        """A digest of the marks of all rows."""
        return digest_words(mark.decode() for mark in self._marks)

    def marks(self) -> NDArray[Any]:
        """For every row what determines its pixels; every image is read once."""
        return self._marks

    @cached_property
    def _marks(self) -> NDArray[Any]:
        parts = ahead(lambda rows: [self._mark(row) for row in rows], chunks(len(self), _CHUNK))
        return texts(mark for part in parts for mark in part)
