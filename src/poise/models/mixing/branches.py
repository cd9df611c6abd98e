"""Running both branches of a mixture once each, side by side where the device can."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Seen(NamedTuple):
    """What a branch made of some images.

    Args:
        logits: its output.
        features: what the gate reads, from the earliest layer on; empty without a gate.
    """

    logits: Float[Tensor, "n classes"]
    features: list[Tensor]


Run = Callable[[Tensor], Seen]


def both(standard: Run, robust: Run, images: Float[Tensor, "n *shape"]) -> tuple[Seen, Seen]:
    """Both branches' answers. On CUDA each has a stream of its own: kernels of one fill the gaps of the other.

    Whoever uses the answers on the current stream waits for both, on the device; the host does not wait.
    """
    if not images.is_cuda:
        return standard(images), robust(images)
    here, beside = torch.cuda.current_stream(images.device), torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        first = standard(images)
    second = robust(images)
    here.wait_stream(beside)
    images.record_stream(beside)
    for tensor in (first.logits, *first.features):
        tensor.record_stream(here)
    return first, second
