"""Geometry of the threat models: length, exact projection, random points and steepest directions in l1, l2, linf.

Every function works example by example: the first dimension counts examples, the others are the image, whatever its
shape; radii are one number per example. A radius of 0 is allowed everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poise.core.misuse import Misuse
from poise.core.saturation import time_to_gain
from poise.core.streams import Stream
from poise.core.threat import BOX, Norm

DUAL: dict[Norm, Norm] = {"linf": "l1", "l2": "l2", "l1": "linf"}
"""The norm of slopes that says how much a linear function can change within a ball of the norm."""


_FAR = 1e18
"""A number whose square float32 holds; what is smaller than the largest coordinate by this factor has no length."""


def length(vectors: Float[Tensor, "n *shape"], norm: Norm) -> Float[Tensor, " n"]:
    """The length of each example's vector."""
    flat = vectors.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)  # on a CPU several times as fast as vector_norm
    if norm == "l1":  # in float32 a sum over many pixels may round to beyond the tolerance of `inside`
        return flat.abs().sum(1, dtype=torch.float64).to(flat.dtype)
    lengths: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return lengths


def diameter(norm: Norm, size: int) -> float:
    """The distance of opposite corners of the box: with such a budget every image can become every other.

    Args:
        norm: by which it is measured.
        size: numbers in an image.
    """
    return {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size)}[norm]


