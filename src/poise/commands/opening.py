"""Classifiers that a command takes as they are."""

from __future__ import annotations

from poise.commands.terminal import say
from poise.core.misuse import Misuse
from poise.data import ImageSet
from poise.models import Classifier, open_model


def open_whole(address: str, images: ImageSet, *, weights: str | None = None, seed: int = 0) -> Classifier:
    """A classifier of the classes of some images, with the head that it came with; a person is told of its notes.

    Args:
        address: of the model.
        images: what it shall classify.
        weights: a local weights file, or "random"; by default what the address itself carries.
        seed: fixes random weights.

    Raises:
        Misuse: if it tells other classes apart.
    """
    classifier = open_model(address, weights=weights, classes=images.classes, shape=images.shape, seed=seed)
    for note in classifier.notes:
        say(note)
    untrained = any(note.startswith("head replaced") for note in classifier.notes) and not address.startswith("run:")
    if untrained and weights != "random":
        raise Misuse(
            f"{address} tells other classes apart than {images.address}, and a random head has nothing to judge"
        )
    return classifier
