"""Which examples wait for which search: two bytes an example, however many there are."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

_NOTHING = -1
_SPAN = 65_536


class Waiting:
    """Examples by the search that they wait for.

    Args:
        count: number of examples.
        searches: number of searches.
    """

    def __init__(self, count: int, searches: int) -> None:
        self._search = np.full(count, _NOTHING, dtype=np.int16)
        self._waiting = [0] * searches
        self._place = 0

    def put(self, row: int, search: int) -> None:
        """Let an example that waits for nothing wait for a search."""
        self._search[row] = search
        self._waiting[search] += 1

    def first(self) -> int | None:
        """The first search that any example waits for."""
        return next((search for search, waiting in enumerate(self._waiting) if waiting), None)

    def take(self, search: int, most: int) -> Int[np.ndarray, " m"]:
        """Rows that wait for a search and now no longer do; the next ones in turn, at most so many."""
        taken: list[np.ndarray] = []
        wanted = min(most, self._waiting[search])
        self._waiting[search] -= wanted
        while wanted:
            stop = min(self._place + _SPAN, len(self._search))
            rows = self._place + np.flatnonzero(self._search[self._place : stop] == search)[:wanted]
            self._search[rows] = _NOTHING
            taken.append(rows)
            wanted -= len(rows)
            self._place = int(rows[-1]) + 1 if len(rows) and not wanted else stop % len(self._search)
        return np.concatenate(taken) if taken else np.empty(0, dtype=np.int64)
