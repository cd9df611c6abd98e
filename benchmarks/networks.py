"""The CIFAR-10 networks that benchmarks judge, trained by poise itself and kept for the next benchmark.

    python -m benchmarks.networks [--data ADDRESS] [--folder FOLDER]

About twenty minutes of one CPU core. All three are `small`: `plain` is trained in the ordinary way; `fixed` and `hinge`
are adversarial fine-tunings of it at linf 8/255. What stands in the folder already is left as it is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import poise
from poise.commands.found_again import run_in
from poise.commands.run import Run

DATA = "torchvision:CIFAR10"
FOLDER = Path("runs/benchmarks")
NAMES = ("plain", "fixed", "hinge")

THREAT = poise.Threat(norm="linf", epsilon="8/255")
_IMAGES = 15_000
_ATTACK = poise.PGD(steps=3, step_size=0.5)


def main() -> int:
    """Train what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options = with_networks(parser).parse_args()
    torch.set_num_threads(1)
    for run in networks(options.data, options.folder).values():
        print(run.path)
    return 0


def with_networks(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with the options that say where images and networks are."""
    parser.add_argument("--data", default=DATA, help="address of CIFAR-10; default: %(default)s")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the networks are kept; default: %(default)s")
    return parser


def networks(data: str, folder: Path, names: Sequence[str] = NAMES) -> dict[str, Run]:
    """The runs of these names, each trained if it is not there yet and taken up where it was interrupted.

    Args:
        data: address of CIFAR-10.
        folder: where the runs are kept.
        names: among `NAMES`.
    """
    plain = _trained(folder / "plain", "small", data, objective=poise.Standard(), schedule=poise.Fixed(), epochs=6)
    schedules = {name: how for name, how in (("fixed", poise.Fixed()), ("hinge", poise.Hinge())) if name in names}
    robust = {
        name: _trained(folder / name, plain.address, data, objective=poise.Adversarial(attack=_ATTACK), schedule=how)
        for name, how in schedules.items()
    }
    return {"plain": plain, **robust}


def _trained(
    folder: Path,
    model: str,
    data: str,
    *,
    objective: poise.Standard | poise.Adversarial,
    schedule: poise.Fixed | poise.Hinge,
    epochs: int = 4,
) -> Run:
    return run_in(
        poise.finetune,
        model,
        data,
        threat=THREAT,
        objective=objective,
        schedule=schedule,
        training=poise.Training(epochs=epochs, learning_rate=2e-3, checkpoint_every=40),
        augmentation="flip",
        limit=_IMAGES,
        validate_on=0,
        trackers=(),
        out=folder,
    )


if __name__ == "__main__":
    sys.exit(main())
