"""Networks that are nothing but a table of logits, and the congruent losses computed by hand from such tables."""

from __future__ import annotations

import math

import torch
from torch import nn

from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.objectives import Objective, Step

CLASSES, COUNT = 5, 7
STREAM = Stream.seeded(0)
MASKS = {"none": [], "some": [0, 2, 3, 6], "others": [1, 2, 6], "all": list(range(COUNT))}
LABELS = torch.tensor([0, 1, 2, 3, 4, 0, 1])


class Table(nn.Module):
    """The same logits whatever the images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits


def logits(right: str, seed: int) -> torch.Tensor:
    """Random float64 logits that are right on exactly the rows of a mask."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(COUNT, CLASSES, generator=generator, dtype=torch.float64)
    for row, label in enumerate(LABELS.tolist()):
        best, wrong = int(found[row].argmax()), (label + 1) % CLASSES
        swap = label if row in MASKS[right] else wrong
        found[row, [best, swap]] = found[row, [swap, best]]
    return found


def step(z, old, new, state=None) -> Step:
    """A step at epsilon 0, where attacks leave the images alone."""
    batch = Batch(torch.rand(COUNT, 3, dtype=torch.float64), LABELS, torch.arange(COUNT))
    return Step(Table(z), batch, 0.0, "linf", STREAM, {"old": Table(old), "new": Table(new)}, state or {})


def loss(objective: Objective, z, old, new, state=None) -> torch.Tensor:
    return objective.terms(step(z, old, new, state))["loss"]


def cross_entropies(z) -> list[float]:
    rows = zip(z.tolist(), LABELS.tolist(), strict=True)
    return [math.log(math.fsum(math.exp(each) for each in row)) - row[label] for row, label in rows]


def distances(z, other) -> list[float]:
    pairs = zip(z.tolist(), other.tolist(), strict=True)
    return [
        0.5 * math.fsum((a - b) ** 2 for a, b in zip(mine, theirs, strict=True)) / CLASSES for mine, theirs in pairs
    ]


def right(z) -> list[bool]:
    return [row.index(max(row)) == label for row, label in zip(z.tolist(), LABELS.tolist(), strict=True)]


def mean(values) -> float:
    """Of some numbers, and 0 of none."""
    values = list(values)
    return math.fsum(values) / len(values) if values else 0.0


def chosen(values, mask) -> list[float]:
    return [value for value, kept in zip(values, mask, strict=True) if kept]
