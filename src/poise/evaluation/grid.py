"""The epsilons at which a profile gives verdicts."""

from __future__ import annotations

from collections.abc import Sequence

from poise.core.misuse import Misuse
from poise.core.threat import Epsilon, Threat
from poise.evaluation.brackets import MOST_POINTS

_LEVEL = 1 / 255
_MOST_LEVELS = 16
_STEPS = 8


def epsilon_grid(threat: Threat, points: Sequence[float | str] | None = None) -> tuple[float, ...]:
    """The grid from 0 to the threat's epsilon, ascending.

    By default 0, 1/255, 2/255, ... for linf budgets that are whole multiples of 1/255 up to 16/255 (the grid of arXiv
    2509.23325), and eight equal steps for all others.

    Args:
        threat: its epsilon is the largest point.
        points: the points between, in place of the default; 0 and the threat's epsilon are added.

    Raises:
        Misuse: for a threat that is none, for points beyond the threat's epsilon, and for more than 62 in all.
    """
    if not isinstance(threat, Threat):
        raise Misuse(f"threat must be a poise.Threat, such as poise.Threat(epsilon='8/255'); got {threat!r}")
    top = float(threat.epsilon)
    if points is not None:
        chosen = {float(Epsilon(point)) for point in points}
        if max(chosen, default=0.0) > top:
            raise Misuse(f"grid point {Epsilon(max(chosen))} lies beyond the threat's epsilon {threat.epsilon}")
        grid = tuple(sorted(chosen | {0.0, top}))
        if len(grid) > MOST_POINTS:
            raise Misuse(f"a grid has at most {MOST_POINTS} points, with 0 and the threat's epsilon; got {len(grid)}")
        return grid
    levels = round(top / _LEVEL)
    if threat.norm == "linf" and top == levels / 255 and levels <= _MOST_LEVELS:
        return tuple(level / 255 for level in range(levels + 1))
    return tuple(sorted({top * step / _STEPS for step in range(_STEPS)} | {top}))
