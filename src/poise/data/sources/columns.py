"""Tables with a column of images and one of labels: which columns they are, and what their rows are called."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import PurePosixPath, PureWindowsPath

from poise.core.misuse import Misuse

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "fine_label")


def column(names: Sequence[str], marked: Collection[str], usual: Sequence[str], address: str) -> str:
    """The column to take: one of the usual names, else the only one that the schema marks as such.

    Args:
        names: columns of the table.
        marked: those that the schema says are of the wanted kind.
        usual: names to look for first.
        address: the data's address, for the message.
    """
    for name in usual:
        if name in names:
            return name
    if len(marked) == 1:
        return next(iter(marked))
    raise Misuse(f"{address} has the columns {', '.join(names)}; one of them must be called {' or '.join(usual)}")


def identities(split: str, paths: Sequence[str | None]) -> tuple[str, ...]:
    """The ids of a split's rows: split and image path where all paths are relative and distinct, else row numbers.

    Args:
        split: name of the split; two splits may use the same paths.
        paths: the path of every row's image, None where it has none.
    """
    if all(path and not _absolute(path) for path in paths) and len(set(paths)) == len(paths):
        return tuple(f"{split}/{path}" for path in paths)
    return tuple(f"{split}/{row:06d}" for row in range(len(paths)))


def _absolute(path: str) -> bool:
    return PurePosixPath(path).is_absolute() or PureWindowsPath(path).is_absolute()


def whole_labels(values: Iterable[object], name: Callable[[int], str]) -> list[int]:
    """The labels of a column, which must be whole numbers.

    Args:
        values: what the column holds.
        name: what to call a row in a message.
    """
    labels: list[int] = []
    for row, value in enumerate(values):
        if not isinstance(value, int):
            raise Misuse(f"{name(row)}: the label must be a whole number; got {value!r}")
        labels.append(value)
    return labels


def class_names(named: Sequence[str] | None, labels: Collection[int], address: str) -> tuple[str, ...]:
    """The names that the schema gives, else the labels as text.

    Raises:
        Misuse: when there are no names and the labels are not 0 .. K-1.
    """
    if named:
        return tuple(named)
    present = sorted(set(labels))
    if present != list(range(len(present))):
        raise Misuse(
            f"{address} has labels {present[0]} .. {present[-1]}, {len(present)} different ones; "
            f"without class names they must be 0 .. {len(present) - 1}"
        )
    return tuple(str(label) for label in present)
