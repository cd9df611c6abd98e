"""Sets whose images are decoded already: those that are small, and those that must be quick."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from poise.core.files import digest_tensors
from poise.core.misuse import Misuse
from poise.data.dataset import ImageSet, texts
from poise.data.threads import ahead, chunks

_CHUNK = 256


class InMemory(ImageSet):
    """A set whose decoded images lie in one tensor, in main memory or on an accelerator.

    Args:
        address: where the set was found.
        classes: names of the classes.
        ids: one stable name per example.
        labels: class indices, on the CPU.
        tensor: the images, as bytes or as floats in [0, 1].
        origin: the set these images were decoded from, which then answers for the fingerprint.

    Raises:
        Misuse: for images of another type, and for what no set may hold.
    """

    def __init__(
        self,
        address: str,
        classes: tuple[str, ...],
        ids: tuple[str, ...],
        labels: Int[Tensor, " n"],
        tensor: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"],
        *,
        origin: ImageSet | None = None,
    ) -> None:
        if tensor.dtype != torch.uint8 and not tensor.is_floating_point():
            raise Misuse(f"{address} has images of type {tensor.dtype}; they must be uint8, or floats in [0, 1]")
        super().__init__(address, classes, ids, labels, tuple(tensor.shape[1:]))
        self._tensor = tensor
        self._origin = origin

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self._tensor.device

    def pixels(self, rows: Int[Tensor, " m"]) -> UInt8[Tensor, "m c h w"] | Float[Tensor, "m c h w"]:
        """The images at these rows, on `device`."""
        return self._tensor[rows.to(self.device)]

    def select(self, rows: Int[Tensor, " m"]) -> InMemory:
        """The set of the examples at these rows; their images are copied."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        origin = None if self._origin is None else self._origin.select(rows)
        return InMemory(self.address, self.classes, ids, self.labels[rows.cpu()], self.pixels(rows), origin=origin)

    def to(self, device: torch.device) -> InMemory:
        """The same set with its images on a device; labels and keys stay on the CPU."""
        moved = self._tensor.to(device)
        return InMemory(
            self.address,
            self.classes,
            self.ids,
            self.labels,
            moved,
            origin=self if self._origin is None else self._origin,
        )

    def fingerprint(self) -> str:
        """A digest of the images, or the fingerprint of the set they were decoded from."""
        return digest_tensors([("pixels", self._tensor)]) if self._origin is None else self._origin.fingerprint()

    def marks(self) -> NDArray[Any]:
        """Digests of the images, or the marks of the set they were decoded from."""
        if self._origin is not None:
            return self._origin.marks()
        return texts(digest_tensors([("pixels", image)]) for image in self._tensor)


def decoded(images: ImageSet, limit_bytes: int = 2**30) -> ImageSet:
    """A small set with all its images decoded, a large or already decoded one as it came.

    Args:
        images: any set.
        limit_bytes: the most that the decoded images may take, at one byte a value.

    Returns:
        An `InMemory` set with the same ids, labels, pixels and digest where they fit, else `images`.

    Raises:
        Misuse: when an image cannot be decoded; it is named.
    """
    if isinstance(images, InMemory) or not len(images) or len(images) * math.prod(images.shape) > limit_bytes:
        return images
    parts = ahead(lambda rows: images.pixels(torch.tensor(rows)), chunks(len(images), _CHUNK))
    tensor = torch.cat(list(parts))
    return InMemory(images.address, images.classes, images.ids, images.labels, tensor, origin=images)
