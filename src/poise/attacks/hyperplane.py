"""The shortest way from a point to a hyperplane inside the box, in l1, l2 and linf: the projection FAB lives on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.threat import BOX, Norm


def moves_onto_hyperplane(
    points: Float[Tensor, "n *shape"],
    slope: Float[Tensor, "n *shape"],
    rise: Float[Tensor, " n"],
    norm: Norm,
) -> Float[Tensor, "n *shape"]:
    """The shortest move of each point, inside the box [0, 1], along which a linear function rises as much as asked.

    Every coordinate moves, if at all, in the direction in which the function rises (or falls, for a negative `rise`).
    How far is one equation in each norm: all by the same amount in linf, in proportion to the slope in l2, the
    steepest first in l1, each stopping where it meets the box (Croce & Hein 2020b, "Minimally distorted
    adversarial examples with a fast adaptive boundary attack", section 3.1 and appendix). Sums over thousands of
    coordinates are kept in float64.

    Args:
        points: where to start, in the box.
        slope: the linear function's gradient; where it is zero throughout nothing moves.
        rise: by how much slope . move must change the function; either sign.
        norm: the length that is made smallest.

    Returns:
        The moves. Where no point of the box rises that far: the move to the corner that rises most.
    """
    origin, steepness = points.flatten(1), slope.flatten(1)
    heading = steepness.sign() * rise.sign()[:, None]
    room = torch.where(heading > 0, BOX[1] - origin, origin - BOX[0]).clamp(min=0)
    room = torch.where(heading != 0, room, 0).double()
    weight, goal = steepness.abs().double(), rise.abs().double()[:, None]
    if norm == "l1":
        size = _steepest_first(weight, room, goal)
    elif norm == "l2":
        stops = torch.where(room > 0, room / weight, 0)
        size = (_time(weight * weight, stops, goal) * weight).minimum(room)
    else:
        size = room.minimum(_time(weight, room, goal))
    return (heading * size.to(points.dtype)).view_as(points)


def _time(speed: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """The earliest time at which coordinates have gained the goal, each gaining at its speed until it stops."""
    solve = _time_by_newton if speed.device.type == "cpu" else _time_by_sorting
    return solve(speed, stops, goal)


def _time_by_sorting(speed: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """Sorted times tell which coordinates have stopped at the solution; the rest is one equation."""
    stops, order = stops.sort(dim=1)
    speed = speed.gather(1, order)
    stopped = _exclusive_sum(speed * stops)
    growing = speed.flip(1).cumsum(1).flip(1)
    index = (stopped + stops * growing < goal).sum(1, keepdim=True).clamp(max=speed.shape[1] - 1)
    return _equation(goal - stopped.gather(1, index), growing.gather(1, index))


def _time_by_newton(speed: Tensor, stops: Tensor, goal: Tensor) -> Tensor:
    """Newton's method from the start: the gain is concave, so no step goes too far, and it ends when no more stop.

    A few passes instead of a sort, but somebody has to look whether it has ended, for which a device would wait.
    """
    gain, growing, time = speed * stops, stops > 0, torch.zeros_like(goal)
    while True:
        left = goal - gain.where(~growing, 0).sum(1, keepdim=True)
        time = _equation(left, speed.where(growing, 0).sum(1, keepdim=True)).maximum(time)
        still = stops > time
        if torch.equal(still, growing):
            return time
        growing = still


def _equation(left: Tensor, speed: Tensor) -> Tensor:
    limits = torch.finfo(left.dtype)
    return (left / speed.clamp(min=limits.tiny)).clamp(0, limits.max)


def _steepest_first(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """Coordinates in order of falling weight, each filled as far as its room or what is left of the goal allows."""
    ranked, order = weight.sort(dim=1, descending=True)
    free = room.gather(1, order)
    left = (goal - _exclusive_sum(ranked * free)).clamp(min=0)
    filled = (left / ranked.clamp(min=torch.finfo(goal.dtype).tiny)).minimum(free)
    return torch.zeros_like(room).scatter_(1, order, filled)


def _exclusive_sum(values: Tensor) -> Tensor:
    return values.cumsum(1) - values
