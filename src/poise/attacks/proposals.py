"""What Square Attack tries: its starts and its changes, in each norm, for images of any height and width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from poise.attacks.windows import Windows, plane_length, unit
from poise.core.norms import length, per_example, project
from poise.core.threat import BOX, Norm

Images = Float[Tensor, "n c h w"]
Radius = Float[Tensor, " n"]
Signs = Shaped[Tensor, "n c 1 1"]

_TINY = 1e-12
_TILES = 5


def stripes(images: Images, radius: Radius, signs: Float[Tensor, "n c 1 w"]) -> Images:
    """The start in linf: every column of every channel at its ball's upper or lower end."""
    return (images + per_example(radius, images) * signs).clamp(*BOX)


def tile_count(height: int, width: int) -> tuple[int, int, int]:
    """Side of the start's tiles, a fifth of the shorter side, and how many fit below and beside each other."""
    side = max(min(height, width) // _TILES, 1)
    return side, height // side, width // side


def tiles(
    images: Images,
    radius: Radius,
    signs: Float[Tensor, "n c down across"],
    turned: Bool[Tensor, "n down across"],
    norm: Norm,
) -> Images:
    """The start in l2 and l1: the image tiled with pairs of bumps, each with a sign a channel and one orientation."""
    height, width = images.shape[2:]
    side, down, across = tile_count(height, width)
    corner = torch.zeros(2, dtype=torch.int64, device=images.device)
    square = Windows(corner, corner, corner + side, corner + side, side, side)
    bumps = square.bumps(torch.arange(2, device=images.device).bool(), norm).to(images.dtype)
    upright, lying = bumps.repeat(1, 1, down, across)
    spread = torch.where(_enlarged(turned, side)[:, None], lying, upright) * _enlarged(signs, side)
    rest_down, rest_across = height - side * down, width - side * across
    before = rest_across // 2, rest_down // 2
    delta = F.pad(spread, (before[0], rest_across - before[0], before[1], rest_down - before[1]))
    return _onto_ball(images, delta, radius, norm)


def _enlarged(values: Tensor, side: int) -> Tensor:
    """Every value of the last two dimensions as a square of this side."""
    return values.repeat_interleave(side, dim=-2).repeat_interleave(side, dim=-1)


def moved_mass(
    images: Images,
    radius: Radius,
    best: Images,
    window: Windows,
    source: Windows,
    turned: Bool[Tensor, " n"],
    signs: Signs,
    norm: Norm,
) -> Images:
    """The change in l2 and l1: the perturbation of one window is given to another, which is reshaped by bumps.

    What the receiving window then holds is its old shape plus a pair of bumps, scaled, channel by channel, to what
    both windows held and an equal share of what the budget has left (Andriushchenko et al. 2020, algorithm 3). As in
    the official code, l1 takes that times the number of channels, which the projection puts right.

    Args:
        images: the clean images.
        radius: of the balls.
        best: the points to change.
        window: windows that receive.
        source: windows that are cleared; pixels in both count once and stay.
        turned: whether the bumps lie beside each other.
        signs: of the bumps.
        norm: l2 or l1.
    """
    delta, channels = best - images, images.shape[1]
    receives, gives = window.mask, source.mask
    held = plane_length(torch.where(receives | gives, delta, 0), norm)
    total, budget = per_example(length(delta, norm), delta), per_example(radius, delta)
    if norm == "l2":
        mass = ((budget.square() - total.square()).clamp(min=0) / channels + held.square()).sqrt()
    else:
        mass = ((budget - total).clamp(min=0) / channels + held) * channels
    old = torch.where(receives, delta, 0)
    shape = window.bumps(turned, norm).to(delta.dtype) * signs + old / (plane_length(old, norm) + _TINY)
    changed = torch.where(receives, unit(shape, norm) * mass, torch.where(gives, 0, delta))
    return _onto_ball(images, changed, radius, norm)


def _onto_ball(images: Images, delta: Images, radius: Radius, norm: Norm) -> Images:
    """In l2 the perturbation scaled to the radius and clipped to the box; in l1 the nearest point of ball and box."""
    if norm == "l1":
        return project(images + delta, images, radius, norm)
    size = length(delta, norm).clamp(min=torch.finfo(delta.dtype).tiny)
    return (images + delta * per_example(radius / size, delta)).clamp(*BOX)
