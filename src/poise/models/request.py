"""What a person asks of a source of models, and how the answer is put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from poise.core.misuse import Misuse
from poise.models.blueprint import Blueprint, Option
from poise.models.checkpoints import Checkpoint
from poise.models.classifier import Classifier, classifier_around
from poise.models.heads import replace_head


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of `open_model`, its file of weights already read.

    Args:
        address: kind and, after a colon, name.
        checkpoint: weights to lay over the architecture, or None for those that the address itself carries.
        random: leave the weights at their random initialisation.
        classes: class names that are wanted, or None for those that the address itself carries.
        shape: shape of one image, or None for the one that the address itself carries.
        options: further constructor arguments of the network.
        new_head: replace a head that has other classes.
    """

    address: str
    checkpoint: Checkpoint | None = None
    random: bool = False
    classes: tuple[str, ...] | None = None
    shape: tuple[int, ...] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    new_head: bool = False

    @property
    def name(self) -> str:
        """What follows the colon of the address."""
        return self.address.partition(":")[2]

    @property
    def origin(self) -> str:
        """Where the weights come from, as a person would call it."""
        return self.checkpoint.path.name if self.checkpoint else self.address

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading the weights alone has to tell."""
        if self.checkpoint is None or not self.checkpoint.entry.endswith("ema"):
            return ()
        return (f"averaged weights taken from {self.origin}: its entry {self.checkpoint.entry}",)

    def needed_shape(self) -> tuple[int, ...]:
        """The shape of one image.

        Raises:
            Misuse: when none was given.
        """
        if self.shape is None:
            raise Misuse(f"{self.address} has no image shape of its own; give shape, such as (3, 32, 32)")
        return self.shape

    def needed_classes(self) -> tuple[str, ...]:
        """The class names.

        Raises:
            Misuse: when none were given.
        """
        if self.classes is None:
            raise Misuse(f"{self.address} has no classes of its own; give their names as classes")
        return self.classes

    def class_names(self, found: int) -> tuple[str, ...]:
        """The wanted names, or "0", "1", ... for as many classes as were found.

        Raises:
            Misuse: when none were found and none given.
        """
        return self.classes or tuple(map(str, range(found))) or self.needed_classes()


def with_wanted_head(
    network: nn.Module, found: int, request: Request, blueprint: Blueprint, *, others: bool = False
) -> Classifier:
    """A classifier with a logit for each class of the blueprint, its head replaced where the network has another count.

    Args:
        network: the network with its weights.
        found: its number of classes, 0 where it came without a head.
        request: what was asked for.
        blueprint: what the classifier becomes.
        others: whether its classes are others than the network's, however many.
    """
    notes = request.notes
    wanted = len(blueprint.classes)
    if others or found != wanted:
        replace_head(network, wanted, request.address)
        notes += (f"head replaced: {found} classes in {request.origin}, {wanted}{' others' * others} here",)
    return classifier_around(network, blueprint, notes)
