"""What an update loses of what the old model did right: the naive swap beside congruent updates, on CIFAR-10.

For every pair and seed an old and a better new network are trained from scratch. The new one is shipped as it is (the
naive swap), trained on as before (continued), and updated with PCT, PCAT, RCAT and the constrained objective. All get
the same epochs and the same attack. Each contender's learning rate and then its weights, where it has any, are chosen
for each pair on validation images of its first seed, by the rule of `poise update`. Then each model is profiled on test
images, and negative flips are counted between its verdicts and the old model's at every epsilon. The noise floor is
what the old model loses against itself when it is profiled with another seed. Flips are a few per cent, so that many
images count for more than a strong attack: the small scales profile with a cheap suite, and the models of the first
seed strictly too, on fewer images, where the flips of both suites stand side by side.

    python -m benchmarks.updates --data torchvision:CIFAR10 [--scale small] [--pairs epochs] [--seeds 0 1] [--jobs 2]

Everything is kept in the folder of --folder and taken up there, whatever instant it was interrupted at. `quick` (or
--quick) only shows that all parts run: its networks are too small for a claim. `small` and `medium` are for two
cores (--jobs 2), `small` with less of everything; `full` is for a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Bench, Claim, bench_parser, conclude, profiled, workers
from benchmarks.intervals import shown, spread
from benchmarks.tables import cuts, over_seeds
from poise.attacks import PGD
from poise.commands.finetune import finetune
from poise.commands.found_again import run_in
from poise.commands.run import Run
from poise.commands.update import update
from poise.commands.updating.trials import Trial, chosen, objectives_tried
from poise.core.threat import Epsilon, Threat
from poise.data import Augmentation
from poise.evaluation import Profile, Suite, accuracy_curve
from poise.evaluation.flips import flips, join, rate
from poise.objectives import PCAT, PCT, RCAT, Adversarial, Constrained, Objective, Standard
from poise.schedules import Fixed, Hinge
from poise.training import Training

THREAT = Threat(epsilon="8/255")
TARGET, TOLERANCE = 0.38, 0.005
RAMP = Hinge(start=0.0, stop=0.5)
CEILINGS = (10.0, 3.0, 1.0)
PAIRS = ("epochs", "images", "network")
"""By what the old network had less of: half the epochs, half the images, or it is of a weaker architecture.
Seeds differ throughout."""
_ALL_HALF = 22_500


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        network: address of the networks, untrained.
        other: address of a weaker architecture, for the old network of the pair "network".
        image_size: to which images are resized; None for their own.
        images: the most images of a split; None for all.
        judged: test images that are profiled.
        suite: attacks of the profiles.
        strict: test images on which the models of the first seed are attacked by `strictest` too, at full epsilon.
        strictest: attacks of these.
        base: options of the training of the new networks; old ones get less of something.
        update: options of every update.
        rates: learning rates to choose from.
        grid: weights (alpha, beta) to choose from beside each objective's own; None for those published. `constrained`
            has its multiplier's ceiling to choose, among `CEILINGS`.
        attack: training attack of all.
        seeds: how many.
    """

    network: str
    other: str
    images: int | None
    judged: int
    suite: Suite
    base: Training
    update: Training
    rates: tuple[float, ...]
    attack: PGD
    grid: list[tuple[float, float]] | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    strict: int = 0
    strictest: Suite = "apgd"
    validate_on: int = 1000
    augmentation: Augmentation = "crop"
    image_size: int | None = None
    contenders: tuple[str, ...] = ("continued", "pct", "pcat", "rcat", "constrained")

    @property
    def suites(self) -> tuple[Suite, ...]:
        """The attacks of the strict check: the profiles' and the strictest."""
        return tuple(dict.fromkeys((self.suite, self.strictest)))


