"""Brackets of models that are attacked through surrogates: first as if there were none, then by everything else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from poise.evaluation.brackets import Brackets, Mode, Work


class SurrogateBrackets(Brackets):
    """Brackets under a suite whose last units go through surrogates.

    An example is first settled by the model's own units, work for work as `Brackets` would. The others then try it
    where those failed; if one succeeds, everything is tried at the next lower grid point, and so on downwards.
    Attacks are erratic, and an image found by luck at one point may save trying another: only with this order is it
    certain that surrogates never leave an example with a better verdict than it would have without them.

    Args:
        right: which clean images are classified correctly.
        points: number of grid points.
        own: number of the model's own units, which come first.
        units: number of all units, more than the own ones.
        mode: how the own units find their place: bisect or ascending.
    """

    def __init__(self, right: np.ndarray, points: int, own: int, units: int, mode: Mode = "bisect") -> None:
        super().__init__(right, points, units)
        self._alone, self._own = Brackets(right, points, own, mode), own
        self._probed[:] = points

    def next(self, row: int) -> Work | None:
        """See `Brackets.next`."""
        work = self._alone.next(row)
        return super().next(row) if work is None else work

    def done(self, row: int, efforts: Sequence[float]) -> float:
        """See `Brackets.done`."""
        if self._alone.next(row) is None:
            return super().done(row, efforts)
        own = efforts[: self._own]
        return self._alone.done(row, own) * sum(own) / sum(efforts)

    def fail(self, row: int, work: Work) -> None:
        """See `Brackets.fail`."""
        if self._alone.next(row) is None:
            super().fail(row, work)
        else:
            self._alone.fail(row, work)
            self._follow(row)

    def break_at(self, row: int, work: Work, point: int) -> None:
        """See `Brackets.break_at`."""
        if self._alone.next(row) is None:
            super().break_at(row, work, point)
        else:
            self._alone.break_at(row, work, point)
            self._follow(row)

    def _follow(self, row: int) -> None:
        """Take over what the own units have found, and once they are done, where all of them failed."""
        self.broken_from[row], self.broken_by[row] = self._alone.broken_from[row], self._alone.broken_by[row]
        if self._alone.next(row) is None:
            self._failed_at[row], self._failed[row] = self._alone.robust_to[row], (1 << self._own) - 1


def brackets_of(right: np.ndarray, points: int, units: tuple[int, int], mode: Mode) -> Brackets:
    """Brackets under a suite that may end in units through surrogates.

    Args:
        right: which clean images are classified correctly.
        points: number of grid points.
        units: the model's own, and all.
        mode: how the own units find their place.
    """
    own, every = units
    return Brackets(right, points, own, mode) if own == every else SurrogateBrackets(right, points, own, every, mode)
