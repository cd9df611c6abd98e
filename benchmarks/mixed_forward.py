"""What a mixed forward pass costs beside its parts: the two branches and the gate, each by itself.

Two ResNet-18 on 32 x 32 images, with a constant alpha and with a gate; without gradients, as in deployment. Times are
CPU seconds (on CUDA: between events) of interleaved repetitions; memory is by how much the peak of a process of its own
lies above what it held before (on CUDA: what is allocated).

    python -m benchmarks.mixed_forward [--quick]

Floor: nothing can be cheaper than the parts one after the other, but for kernels that run side by side on CUDA.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.harness import DEVICE, Claim, conclude, peak_above, seconds_of
from benchmarks.intervals import spread
from poise.models import open_model
from poise.models.mixing import Blend, Gate, MixedClassifier, plan_gate
from poise.models.mixing.features import seen_by

CLASSES = tuple("abcdefghij")
SHAPE = (3, 32, 32)
CEILING = 1.05
_GIVING_BACK = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""glibc gives large blocks back at once, so that the peak is that of live tensors, the same every time."""


def main() -> int:
    """Time and weigh both kinds of mixture against their parts."""
    options = _options()
    if options.worker:
        return _weigh(options.worker, options.batch)
    repetitions, batch = (7, 16) if options.quick else (41, 64)
    torch.set_num_threads(1)
    images = torch.rand(batch, *SHAPE, device=DEVICE)
    figures: dict[str, object] = {"batch": batch, "repetitions": repetitions}
    claims = []
    for kind in ("constant", "gate"):
        mixed = _mixed(kind).to(DEVICE).eval()
        ratios, whole = _timed(mixed, images, repetitions)
        memory = [_peak(what, kind, batch) for what in ("parts", "whole")]
        figures[kind] = {"ratio": spread(ratios), "seconds": spread(whole), "peak MiB, parts and mixed": memory}
        print(f"{kind}: mixed over parts {median(ratios):.3f}, peak {memory[0]:.0f} and {memory[1]:.0f} MiB")
        claims += [
            Claim(f"mixed forward with {kind}, time over its parts", median(ratios), CEILING, most=True),
            Claim(f"mixed forward with {kind}, memory over its parts", memory[1] / memory[0], CEILING, most=True),
        ]
    return conclude("mixed_forward", claims, figures)


def _mixed(kind: str) -> MixedClassifier:
    standard, robust = (open_model("resnet18", classes=CLASSES, shape=SHAPE, seed=seed) for seed in (0, 1))
    if kind == "constant":
        return MixedClassifier.of(standard, robust, 0.7)
    return MixedClassifier.of(standard, robust, Blend(alpha_low=0.2, alpha_high=0.9), Gate(plan_gate(standard, robust)))


def _parts(mixed: MixedClassifier, images: Tensor) -> Callable[[], object]:
    """Both branches and, on features that are there already, the gate."""
    gate = mixed.gate
    if not isinstance(gate, Gate):
        return lambda: (mixed.standard(images), mixed.robust(images))
    standard = seen_by(mixed.standard, images, gate.plan.standard_layers).features
    robust = seen_by(mixed.robust, images, gate.plan.robust_layers).features
    return lambda: (mixed.standard(images), mixed.robust(images), gate(standard, robust))


@torch.no_grad()
def _timed(mixed: MixedClassifier, images: Tensor, repetitions: int) -> tuple[list[float], list[float]]:
    """Ratios of neighbouring measurements, after a warm-up, and seconds of the mixture."""
    parts = _parts(mixed, images)
    ratios, whole = [], []
    for repetition in range(repetitions + 2):
        apart, together = seconds_of(parts), seconds_of(lambda: mixed(images))
        if repetition >= 2:
            ratios.append(together / apart)
            whole.append(together)
    return ratios, whole


def _peak(what: str, kind: str, batch: int) -> float:
    """The most memory, in MiB, that forward passes add to a process of its own."""
    words = [sys.executable, "-m", "benchmarks.mixed_forward", "--worker", f"{what}:{kind}", "--batch", str(batch)]
    ended = subprocess.run(words, check=True, capture_output=True, text=True, env=os.environ | _GIVING_BACK)
    return float(ended.stdout.splitlines()[-1])


@torch.no_grad()
def _weigh(worker: str, batch: int) -> int:
    what, _, kind = worker.partition(":")
    torch.set_num_threads(1)
    mixed, images = _mixed(kind).to(DEVICE).eval(), torch.rand(batch, *SHAPE, device=DEVICE)
    mixed(images[:1])  # loads the code of all kernels

    def passes() -> None:
        work = _parts(mixed, images) if what == "parts" else lambda: mixed(images)
        for _ in range(3):
            work()

    print(peak_above(passes, DEVICE.type) / 2**20)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repetitions of smaller batches")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