SCALES = {
    "quick": Scale(
        network="small",
        other="timm:test_resnet",
        images=256,
        judged=64,
        suite="fast",
        strict=16,
        base=Training(epochs=3, batch_size=64, learning_rate=5e-3),
        update=Training(epochs=1, batch_size=64, optimizer="sgd", weight_decay=0.0),
        rates=(1e-3, 1e-2),
        attack=PGD(steps=1, step_size=1.25),
        grid=[],
        seeds=(0,),
        validate_on=64,
    ),
    "medium": Scale(
        network="timm:resnet10t",
        other="small",
        images=5000,
        judged=2000,
        suite="fast",
        strict=300,
        base=Training(epochs=15, batch_size=128, learning_rate=5e-3),
        update=Training(epochs=5, batch_size=128, optimizer="sgd", weight_decay=0.0),
        rates=(3e-3, 3e-2, 1e-1),
        attack=PGD(steps=2, step_size=0.75),
        grid=[(0.75, 0.2), (0.3, 0.6)],
        image_size=16,
    ),
    "full": Scale(
        network="resnet18",
        other="timm:resnet10t",
        images=None,
        judged=10_000,
        suite="autoattack",
        base=Training(
            epochs=30,
            batch_size=256,
            optimizer="sgd",
            learning_rate=0.1,
            weight_decay=5e-4,
            precision="bf16",
            channels_last=True,
        ),
        update=Training(
            epochs=12, batch_size=256, optimizer="sgd", weight_decay=0.0, precision="bf16", channels_last=True
        ),
        rates=(1e-3, 1e-2, 1e-1),
        attack=PGD(),
        validate_on=2000,
    ),
}
"""`grid` of `medium` keeps the cost down; PCT and PCAT, whose weights are of another size, get theirs from `_grid`."""
SCALES["small"] = replace(
    SCALES["medium"],
    images=2500,
    judged=600,
    strict=0,
    base=Training(epochs=12, batch_size=128, learning_rate=5e-3),
    update=Training(epochs=3, batch_size=128, optimizer="sgd", weight_decay=0.0),
    rates=(3e-3, 3e-2),
    grid=[],
    validate_on=500,
)


_COMMON: Mapping[str, Any] = {"threat": THREAT, "trackers": ()}


