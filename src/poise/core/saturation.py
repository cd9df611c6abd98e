"""When coordinates that gain at speeds of their own, each until it stops, have together gained enough.

The nearest point of an l2 ball within a box and the shortest way onto a hyperplane within a box both come down to this
one equation. The gain is piecewise linear, concave, and rises until the last coordinate has stopped.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.batch import on_host


def time_to_gain(
    speed: Float[Tensor, "n size"], stops: Float[Tensor, "n size"], goal: Float[Tensor, "n 1"]
) -> Float[Tensor, "n 1"]:
    """The earliest time at which each row has gained its goal; where it never does, one at which all have stopped.

    Args:
        speed: at least 0.
        stops: times at which coordinates stop, at least 0; one that stops at 0 gains nothing.
        goal: what is to be gained, at least 0.
    """
    if on_host(speed):
        return _by_newton(speed, stops, goal)
    return _by_sorting(speed.double(), stops.double(), goal.double()).to(speed.dtype)


def _by_sorting(speed: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """Sorted times tell which coordinates have stopped at the solution; the rest is one equation.

    Running sums over thousands of coordinates want float64.
    """
    stops, order = stops.sort(dim=1)
    speed = speed.gather(1, order)
    stopped = exclusive_sum(speed * stops)
    moving = speed.flip(1).cumsum(1).flip(1)
    index = (stopped + stops * moving < goal).sum(1, keepdim=True).clamp(max=speed.shape[1] - 1)
    return _equation(goal - stopped.gather(1, index), moving.gather(1, index))


def _by_newton(speed: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """Newton's method from the start: the gain is concave, so no step goes too far, and it ends when no more stop.

    A few passes instead of a sort, but somebody has to look whether it has ended, for which a device would wait.
    """
    gain, time = speed * stops, torch.zeros_like(goal)
    moving = _positive(stops)
    while True:
        left = goal - (gain - gain * moving).sum(1, keepdim=True)
        time = _equation(left, (speed * moving).sum(1, keepdim=True)).maximum(time)
        still = _positive(stops - time)
        if torch.equal(still, moving):
            return time
        moving = still


def _positive(values: Tensor) -> Tensor:
    """1 where a value is above 0, and 0 elsewhere: as numbers, for a CPU takes several times as long over masks."""
    return values.sign().clamp(min=0)


def _equation(left: Tensor, speed: Tensor) -> Tensor:
    limits = torch.finfo(left.dtype)
    return (left / speed.clamp(min=limits.tiny)).clamp(0, limits.max)


def exclusive_sum(values: Float[Tensor, "n size"]) -> Float[Tensor, "n size"]:
    """The sum of all entries before each, row by row."""
    return values.cumsum(1) - values
