"""The two branches of a mixture: whether they fit each other, and running each once, side by side where possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.misuse import Misuse
from poise.models.classifier import Classifier


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
    here, beside = torch.cuda.current_stream(images.device), _beside(images.device)
    beside.wait_stream(here)
    with torch.cuda.stream(beside):
        first = standard(images)
    second = robust(images)
    here.wait_stream(beside)
    images.record_stream(beside)
    for tensor in (first.logits, *first.features):
        tensor.record_stream(here)
    return first, second


@cache
def _beside(device: torch.device) -> torch.cuda.Stream:
    """The stream that first branches run on: one a device for all passes, as the allocator keeps memory by stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def refuse_strangers(standard: Classifier, robust: Classifier) -> None:
    """Refuse two classifiers that cannot be mixed.

    Raises:
        Misuse: for other classes, dtypes, devices or image shapes than each other's.
    """
    if standard.classes != robust.classes:
        raise Misuse(
            f"the branches tell different classes apart: {_difference(standard.classes, robust.classes)}; both must "
            "know the same, in the same order"
        )
    for what in ("dtype", "device"):
        if getattr(standard, what) != getattr(robust, what):
            raise Misuse(
                f"the branches must share their {what}; got {getattr(standard, what)} and {getattr(robust, what)}"
            )
    if standard.blueprint.shape != robust.blueprint.shape:
        raise Misuse(
            f"the branches were opened for images of shape {standard.blueprint.shape} and {robust.blueprint.shape}; "
            "open both for the images of the data (open_model(..., shape=...)), each resizes inside"
        )


def _difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Where two lists of classes part."""
    if len(first) != len(second):
        return f"{len(first)} and {len(second)}"
    at = next(at for at, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
    return f"class {at} is {first[at]!r} to the standard and {second[at]!r} to the robust one"
