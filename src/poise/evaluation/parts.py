"""Parts of a set of examples, judged apart and joined later."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from poise.core.misuse import Misuse

_WORDS = re.compile(r"\s*(\d+)\s*/\s*(\d+)\s*")


@dataclass(frozen=True)
class Part:
    """One of several parts of a set: "2/5" is the second of five.

    Examples are dealt out like cards in the order of their ids, so that parts differ in size by at most one and each
    sees all of the set; the same part holds the same examples on every machine.

    Args:
        number: from 1.
        of: how many parts there are.

    Raises:
        Misuse: for a number outside 1 .. of.
    """

    number: int
    of: int

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.of:
            raise Misuse(f"a part is one of several, such as 2/5; got {self}")

    @classmethod
    def read(cls, text: str) -> Part:
        """The part that "2/5" names."""
        found = _WORDS.fullmatch(text)
        if found is None:
            raise Misuse(f"a part is written as its number and how many there are, such as 2/5; got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def rows(self, ids: Sequence[str]) -> Int[Tensor, " m"]:
        """The rows of this part's examples, ascending.

        Raises:
            Misuse: if there are more parts than examples.
        """
        if self.of > len(ids):
            raise Misuse(f"{len(ids)} examples cannot be dealt out into {self.of} parts; ask for fewer")
        dealt = sorted(range(len(ids)), key=ids.__getitem__)[self.number - 1 :: self.of]
        return torch.tensor(sorted(dealt), dtype=torch.int64)