def per_example(values: Float[Tensor, " n"], like: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *ones"]:
    """One number per example, shaped to broadcast over its image."""
    return values.reshape(-1, *(1 for _ in like.shape[1:]))


def project(
    points: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    radius: Float[Tensor, " n"],
    norm: Norm,
) -> Float[Tensor, "n *shape"]:
    """The point nearest to each example (Euclidean) in the ball around its origin *and* in the box [0, 1].

    Clipping to the box after projecting onto the ball also lands inside both, yet not on the nearest point, and
    projected gradients then stall short of the optimum; see Croce & Hein, "Mind the box" (2021), for l1. The exact
    projections here are two clamps for linf, a sort per example for l1 and, except on a CPU, for l2.

    Args:
        points: what to project, any real values.
        origin: centres of the balls, inside [0, 1].
        radius: radii, at least 0, in units of the image range.
        norm: the ball's norm.
    """
    if norm == "linf":
        reach = per_example(radius, origin)
        return points.clamp(origin - reach, origin + reach).clamp(*BOX)
    delta = (points - origin).flatten(1)
    heading = delta.sign()
    shrink = _shrink_l2 if norm == "l2" else _shrink_l1
    size = shrink(delta.abs(), headroom(origin.flatten(1), heading), radius[:, None])
    return (origin + (heading * size).view_as(origin)).clamp(*BOX)


def headroom(origin: Float[Tensor, "n size"], heading: Float[Tensor, "n size"]) -> Float[Tensor, "n size"]:
    """How far each coordinate can move before it leaves the box [0, 1].

    Args:
        origin: where it starts, in the box.
        heading: the direction of its move: -1, 0 or 1.
    """
    return ((heading.clamp(*BOX) - origin) * heading).clamp(min=0)


def _shrink_l2(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """min(s * size, room), with the largest scale s in [0, 1] at which its l2 length is at most the radius.

    In the square of s the square of the length grows by size^2 for every coordinate, which stops where s * size = room.
    Squares overflow: s is counted in units of the largest size, and no stop lies beyond `_FAR`.
    """
    tiny = torch.finfo(size.dtype).tiny
    unit = size.amax(1, keepdim=True).clamp(min=tiny)
    share = size / unit
    stops = (room / share.clamp(min=tiny)).clamp(max=_FAR).square()
    scale = time_to_gain(share.square(), stops, radius.square()).sqrt() / unit
    return (size * scale.clamp(max=1)).minimum(room)


def _shrink_l1(size: Tensor, room: Tensor, radius: Tensor) -> Tensor:
    """clamp(size - t, 0, room), with the smallest threshold t >= 0 at which its l1 length is at most the radius.

    As t grows the length falls with slope minus the number of coordinates strictly between 0 and their room. A
    coordinate enters that state at t = size - room and leaves it at t = size; sorting these events gives the length
    at each, and t by linear interpolation. Sums over thousands of coordinates are kept in float64.
    """
    wide, free = size.double(), room.double()
    events, order = torch.cat([(wide - free).clamp(min=0), wide], dim=1).sort(dim=1)
    change = torch.cat([torch.ones_like(wide), -torch.ones_like(wide)], dim=1).gather(1, order)
    slope = change.cumsum(1)
    steps = events.diff(dim=1, prepend=torch.zeros_like(events[:, :1]))
    fall = torch.cat([torch.zeros_like(slope[:, :1]), slope[:, :-1]], dim=1) * steps
    lengths = wide.minimum(free).sum(1, keepdim=True) - fall.cumsum(1)
    index = (lengths > radius).sum(1, keepdim=True)
    last = (index - 1).clamp(min=0)
    excess = lengths.gather(1, last) - radius
    threshold = events.gather(1, last) + (excess / slope.gather(1, last).clamp(min=1)).clamp(min=0)
    inside = wide.minimum(free).sum(1, keepdim=True) <= radius
    shrunk = (wide - torch.where(inside, 0.0, threshold)).clamp(min=0).minimum(free)
    return torch.where(radius > 0, shrunk, 0.0).to(size.dtype)


def random_point(
    origin: Float[Tensor, "n *shape"],
    radius: Float[Tensor, " n"],
    norm: Norm,
    stream: Stream,
    ids: Int[Tensor, " n"],
) -> Float[Tensor, "n *shape"]:
    """A point drawn uniformly from each example's ball, then clipped to the box [0, 1].

    Args:
        origin: centres of the balls, inside [0, 1].
        radius: radii, at least 0.
        norm: the ball's norm.
        stream: source of the draw; the same stream and id give the same point in any batch.
        ids: integer keys of the examples.
    """
    shape, dtype = tuple(origin.shape[1:]), origin.dtype
    scale = per_example(radius, origin)
    if norm == "linf":
        signed = stream.uniform(ids, shape, dtype=dtype).mul_(2).sub_(1)
        return (origin + scale * signed).clamp(*BOX)
    fraction = stream.fold("length").uniform(ids, (1,), dtype=dtype)[:, 0]
    if norm == "l2":
        direction = stream.normal(ids, shape, dtype=dtype)
        dimension = direction[0].numel() if len(direction) else 1
        share = fraction.pow(1 / dimension) / length(direction, "l2").clamp(min=torch.finfo(dtype).tiny)
    else:
        # Exponential sizes with random signs, divided by their sum plus one more exponential: uniform in the l1 ball.
        signed = stream.uniform(ids, shape, dtype=dtype).mul_(2).sub_(1)
        direction = -torch.log1p(-signed.abs()) * signed.sign()
        share = 1 / (length(direction, "l1") - torch.log1p(-fraction)).clamp(min=torch.finfo(dtype).tiny)
    return (origin + scale * direction * per_example(share, origin)).clamp(*BOX)


def random_move(
    like: Float[Tensor, "n *shape"],
    radius: Float[Tensor, " n"],
    norm: Norm,
    stream: Stream,
    ids: Int[Tensor, " n"],
    attempt: Int[Tensor, " n"],
) -> Float[Tensor, "n *shape"]:
    """A perturbation as long as each example's radius, not clipped to the box.

    In l2 its direction is uniform; in linf a uniform point of the cube is stretched until one entry touches; in l1 it
    is a normal vector, scaled.

    Args:
        like: images, whose shape and dtype it gets.
        radius: lengths, at least 0.
        norm: by which they are measured.
        stream: source of the draw; the same stream, id and attempt give the same move in any batch.
        ids: integer keys of the examples.
        attempt: number of the draw.
    """
    shape, dtype = tuple(like.shape[1:]), like.dtype
    if norm == "linf":
        direction = stream.uniform(ids, shape, step=attempt, dtype=dtype) * 2 - 1
    else:
        direction = stream.normal(ids, shape, step=attempt, dtype=dtype)
    scale = radius / length(direction, norm).clamp(min=torch.finfo(dtype).tiny)
    return per_example(scale, direction) * direction


def steepest(gradient: Float[Tensor, "n *shape"], norm: Norm) -> Float[Tensor, "n *shape"]:
    """The vector of unit length along which a function with this gradient rises fastest; zero where it is zero.

    linf: the sign. l2: the normalised gradient. l1: the single coordinate of largest slope.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return gradient / per_example(length(gradient, "l2"), gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
    flat = gradient.flatten(1)
    index = flat.abs().argmax(dim=1, keepdim=True)
    return torch.zeros_like(flat).scatter_(1, index, flat.gather(1, index).sign()).view_as(gradient)


def inside(
    points: Float[Tensor, "n *shape"],
    origin: Float[Tensor, "n *shape"],
    radius: Float[Tensor, " n"],
    norm: Norm,
    tolerance: float = 1e-6,
) -> Bool[Tensor, " n"]:
    """Which points lie in their ball and in the box, up to rounding.

    Args:
        points: candidates.
        origin: centres of the balls.
        radius: radii.
        norm: the ball's norm.
        tolerance: slack for float32 rounding, absolute, plus the same share of the radius.
    """
    flat = points.flatten(1)
    boxed = (flat.amin(1) >= BOX[0]) & (flat.amax(1) <= BOX[1])
    return boxed & (length(points - origin, norm) <= radius * (1 + tolerance) + tolerance)


def refuse_outside(images: Float[Tensor, "n *shape"], ids: Sequence[str]) -> None:
    """Refuse images that leave the box in which attacks and proofs take them to lie.

    Args:
        images: as they came.
        ids: their names.

    Raises:
        Misuse: for a value outside [0, 1], and for NaN.
    """
    flat = images.flatten(1)
    outside = ~((flat >= BOX[0]) & (flat <= BOX[1])).all(1)  # of NaN neither is true
    if outside.any():
        row = int(outside.nonzero()[0])
        low, high = (float(value) for value in flat[row].aminmax())
        raise Misuse(
            f"the image {ids[row]} has values from {low:.4g} to {high:.4g}; images must lie in [0, 1], as attacks do: "
            "bring them there, and let the network normalise"
        )
