"""Linear models, whose best perturbation within ball and box is known without any attack."""

from __future__ import annotations

import torch
from scipy.optimize import brentq
from torch import nn

from poise.core.batch import Batch

DUAL = {"linf": 1, "l2": 2, "l1": torch.inf}


class Linear(nn.Module):
    """Logits weight @ x + bias of flattened images."""

    def __init__(self, classes: int, shape: tuple[int, ...], seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        size = torch.Size(shape).numel()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(classes, size, generator=generator, dtype=torch.float64).to(dtype))
        self.bias = nn.Parameter(torch.zeros(classes, dtype=dtype))

    def forward(self, images):
        return images.flatten(1) @ self.weight.t() + self.bias


def batch(count: int, shape: tuple[int, ...], classes: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, *shape, generator=generator, dtype=torch.float64).to(dtype)
    labels = torch.randint(classes, (count,), generator=generator)
    return Batch(images, labels, torch.arange(count) * 31 + 5)


def best_gain(slope, image, radius: float, norm: str) -> float:
    """max slope . delta over ||delta|| <= radius, image + delta in [0, 1]: closed form or one scalar equation."""
    slope, image = slope.detach().flatten().double(), image.flatten().double()
    room = torch.where(slope > 0, 1 - image, image)
    size = slope.abs()
    if norm == "linf":
        return float((size * room.clamp(max=radius)).sum())
    if norm == "l1":
        gain, left = 0.0, radius
        for index in size.argsort(descending=True).tolist():
            spent = min(left, float(room[index]))
            gain, left = gain + spent * float(size[index]), left - spent
        return gain
    if float(room.norm()) <= radius:
        return float((size * room).sum())
    scale = brentq(lambda s: float((s * size).minimum(room).norm()) - radius, 0, 1e9, xtol=1e-15, rtol=1e-14)
    return float((size * (scale * size).minimum(room)).sum())


def smallest_radius(weight, image, label: int, norm: str) -> float:
    """The exact length of the smallest perturbation, within the box, that changes a linear model's prediction."""
    weight, nearest = weight.detach().double(), torch.inf
    clean = weight @ image.flatten().double()
    slopes, gaps = weight - weight[label], clean[label] - clean
    unboxed = (gaps / slopes.norm(DUAL[norm], dim=1)).nan_to_num(torch.inf)  # the box can only lengthen the way
    for other in unboxed.argsort().tolist():
        slope, gap = slopes[other], float(gaps[other])
        if unboxed[other] >= nearest:
            break
        if other != label and best_gain(slope, image, 1e3, norm) > gap:
            found = brentq(lambda r, s=slope, g=gap: best_gain(s, image, r, norm) - g, 0, 1e3, xtol=1e-13)
            nearest = min(nearest, found)
    return nearest
