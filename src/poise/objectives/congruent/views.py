"""What the network in training and its references say of one and the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from poise.core.losses import Labels, Logits, PerExample, cross_entropy, misclassified
from poise.core.misuse import check_choice
from poise.core.modes import steady
from poise.objectives.congruent.distance import Distance, Squared
from poise.objectives.objective import Objective, Step, Terms
from poise.objectives.standard import accuracy, full

Statistics = Literal["kept", "moving"]


@dataclass(frozen=True)
class Views:
    """Logits of several networks on the same images.

    Args:
        labels: true classes.
        logits: of the network in training; they require grad.
        references: of the frozen networks, by role.
    """

    labels: Labels
    logits: Logits
    references: Mapping[str, Logits]

    def right(self, role: str) -> Bool[Tensor, " n"]:
        """Where a reference predicts the true class; a row that holds NaN predicts nothing."""
        return ~misclassified(self.references[role], self.labels)

    def wrong(self) -> Bool[Tensor, " n"]:
        """Where the network in training does not predict the true class."""
        return misclassified(self.logits.detach(), self.labels)

    def lost(self) -> Bool[Tensor, " n"]:
        """Where the old network is right and the one in training wrong: negative flips on these images."""
        return self.right("old") & self.wrong()

    def cross_entropy(self) -> Tensor:
        """Mean cross-entropy of the network in training."""
        return cross_entropy(self.logits, self.labels).mean()

    def terms(self, loss: Tensor, **parts: Tensor) -> Terms:
        """A step's loss with its parts, and the shares of images that are right ("accuracy") and lost ("flips")."""
        measures = {"accuracy": accuracy(self.logits, self.labels), "flips": self.lost().float().mean()}
        return {"loss": loss, **measures, **{name: part.detach() for name, part in parts.items()}}


@dataclass(frozen=True, kw_only=True)
class Congruent(Objective):
    """An objective that compares the network in training with frozen ones.

    Args:
        distance: how far apart two networks' logits are.
        statistics: whether batch norms keep the statistics that the new network came with, so that it is trained as
            it will be used and starts at distance 0 from itself, or go by the batch and let their averages move.
    """

    roles: ClassVar[tuple[str, ...]] = ("old",)

    distance: Distance = Squared()
    statistics: Statistics = "kept"

    def __post_init__(self) -> None:
        check_choice("statistics", self.statistics, get_args(Statistics))

    def views(self, step: Step, images: Float[Tensor, "n *shape"]) -> Views:
        """Every network on these images: one pass each, without gradients for the references.

        Args:
            step: the networks and labels.
            images: what all of them see.
        """
        with torch.no_grad():
            references = {role: full(step.references[role](images)) for role in self.roles}
        with steady(step.model, self.statistics == "kept"):
            return Views(step.batch.labels, full(step.model(images)), references)

    def apart(self, views: Views, role: str) -> PerExample:
        """The distance of the network in training from a reference, one number per example."""
        return self.distance(views.logits, views.references[role], views.labels)


def mean_where(values: PerExample, mask: Bool[Tensor, " n"]) -> Tensor:
    """The mean over the examples of a mask; 0, with a gradient of 0, where the mask is empty."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)
