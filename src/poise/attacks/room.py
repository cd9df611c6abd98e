"""How many items a pool works on at a time: as many as memory takes, found by measuring one pass."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

_ON_CPU = 128
_SMALL_IMAGE = 3 * 64 * 64
_FEWEST_ON_CPU = 8
_MOST_ON_CUDA = 2048
_SHARE = 0.8
_STATE_IMAGES = 24
"""Image-sized tensors that a slot holds at most while a search moves: its state, twice, and what a projection needs."""

_PLAN_BYTES = 2**18
"""What Square's plan of 5,000 changes takes for a slot, twice while slots move."""

_FEW, _MORE = 2, 8


class Room:
    """The number of slots: given, or chosen at the first look at the images; halved for good when memory runs out.

    On a CPU 128, where passes over small images cost least per image, and fewer for images of more than 64x64 pixels
    in three channels, in inverse proportion, but at least 8. On CUDA the largest power of two, up to 2,048, at which
    slots * (pass + 24 images + plan) stays within 80% of the free memory; `pass` is what a forward and backward pass
    takes for each further image, measured with 2 and with 8, `plan` what Square draws for an image.

    Args:
        slots: the number, or None to choose it.
    """

    def __init__(self, slots: int | None) -> None:
        self._slots, self._chosen = slots, slots is not None

    @property
    def slots(self) -> int:
        """How many items may be in work; before anything is known of the images, what a CPU takes."""
        return self._slots or _ON_CPU

    @property
    def chosen(self) -> bool:
        """Whether the number is known."""
        return self._chosen

    def choose(self, model: nn.Module, image: Float[Tensor, "1 *shape"]) -> None:
        """Choose the number for a model and images like this one.

        Args:
            model: frozen and in eval mode, on the image's device.
            image: one of the examples.
        """
        found = _on_cuda(model, image) if image.device.type == "cuda" else on_cpu(image[0].numel())
        self._slots, self._chosen = min(found, self._slots or found), True

    def halve(self) -> bool:
        """Make do with half; False where one item is all there is."""
        if self.slots == 1:
            return False
        self._slots = self.slots // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return True


def on_cpu(pixels: int) -> int:
    """Slots on a CPU for images of so many values."""
    return min(max(_ON_CPU * _SMALL_IMAGE // pixels, _FEWEST_ON_CPU), _ON_CPU)


def within(free: int, each: int) -> int:
    """The largest power of two, from 1 to 2,048, of pieces of so many bytes within 80% of the free bytes."""
    fit = max(int(_SHARE * free) // max(each, 1), 1)
    return int(min(1 << (fit.bit_length() - 1), _MOST_ON_CUDA))


def _on_cuda(model: nn.Module, image: Tensor) -> int:
    try:
        few, more = (_peak(model, image.expand(count, *image.shape[1:])) for count in (_FEW, _MORE))
    except torch.OutOfMemoryError:
        return 1
    state = _STATE_IMAGES * image.numel() * image.element_size() + _PLAN_BYTES
    each = max(more - few, 0) // (_MORE - _FEW) + state
    free, _ = torch.cuda.mem_get_info(image.device)
    unused = torch.cuda.memory_reserved(image.device) - torch.cuda.memory_allocated(image.device)
    return within(free + unused, each)


def _peak(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward and backward pass takes on top of what is allocated."""
    torch.cuda.synchronize(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    before = torch.cuda.memory_allocated(images.device)
    with torch.enable_grad():
        leaf = images.clone().requires_grad_()
        logits = model(leaf)
        if logits.requires_grad:
            torch.autograd.grad(logits.sum(), leaf, allow_unused=True)
    torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device) - before
