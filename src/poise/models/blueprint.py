"""The blueprint of a classifier: everything but its weights, as plain data that JSON can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from poise.core.misuse import Misuse

Option = str | int | float | bool | None | list[int]
"""A constructor argument of a network that survives a trip through JSON."""


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """How to rebuild a classifier's network and what surrounds it, without executing anything foreign.

    Args:
        address: where the architecture comes from, e.g. ``timm:resnet50.a1_in1k`` or ``small``; never ``run:``.
        classes: class names in the order of the logits; at least one, all different.
        shape: shape of one image at the resolution of the data, channels first, e.g. (3, 32, 32).
        mean: subtracted from images in [0, 1]: one value per channel, or one for all.
        std: what images are then divided by, above 0, as many values as `mean`.
        size: height and width to which images are resized inside, or None to leave them as they are.
        options: further constructor arguments of the network.
        parts: blueprints of the classifiers that the network is made of, by their role in it.

    Raises:
        Misuse: for values outside what is said above.
    """

    address: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    options: Mapping[str, Option] = field(default_factory=dict)
    parts: Mapping[str, Blueprint] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.classes:
            raise Misuse("a classifier needs at least one class; got none")
        twice = next((name for name in self.classes if self.classes.count(name) > 1), None)
        if twice is not None:
            raise Misuse(f"class names must differ; {twice!r} comes {self.classes.count(twice)} times")
        if not self.shape or min(self.shape) < 1:
            raise Misuse(f"the shape of an image must be positive, such as (3, 32, 32); got {self.shape}")
        if len(self.mean) != len(self.std) or len(self.mean) not in {1, self.channels}:
            raise Misuse(
                f"mean and std need one value, or one for each of {self.channels} channels; "
                f"got {len(self.mean)} and {len(self.std)}"
            )
        if min(self.std) <= 0:
            raise Misuse(f"std must be above 0; got {self.std}")

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return self.shape[0]

    @property
    def kind(self) -> str:
        """The part of the address before the colon, e.g. ``timm``."""
        return self.address.partition(":")[0]

    def with_classes(self, classes: Sequence[str]) -> Blueprint:
        """The same blueprint for other classes, in all its parts."""
        parts = {role: part.with_classes(classes) for role, part in self.parts.items()}
        return replace(self, classes=tuple(classes), parts=parts)

    def to_json(self) -> str:
        """The blueprint as one JSON object with sorted keys: equal blueprints give equal text."""
        return json.dumps(self._plain(), sort_keys=True)

    def _plain(self) -> dict[str, Any]:
        plain = asdict(self)
        parts = {role: part._plain() for role, part in self.parts.items()}  # noqa: SLF001
        del plain["parts"]
        return plain | ({"parts": parts} if parts else {})

    @classmethod
    def from_json(cls, text: str) -> Blueprint:
        """Read what `to_json` wrote.

        Raises:
            Misuse: for text that is not a blueprint.
        """
        try:
            found = dict(json.loads(text))
            return cls(
                address=str(found.pop("address")),
                classes=tuple(str(name) for name in found.pop("classes")),
                shape=tuple(int(length) for length in found.pop("shape")),
                mean=tuple(float(value) for value in found.pop("mean")),
                std=tuple(float(value) for value in found.pop("std")),
                size=_size(found.pop("size")),
                options=dict(found.pop("options")),
                parts={role: cls.from_json(json.dumps(part)) for role, part in found.pop("parts", {}).items()},
                **found,
            )
        except KeyError as error:
            raise Misuse(f"not a blueprint: it has no {error}") from None
        except Misuse:
            raise
        except (TypeError, ValueError) as error:
            raise Misuse(f"not a blueprint: {error}") from None


def _size(lengths: Sequence[int] | None) -> tuple[int, int] | None:
    if lengths is None:
        return None
    height, width = lengths
    return int(height), int(width)
