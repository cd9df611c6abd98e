"""``digits``: scikit-learn's 1,797 handwritten digits, 8x8 grey pixels of 17 levels; needs no network."""

from __future__ import annotations

import torch
from jaxtyping import Float
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn.functional import interpolate

from poise.data.memory import InMemory
from poise.data.request import Request
from poise.data.splits import Parts, Splits, divided, limited

_LEVELS = 16


def open_source(request: Request) -> Splits:
    """The digits, cut by hash; images are float32 multiples of 1/16 unless they are resized."""
    found = load_digits()
    images = torch.from_numpy(found.images).float()[:, None] / _LEVELS
    if request.image_size is not None:
        images = _resized(images, request.image_size)
    labels = torch.from_numpy(found.target).long()
    ids = tuple(f"digits/{row:04d}" for row in range(len(labels)))
    digits = InMemory(request.address, tuple("0123456789"), ids, labels, images)
    parts = limited(divided(Parts(digits), request.validation, request.test), request.limit).named()
    return Splits(parts["train"], parts["validation"], parts["test"])


def _resized(images: Float[Tensor, "n 1 h w"], size: int) -> Float[Tensor, "n 1 {size} {size}"]:
    return interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)
