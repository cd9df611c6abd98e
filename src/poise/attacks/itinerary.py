"""Where Square Attack will look: window, signs and orientation of every change of an item, drawn when it begins.

Drawing thousands of steps at once costs a hundredth of drawing each when it comes, and leaves a step a single look-up.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from poise.attacks.windows import Windows, window_sides
from poise.core.streams import Stream
from poise.core.threat import Norm

Plan = Int[Tensor, "n queries_and_one columns"]
"""The changes of each slot as int16: a window's bounds, where another begins, orientation, and a sign for each channel.

The first, which stands for the start, and the last, for slots that are done, have windows of no size.
"""

_PUBLISHED_STEPS = 10_000
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""The iterations of 10,000 after which the windows' share of the image is halved."""

_MOST_WORDS = 1 << 20
_FIXED = 7
_CHANCES = 5


class Change(NamedTuple):
    """A change of each slot: the window that receives, the one that gives, orientation and signs of the bumps."""

    window: Windows
    source: Windows
    turned: Tensor
    signs: Tensor


def window_share(step: int, steps: int, p_init: float) -> float:
    """The share of the image that a window covers at a step (from 0) of a search laid out for so many steps."""
    return p_init * 0.5 ** bisect_left(_HALVINGS, step * _PUBLISHED_STEPS // steps)


@cache
def sides(norm: Norm, steps: int, span: int, p_init: float, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Height and width of each step's window, [steps, 2]; at least 3 and odd in l2 and l1."""
    least, odd = (1, False) if norm == "linf" else (3, True)
    shares = (window_share(step, span, p_init) for step in range(steps))
    return torch.tensor([window_sides(share, *grid, least, odd=odd) for share in shares], device=device)


def draw(
    stream: Stream,
    ids: Int[Tensor, " n"],
    first: Int[Tensor, " n"],
    size: Int[Tensor, "steps 2"],
    grid: tuple[int, int, int],
) -> Plan:
    """The changes of all slots.

    Args:
        stream: randomness.
        ids: keys of the examples.
        first: counter under which each slot draws its start; its changes draw under those that follow.
        size: height and width of each step's windows.
        grid: channels, height and width of the images.
    """
    rows = max(_MOST_WORDS // (len(size) * (_CHANCES + grid[0])), 1)
    parts = zip(torch.split(ids, rows), torch.split(first, rows), strict=True)
    return torch.cat([_drawn(stream, some, start, size, grid) for some, start in parts])


def _drawn(stream: Stream, ids: Tensor, first: Tensor, size: Tensor, grid: tuple[int, int, int]) -> Plan:
    channels, height, width = grid
    steps = len(size)
    counter = first[:, None] + torch.arange(1, steps + 1, device=ids.device)
    chances = stream.uniform(ids.repeat_interleave(steps), (_CHANCES + channels,), step=counter.flatten())
    chances = chances.view(len(ids), steps, -1)
    room = torch.tensor([height, width], device=ids.device) - size
    corner, other = ((chances[..., at : at + 2] * (room + 1)).long().minimum(room) for at in (0, 2))
    coins = torch.where(chances[..., _CHANCES - 1 :] < 0.5, -1, 1)
    bounds = torch.stack([corner, corner + size], dim=3).flatten(2)
    kind = torch.int16 if max(height, width) <= torch.iinfo(torch.int16).max else torch.int32
    plan: Tensor = F.pad(torch.cat([bounds, other, coins], dim=2).to(kind), (0, 0, 1, 1))
    return plan


def planned(plan: Plan, query: Int[Tensor, " n"]) -> Int[Tensor, "n columns"]:
    """What each slot's plan holds for its query."""
    return plan[torch.arange(len(plan), device=plan.device), query]


def mask_and_signs(
    found: Int[Tensor, "n columns"], grid: tuple[int, int, int]
) -> tuple[Bool[Tensor, "n 1 h w"], Int[Tensor, "n c 1 1"]]:
    """The pixels of each window, and the channels' signs: all that linf needs."""
    _, height, width = grid
    pixels = torch.arange(max(height, width), dtype=found.dtype, device=found.device)
    first, end = found[:, :4].view(-1, 2, 2, 1).unbind(2)
    within = (pixels >= first) & (pixels < end)
    return within[:, :1, :height, None] & within[:, 1:, None, :width], found[:, _FIXED:, None, None]


def change(found: Int[Tensor, "n columns"], grid: tuple[int, int, int]) -> Change:
    """The change as a whole, for l2 and l1."""
    top, bottom, left, right, other_top, other_left, turned = found[:, :_FIXED].long().unbind(1)
    tall, wide = bottom - top, right - left
    return Change(
        Windows(top, left, tall, wide, *grid[1:]),
        Windows(other_top, other_left, tall, wide, *grid[1:]),
        turned < 0,
        found[:, _FIXED:, None, None],
    )
