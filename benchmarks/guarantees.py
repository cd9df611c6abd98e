"""What can be proven of a mixture: certified accuracy over l2 radius, and what margins and local bounds add. CIFAR-10.

Two ways to a robust branch whose margins are known. By sampling: a network trained under Gaussian noise and smoothed by
it, mixed with a standard one at several alphas. By bounds: a network that is 1-Lipschitz by construction, mixed at the
same alphas and several scales of its logits; the radius of each image is made three times, from its probabilities
alone, from its margin, and from bounds that hold in its own ball. Under the certified share of the smoothed models
stands what attacks leave of the first seed's (l2, through all outputs): no proof may exceed it.

    python -m benchmarks.guarantees --data ADDRESS [--scale small] [--jobs 2]

Whatever is finished is kept in --folder, and the same command goes on from there.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

import numpy as np

from benchmarks.harness import Bench, Claim, bench_parser, conclude, profiled, workers
from poise.commands.certify import certify
from poise.commands.finetune import finetune
from poise.commands.found_again import run_in
from poise.commands.mix import mix
from poise.commands.run import Run
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.evaluation import Profile, Suite, accuracy_curve, read_profile, share
from poise.objectives import Noisy, Objective, Standard
from poise.schedules import Fixed
from poise.training import Training

SIGMA = 0.25
ALPHAS = (0.6, 0.75, 0.9)
LOGIT_SCALES = (1.0, 4.0, 16.0)
"""Factors of the 1-Lipschitz branch's logits, which are small; those of a smoothed one are logarithms of its shares."""
RADII: Mapping[str, tuple[float, ...]] = {"smoothed": (0.0, 0.1, 0.25, 0.5), "bounded": (0.0, 0.02, 0.05, 0.1)}
"""l2 radii of the tables, in units of the image range."""
THREAT = Threat(norm="l2", epsilon=RADII["smoothed"][-1])


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        training: of every branch, at the rate that suits it.
        network: architecture of the standard and of the noisy network.
        limit: images of each split for the training; None for all.
        certified: test images that are certified by sampling.
        samples: noisy copies of each.
        attacked: the first so many of them are attacked.
        suite: the attacks.
        bounded: test images that are certified by bounds.
        steep_limit: images of each split for the 1-Lipschitz network, whose passes cost a multiple of the others'.
        seeds: of the networks.
    """

    training: Training
    network: str = "timm:resnet10t"
    limit: int | None = None
    certified: int = 500
    samples: int = 10_000
    attacked: int = 100
    suite: Suite = "fast"
    bounded: int = 100
    steep_limit: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)


SCALES = {
    "quick": Scale(
        training=Training(epochs=1, batch_size=64),
        network="small",
        limit=200,
        certified=8,
        samples=100,
        attacked=4,
        bounded=2,
        steep_limit=200,
        seeds=(0,),
    ),
    "small": Scale(
        training=Training(epochs=8, batch_size=128),
        limit=6000,
        certified=100,
        samples=1000,
        attacked=25,
        bounded=25,
        steep_limit=2500,
    ),
    "medium": Scale(
        training=Training(epochs=15, batch_size=128),
        limit=10_000,
        certified=300,
        samples=1000,
        attacked=50,
        bounded=50,
        steep_limit=5000,
    ),
    "full": Scale(
        training=Training(epochs=60, batch_size=128, precision="bf16"), network="resnet18", attacked=500, suite="apgd"
    ),
}
RATES = {"standard": 8e-3, "noisy": 8e-3, "lipschitz": 1e-2}
"""Learning rates; that of the standard network is what benchmarks.frontier found on validation images."""


@dataclass(frozen=True)
class Guarantees(Bench[Scale]):
    """One call of this script."""

    def network(self, name: str, seed: int) -> Run:
        """A branch, trained where it is not yet: standard, noisy or lipschitz."""
        objective: Objective = Noisy(sigma=SIGMA) if name == "noisy" else Standard()
        training = asdict(self.scale.training) | {"learning_rate": RATES[name]}
        return run_in(
            finetune,
            "lipschitz" if name == "lipschitz" else self.scale.network,
            self.data,
            weights="random",
            objective=objective,
            schedule=Fixed(),
            training=Training(**training),
            augmentation="crop",
            validate_on=0,
            limit=self.scale.steep_limit if name == "lipschitz" else self.scale.limit,
            trackers=(),
            out=self.folder / f"{name}-{seed}",
            seed=seed,
        )

    def smoothed(self, seed: int) -> Run:
        """The noisy network's smoothing, certified."""
        scale, folder = self.scale, RunFolder(self.folder / f"smoothed-{seed}")
        if not folder.profile.is_file():
            certify(
                self.network("noisy", seed).address,
                sigma=SIGMA,
                samples=scale.samples,
                limit=scale.certified,
                out=folder.path,
                seed=seed,
            )
        return Run(folder)

    def mixed(self, robust_branch: Run, kind: str, alpha: float, scale: float, seed: int) -> Run:
        """The standard network mixed with a robust branch, whose share is alpha; at alpha 1 the branch itself."""
        if alpha == 1:
            return robust_branch
        name = f"{kind}-{alpha:g}" if scale == 1 else f"{kind}-{alpha:g}-scale-{scale:g}"
        standard, out = self.network("standard", seed).address, self.folder / f"{name}-{seed}"
        return run_in(mix, standard, robust_branch.address, self.data, alpha=alpha, scale_robust=scale, out=out)

    def certified(self, run: Run, method: Literal["smoothing", "local"]) -> Profile:
        """Radii of a model, kept beside it."""
        out = run.path / f"{method}.parquet"
        limit = self.scale.certified if method == "smoothing" else self.scale.bounded
        if not out.is_file():
            certify(run.address, self.data, method=method, norm="l2", samples=self.scale.samples, limit=limit, out=out)
        return read_profile(out)

    def sampled(self, alpha: float, seed: int) -> dict[str, Any]:
        """A smoothed model's row: alone, or mixed."""
        run = self.mixed(self.smoothed(seed), "smoothed", alpha, 1.0, seed)
        found = self.certified(run, "smoothing")
        row = {"alpha": alpha, "seed": seed} | _figures(found, RADII["smoothed"])
        return row | (self._attacked(run, found) if seed == self.scale.seeds[0] else {})

    def _attacked(self, run: Run, certified: Profile) -> dict[str, Any]:
        """What attacks leave of some of the images, beside what is proven of the very same ones.

        Proven is the exact average over the noise, attacked an average over some patterns. Where that is wrong without
        an attack, the patterns are too few for the image, which is counted by itself.
        """
        grid = [radius for radius in RADII["smoothed"] if 0 < radius < float(THREAT.epsilon)]
        found = profiled(
            run.address,
            self.data,
            out=run.path / "attacked.parquet",
            threat=THREAT,
            points=grid,
            suite=self.scale.suite,
            limit=self.scale.attacked,
        )
        proven = dict(zip(certified.ids, _radii(certified), strict=True))
        radii = np.array([proven[each] for each in found.ids])
        broken_at = np.append(found.epsilons, np.inf)[found.broken_from]
        return {
            "attacked": len(found),
            "withstood": accuracy_curve(found).accuracy,
            "certified of these": [share(int(_holds(radii, at).sum()), len(radii)) for at in found.epsilons],
            "certified and broken": int(((radii > 0) & (broken_at > 0) & (radii >= broken_at)).sum()),
            "certified and wrong as they are": int(((radii > 0) & (broken_at == 0)).sum()),
        }

    def accurate(self, seed: int) -> dict[str, Any]:
        """The standard network's row: it has no certificate."""
        run, limit = self.network("standard", seed), self.scale.certified
        out, suite = run.path / "attacked.parquet", self.scale.suite
        found = profiled(run.address, self.data, out=out, threat=THREAT, points=[], suite=suite, limit=limit)
        curve = accuracy_curve(found)
        return {"seed": seed, "clean": curve.clean, "robust": curve.robust}

    def bounded(self, alpha: float, scale: float, seed: int) -> dict[str, Any]:
        """A 1-Lipschitz model's row, alone or mixed, with the mean radius by each argument that proves one."""
        run = self.mixed(self.network("lipschitz", seed), "bounded", alpha, scale, seed)
        found = self.certified(run, "local")
        said, facts = "mean radius by ", found.certificate.facts if found.certificate else {}
        means = {name.removeprefix(said): mean for name, mean in facts.items() if name.startswith(said)}
        return {"alpha": alpha, "scale": scale, "seed": seed, "by": means} | _figures(found, RADII["bounded"])


