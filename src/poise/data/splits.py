"""Which examples train, which validate, which test: decided by each example's id alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from poise.core.misuse import Misuse
from poise.core.streams import hashed
from poise.data.dataset import ImageSet
from poise.data.memory import decoded

_HASHES = 2**63


Split = Literal["train", "validation", "test"]
SPLIT_NAMES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid", "validate", "dev"),
    "test": ("test", "testing"),
}
"""What sources call their splits, in capitals or not."""
_SPLIT_OF = {name: split for split, names in SPLIT_NAMES.items() for name in names}


@dataclass(frozen=True)
class Splits:
    """The three sets of a run.

    Args:
        train: what the weights are fitted to.
        validation: what choices during training are made on.
        test: what the verdict is spoken on.
        skipped: names of the images that were left out because they cannot be decoded.
        unused: names of further splits of the source, which stand for none of the three.

    Raises:
        Misuse: when a split is empty, or the three differ in classes or shape, or share an id.
    """

    train: ImageSet
    validation: ImageSet
    test: ImageSet
    skipped: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in ("train", "validation", "test"):
            images: ImageSet = getattr(self, name)
            if not len(images):
                raise Misuse(f"the {name} split of {images.address} is empty; add images, or bring splits of your own")
            if (images.classes, images.shape) != (self.train.classes, self.train.shape):
                raise Misuse(
                    f"the {name} split of {images.address} differs from train in its classes or shape: "
                    f"{len(images.classes)} classes of {images.shape}, "
                    f"train {len(self.train.classes)} of {self.train.shape}"
                )
            if shared := seen.intersection(images.ids):
                raise Misuse(f"{images.address}: the id {min(shared)!r} of the {name} split also stands in another one")
            seen.update(images.ids)


@runtime_checkable
class Selectable(Protocol):
    """Examples with ids, of which some rows can be taken."""

    @property
    def ids(self) -> tuple[str, ...]:
        """One stable name per example."""

    def select(self, rows: Int[Tensor, " m"]) -> Any:  # run-time type checks know no Self
        """The examples at these rows, as the same kind of thing."""


Examples = TypeVar("Examples", bound=Selectable)


@dataclass(frozen=True)
class Parts(Generic[Examples]):
    """What a source brought: always examples to train on, sometimes its own validation and test examples."""

    train: Examples
    validation: Examples | None = None
    test: Examples | None = None

    def named(self) -> dict[str, Examples]:
        """The parts that are there, by the name of their split."""
        every = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in every.items() if part is not None}


def split_called(name: str) -> Split | None:
    """The split that a name stands for, if any."""
    return _SPLIT_OF.get(name.lower())


def split(images: ImageSet, validation: float = 0.1, test: float = 0.2) -> Splits:
    """Cut one set into three. Every example's side is a function of its id alone.

    An example therefore never changes side when others are added or removed, in any run or on any machine, and no seed
    is involved. The shares hold in the mean: with few images they vary as coin tosses do.

    Args:
        images: the set to cut.
        validation: expected share of validation examples, in (0, 1).
        test: expected share of test examples, in (0, 1); the two sum to less than 1.

    Raises:
        Misuse: for impossible shares, and when a split comes out empty.
    """
    check_shares(validation, test)
    cut = divided(Parts(images), validation, test).named()
    return Splits(cut["train"], cut["validation"], cut["test"])


def check_shares(validation: float, test: float) -> None:
    """Refuse shares that leave a split empty whatever the data."""
    if not (validation > 0 and test > 0 and validation + test < 1):
        raise Misuse(
            f"validation and test must be shares above 0 that sum to less than 1, such as 0.1 and 0.2; "
            f"got {validation} and {test}"
        )


def divided(parts: Parts[Examples], validation: float, test: float) -> Parts[Examples]:
    """The parts with those that are missing cut from train; a source's own split is kept whole.

    Validation takes the low end of the hashes and test the high end, so that changing one share never moves an example
    into or out of the other split.
    """
    place = torch.tensor([hashed("split", identity) / _HASHES for identity in parts.train.ids], dtype=torch.float64)
    low = place < (validation if parts.validation is None else 0)
    high = place >= (1 - test if parts.test is None else 1)
    return Parts(
        parts.train.select((~low & ~high).nonzero()[:, 0]),
        parts.train.select(low.nonzero()[:, 0]) if parts.validation is None else parts.validation,
        parts.train.select(high.nonzero()[:, 0]) if parts.test is None else parts.test,
    )


def limited(parts: Parts[Examples], limit: int | None) -> Parts[Examples]:
    """At most `limit` examples of each part, chosen by a hash of their ids; a smaller limit keeps a subset."""
    if limit is None:
        return parts
    return Parts(**{name: part.select(_lowest(part.ids, limit)) for name, part in parts.named().items()})


def sample(images: ImageSet, count: int) -> ImageSet:
    """Some examples of a set, always the same, decoded where they are small: what choices are validated on.

    A hash of their ids chooses them, as `limited` does: the first examples of a set that is sorted by class would be of
    a few classes alone. A smaller count keeps a subset.

    Args:
        images: any set.
        count: how many; all where there are fewer.

    Raises:
        Misuse: when an image cannot be decoded; it is named.
    """
    return decoded(images if count >= len(images) else images.select(_lowest(images.ids, count)))


def _lowest(ids: Sequence[str], limit: int) -> Int[Tensor, " m"]:
    ranked = sorted(range(len(ids)), key=lambda row: hashed("limit", ids[row]))
    return torch.tensor(sorted(ranked[:limit]), dtype=torch.int64)
