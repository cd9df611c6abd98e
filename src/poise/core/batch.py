"""What rooms hand each other in training and evaluation: images with their labels and keys."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Batch:
    """Labelled images on one device.

    Args:
        images: values in [0, 1].
        labels: class indices.
        ids: integer keys of the examples (`poise.core.streams.example_keys`), under which they draw random numbers.
    """

    images: Float[Tensor, "n *shape"]
    labels: Int[Tensor, " n"]
    ids: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Int[Tensor, " m"] | Bool[Tensor, " n"] | slice) -> Batch:
        """The examples at these rows, or where the mask is true."""
        return Batch(self.images[rows], self.labels[rows], self.ids[rows])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        return Batch(self.images.to(device), self.labels.to(device), self.ids.to(device))


def device_of(model: nn.Module) -> torch.device:
    """Where a model computes: where its first weight is, or its first buffer; the CPU where it has neither."""
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def on_host(tensor: Shaped[Tensor, "*shape"]) -> bool:
    """Whether a tensor's values may be looked at without waiting for a device."""
    return tensor.device.type == "cpu"


def sent(tensor: Shaped[Tensor, "*shape"], device: torch.device) -> Shaped[Tensor, "*shape"]:
    """A tensor on a device; work on the host goes on while it travels to CUDA.

    Args:
        tensor: where it is.
        device: where it goes.
    """
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
