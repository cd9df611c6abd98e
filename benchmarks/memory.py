"""The memory that an examination takes as the data set grows: what is streamed must not pile up.

    python -m benchmarks.memory [--quick]

A model that answers at once judges a million images that are computed when they are asked for (with --quick 50,000),
each count in a process of its own. Measured is by how much the peak of the process's resident memory lies above what it
held after a first small run; claimed is how that grows an image. Linux only.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Claim, clock, conclude, peak_above
from poise.core.threat import Threat
from poise.data import ImageSet
from poise.evaluation import Examination, Profile, examine
from poise.models import Blueprint, Classifier

SHAPE = (1, 24, 24)
IMAGE_BYTES = 4 * 24 * 24
BOUND = 600
"""Bytes an image: 130 of arrays, 110 of its id and key, and what is copied for a moment."""


class Endless(ImageSet):
    """Images that are computed when they are asked for, as many as one likes; of eight one is wrong, one is robust."""

    def __init__(self, count: int) -> None:
        ids = tuple(map(str, range(count)))
        super().__init__("made", ("dark", "light"), ids, torch.arange(count) % 2, SHAPE)

    def pixels(self, rows: torch.Tensor) -> torch.Tensor:
        """Noise around a grey that tells the class."""
        noise = (rows[:, None] * 40503 + torch.arange(576) * 2654435761) >> 7
        light = (rows % 2 ^ (rows % 8 == 0)) * 4 + (rows % 8 == 1) * 40
        return (96 + noise % 64 + light[:, None]).to(torch.uint8).view(-1, *SHAPE)

    def select(self, rows: torch.Tensor) -> ImageSet:
        """Not needed here."""
        raise NotImplementedError

    def fingerprint(self) -> str:
        """Images are a function of their number."""
        return "made"


class _Brightness(nn.Module):
    """Light against dark by the mean of all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = nn.Parameter(torch.tensor(129.5 / 255))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        lead = images.flatten(1).mean(1) - self.middle
        return torch.stack([-lead, lead], dim=1)


def judged(count: int, batch_size: int = 256) -> Profile:
    """A whole examination of so many images."""
    blueprint = Blueprint(address="python:benchmarks", classes=("dark", "light"), shape=SHAPE)
    examination = Examination(threat=Threat(epsilon="8/255"), suite="fast", points=(), batch_size=batch_size)
    return examine(Classifier(_Brightness(), blueprint), Endless(count), examination, model_address="made")


def measured(count: int) -> dict[str, Any]:
    """Bytes by which memory peaks and CPU seconds of a process of its own that judges so many images."""
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--worker", str(count)]
    return dict(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))


def main() -> int:
    """Measure a small and a large set, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="50,000 images")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _work(options.worker)
    found = {count: measured(count) for count in (5_000, 50_000 if options.quick else 1_000_000)}
    (few, low), (many, high) = found.items()
    growth = (high["peak"] - low["peak"]) / (many - few)
    for count, each in found.items():
        print(f"{count:9,} images: peak {each['peak'] / 2**20:.0f} MiB, {each['seconds']:.0f} s of CPU")
    print(f"an image takes {IMAGE_BYTES} bytes in memory; the peak grows by {growth:.0f} an image")
    claims = [Claim("bytes of peak memory an image", growth, BOUND, most=True)]
    return conclude("memory", claims, {"images": found})


def _work(count: int) -> int:
    torch.set_num_threads(1)
    judged(512)
    profiles: list[Profile] = []
    start = clock()
    peak = peak_above(lambda: profiles.append(judged(count)))
    if len(profiles[0]) != count or not profiles[0].settled:
        return 1
    print(json.dumps({"peak": peak, "seconds": clock() - start}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
