"""Images that stand in two places: a network that was trained on what judges it looks better than it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from poise.data.splits import Splits


@dataclass(frozen=True)
class Repeats:
    """Images that one split has in common with an earlier one, or that stand under two classes.

    Args:
        split: where the repeated images stand.
        other: where they stood before: an earlier split in the order train, validation, test, or `split` itself.
        pairs: ids of a repeated image and of an equal one in `other`, in the order of `split`.
        contradicts: whether they are those whose class there is another.
    """

    split: str
    other: str
    pairs: tuple[tuple[str, str], ...]
    contradicts: bool = False


def repeats(splits: Splits) -> list[Repeats]:
    """What stands twice in the splits of one source; images count as equal if their files are, byte by byte.

    The same photo in another size or compression is not noticed. Every image is read once, none is decoded where its
    source can tell files apart without.

    Args:
        splits: any.

    Returns:
        What was found, by split; images that merely stand twice in the split and class are not told.
    """
    names = ("train", "validation", "test")
    parts = [getattr(splits, name) for name in names]
    marks, labels = np.concatenate([part.marks() for part in parts]), np.concatenate([part.labels for part in parts])
    ids = [identity for part in parts for identity in part.ids]
    side = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    _, begins, group = np.unique(marks, return_index=True, return_inverse=True)
    first, rows = begins[group], np.arange(len(ids))

    def found() -> Iterator[Repeats]:
        for at, split in enumerate(names):
            for before, other in enumerate(names[: at + 1]):
                mine = (side == at) & (side[first] == before) & (first != rows)
                for contradicts in (False, True):
                    twice = rows[mine & ((labels != labels[first]) == contradicts)]
                    if len(twice) and (contradicts or other != split):
                        yield Repeats(split, other, tuple((ids[row], ids[first[row]]) for row in twice), contradicts)

    return list(found())
