"""Stand-ins: what proposes in a model's place because it is faster; what is adversarial the model decides itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from poise.attacks.room import Room
from poise.core.folding import folded

_SHRINKING = 4


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
        self._made: dict[int, tuple[nn.Module, nn.Module]] = {}

    def of(self, model: nn.Module, images: Float[Tensor, "n *shape"]) -> nn.Module:
        """What proposes for a model; the model itself where nothing is faster.

        Args:
            model: in eval mode.
            images: examples, of which the first few are looked at.
        """
        if id(model) not in self._made:
            self._made[id(model)] = model, self._stand_in(model, images)
        return self._made[id(model)][1]

    def forget(self) -> None:
        """Let go of all, and of their memory."""
        self._made.clear()

    def _stand_in(self, model: nn.Module, images: Tensor) -> nn.Module:
        found = folded(model, images) if self._fold else model
        return Padded(torch.compile(found, dynamic=False), self._room) if self._compile else found


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
