"""A network in training as others see it: whole, plain, and with the weights that its objective wants shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from poise.models import Classifier
from poise.training.sharding import gathered
from poise.training.surroundings import plain


@dataclass(frozen=True, kw_only=True)
class Showcase:
    """Where validation, and in the end whoever asked for the training, finds the network.

    Args:
        network: what is trained, of whose weights each process may hold a share.
        given: the classifier that was given to be trained; the network itself where nothing is shared out.
        device: where it is shown.
    """

    network: nn.Module
    given: Classifier
    device: torch.device

    @property
    def sharded(self) -> bool:
        """Whether each process has a share of the weights."""
        return self.given is not self.network

    @contextmanager
    def shown(self, weights: Mapping[str, Tensor]) -> Iterator[Classifier]:
        """The plain model with some weights in place of its own; afterwards as it is in training.

        Args:
            weights: by the names of the network's state.
        """
        found = self.network.state_dict()
        kept = {name: found[name].clone() for name in weights}
        self._put(weights)
        self._hand_over()
        try:
            with plain(self.given):
                yield self.given
        finally:
            self._put(kept)
            if self.sharded:
                self.given.cpu()

    def finish(self, weights: Mapping[str, Tensor], instead: Mapping[str, Tensor] | None) -> None:
        """Leave the given classifier whole and with these weights in place of its own.

        Args:
            weights: by the names of the network's state.
            instead: the whole state of another epoch; None for the network as it is.
        """
        self._put(weights)
        self._hand_over()
        place = self.given.state_dict()
        for name, value in (instead or {}).items():
            place[name].copy_(value)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        found = self.network.state_dict()
        for name, value in weights.items():
            found[name].copy_(value)

    def _hand_over(self) -> None:
        if self.sharded:
            self.given.to(self.device)
            place = self.given.state_dict()
            for name, tensor in gathered(self.network.state_dict()):
                place[name].copy_(tensor)
