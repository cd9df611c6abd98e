"""Run the benchmarks, one after the other: those that answer the questions of docs/evidence.md, or those of the costs.

    python -m benchmarks.run evidence --scale small --data ADDRESS [--jobs 2]
    python -m benchmarks.run costs --data ADDRESS

A benchmark whose figures fall short of a floor does not hold up the others; one that breaks off does, and the same
command goes on there. `evidence` ends with the page. A new benchmark is a module beside this one and a line below.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence

import torch

from benchmarks.backbones import FIRST, OTHERS
from benchmarks.harness import SHORT
from poise.core.misuse import Misuse
from poise.data import open_data

SCALES = ("small", "medium", "full")
"""Of the questions: three hours of two cores, a night of them, a GPU."""
_TRAINING = ("--scale", "{scale}", "--data", "{data}", "--jobs", "{jobs}")
QUESTIONS: dict[str, Sequence[str]] = {
    name: (name, *_TRAINING) for name in ("transfer", "updates", "composed", "frontier", "guarantees")
}
"""Benchmarks that train, by the name of their result, with their words."""
_TRAINED = "runs/benchmarks"
COSTS: dict[str, Sequence[str]] = {
    "parity": ("parity", "--data", "{data}", "--folder", _TRAINED),
    "curve": ("curve",),
    "curve-cifar10": (
        *("curve", "--variant", "cifar10", "--images", "96", "--data", "{data}"),
        *("--networks", f"{_TRAINED}/fixed", f"{_TRAINED}/plain"),
    ),
    "modes": ("modes",),
    "train_step": ("train_step",),
    "update_step": ("update_step",),
    "mixed_forward": ("mixed_forward",),
    "certify": ("certify",),
    "memory": ("memory",),
    "low_precision": ("low_precision", "--scale", "{device}", "--data", "{data}"),
}
"""Benchmarks of single parts, beside their floors and peers."""


def main() -> int:
    """Check the data, run, tell how long each took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("evidence", "costs"))
    parser.add_argument("--scale", choices=SCALES, default="small", help="of the questions")
    parser.add_argument("--data", default="torchvision:CIFAR10", help="address of CIFAR-10; default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="processes that share the work, one thread each")
    options = parser.parse_args()
    check_data(options.data)
    names = QUESTIONS if options.what == "evidence" else COSTS
    plan = [words(name, options.scale, options.data, options.jobs) for name in names]
    took = {}
    for number, (module, *rest) in enumerate(plan, 1):
        print(f"[{number}/{len(plan)}] python -m benchmarks.{module} {' '.join(rest)}", flush=True)
        start = time.monotonic()
        code = ran(module, *rest)
        if code not in (0, SHORT):
            return code
        took[f"{module} {' '.join(rest)}"] = (
            f"{(time.monotonic() - start) / 60:.0f} min{', falls short' * (code == SHORT)}"
        )
    for each, told in took.items():
        print(f"{told:>24}  {each}")
    return ran("evidence", "--scale", options.scale) if options.what == "evidence" else 0


def words(name: str, scale: str, data: str, jobs: int) -> list[str]:
    """The module that measures a result, and what it is called with."""
    given = {"scale": scale, "data": data, "jobs": jobs, "device": "full" if torch.cuda.is_available() else "small"}
    return [word.format(**given) for word in (QUESTIONS | COSTS)[name]]


def check_data(address: str) -> None:
    """End with 2 where these images are not there, or are not those of CIFAR-10."""
    try:
        classes = open_data(address).test.classes
    except Misuse as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    if sorted(classes) != sorted(FIRST + OTHERS):
        print(f"{address} is not CIFAR-10: its classes are {', '.join(classes[:10])}", file=sys.stderr)
        sys.exit(2)


def ran(module: str, *words: str) -> int:
    """The exit code of a benchmark."""
    return subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *words], check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
