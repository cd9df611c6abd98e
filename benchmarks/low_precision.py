"""Whether low precision changes what training gives: robust accuracy in fp32 and in bf16, over seeds.

The same recipe on a part of CIFAR-10, three times in each precision, judged by profiles in fp32.

    python -m benchmarks.low_precision --data torchvision:CIFAR10 [--scale small] [--jobs 2]

Floor: the means of the two precisions differ by no more than the larger spread of seeds (largest minus smallest).
Everything is kept in the folder of --folder and taken up there, whatever instant it was interrupted at. `small` takes
half an hour of two cores without bf16 of their own, `full` is for a GPU.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import mean

from benchmarks.harness import Bench, Claim, bench_parser, conclude, profiled, workers
from poise.attacks import PGD
from poise.commands.finetune import finetune
from poise.commands.found_again import run_in
from poise.commands.run import Run
from poise.core.modes import Precision
from poise.core.threat import Threat
from poise.evaluation import accuracy_curve
from poise.objectives import Adversarial
from poise.training import Training

THREAT = Threat(epsilon="4/255")
PRECISIONS: tuple[Precision, Precision] = ("fp32", "bf16")
SEEDS = (0, 1, 2)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        network: address of the network, untrained.
        images: the most of a split.
        judged: test images that are profiled.
        training: options of every run but its precision.
        attack: of the training.
        image_size: to which images are resized; None for their own.
    """

    network: str
    images: int
    judged: int
    training: Training
    attack: PGD
    image_size: int | None = None


SCALES = {
    "quick": Scale(
        network="small",
        images=500,
        judged=100,
        training=Training(epochs=2, batch_size=64, learning_rate=5e-3),
        attack=PGD(steps=1, step_size=1.25),
        image_size=16,
    ),
    "small": Scale(
        network="small",
        images=5000,
        judged=1000,
        training=Training(epochs=15, batch_size=128, learning_rate=5e-3),
        attack=PGD(steps=2, step_size=0.75),
        image_size=16,
    ),
    "full": Scale(
        network="resnet18",
        images=5000,
        judged=1000,
        training=Training(epochs=15),
        attack=PGD(),
    ),
}


@dataclass(frozen=True)
class LowPrecision(Bench[Scale]):
    """One call of this script."""

    def run(self, precision: Precision, seed: int) -> Run:
        """A robust network, trained in a precision."""
        out = self.folder / f"{precision}-{seed}"
        return run_in(
            finetune,
            self.scale.network,
            self.data,
            threat=THREAT,
            objective=Adversarial(attack=self.scale.attack),
            training=replace(self.scale.training, precision=precision, channels_last=precision == "bf16"),
            augmentation="crop",
            image_size=self.scale.image_size,
            limit=self.scale.images,
            validate_on=0,
            trackers=(),
            out=out,
            seed=seed,
        )

    def robust(self, precision: Precision, seed: int) -> float:
        """Robust accuracy of that network on test images."""
        run, out = self.run(precision, seed), self.folder / f"{precision}-{seed}.parquet"
        found = profiled(run.address, out=out, suite="pgd", points=[], soundness=False, limit=self.scale.judged)
        return accuracy_curve(found).robust.value


def main() -> int:
    """Train and judge in both precisions, and compare means with spreads."""
    options = bench_parser(__doc__, SCALES).parse_args()
    bench = LowPrecision.of(options, "low_precision", SCALES)
    with workers(options.jobs) as each:
        values = each(bench.robust, *zip(*product(PRECISIONS, SEEDS), strict=True))
    found = {kind: values[at * len(SEEDS) :][: len(SEEDS)] for at, kind in enumerate(PRECISIONS)}
    for kind, shares in found.items():
        print(f"{kind}: robust accuracy " + " ".join(f"{share:.3f}" for share in shares))
    spread = max(max(shares) - min(shares) for shares in found.values())
    gap = abs(mean(found["fp32"]) - mean(found["bf16"]))
    claim = Claim("gap of robust accuracy, fp32 and bf16, in points", 100 * gap, 100 * spread, most=True)
    figures = {"scale": asdict(bench.scale), "data": bench.data, "robust": found}
    return conclude("low_precision", [claim], figures, "quick" if bench.name == "quick" else "")


if __name__ == "__main__":
    sys.exit(main())
