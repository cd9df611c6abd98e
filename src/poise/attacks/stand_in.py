"""Stand-ins: what proposes in a model's place because it is faster; what counts the model decides itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks.answers import decided
from poise.attacks.room import Room
from poise.core.folding import EstrangedError, alike, folded

_SHRINKING = 4
_LOOSE = 0.05
"""By how much a compiled model's logits, which a GPU may round to ten bits, may be off, as a share of the largest."""


class StandIns:
    """The stand-ins of models, each made once and kept.

    Args:
        fold: let convolutions take over the batch norms that follow them.
        compile: compile with `torch.compile`, for batches of fixed sizes: as many rows as there are slots, a quarter,
            a sixteenth and so on; smaller batches are filled up with black images.
        room: knows the most rows of a batch.
    """

    def __init__(self, room: Room, *, fold: bool = True, compile: bool = False) -> None:  # noqa: A002 - torch's name
        self._room, self._fold, self._compile = room, fold, compile
        self._made: dict[int, _StandIn] = {}

    def of(self, model: nn.Module, images: Float[Tensor, "n *shape"]) -> nn.Module:
        """What proposes for a model; the model itself where nothing is faster.

        Args:
            model: in eval mode.
            images: examples, of which the first few are looked at.
        """
        if id(model) not in self._made:
            copied = folded(model, images) if self._fold else model
            quick = Padded(torch.compile(copied, dynamic=False), self._room) if self._compile else copied
            self._made[id(model)] = _StandIn(model, copied, quick)
        return self._made[id(model)].quick

    def replaced(self, model: nn.Module) -> bool:
        """Whether something else proposes for a model that `of` was asked about."""
        return self._made[id(model)].quick is not model

    def check(self, models: Iterable[nn.Module], points: Float[Tensor, "n *shape"]) -> None:
        """Let models, and what stood in for them, both say what they think of some points.

        Raises:
            EstrangedError: where a folded copy does not say what its model says, but for rounding, or a compiled one
                says something else altogether.
        """
        for each in (self._made[id(model)] for model in models if self.replaced(model)):
            plain = decided(each.model, points)
            if not (alike(plain, decided(each.copied, points)) and alike(plain, each.quick(points), _LOOSE)):
                raise EstrangedError

    def dismiss(self) -> None:
        """No stand-ins from now on."""
        self._fold = self._compile = False
        self.forget()

    def forget(self) -> None:
        """Let go of all, and of their memory."""
        self._made.clear()


class _StandIn(NamedTuple):
    """A model, its folded copy or itself, and what proposes."""

    model: nn.Module
    copied: nn.Module
    quick: nn.Module


class Padded(nn.Module):
    """A model that only ever sees batches of a few sizes, so that what was compiled or captured for them stays valid.

    Args:
        model: maps images to logits, row by row.
        room: its slots are the largest size; the others are each a quarter of the one before.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], room: Room) -> None:
        super().__init__()
        self.model, self.room = model, room

    def forward(self, images: Float[Tensor, "n *shape"]) -> Float[Tensor, "n classes"]:
        """Logits of the images alone."""
        count, size = len(images), self.room.slots
        while size // _SHRINKING >= count:
            size //= _SHRINKING
        if count >= size:
            return self.model(images)
        return self.model(torch.cat([images, images.new_zeros(size - count, *images.shape[1:])]))[:count]