def main() -> int:
    """Train, smooth, mix, certify, attack, and say what came out."""
    options = bench_parser(__doc__, SCALES).parse_args()
    bench = Guarantees.of(options, "guarantees", SCALES)
    seeds = bench.scale.seeds
    with workers(options.jobs) as each:
        each(bench.network, *zip(*product(RATES, seeds), strict=True))
        each(bench.smoothed, seeds)
        alphas = ALPHAS[::-1]
        mixtures = [(1.0, 1.0), *product(alphas, LOGIT_SCALES)]
        bounded = [(*mixture, seed) for mixture, seed in product(mixtures, seeds)]
        rows = {
            "standard": each(bench.accurate, seeds),
            "smoothed": each(bench.sampled, *zip(*product((1.0, *alphas), seeds), strict=True)),
            "bounded": each(bench.bounded, *zip(*bounded, strict=True)),
        }
    for kind in ("smoothed", "bounded"):
        _tell(kind, rows[kind])
    broken = sum(row.get("certified and broken", 0) for row in rows["smoothed"])
    claims = [Claim("certified images that an attack breaks within their radius", broken, 0, most=True)]
    figures = {"scale": asdict(bench.scale), "data": bench.data, "sigma": SIGMA, "radii": dict(RADII)}
    return conclude("guarantees", claims, figures | rows, bench.name)


def _radii(found: Profile) -> np.ndarray:
    if found.certificate is None:
        raise RuntimeError("a certification ended without a certificate")
    return found.certificate.radii


def _holds(radii: np.ndarray, at: float) -> np.ndarray:
    return (radii >= at) & (radii > 0)


def _figures(found: Profile, at: tuple[float, ...]) -> dict[str, Any]:
    """Clean accuracy, and the share of images that is certified at some radii, with exact intervals."""
    radii, count = _radii(found), len(found)
    return {
        "images": count,
        "clean": accuracy_curve(found).clean,
        "certified": [share(int(_holds(radii, each).sum()), count) for each in at],
        "mean radius": float(radii.mean()),
    }


def _tell(kind: str, rows: list[dict[str, Any]]) -> None:
    """Clean accuracy and certified accuracy at each radius, in %."""
    for row in rows:
        proven = " ".join(f"{100 * each[0]:5.1f}" for each in row["certified"])
        where = f"{kind:8} alpha {row['alpha']:4.2f} scale {row.get('scale', 1):2g} seed {row['seed']}"
        print(f"{where}: clean {100 * row['clean'][0]:5.1f}, certified {proven}")


if __name__ == "__main__":
    sys.exit(main())
