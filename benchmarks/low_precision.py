"""Whether low precision changes what training gives: robust accuracy in fp32 and in bf16, over seeds.

A small ResNet-18 run on a part of CIFAR-10, the same recipe three times in each precision, judged by profiles.

    python -m benchmarks.low_precision --data parquet:FOLDER [--quick]

Floor: the means of the two precisions differ by no more than the larger spread of seeds (largest minus smallest).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import mean

from benchmarks.harness import Claim, conclude
from poise.commands.finetune import finetune
from poise.commands.profile import profile
from poise.core.modes import Precision
from poise.core.threat import Threat
from poise.evaluation import accuracy_curve
from poise.training import Training

THREAT = Threat(epsilon="4/255")
PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")


def main() -> int:
    """Train and judge in both precisions, and compare means with spreads."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="address of CIFAR-10, such as parquet:FOLDER")
    parser.add_argument("--quick", action="store_true", help="fewer images and epochs")
    options = parser.parse_args()
    limit, epochs = (500, 3) if options.quick else (5000, 15)
    found = {
        kind: [_robust(options.data, kind, seed, limit=limit, epochs=epochs) for seed in range(3)]
        for kind in PRECISIONS
    }
    for kind, values in found.items():
        print(f"{kind}: robust accuracy " + " ".join(f"{value:.3f}" for value in values))
    spread = max(max(values) - min(values) for values in found.values())
    gap = abs(mean(found["fp32"]) - mean(found["bf16"]))
    claim = Claim("gap of robust accuracy, fp32 and bf16, in points", 100 * gap, 100 * spread, most=True)
    return conclude("low_precision", [claim], {"images": limit, "epochs": epochs, "robust": found})


def _robust(data: str, precision: Precision, seed: int, *, limit: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory() as name:
        run = finetune(
            "resnet18",
            data,
            threat=THREAT,
            training=Training(epochs=epochs, precision=precision, channels_last=precision == "bf16"),
            augmentation="crop",
            limit=limit,
            validate_on=0,
            trackers=(),
            out=Path(name) / "run",
            seed=seed,
        )
        judged = profile(run.address, suite="pgd", points=[], soundness=False, limit=min(limit, 1000))
    return accuracy_curve(judged).robust.value


if __name__ == "__main__":
    sys.exit(main())
