"""How much clean accuracy mixing wins back, and what robustness it costs: CIFAR-10, three kinds of mixture.

An accurate and a robust network are trained by poise, unless runs are given, and mixed with a constant alpha, with a
trained gate (three seeds) and nonlinearly. The learning rate of either network is chosen among the same ones, by its
clean and by its robust accuracy on validation images; every mixture is chosen on them too, and judged on test images
that nothing was chosen on, through all its outputs: with the whole AutoAttack at `full`, with its two APGD attacks at
the scales for two cores. Whatever is finished is kept in --folder, and the same command goes on from there.

    python -m benchmarks.frontier --data ADDRESS [--scale small] [--jobs 2] [--standard run:A --robust run:B]

`quick` (or --quick) only shows that all parts run; `small` and `medium` are for two cores (--jobs 2), `small` with less
of everything; `full` is for a GPU.

Target: two thirds of the clean gap between the robust and the standard network, for a tenth of the robust accuracy.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from benchmarks.harness import Bench, Claim, bench_parser, conclude, objections, profiled, workers
from benchmarks.intervals import clean, resampled, robust, shown
from poise.attacks import PGD
from poise.commands.finetune import finetune
from poise.commands.found_again import run_in
from poise.commands.mix import mix
from poise.commands.mixing.mixtures import KEEPS, Method
from poise.commands.mixing.sweep import held_out
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.data import open_data, sample
from poise.evaluation import Profile, Suite, accuracy_curve
from poise.models import open_model
from poise.models.mixing.calibration import calibrated_scale, calibrated_sharpening
from poise.objectives import Adversarial, Mixing, Standard
from poise.schedules import Fixed
from poise.training import Training

WON_BACK, LOST = 2 / 3, 0.1
MIXTURES: Mapping[str, tuple[Method, int]] = {
    "constant": ("constant", 0),
    "nonlinear": ("nonlinear", 0),
    "network-0": ("network", 0),
    "network-1": ("network", 1),
    "network-2": ("network", 2),
}
"""Method and seed of every mixture."""
BRANCHES = ("standard", "robust")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        network: architecture of both branches.
        epochs: of each branch.
        rates: learning rates that either branch is tried with.
        limit: images of each split for the branches; None for all.
        gate_epochs: of each gate.
        gate_limit: images of each split for the gates; None for all.
        validate_on: validation images on which mixtures are chosen.
        aim: share of the robust branch's robust accuracy on them that the choice may give up; by default a little below
            the target, as test images are others.
        judged: test images.
        suite: the attacks on them.
        attack: training attack of the robust branch.
    """

    network: str = "resnet18"
    epochs: int = 30
    rates: tuple[float, ...] = (5e-4, 2e-3, 8e-3)
    limit: int | None = None
    gate_epochs: int = 5
    gate_limit: int | None = None
    validate_on: int = 1000
    aim: float = 0.08
    judged: int = 1000
    suite: Suite = "autoattack"
    attack: PGD = PGD(steps=7)


SCALES = {
    "quick": Scale(
        network="small",
        epochs=2,
        rates=(2e-3, 8e-3),
        limit=300,
        gate_epochs=1,
        gate_limit=300,
        validate_on=40,
        aim=0.5,
        judged=20,
        suite="fast",
    ),
    "medium": Scale(
        network="timm:resnet10t",
        epochs=15,
        limit=20_000,
        gate_epochs=5,
        gate_limit=10_000,
        validate_on=500,
        judged=400,
        suite="apgd",
        attack=PGD(steps=2, step_size=0.75),
    ),
    "full": Scale(),
}
SCALES["small"] = replace(
    SCALES["medium"],
    epochs=8,
    rates=(2e-3, 8e-3),
    limit=6000,
    gate_epochs=2,
    gate_limit=4000,
    validate_on=200,
    judged=100,
)


THREAT = Threat(epsilon="8/255")


