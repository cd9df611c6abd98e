"""Rectangles on images, one per example and each of its own size: where they lie, and the bumps that fill them.

Sizes differ from row to row while shapes of tensors do not, so a window is a comparison of pixel coordinates with the
row's bounds, never a slice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from poise.core.threat import Norm

Count = Int[Tensor, " n"]

_ORDERS: dict[Norm, float] = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def as_grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of examples of any shape.

    (c, h, w) are themselves. (c, d) are c channels of one row, (d,) is one channel of one row, and what lies between
    the first and the last of more than three dimensions is stacked in the height.
    """
    channels, *heights, width = (1,) * (2 - len(shape)) + shape
    return channels, math.prod(heights), width


def window_sides(share: float, height: int, width: int, least: int = 1, *, odd: bool = False) -> tuple[int, int]:
    """Height and width of the square that covers a share of an image.

    Where the image is too narrow for the square, the window takes the whole of the short side and as much of the long
    one as the share asks for.

    Args:
        share: share of the pixels, in (0, 1].
        height: of the image.
        width: of the image.
        least: smallest side, where the image has room for it.
        odd: make even sides longer by one, where the image has room for it.
    """
    area, short, long = share * height * width, min(height, width), max(height, width)
    side = _side(math.sqrt(area), least, odd=odd)
    if side <= short:
        return side, side
    stretched = min(_side(area / short, least, odd=odd), long)
    return (short, stretched) if height <= width else (stretched, short)


def _side(length: float, least: int, *, odd: bool) -> int:
    pixels = max(round(length), least)
    return pixels + (odd and pixels % 2 == 0)


@dataclass(frozen=True)
class Windows:
    """One window per example on images of one size.

    Args:
        top: first row.
        left: first column.
        tall: number of rows.
        wide: number of columns.
        height: of the images.
        width: of the images.
    """

    top: Count
    left: Count
    tall: Count
    wide: Count
    height: int
    width: int

    @property
    def rows(self) -> Int[Tensor, "n height 1"]:
        """Each pixel row, counted from the window's first."""
        return torch.arange(self.height, device=self.top.device)[None, :, None] - self.top[:, None, None]

    @property
    def columns(self) -> Int[Tensor, "n 1 width"]:
        """Each pixel column, counted from the window's first."""
        return torch.arange(self.width, device=self.left.device)[None, None, :] - self.left[:, None, None]

    @property
    def mask(self) -> Bool[Tensor, "n 1 height width"]:
        """Which pixels lie inside."""
        rows, columns = self.rows, self.columns
        inside_rows = (rows >= 0) & (rows < self.tall[:, None, None])
        return (inside_rows & (columns >= 0) & (columns < self.wide[:, None, None]))[:, None]

    def bumps(self, turned: Bool[Tensor, " n"], norm: Norm) -> Float[Tensor, "n 1 height width"]:
        """Two adjoining bumps, one up and one down, of unit length together and zero outside the window.

        They lie above each other, or beside each other where `turned`. A bump is a stack of growing squares around its
        middle, the k-th of height 1/k^2 in l2 and 1/k^4 in l1 (Andriushchenko et al. 2020, eq. 2); as a pixel is in
        all squares from its own ring outwards, its value is a difference of two prefix sums.
        """
        flip = turned[:, None, None]
        along, across = torch.where(flip, self.columns, self.rows), torch.where(flip, self.rows, self.columns)
        long = torch.where(turned, self.wide, self.tall)[:, None, None]
        broad = torch.where(turned, self.tall, self.wide)[:, None, None]
        upper = along < long // 2
        depth = torch.where(upper, long // 2, long - long // 2)
        middle = torch.where(upper, 0, long // 2) + depth // 2
        ring = (along - middle).abs().maximum((across - broad // 2).abs())
        sums = _stacked(max(self.height, self.width) + 2, norm, along.device)
        heights = sums[depth.maximum(broad) // 2 + 1] - sums[ring.clamp(max=len(sums) - 1)]
        heights = torch.where(self.mask[:, 0], heights, 0)[:, None]
        over = upper[:, None]
        first, second = torch.where(over, heights, 0), torch.where(over, 0, heights)
        return unit(unit(first, norm) - unit(second, norm), norm)


def plane_length(values: Float[Tensor, "*lead h w"], norm: Norm) -> Float[Tensor, "*lead 1 1"]:
    """Length of each plane of the last two dimensions."""
    lengths: Tensor = torch.linalg.vector_norm(values, ord=_ORDERS[norm], dim=(-2, -1), keepdim=True)
    return lengths


def unit(values: Float[Tensor, "*lead h w"], norm: Norm) -> Float[Tensor, "*lead h w"]:
    """Each plane scaled to length 1; planes of zeros stay zero."""
    return values / plane_length(values, norm).clamp(min=torch.finfo(values.dtype).tiny)


@cache
def _stacked(size: int, norm: Norm, device: torch.device) -> Float[Tensor, " {size}"]:
    """Sums of the first 0, 1, 2, ... terms of 1/k^2 (l2) or 1/k^4 (l1), in float64."""
    terms = torch.arange(1, size, dtype=torch.float64) ** (-4 if norm == "l1" else -2)
    return torch.cat([terms.new_zeros(1), terms.cumsum(0)]).to(device)
