"""What a command works on: images as a person or a run's recipe wants them, and classifiers taken as they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse, check_choice
from poise.core.norms import diameter
from poise.core.processes import process_state
from poise.core.threat import Threat
from poise.data import ImageSet, Split, Splits, open_data, repeats
from poise.models import Classifier, notes_of, open_model


@dataclass(frozen=True, kw_only=True)
class Source:
    """Images, and how they are wanted; see `poise.data.open_data`.

    Args:
        data: their address.
        image_size: side of the square that they are brought to; None leaves them as they are.
        limit: the most of each split; None for all.
        skip_unreadable: leave out those that cannot be decoded.
    """

    data: str
    image_size: int | None = None
    limit: int | None = None
    skip_unreadable: bool = False

    @classmethod
    def of(
        cls,
        recipe: Mapping[str, Any],
        data: str | None,
        *,
        image_size: int | None,
        limit: int | None,
        skip_unreadable: bool = False,
    ) -> Source:
        """What a person asked for; what is left out is taken from a run's recipe.

        Args:
            recipe: of the run; empty where there is none, and digits are then opened by default.
            data: as asked for.
            image_size: as asked for.
            limit: as asked for.
            skip_unreadable: as asked for; false leaves it out.
        """
        return cls(
            data=data or recipe.get("data", "digits"),
            image_size=recipe.get("image_size") if image_size is None else image_size,
            limit=recipe.get("limit") if limit is None else limit,
            skip_unreadable=skip_unreadable or bool(recipe.get("skip_unreadable")),
        )

    def open(self) -> Splits:
        """The three sets; a person is told which images and which further splits were left out.

        Raises:
            Misuse: for what `poise.data.open_data` refuses.
        """
        splits = open_data(
            self.data, image_size=self.image_size, limit=self.limit, skip_unreadable=self.skip_unreadable
        )
        for name in splits.skipped:
            say(f"left out, unreadable: {name}")
        if splits.unused:
            say(f"left out, neither train nor validation nor test: {', '.join(splits.unused)}")
        return splits


def tell_repeats(splits: Splits) -> None:
    """Tell a person which images stand twice, and what that means."""
    for found in repeats(splits):
        (again, before), count = found.pairs[0], len(found.pairs)
        stand = f"{count:,} {found.split} image{'s stand' if count > 1 else ' stands'} in {found.other} too"
        if found.contradicts:
            say(f"{stand}, under another class ({again} is {before}, byte for byte): one of the labels is wrong")
        else:
            say(f"{stand} ({again} is {before}, byte for byte): figures on such images flatter; remove one copy")


def tell_reach(threat: Threat, shape: Sequence[int]) -> None:
    """Tell a person of a budget with which every image can become every other."""
    length = diameter(threat.norm, math.prod(shape))
    if threat.epsilon >= length:
        say(
            f"an epsilon of {threat.epsilon} in {threat.norm} turns any image of shape {tuple(shape)} into any other, "
            f"as one of {length:.4g} does: nothing withstands it"
        )


def check_split(name: str) -> None:
    """Refuse what is no split.

    Raises:
        Misuse: naming the nearest split.
    """
    check_choice("split", name, get_args(Split))


def open_whole(address: str, images: ImageSet, *, weights: str | None = None, seed: int = 0) -> Classifier:
    """A classifier of the classes of some images, with the head that it came with, introduced to the person.

    Args:
        address: of the model.
        images: what it shall classify.
        weights: a local weights file, or "random"; by default what the address itself carries.
        seed: fixes random weights.

    Raises:
        Misuse: if it tells other classes apart.
    """
    classifier = open_model(address, weights=weights, classes=images.classes, shape=images.shape, seed=seed)
    introduce(classifier, address)
    untrained = any(note.startswith("head replaced") for note in classifier.notes) and not address.startswith("run:")
    if untrained and weights != "random":
        raise Misuse(
            f"{address} tells other classes apart than {images.address}, and a random head has nothing to judge"
        )
    return classifier


def introduce(classifier: Classifier, address: str) -> None:
    """Tell a person what is to be known of a classifier: of a run, what was not told when it was made."""
    kind, _, place = address.partition(":")
    known = notes_of(Path(place)) if kind == "run" else ()
    for note in classifier.notes:
        if note not in known:
            say(note)


def placed(classifier: Classifier) -> Classifier:
    """The classifier itself, moved to this process's CUDA device, or to the CPU where it has none."""
    device = process_state().device
    return classifier.to(device if device.type == "cuda" else "cpu")