@dataclass(frozen=True)
class Updates(Bench[Scale]):
    """One call of this script."""

    def new(self, seed: int) -> Run:
        """The new network of every pair."""
        return self.base(f"new-{seed}", self.scale.base, self.scale.images, 100 + seed)

    def old(self, pair: str, seed: int) -> Run:
        """The old network of a pair (`PAIRS`)."""
        training, images = self.scale.base, self.scale.images
        if pair == "epochs":
            half = replace(training, epochs=max(1, training.epochs // 2))
            return self.base(f"old-epochs-{seed}", half, images, 200 + seed)
        if pair == "images":
            fewer = _ALL_HALF if images is None else max(1, images // 2)
            return self.base(f"old-images-{seed}", training, fewer, 300 + seed)
        return self.base(f"old-network-{seed}", training, images, 400 + seed, self.scale.other)

    def place(self, pair: str, seed: int) -> Path:
        """Where the updates and profiles of a pair are kept."""
        return self.folder / f"{pair}-{seed}"

    def standard(self, seed: int) -> Run:
        """A network that never saw an attack, of the new ones' architecture."""
        return self.base(f"standard-{seed}", self.scale.base, self.scale.images, 500 + seed, robust=False)

    def base(
        self,
        name: str,
        training: Training,
        images: int | None,
        seed: int,
        network: str | None = None,
        *,
        robust: bool = True,
    ) -> Run:
        """A network trained from scratch."""
        out, address = self.folder / "base" / name, network or self.scale.network
        return run_in(
            finetune,
            address,
            self.data,
            weights="random" if address.startswith("timm:") else None,
            image_size=self.scale.image_size,
            schedule=RAMP if robust else Fixed(),
            objective=Adversarial(attack=self.scale.attack) if robust else Standard(),
            training=training,
            augmentation=self.scale.augmentation,
            limit=images,
            validate_on=0,
            out=out,
            seed=seed,
            **_COMMON,
        )

    def choice(self, pair: str, name: str) -> tuple[float, str]:
        """A contender's learning rate for a pair, with its own weights, then its weights: by the pair's first seed."""
        first, trials = self.scale.seeds[0], list(self.objectives(name))
        rates = {f"{rate:g}": self.update(name, trials[0], pair, first, rate) for rate in self.scale.rates}
        rate = float(_best(rates))
        return rate, _best({trial: self.update(name, trial, pair, first, rate) for trial in trials})

    def contender(self, name: str, pair: str, seed: int) -> Run:
        """An update with the pair's choice."""
        rate, trial = self.choice(pair, name)
        return self.update(name, trial, pair, seed, rate)

    def objectives(self, name: str) -> Mapping[str, Objective]:
        """A contender's objective with each of its weights, its own first."""
        own = self.objective(name)
        if isinstance(own, Constrained):
            ceilings = CEILINGS if self.scale.grid is None or self.scale.grid else CEILINGS[:1]
            return {f"ceiling-{each:g}": replace(own, ceiling=each) for each in ceilings}
        return objectives_tried(own, _grid(own, self.scale.grid))

    def objective(self, name: str) -> Objective:
        """A contender's objective; all attack alike, save PCT, which does not attack."""
        attack = self.scale.attack
        return {
            "continued": Adversarial(attack=attack),
            "pct": PCT(),
            "pcat": PCAT(attack=attack),
            "rcat": RCAT(attack=attack),
            "constrained": Constrained(attack=attack),
        }[name]

    def update(self, name: str, trial: str, pair: str, seed: int, rate: float) -> Run:
        """One call of `poise update`."""
        out = self.place(pair, seed) / f"{name}-{trial}-{rate:g}"
        return run_in(
            update,
            self.old(pair, seed).address,
            self.new(seed).address,
            self.data,
            objective=self.objectives(name)[trial],
            grid=[],
            tolerance=TOLERANCE,
            training=replace(self.scale.update, learning_rate=rate),
            augmentation=self.scale.augmentation,
            image_size=self.scale.image_size,
            limit=self.scale.images,
            validate_on=self.scale.validate_on,
            out=out,
            seed=seed,
            **_COMMON,
        )

    def models(self, pair: str, seed: int) -> dict[str, Run]:
        """What may take the old network's place."""
        return {"naive": self.new(seed)} | {name: self.contender(name, pair, seed) for name in self.scale.contenders}

    def profile(self, run: Run, seed: int = 0, soundness: bool = False) -> Profile:
        """Verdicts on test images, kept in the run's folder."""
        out, limit = run.path / f"profile{f'-{seed}' if seed else ''}.parquet", self.scale.judged
        return profiled(run.address, out=out, suite=self.scale.suite, limit=limit, seed=seed, soundness=soundness)

    def strictly(self, run: Run, suite: Suite) -> Profile:
        """Verdicts on fewer test images, at full epsilon alone."""
        out, limit = run.path / f"strict-{suite}.parquet", self.scale.strict
        return profiled(run.address, out=out, points=[], suite=suite, limit=limit, soundness=False)

    def strict_row(self, pair: str, seed: int) -> dict[str, Any]:
        """What the strictest suite says of one pair and seed, beside the table's on the same images."""
        return {"pair": pair, "seed": seed} | self.strict(self.old(pair, seed), self.models(pair, seed))

    def strict(self, old: Run, models: Mapping[str, Run]) -> dict[str, Any]:
        """Accuracy and flips at full epsilon by both suites."""
        row: dict[str, Any] = {"images": self.scale.strict, "suites": {}}
        for suite in self.scale.suites:
            before = self.strictly(old, suite)
            after = {name: self.strictly(run, suite) for name, run in models.items()}
            row["suites"][suite] = {"old": accuracies(before)} | {
                name: accuracies(found) | flipped(before, found) for name, found in after.items()
            }
        return row

    def row(self, pair: str, seed: int) -> dict[str, Any]:
        """All contenders of one pair and seed."""
        old, models = self.old(pair, seed), self.models(pair, seed)
        before, again = (self.profile(old, seed) for seed in (0, 1))
        after = {name: self.profile(run) for name, run in models.items()}
        row = {
            "pair": pair,
            "seed": seed,
            "old": accuracies(before),
            "noise floor": flipped(before, again),
            "models": {
                name: accuracies(found) | flipped(before, found) | {"run": models[name].path.name}
                for name, found in after.items()
            },
        }
        _tell(row)
        return row


def main() -> int:
    """Train what is not trained, judge what is not judged, and say what came out."""
    options = options_of(__doc__, PAIRS)
    bench = Updates.of(options, "updates", SCALES)
    seeds, pairs = options.seeds or bench.scale.seeds, options.pairs or PAIRS
    jobs = [(pair, seed) for seed in seeds for pair in pairs]
    with workers(options.jobs) as each:
        first = bench.scale.seeds[0]
        each(bench.new, {*seeds, first})  # before several pairs want it
        each(bench.old, pairs, [first] * len(pairs))  # before several contenders do
        each(bench.choice, *zip(*product(pairs, bench.scale.contenders), strict=True))
        each(bench.profile, [bench.new(seed) for seed in seeds])  # as every pair of a seed wants it
        rows = each(bench.row, *zip(*jobs, strict=True))
        strict = _strict(bench, pairs, each) if bench.scale.strict and first in seeds else []
    figures = {"scale": asdict(bench.scale), "data": bench.data, "rows": rows, "strict": strict} | _summary(rows)
    return conclude("updates", _claims(rows), figures, bench.name)


def _strict(bench: Updates, pairs: Sequence[str], each: Callable[..., list[Any]]) -> list[Any]:
    """Rows of the strict check, whose profiles are shared out first."""
    first = bench.scale.seeds[0]
    runs = {run.path: run for pair in pairs for run in (bench.old(pair, first), *bench.models(pair, first).values())}
    each(bench.strictly, *zip(*product(runs.values(), bench.scale.suites), strict=True))
    return each(bench.strict_row, pairs, [first] * len(pairs))


def options_of(document: str | None, pairs: Sequence[str] = ()) -> argparse.Namespace:
    """The command line of a benchmark that works in the folder of updates, and chooses among these pairs."""
    parser = bench_parser(document, SCALES)
    if pairs:
        parser.add_argument("--pairs", nargs="+", choices=pairs, help="of networks to update")
    parser.add_argument("--seeds", nargs="+", type=int)
    return parser.parse_args()


def _grid(objective: Objective, points: list[tuple[float, float]] | None) -> list[tuple[float, float]]:
    """The weights that an objective is tried with: those given where it accepts them, else as many of its published."""
    published = list(getattr(objective, "published", ()))
    if points is None or not published:
        return published
    return points if isinstance(objective, RCAT) else published[-len(points) :] if points else []


def _best(runs: Mapping[str, Run]) -> str:
    """The name of the update that validation prefers, by the rule of `poise update`."""
    tables = {name: json.loads((run.path / "trials.json").read_text()) for name, run in runs.items()}
    new = next(row for row in next(iter(tables.values())) if row["trial"] == "new")
    mine = [Trial(name, next(row for row in table if row["chosen"])) for name, table in tables.items()]
    return chosen(Trial("new", new), mine, TOLERANCE)[0].name


def accuracies(found: Profile) -> dict[str, Any]:
    """Clean and robust accuracy with their intervals, and the whole curve."""
    curve = accuracy_curve(found)
    return {"clean": curve.clean, "robust": curve.robust, "accuracy": [each.value for each in curve.accuracy]}


def flipped(old: Profile, new: Profile) -> dict[str, Any]:
    """Negative flips with exact intervals: clean, at every epsilon, and at the largest in union with clean."""
    found = flips(join(old, new))
    return {
        "clean flips": rate(found[0].lost),
        "robust flips": rate(found[-1].lost),
        "union flips": rate(found[-1].union),
        "flips by epsilon": {str(Epsilon(each.epsilon)): rate(each.lost) for each in found},
    }


def _tell(row: Mapping[str, Any]) -> None:
    """The table of a pair and seed, in %."""
    print(f"{row['pair']}, seed {row['seed']}; in %, noise floor {shown(row['noise floor']['robust flips'])}")
    print(f"{'':<12} {'clean':>18} {'robust':>18} {'clean flips':>18} {'robust flips':>18} {'union flips':>18}")
    for name, model in {"old": row["old"], **row["models"]}.items():
        figures = [model.get(key) for key in ("clean", "robust", "clean flips", "robust flips", "union flips")]
        print(f"{name:<12} " + " ".join(f"{shown(figure) if figure else '':>18}" for figure in figures))


def _gains(rows: Sequence[Mapping[str, Any]], name: str, figure: str) -> list[float]:
    return [row["models"][name][figure][0] - row["models"]["naive"][figure][0] for row in rows]


def _summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and spread over pairs and seeds, for each contender beside the naive swap."""
    summary: dict[str, Any] = {}
    for name in rows[0]["models"]:
        measured = {f"cut of {figure}": cuts(rows, name, figure) for figure in ("robust flips", "union flips")}
        measured |= {f"gain of {figure}": _gains(rows, name, figure) for figure in ("clean", "robust")}
        summary[name] = {what: {"mean": float(np.mean(all_)), **spread(all_)} for what, all_ in measured.items()}
    return {"over the naive swap": summary}


def _claims(rows: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """Means over pairs, with intervals over seeds, as all pairs of a seed have the same new network."""
    claims = []
    for name in ("rcat", "constrained"):
        less = over_seeds(rows, partial(cuts, name=name))
        what = f"{name}, share of robustness negative flips that is cut"
        claims.append(Claim(what, less.value, TARGET, interval=less[1:]))
        for figure in ("clean", "robust"):
            gain, low, high = (100 * each for each in over_seeds(rows, partial(_gains, name=name, figure=figure)))
            what = f"{name}, {figure} accuracy over the naive swap, points"
            claims.append(Claim(what, gain, -100 * TOLERANCE, interval=(low, high)))
    return claims


if __name__ == "__main__":
    sys.exit(main())
