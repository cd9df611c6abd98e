"""What halving costs in accuracy: curves by bisection, in ascending order, and by a run of its own for each epsilon.

    python -m benchmarks.modes [--quick]

A robust network, trained here on the digits of scikit-learn, is judged four times on the same images: by `bisect`, by
`ascending`, by independent examinations at every single epsilon, and by `bisect` with bf16 passes that propose. All
use AutoAttack's standard ensemble (with --quick its first two attacks). Shown is the accuracy at every grid point;
claimed is by how much bisection differs from the others.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import DEVICE, Claim, clock, conclude
from poise.commands.finetune import finetune
from poise.core.threat import Threat
from poise.data import ImageSet, open_data
from poise.evaluation import Examination, epsilon_grid, examine
from poise.models import Classifier
from poise.schedules import Fixed
from poise.training import Training

THREAT = Threat(epsilon=0.2)
FLOOR = 0.5


def main() -> int:
    """Train, judge in every way, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="48 images, APGD alone")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    classifier, images = _network(quick=quick), open_data("digits").test.select(torch.arange(48 if quick else 256))
    options: dict[str, Any] = {"suite": "apgd" if quick else "autoattack"}
    ways = {
        "bisect": _curve(classifier, images, options),
        "ascending": _curve(classifier, images, options | {"mode": "ascending"}),
        "independent": _independent(classifier, images, options),
        "bisect, bf16 proposing": _curve(classifier, images, options | {"proposing": "bf16"}),
    }
    grid = epsilon_grid(THREAT)
    print(f"{'epsilon':24}" + " ".join(f"{epsilon:6.3f}" for epsilon in grid))
    for name, way in ways.items():
        print(f"{name:24}" + " ".join(f"{value:6.3f}" for value in way["accuracy"]) + f"  {way['seconds']:.0f} s")
    bisected = ways.pop("bisect")
    claims = [
        Claim(f"largest difference between bisect and {name}, points", _apart(bisected, way), FLOOR, most=True)
        for name, way in ways.items()
    ]
    moved = int((bisected["broken from"] != ways["bisect, bf16 proposing"]["broken from"]).sum())
    print(f"bf16 proposing moves the verdicts of {moved} of {len(images)} examples")
    figures = {"images": len(images), "grid": list(grid), "suite": options["suite"], "moved by bf16": moved}
    shown = {
        name: {"accuracy": way["accuracy"], "seconds": way["seconds"]}
        for name, way in {"bisect": bisected, **ways}.items()
    }
    return conclude("modes", claims, {**figures, **shown})


def _network(*, quick: bool) -> Classifier:
    with tempfile.TemporaryDirectory() as name:
        run = finetune(
            "small",
            "digits",
            threat=THREAT,
            schedule=Fixed(),
            augmentation="none",
            validate_on=0,
            trackers=(),
            training=Training(epochs=10 if quick else 30, batch_size=64, learning_rate=5e-3),
            out=Path(name) / "run",
        )
        return run.classifier().eval().to(DEVICE)


def _curve(classifier: Classifier, images: ImageSet, options: dict[str, Any]) -> dict[str, Any]:
    """Accuracy at every grid point, CPU seconds, and where each example breaks."""
    start = clock()
    profile = examine(classifier, images, Examination(threat=THREAT, **options), model_address="benchmark")
    accuracy = [float(value) for value in profile.robust().mean(axis=0)]
    return {"accuracy": accuracy, "seconds": clock() - start, "broken from": profile.broken_from}


def _independent(classifier: Classifier, images: ImageSet, options: dict[str, Any]) -> dict[str, Any]:
    """An examination at each epsilon that knows nothing of the others."""
    start = clock()
    accuracy: list[float] = []
    for epsilon in epsilon_grid(THREAT)[1:]:
        alone = Examination(threat=Threat(epsilon=epsilon), points=(), **options)
        profile = examine(classifier, images, alone, model_address="benchmark")
        accuracy += profile.robust().mean(axis=0).tolist() if not accuracy else [float(profile.robust()[:, -1].mean())]
    return {"accuracy": accuracy, "seconds": clock() - start}


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference at any grid point, in points."""
    return float(100 * np.abs(np.subtract(one["accuracy"], other["accuracy"])).max())


if __name__ == "__main__":
    sys.exit(main())
