"""The shortest way from a point to a hyperplane inside the box, in l1, l2 and linf: the projection FAB lives on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from poise.core.norms import headroom
from poise.core.saturation import exclusive_sum, time_to_gain
from poise.core.threat import Norm


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
    adversarial examples with a fast adaptive boundary attack", section 3.1 and appendix).

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
    weight, room, goal = steepness.abs(), headroom(origin, heading), rise.abs()[:, None]
    if norm == "linf":
        size = room.minimum(time_to_gain(weight, room, goal))
    else:
        solve = _steepest_first if norm == "l1" else _in_proportion
        size = solve(weight.double(), room.double(), goal.double()).to(points.dtype)
    return (heading * size).view_as(points)


def _in_proportion(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """Coordinates move in proportion to their weight, each as far as its room allows."""
    stops = room / weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return (time_to_gain(weight.square(), stops, goal) * weight).minimum(room)


def _steepest_first(weight: Tensor, room: Tensor, goal: Tensor) -> Tensor:
    """Coordinates in order of falling weight, each filled as far as its room or what is left of the goal allows."""
    ranked, order = weight.sort(dim=1, descending=True)
    free = room.gather(1, order)
    left = (goal - exclusive_sum(ranked * free)).clamp(min=0)
    filled = (left / ranked.clamp(min=torch.finfo(goal.dtype).tiny)).minimum(free)
    return torch.zeros_like(room).scatter_(1, order, filled)
