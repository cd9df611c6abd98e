"""What an accuracy-over-epsilon curve costs: poise's profile beside official AutoAttack once per epsilon.

Whole processes, one after the other on the same machine, on the same robust network and images. The network is trained
here, on the digits of scikit-learn: tiny, so this measures schedulers and attacks more than convolutions.

    python -m benchmarks.curve [--quick]

Floor of a curve of this strength: one pass of the ensemble for every example that is right on its clean image (its
robust verdict at one epsilon), which is what poise's own single-epsilon run costs per robust example.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Claim, conclude
from poise.commands.finetune import finetune
from poise.core.threat import Threat
from poise.data import open_data
from poise.evaluation import Examination, epsilon_grid, examine
from poise.models import load_model
from poise.schedules import Fixed
from poise.training import Training

THREAT = Threat(epsilon=0.2)
THREADS = 2


def main() -> int:
    """Train, run every contender as a process of its own, compare."""
    options = _options()
    if options.worker:
        return _work(options)
    count = 48 if options.quick else 256
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        finetune(
            "small",
            "digits",
            threat=THREAT,
            schedule=Fixed(),
            augmentation="none",
            validate_on=0,
            trackers=(),
            training=Training(epochs=15 if options.quick else 30, batch_size=64, learning_rate=2e-3),
            out=folder / "run",
        )
        grid = epsilon_grid(THREAT)
        ours = _timed(folder, "ours", count, grid[1:])
        single = _timed(folder, "ours", count, grid[-1:])
        official = [_timed(folder, "official", count, (epsilon,)) for epsilon in grid[1:]]
    return _conclude(count, list(grid), ours, single, official)


def _conclude(
    count: int, grid: list[float], ours: dict[str, Any], single: dict[str, Any], official: list[dict[str, Any]]
) -> int:
    total = sum(one["seconds"] for one in official)
    accuracy = [one["accuracy"][0] for one in official]
    differences = [mine - theirs for mine, theirs in zip(ours["accuracy"], accuracy, strict=True)]
    print("epsilon   " + " ".join(f"{epsilon:6.3f}" for epsilon in grid[1:]))
    print("poise     " + " ".join(f"{value:6.3f}" for value in ours["accuracy"]))
    print("official  " + " ".join(f"{value:6.3f}" for value in accuracy))
    print(
        f"seconds: poise curve {ours['seconds']:.1f}, poise one epsilon {single['seconds']:.1f}, official {total:.1f}"
    )
    claims = [
        Claim("curve, official over poise", total / ours["seconds"], 6.0),
        Claim("one epsilon, official over poise", official[-1]["seconds"] / single["seconds"], 1.5),
        Claim("robust accuracy above official, points, at most", 100 * max(differences), 0.5, most=True),
    ]
    figures = {"images": count, "grid": grid, "poise": ours, "poise one epsilon": single, "official": official}
    return conclude("curve", claims, figures)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="fewer images; two to three minutes on two cores")
    parser.add_argument("--worker", choices=("ours", "official"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--epsilons", type=float, nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def _timed(folder: Path, worker: str, count: int, epsilons: tuple[float, ...]) -> dict[str, Any]:
    """Seconds of a whole process, and the accuracies that it found."""
    words = ["--worker", worker, "--folder", str(folder), "--count", str(count), "--epsilons", *map(str, epsilons)]
    start = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.curve", *words], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    print(f"{worker} {epsilons}: {seconds:.1f} s", file=sys.stderr)
    return {"seconds": seconds, "epsilons": list(epsilons), **json.loads(ended.stdout.splitlines()[-1])}


def _work(options: argparse.Namespace) -> int:
    torch.set_num_threads(THREADS)
    model, images = load_model(options.folder / "run").eval(), open_data("digits").test
    images = images.select(torch.arange(options.count))
    accuracy = (_ours if options.worker == "ours" else _official)(model, images, options.epsilons)
    print(json.dumps({"accuracy": accuracy}))
    return 0


def _ours(model: Any, images: Any, epsilons: list[float]) -> list[float]:
    examination = Examination(threat=Threat(epsilon=epsilons[-1]), points=tuple(epsilons))
    profile = examine(model, images, examination, model_address="benchmark")
    return [float(value) for value in profile.robust().mean(axis=0)[1:]]


def _official(model: Any, images: Any, epsilons: list[float]) -> list[float]:
    from pyautoattack import AutoAttack  # noqa: PLC0415 - a judge, not installed by default

    pixels, labels = images.images(torch.arange(len(images))), images.labels
    judge = AutoAttack(model, norm="Linf", eps=epsilons[0], version="standard", seed=0)
    attacked = judge.run_standard_evaluation(pixels, labels, batch_size=128)
    attacked = attacked[0] if isinstance(attacked, tuple) else attacked
    with torch.no_grad():
        return [float((model(attacked).argmax(1) == labels).float().mean())]


if __name__ == "__main__":
    sys.exit(main())
