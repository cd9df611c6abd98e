"""Passes of images through a network: counted, and timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from poise.core.memory import out_of_memory
from poise.core.modes import Precision, evaluating, frozen, precision

_REPETITIONS, _ENOUGH_SECONDS = 3, 2.0


@dataclass(frozen=True)
class Passes:
    """How many images go through a network.

    Args:
        forward: forward.
        backward: backward to the images, as attacks do.
        update: backward to the weights, as training does.
    """

    forward: float = 0
    backward: float = 0
    update: float = 0

    def __add__(self, other: Passes) -> Passes:
        return Passes(self.forward + other.forward, self.backward + other.backward, self.update + other.update)

    def __mul__(self, times: float) -> Passes:
        return Passes(self.forward * times, self.backward * times, self.update * times)

    def __str__(self) -> str:
        return f"{self.forward:,.0f} forward and {self.backward + self.update:,.0f} backward passes"


@dataclass(frozen=True)
class Pace:
    """Seconds that one image of a full batch takes, as they were measured: see `Passes`.

    Args:
        forward: forward.
        backward: backward to the image.
        update: backward to the weights.
        batch: images of the batch that was timed.
    """

    forward: float
    backward: float
    update: float
    batch: int

    def seconds(self, passes: Passes) -> float:
        """How long some passes take."""
        return passes.forward * self.forward + passes.backward * self.backward + passes.update * self.update

    def __str__(self) -> str:
        named = {"forward": self.forward, "backward to images": self.backward, "backward to weights": self.update}
        told = ", ".join(f"{1000 * seconds:.3g} ms {name}" for name, seconds in named.items() if seconds)
        return f"a pass of an image takes {told}, in batches of {self.batch}"


class Counted:
    """Passes so far."""

    def __init__(self) -> None:
        self.passes = Passes()

    def watch(self, module: nn.Module, _: object, logits: Tensor) -> None:
        """Count a forward pass, and every backward pass through it."""
        self.passes += Passes(forward=len(logits))
        if not logits.requires_grad:
            return
        trains = any(parameter.requires_grad for parameter in module.parameters())
        back = Passes(update=len(logits)) if trains else Passes(backward=len(logits))

        def returned(_: Tensor) -> None:
            self.passes += back

        hooked: Any = logits
        hooked.register_hook(returned)


@contextmanager
def counting(network: nn.Module) -> Iterator[Counted]:
    """Counts the images that go through a network as long as the block runs."""
    counted = Counted()
    handle = network.register_forward_hook(counted.watch)
    try:
        yield counted
    finally:
        handle.remove()


def timed(network: nn.Module, images: Tensor, wanted: Passes, kind: Precision = "fp32") -> Pace:
    """Time the passes that are wanted, each a few times after one that does not count.

    Half as many images are taken where memory does not suffice.

    Args:
        network: in train mode, with the weights that are trained, where passes back to the weights are wanted; it runs
            but does not change, except for its batch statistics then.
        images: a full batch, on the network's device.
        wanted: what there is to time.
        kind: precision of the forward passes.
    """
    while True:
        try:
            return _timed(network, images, wanted, kind)
        except RuntimeError as error:
            if not out_of_memory(error) or len(images) == 1:
                raise
            images = images[: len(images) // 2]


def _timed(network: nn.Module, images: Tensor, wanted: Passes, kind: Precision) -> Pace:
    def there() -> Tensor:
        with precision(kind, images.device):
            logits: Tensor = network(images)
        return logits

    def back_to_images() -> None:
        leaf = images.clone().requires_grad_()
        with precision(kind, images.device):
            logits = network(leaf)
        if logits.requires_grad:
            torch.autograd.grad(logits.float().sum(), leaf, allow_unused=True)

    def back_to_weights() -> None:
        logits = there()
        if logits.requires_grad:
            trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
            torch.autograd.grad(logits.float().sum(), trained, allow_unused=True)

    with evaluating(network), frozen(network):
        with torch.no_grad():
            forward = _seconds(there, images.device)
        both = _seconds(back_to_images, images.device) if wanted.backward else forward
    update = _seconds(back_to_weights, images.device) if wanted.update else forward
    count = len(images)
    return Pace(forward / count, max(both - forward, 0.0) / count, max(update - forward, 0.0) / count, count)


def _seconds(action: Callable[[], object], device: torch.device) -> float:
    """Median time of an action over a few repetitions after the first."""
    spent: list[float] = []
    while len(spent) <= _REPETITIONS and (len(spent) < 2 or sum(spent) < _ENOUGH_SECONDS):
        began = time.perf_counter()
        action()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent[1:])
