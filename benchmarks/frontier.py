"""How much clean accuracy mixing wins back, and what robustness it costs: CIFAR-10, three kinds of mixture.

An accurate and a robust network are trained by poise, unless runs are given, and mixed with a constant alpha, with a
trained gate (three seeds) and nonlinearly. Every mixture is chosen on validation images and judged on test images that
nothing was chosen on, by an adaptive AutoAttack through all its outputs. Whatever is finished is kept in --out, and the
same command goes on from there.

    python -m benchmarks.frontier --data torchvision:CIFAR10 [--scale small] [--standard run:A --robust run:B]

`quick` (or --quick) only shows that all parts run; `small` takes about an hour on a CPU; `full` is for a GPU.

Target: two thirds of the clean gap between the robust and the standard network, for a tenth of the robust accuracy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, begun, conclude, finished, shown
from poise.attacks import PGD
from poise.commands.finetune import finetune
from poise.commands.mix import Method, mix
from poise.commands.profile import profile
from poise.core.threat import Threat
from poise.evaluation import Curve, Profile, Suite, accuracy_curve, read_profile
from poise.objectives import Adversarial, Mixing, Objective, Standard
from poise.schedules import Fixed
from poise.training import Training

WON_BACK, LOST = 2 / 3, 0.1
AIM = 0.08
"""Share of the robust branch's robust accuracy on validation images that the choice may give up: a little below the
target, as test images are others."""
MIXTURES: tuple[tuple[str, Method, int], ...] = (
    ("constant", "constant", 0),
    ("nonlinear", "nonlinear", 0),
    ("network-0", "network", 0),
    ("network-1", "network", 1),
    ("network-2", "network", 2),
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        network: architecture of both branches.
        epochs: of each branch.
        gate_epochs: of each gate.
        limit: images of each split; None for all.
        image_size: to which images are resized; None for their own.
        validate_on: validation images on which mixtures are chosen.
        judged: test images.
        suite: the attacks on them.
        attack: training attack of the robust branch.
    """

    network: str = "resnet18"
    epochs: int = 30
    gate_epochs: int = 5
    limit: int | None = None
    image_size: int | None = None
    validate_on: int = 1000
    judged: int = 1000
    suite: Suite = "autoattack"
    attack: PGD = PGD(steps=7)


SCALES = {
    "quick": Scale(network="small", epochs=2, gate_epochs=1, limit=300, validate_on=40, judged=20, suite="fast"),
    "small": Scale(
        network="small",
        epochs=20,
        gate_epochs=3,
        limit=10_000,
        image_size=16,
        validate_on=500,
        judged=500,
        suite="apgd",
        attack=PGD(steps=3, step_size=0.5),
    ),
    "full": Scale(),
}


def main() -> int:
    """Train what is missing, mix, judge, compare."""
    options = _options()
    scale = SCALES["quick" if options.quick else options.scale]
    threat = Threat(epsilon="8/255")
    out: Path = options.out
    standard = options.standard or _trained(out / "standard", Standard(), options.data, threat, scale)
    objective = Adversarial(attack=scale.attack)
    robust = options.robust or _trained(out / "robust", objective, options.data, threat, scale)
    found = {
        name: _judged(address, out / f"{name}.parquet", options.data, threat, scale)
        for name, address in (("standard", standard), ("robust", robust))
    }
    lose = 100 * AIM * _validated(robust, out / "validation.parquet", options.data, threat, scale)
    for name, method, seed in MIXTURES:
        address = _mixed(out / name, (standard, robust), method, seed, lose, options.data, threat, scale)
        found[name] = _judged(address, out / f"{name}.parquet", options.data, threat, scale)
    return _conclude(found, scale)


def _trained(path: Path, objective: Objective, data: str, threat: Threat, scale: Scale) -> str:
    if not finished(path):
        finetune(
            scale.network,
            data,
            threat=threat,
            objective=objective,
            schedule=Fixed(),
            augmentation="crop",
            training=Training(epochs=scale.epochs, batch_size=128, learning_rate=2e-3),
            image_size=scale.image_size,
            limit=scale.limit,
            validate_on=0,
            trackers=(),
            out=path,
            resume=begun(path),
        )
    return f"run:{path.as_posix()}"


def _mixed(
    path: Path,
    branches: tuple[str, str],
    method: Method,
    seed: int,
    lose: float,
    data: str,
    threat: Threat,
    scale: Scale,
) -> str:
    if not finished(path):
        mix(
            *branches,
            data,
            method=method,
            lose=lose,
            calibrate=method == "constant",
            threat=threat,
            suite="fast",
            validate_on=scale.validate_on,
            training=Training(epochs=scale.gate_epochs, batch_size=128, learning_rate=1e-3),
            objective=Mixing(),
            limit=scale.limit,
            out=path,
            resume=begun(path),
            seed=seed,
        )
    return f"run:{path.as_posix()}"


def _judged(address: str, path: Path, data: str, threat: Threat, scale: Scale) -> Profile:
    """Verdicts on test images at one epsilon; taken up again where they stopped."""
    if not path.is_file():
        profile(address, data, threat=threat, points=[], suite=scale.suite, limit=scale.judged, out=path)
    return read_profile(path)


def _validated(address: str, path: Path, data: str, threat: Threat, scale: Scale) -> float:
    """Robust accuracy on validation images, by the attacks with which mixtures are chosen."""
    if not path.is_file():
        count = scale.validate_on
        profile(
            address,
            data,
            threat=threat,
            points=[],
            suite="fast",
            split="validation",
            limit=count,
            soundness=False,
            out=path,
        )
    return accuracy_curve(read_profile(path)).robust.value


def _conclude(found: Mapping[str, Profile], scale: Scale) -> int:
    curves = {name: accuracy_curve(one) for name, one in found.items()}
    gap = curves["standard"].clean.value - curves["robust"].clean.value
    figures: dict[str, Any] = {"images": scale.judged, "suite": scale.suite, "clean gap": gap}
    claims = []
    for name, curve in curves.items():
        figures[name] = {"clean": curve.clean, "robust": curve.robust, "findings": _objections(found[name])}
        print(f"{name:<12} clean {shown(curve.clean):>18}  robust {shown(curve.robust):>18}")
        if name in {"standard", "robust"}:
            continue
        won, lost = _won_back(curve, curves["robust"], gap), _lost(curve, curves["robust"])
        figures[name] |= {"won back": won, "given up": lost}
        claims.append(Claim(f"{name}: share of the clean gap won back", won, WON_BACK))
        claims.append(Claim(f"{name}: share of robust accuracy given up", lost, LOST, most=True))
    return conclude("frontier", claims, figures)


def _won_back(mixed: Curve, robust: Curve, gap: float) -> float:
    return (mixed.clean.value - robust.clean.value) / gap if gap > 0 else 0.0


def _lost(mixed: Curve, robust: Curve) -> float:
    return 1 - mixed.robust.value / robust.robust.value if robust.robust.value > 0 else 1.0


def _objections(found: Profile) -> list[str]:
    return [str(finding) for finding in found.findings if finding.status in {"warn", "block"}]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--data", default="torchvision:CIFAR10", help="address of CIFAR-10")
    parser.add_argument("--standard", help="address of a standard network, instead of training one")
    parser.add_argument("--robust", help="address of a robust network, instead of training one")
    parser.add_argument("--out", type=Path, default=Path("runs/frontier"), help="where runs and profiles are kept")
    parser.add_argument("--scale", choices=SCALES, default="small")
    parser.add_argument("--quick", action="store_true", help="the same as --scale quick")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
