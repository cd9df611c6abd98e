"""What certificates cost and whether they hold: beside adversarial-robustness-toolbox, and under attack.

Throughput is CPU time of certifying the same digits with the same network, sigma, number of samples and confidence, in
interleaved repetitions on one thread; the peer gets the fastest of several batch sizes. Every sample is drawn by both.
Then the strongest suite attacks as many copies of certified images as are asked for, each within its own radius and
from starts of its own. The peer is imported where it is installed; without it its claims are left out, visibly.

    python -m benchmarks.certify [--quick]
"""

from __future__ import annotations

import argparse
import copy
import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Claim, conclude, spread
from poise.attacks.driver import run_search
from poise.attacks.search import Problem
from poise.attacks.suites import units
from poise.commands.finetune import finetune
from poise.core.batch import Batch
from poise.core.streams import Stream
from poise.core.threat import Norm, Threat
from poise.data import ImageSet, open_data
from poise.evaluation.certificates.certification import Certification, certify
from poise.evaluation.certificates.sampling import Sampling, sampled
from poise.models import Classifier, Smoothed, load_model, smooth
from poise.schedules import Fixed
from poise.training import Training

SIGMA = 0.25
CONFIDENCE = 0.999
SELECTION = 100
PEER_BATCHES = (32, 128, 512, 1024)
ATTACKED = 10_000


class Linear(torch.nn.Module):
    """The cheapest network there is: what is left of the time is the certification's own."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        logits: torch.Tensor = self.inner(images)
        return logits


def main() -> int:
    """Train, time both, attack, conclude."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--quick", action="store_true", help="fewer samples and repetitions, a tenth of the attacks")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        model = _trained(Path(name) / "run", 5 if quick else 15)
    images = open_data("digits").test
    claims, figures = [], {}
    for label, network in (("small", model), ("linear", Classifier(Linear(), model.blueprint).eval())):
        found, more = _throughput(label, network, images, 1_000 if quick else 10_000, 3 if quick else 5)
        claims += more
        figures[label] = found
    broken, tried, mixture = _brute_force(model, images, ATTACKED // 10 if quick else ATTACKED)
    figures |= {"attacked": tried, "broken": broken, "radius": mixture}
    claims += [
        Claim("certified examples broken, at most", broken, 0, most=True),
        Claim("certified examples attacked", tried, ATTACKED // 10 if quick else ATTACKED),
    ]
    return conclude("certify", claims, figures)


def _trained(folder: Path, epochs: int) -> Classifier:
    finetune(
        "small",
        "digits",
        threat=Threat(epsilon=0.2),
        schedule=Fixed(),
        augmentation="none",
        validate_on=0,
        trackers=(),
        training=Training(epochs=epochs, batch_size=64, learning_rate=2e-3),
        out=folder,
    )
    return load_model(folder).eval()


def _throughput(
    label: str, network: Classifier, images: ImageSet, samples: int, repetitions: int
) -> tuple[dict[str, Any], list[Claim]]:
    """Samples a second of both, whole budgets, and images a second where a radius of one sigma is enough for ours."""
    rows = torch.arange(4)
    batch = Batch(images.images(rows), images.labels[rows], images.keys[rows])
    smoothing = smooth(network, sigma=SIGMA).network
    assert isinstance(smoothing, Smoothed)  # noqa: S101
    whole = Sampling(samples=samples, selection=SELECTION, confidence=CONFIDENCE)
    enough = Sampling(samples=samples, selection=SELECTION, confidence=CONFIDENCE, enough=SIGMA)
    contenders: dict[str, Callable[[], object]] = {
        "poise": lambda: sampled(smoothing, batch, whole),
        "poise, radius of one sigma": lambda: sampled(smoothing, batch, enough),
    }
    contenders |= _peer(network, batch.images.numpy(), samples)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, run in contenders.items():
            start = time.process_time()
            run()
            seconds[name].append(time.process_time() - start)
    drawn = sum(outcome.total for outcome in sampled(smoothing, batch, whole))
    figures: dict[str, Any] = {
        "images": len(rows),
        "samples": samples,
        "samples drawn by poise": drawn,
        "CPU seconds": {name: spread(each) for name, each in seconds.items()},
        "peak memory, MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    for name, each in seconds.items():
        print(f"{label:6} {name:28} {median(each):8.3f} s for {len(rows)} images of {samples} samples")
    peers = [median(each) for name, each in seconds.items() if name.startswith("toolbox")]
    if not peers:
        print(f"{label:6} adversarial-robustness-toolbox is not installed: its claims are left out")
        return figures, []
    ratio, sooner = (min(peers) / median(seconds[name]) for name in ("poise", "poise, radius of one sigma"))
    return figures, [
        Claim(f"{label}, toolbox over poise, every sample drawn", ratio, 5.0),
        Claim(f"{label}, toolbox over poise, radius of one sigma enough", sooner, 5.0),
    ]


def _peer(network: Classifier, pixels: np.ndarray, samples: int) -> dict[str, Callable[[], object]]:
    try:
        from art.estimators.certification.randomized_smoothing import (  # noqa: PLC0415 - a judge, not a dependency
            PyTorchRandomizedSmoothing,
        )
    except ImportError:
        return {}
    judge = PyTorchRandomizedSmoothing(
        model=network,
        loss=torch.nn.CrossEntropyLoss(),
        input_shape=pixels.shape[1:],
        nb_classes=network.num_classes,
        sample_size=SELECTION,
        scale=SIGMA,
        alpha=1 - CONFIDENCE,
    )
    return {
        f"toolbox, batches of {size}": lambda size=size: judge.certify(pixels, n=samples, batch_size=size)
        for size in PEER_BATCHES
    }


def _brute_force(model: Classifier, images: ImageSet, wanted: int) -> tuple[int, int, dict[str, float]]:
    """Attack certified images, each within its own radius: how many fell, how many were tried, and mean radii."""
    broken = tried = 0
    radii: dict[str, float] = {}
    double = copy.deepcopy(model).double()
    norms: tuple[Norm, ...] = ("linf", "l2")
    for norm in norms:
        certificate = certify(model, images, Certification(method="local", norm=norm))
        radii |= {f"{norm}, {name}": value for name, value in certificate.facts.items()}
        rows = torch.from_numpy(np.flatnonzero(certificate.radii > 0))
        for start in range(-(-wanted // (len(norms) * len(rows)))):
            fell = _fallen(double, images, rows, torch.from_numpy(certificate.radii)[rows], norm, start)
            broken, tried = broken + fell, tried + len(rows)
    return broken, tried, radii


def _fallen(model: Classifier, images: ImageSet, rows: torch.Tensor, radii: torch.Tensor, norm: Norm, seed: int) -> int:
    """How many images the gradient attacks of the ensemble break, in float64, each within its own radius."""
    labels = images.labels[rows]
    pixels = images.images(rows).double()
    with torch.no_grad():
        wrong = model(pixels).scatter(1, labels[:, None], -torch.inf).topk(9, dim=1).indices
    found = torch.zeros(len(rows), dtype=torch.bool)
    for unit in units("apgd", norm, 10, Stream.seeded(seed)):
        restart = torch.full_like(labels, unit.restart)
        problem = Problem(pixels, labels, radii, images.keys[rows], wrong[:, unit.rank], restart)
        found |= run_search(unit.search, model, problem)[1]
    return int(found.sum())


if __name__ == "__main__":
    sys.exit(main())