@dataclass(frozen=True)
class Frontier(Bench[Scale]):
    """One call of this script."""

    def branch(self, name: str, rate: float) -> str:
        """The address of a branch, one of `BRANCHES`, with one of the rates, trained where it is not yet."""
        out = self.folder / f"{name}-{rate:g}"
        run = run_in(
            finetune,
            self.scale.network,
            self.data,
            weights="random",
            threat=THREAT,
            objective=Standard() if name == "standard" else Adversarial(attack=self.scale.attack),
            schedule=Fixed(),
            augmentation="crop",
            training=Training(epochs=self.scale.epochs, batch_size=128, learning_rate=rate),
            limit=self.scale.limit,
            validate_on=0,
            trackers=(),
            out=out,
        )
        return run.address

    def mixture(self, name: str, standard: str, robust: str, lose: float) -> str:
        """The address of a mixture, one of `MIXTURES`, made where it is not yet.

        Args:
            name: of the mixture.
            standard: address of the accurate branch.
            robust: address of the robust branch.
            lose: points of robust accuracy on validation images that it may give up.
        """
        out, (method, seed) = self.folder / name, MIXTURES[name]
        run = run_in(
            mix,
            standard,
            robust,
            self.data,
            method=method,
            lose=lose,
            calibrate=method == "constant",
            threat=THREAT,
            suite="fast",
            validate_on=self.scale.validate_on,
            training=Training(epochs=self.scale.gate_epochs, batch_size=128, learning_rate=1e-3),
            objective=Mixing(),
            limit=self.scale.gate_limit,
            out=out,
            seed=seed,
        )
        return run.address

    def judged(self, name: str, address: str) -> Profile:
        """Verdicts on test images at one epsilon; taken up again where they stopped."""
        out, scale = self.folder / f"{name}.parquet", self.scale
        return profiled(address, self.data, out=out, threat=THREAT, points=[], suite=scale.suite, limit=scale.judged)

    def levers(self, robust: str) -> list[dict[str, Any]]:
        """What the robust branch's margins on validation images allow a constant alpha, by the robustness it keeps.

        "scaled" and "sharpened" are shares of its clean mistakes whose margin the standard branch can overturn: more
        than these no constant mixture mends. Empty where the images tell nothing.
        """
        images = sample(open_data(self.data).validation, self.scale.validate_on)
        try:
            known = held_out(open_model(robust).eval(), images, THREAT, seed=0)
            found = [(keep, calibrated_scale(known, keep), calibrated_sharpening(known, keep)) for keep in KEEPS]
        except Misuse as error:
            print(f"no margins to look at: {error}")
            return []
        return [{"keep": keep, "scaled": one.fixable, "sharpened": other.fixable} for keep, one, other in found]

    def validated(self, address: str) -> Mapping[str, float]:
        """What a branch is good at, on validation images, by the attacks with which mixtures are chosen."""
        found = profiled(
            address,
            self.data,
            out=self.folder / f"{address.rpartition('/')[2]}-validation.parquet",
            threat=THREAT,
            points=[],
            suite="fast",
            split="validation",
            limit=self.scale.validate_on,
            soundness=False,
        )
        curve = accuracy_curve(found)
        return {"standard": curve.clean.value, "robust": curve.robust.value}


def main() -> int:
    """Train what is missing, mix, judge, compare."""
    options = _options()
    bench = Frontier.of(options, "frontier", SCALES)
    with workers(options.jobs) as each:
        given = {"standard": options.standard, "robust": options.robust}
        chosen, rates = _branches(bench, each, [name for name in BRANCHES if not given[name]])
        given |= chosen
        lose = 100 * bench.scale.aim * bench.validated(given["robust"])["robust"]
        mixtures = each(partial(bench.mixture, **given, lose=lose), MIXTURES)
        addresses = given | dict(zip(MIXTURES, mixtures, strict=True))
        found = dict(zip(addresses, each(bench.judged, addresses, addresses.values()), strict=True))
    tried = {name: json.loads((bench.folder / name / "frontier.json").read_text()) for name in MIXTURES}
    return _conclude(found, tried, bench, {"rates": rates, "levers": bench.levers(given["robust"])})


def _branches(
    bench: Frontier, each: Callable[..., list[Any]], names: Sequence[str]
) -> tuple[dict[str, str], dict[str, float]]:
    """Address and learning rate of each branch, the best of its kind on validation images; a tie goes to the lower."""
    tried = [(name, rate) for name in names for rate in bench.scale.rates]
    addresses = each(bench.branch, *zip(*tried, strict=True))
    best: dict[str, tuple[float, str, float]] = {}
    for (name, rate), address, figures in zip(tried, addresses, each(bench.validated, addresses), strict=True):
        print(f"{name}, rate {rate:g}: {100 * figures[name]:.1f} % on validation images")
        if name not in best or figures[name] > best[name][0]:
            best[name] = (figures[name], address, rate)
    return {name: found[1] for name, found in best.items()}, {name: found[2] for name, found in best.items()}


def _conclude(found: Mapping[str, Profile], tried: Mapping[str, Any], bench: Frontier, about: Mapping[str, Any]) -> int:
    models: dict[str, Any] = {}
    claims = []
    for name, profile in found.items():
        curve = accuracy_curve(profile)
        models[name] = {"clean": curve.clean, "robust": curve.robust, "objections": objections(profile)}
        print(f"{name:<12} clean {shown(curve.clean):>18}  robust {shown(curve.robust):>18}")
        if name in BRANCHES:
            continue
        won = resampled([found["standard"], found["robust"], profile], _won_back, clean)
        lost = resampled([found["robust"], profile], _lost, robust)
        models[name] |= {"won back": won, "given up": lost, "tried": tried[name]}
        claims.append(Claim(f"{name}: share of the clean gap won back", won.value, WON_BACK, interval=won[1:]))
        claims.append(
            Claim(f"{name}: share of robust accuracy given up", lost.value, LOST, most=True, interval=lost[1:])
        )
    figures = {"scale": asdict(bench.scale), "data": bench.data, **about, "models": models}
    return conclude("frontier", claims, figures, bench.name)


def _won_back(means: Float[np.ndarray, " models"]) -> float:
    """Which part of the gap between the standard and the robust network a third wins back; 0 where there is none."""
    accurate, sturdy, mixed = means
    return float((mixed - sturdy) / (accurate - sturdy)) if accurate > sturdy else 0.0


def _lost(means: Float[np.ndarray, " models"]) -> float:
    """Which part of the robust network's robust accuracy another one lacks; 1 where there is none."""
    sturdy, mixed = means
    return float(1 - mixed / sturdy) if sturdy > 0 else 1.0


def _options() -> argparse.Namespace:
    parser = bench_parser(__doc__, SCALES)
    parser.add_argument("--standard", help="address of a standard network, instead of training one")
    parser.add_argument("--robust", help="address of a robust network, instead of training one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
