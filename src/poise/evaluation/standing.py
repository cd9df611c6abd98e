"""How far an examination is, counted as it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from poise.evaluation.brackets import Brackets


class Standing:
    """Counts over some examples.

    Args:
        brackets: what is known of all examples.
        rows: the examples that are counted.
        efforts: what each unit of the suite costs on an example that withstands it, in any measure.
    """

    def __init__(self, brackets: Brackets, rows: range, efforts: Sequence[float]) -> None:
        self._brackets, self._rows, self._efforts = brackets, rows, efforts
        self._done, self._settled, self._held, self._unbroken = 0.0, 0, 0, 0
        for row in rows:
            self._count(row, 1)

    @contextmanager
    def recounting(self, row: int) -> Iterator[None]:
        """An example is counted anew after the block, in which an outcome may narrow its bracket."""
        if row not in self._rows:
            yield
            return
        self._count(row, -1)
        yield
        self._count(row, 1)

    def told(self) -> tuple[float, dict[str, str]]:
        """The share of the work that is done, and what is certain of robust accuracy at the largest epsilon.

        What an image found late makes to be tried once more is not foreseen (`Brackets.done`): the share falls back.
        """
        count = max(len(self._rows), 1)
        robust = f"{self._held / count:.1%}..{self._unbroken / count:.1%}"
        return min(max(self._done / count, 0.0), 1.0), {"settled": f"{self._settled}/{count}", "robust": robust}

    def _count(self, row: int, sign: int) -> None:
        low, high = int(self._brackets.robust_to[row]), int(self._brackets.broken_from[row])
        self._done += sign * self._brackets.done(row, self._efforts)
        self._settled += sign * (low + 1 == high)
        self._held += sign * (low >= self._brackets.points - 1)
        self._unbroken += sign * (high >= self._brackets.points)
