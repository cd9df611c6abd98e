"""What an accuracy-over-epsilon curve costs: poise's profile beside official AutoAttack once per epsilon.

    python -m benchmarks.curve [--quick] [--data parquet:FOLDER] [--model resnet18 | --networks ROBUST PLAIN]

Every contender is a process of its own with one thread, on the same network and images; their order is mixed, and as
many run at a time as there are cores. Compared is the time of the evaluation itself: CPU seconds, or seconds on a clock
where there is a CUDA device and one runs at a time. What whole processes take is printed beside it.

Two networks are trained here and kept under runs/benchmarks, one robust, one not, unless run folders are given (such as
those of benchmarks.networks). `one full pass` is what the whole suite costs when every example that is right survives
it, measured: the least that a curve of this strength can cost, if each has a first epsilon that breaks it. The lower
bound is what the definition demands of it in passes, times the measured cost of one pass of the network that proposes.

Where the device computes in bf16, poise proposes in it once more (`poise profile --proposing bf16`); what it finds is
judged in fp32 as ever.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.contenders import BF16, CONTENDERS, Job
from benchmarks.harness import DEVICE, Claim, conclude, cpu
from poise.core.threat import Threat
from poise.evaluation import epsilon_grid

CUDA = DEVICE.type == "cuda"
KEPT = Path("runs") / "benchmarks" / "curve"
NETWORKS = ("robust", "plain")


def main() -> int:
    """Train, run every contender as a process of its own, compare."""
    options = _options()
    if options.worker:
        print(json.dumps(CONTENDERS[options.worker](Job.read(options.job))))
        return 0
    count = options.images or (48 if options.quick else 128)
    threat = Threat(epsilon=0.2 if options.data == "digits" else "8/255")
    grid = epsilon_grid(threat)
    folders = dict(zip(NETWORKS, options.networks or _trained(options, threat.epsilon), strict=True))
    repeats, low = (1 if options.quick else 3), ([BF16] if CUDA or cpu()[1] else [])
    whole = [(who, grid[1:]) for who in ("ours", *low)] + [("one full pass", (1e-6,))]
    whole += [("official", (epsilon,)) for epsilon in grid[1:-1]]
    single = [(who, grid[-1:]) for _ in range(repeats) for who in ("ours", "official")]
    plan = [("robust", *each) for each in whole + single + [(who, grid[-1:]) for who in low * repeats]]
    plan += [("plain", *each) for each in single * (3 if options.quick else 1)]
    plan = [plan[at] for at in torch.randperm(len(plan), generator=torch.Generator().manual_seed(0)).tolist()]
    found = _side_by_side(
        [(who, Job(str(folders[name]), options.data, count, epsilons)) for name, who, epsilons in plan]
    )
    readings = [{"network": name, "who": who, **reading} for (name, who, _), reading in zip(plan, found, strict=True)]
    return _conclude(options.variant, readings, grid, count)


def _conclude(variant: str, readings: list[dict[str, Any]], grid: tuple[float, ...], count: int) -> int:
    def of(network: str, who: str, epsilons: tuple[float, ...]) -> dict[str, Any]:
        chosen = [r for r in readings if (r["network"], r["who"], tuple(r["epsilons"])) == (network, who, epsilons)]
        return chosen[0] | {name: median(r[name] for r in chosen) for name in ("seconds", "process")}

    curve, full = of("robust", "ours", grid[1:]), of("robust", "one full pass", (1e-6,))
    official = [of("robust", "official", (epsilon,)) for epsilon in grid[1:]]
    single = {name: (of(name, "ours", grid[-1:]), of(name, "official", grid[-1:])) for name in NETWORKS}
    if full["accuracy"][0] != full["clean"]:
        raise SystemExit("an epsilon of 1e-6 broke an example: no full pass was measured")
    theirs = [one["accuracy"][0] for one in official]
    total = sum(one["seconds"] for one in official)
    _tell("epsilon", grid[1:])
    _tell("poise", curve["accuracy"])
    _tell("official", theirs)
    print(f"{count} images, clean {curve['clean']:.3f}; seconds of evaluation (of the whole process):")
    for name, one in (("poise, curve", curve), ("poise, one full pass", full)):
        print(f"  {name:34s}{_seconds(one)}, rows forward {one['forward']}, back {one['backward']}")
    process = sum(one["process"] for one in official)
    print(f"  {'official, one run an epsilon':34s}{_seconds({'seconds': total, 'process': process})}")
    for network, pair in single.items():
        for who, one in zip(("poise", "official"), pair, strict=True):
            print(f"  {f'{who}, one epsilon, {network}':34s}{_seconds(one)}")
    least = curve["demanded"]
    over = curve["seconds"] / least
    print(f"lower bound of the curve, passes demanded x cost of one: {least:.1f} s; poise takes {over:.2f} times that")
    worst = max(mine - other for mine, other in zip(curve["accuracy"], theirs, strict=True))
    ratios = {name: other["seconds"] / ours["seconds"] for name, (ours, other) in single.items()}
    claims = [
        Claim("curve, official over poise", total / curve["seconds"], 15.0 if CUDA else 6.0),
        Claim("curve over one full pass", curve["seconds"] / full["seconds"], 1.4, most=True),
        Claim("one epsilon, robust network, official over poise", ratios["robust"], 1.5),
        Claim("one epsilon, plain network, official over poise", ratios["plain"], 5.0),
        Claim("robust accuracy above official, points", 100 * worst, 0.5, most=True),
    ]
    if any(reading["who"] == BF16 for reading in readings):
        curve_low, single_low = of("robust", BF16, grid[1:]), of("robust", BF16, grid[-1:])
        _tell("bf16", curve_low["accuracy"])
        for name, one in (("curve", curve_low), ("one epsilon, robust", single_low)):
            print(f"  {f'poise proposing in bf16, {name}':44s}{_seconds(one)}")
        worst = max(mine - other for mine, other in zip(curve_low["accuracy"], theirs, strict=True))
        claims += [
            Claim("bf16 proposing: curve, official over poise", total / curve_low["seconds"], 15.0 if CUDA else 6.0),
            Claim(
                "bf16 proposing: one epsilon, robust network, official over poise",
                single["robust"][1]["seconds"] / single_low["seconds"],
                1.5,
            ),
            Claim("bf16 proposing: robust accuracy above official, points", 100 * worst, 0.5, most=True),
        ]
    figures = {
        "images": count,
        "grid": grid,
        "unit": "seconds" if CUDA else "CPU seconds",
        "least": least,
        "readings": readings,
    }
    return conclude("curve", claims, figures, variant)


def _seconds(one: dict[str, Any]) -> str:
    return f"{one['seconds']:8.2f} ({one['process']:.1f})"


def _tell(name: str, values: Any) -> None:
    print(f"{name:10s}" + " ".join(f"{value:6.3f}" for value in values))


def _trained(options: argparse.Namespace, epsilon: float) -> list[Path]:
    """The folders of a robust and a plain network, trained unless they are there."""
    folder = KEPT / f"{options.data.replace(':', '-').replace('/', '-')}-{options.model}"
    places, epochs = [folder / name for name in NETWORKS], (15, 8) if options.quick else (30, 12)
    _side_by_side(
        [
            ("train", _job(options, place, epsilon, number, place.name))
            for place, number in zip(places, epochs, strict=True)
        ]
    )
    return places


def _job(options: argparse.Namespace, place: Path, epsilon: float, epochs: int, name: str) -> Job:
    return Job(str(place), options.data, 0, (epsilon if name == "robust" else 0.0,), model=options.model, epochs=epochs)


def _side_by_side(jobs: list[tuple[str, Job]]) -> list[dict[str, Any]]:
    """What the jobs' processes say, as many at a time as there are cores; on CUDA one after the other."""
    with ThreadPoolExecutor(1 if CUDA else os.cpu_count()) as lanes:
        return list(lanes.map(lambda one: _process(*one), jobs))


def _process(worker: str, job: Job) -> dict[str, Any]:
    words = [sys.executable, "-m", "benchmarks.curve", "--worker", worker, "--job", job.written()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    start = time.perf_counter()
    ended = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    print(f"{worker} {Path(job.network).name} {job.epsilons}: {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return {"epsilons": list(job.epsilons), **found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer images; two minutes on two cores")
    parser.add_argument("--data", default="digits", help="address of the images (digits)")
    parser.add_argument("--model", default="small", help="address of the network to train (small)")
    parser.add_argument(
        "--networks", nargs=2, type=Path, metavar=("ROBUST", "PLAIN"), help="run folders, in place of training two"
    )
    parser.add_argument("--variant", default="", help="for the name of the result's file, such as cifar10")
    parser.add_argument("--images", type=int, help="how many images (128; 48 with --quick)")
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
