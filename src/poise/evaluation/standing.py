"""How far an examination is, counted as it goes."""

from __future__ import annotations

from poise.evaluation.brackets import Brackets


class Standing:
    """Counts over some examples.

    Args:
        brackets: what is known of all examples.
        rows: the examples that are counted.
    """

    def __init__(self, brackets: Brackets, rows: range) -> None:
        self._brackets, self._rows = brackets, rows
        low, high = brackets.robust_to[rows.start :: rows.step], brackets.broken_from[rows.start :: rows.step]
        self._settled = int((low + 1 == high).sum())
        self._held = int((low >= brackets.points - 1).sum())
        self._unbroken = int((high >= brackets.points).sum())

    def changed(self, row: int, before: tuple[int, int]) -> None:
        """Count an example anew.

        Args:
            row: the example.
            before: its `robust_to` and `broken_from` as they were counted.
        """
        if row not in self._rows:
            return
        for (low, high), sign in ((before, -1), (self.bracket(row), 1)):
            self._settled += sign * (low + 1 == high)
            self._held += sign * (low >= self._brackets.points - 1)
            self._unbroken += sign * (high >= self._brackets.points)

    def bracket(self, row: int) -> tuple[int, int]:
        """An example's `robust_to` and `broken_from`."""
        return int(self._brackets.robust_to[row]), int(self._brackets.broken_from[row])

    def told(self) -> tuple[float, dict[str, str]]:
        """The share of settled examples, and what is certain of robust accuracy at the largest epsilon."""
        count = max(len(self._rows), 1)
        robust = f"{self._held / count:.1%}..{self._unbroken / count:.1%}"
        return self._settled / count, {"settled": f"{self._settled}/{count}", "robust": robust}
