"""Do the three methods compose? A mixed product whose robust branch is replaced, with and without a congruent update.

The robust branches are those of benchmarks.updates (fine-tuned under a ramp of epsilon): yesterday's, today's better
one, and today's after an RCAT update. Yesterday's is mixed with a standard network, by a constant alpha and a scale
chosen on validation images; today's products keep both, so that nothing but the robust branch is updated. The three are
profiled through all their outputs. Then today's products stand for yesterday's before the gate of recipes/release-gate.
As in benchmarks.updates, the small scales profile with a cheap suite, and the products of the first seed strictly too.

    python -m benchmarks.composed --data torchvision:CIFAR10 [--scale small] [--seeds 0 1] [--jobs 2]

It shares its folder with benchmarks.updates and takes up what either has finished.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, conclude, objections, workers
from benchmarks.intervals import cut, mean, shown
from benchmarks.updates import PAIRS, SCALES, TARGET, Updates, accuracies, flipped, options_of
from poise.commands.compare import compare
from poise.commands.found_again import run_in
from poise.commands.mix import mix
from poise.commands.run import Run

GATE = Path(__file__).parents[1] / "recipes" / "release-gate" / "gate.yaml"
ALPHAS, LOSE = [0.6, 0.7, 0.8, 0.9, 0.95, 1.0], 2.0
PAIR = PAIRS[0]
PRODUCTS = ("yesterday", "naive", "congruent")


@dataclass(frozen=True)
class Composed:
    """The products of one seed.

    Args:
        bench: trains, updates and profiles.
        seed: of the pair.
        place: where the products are kept.
    """

    bench: Updates
    seed: int
    place: Path = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "place", self.bench.folder / f"composed-{self.seed}")

    def product(self, name: str, robust: Run, **choice: Any) -> Run:
        """The standard network mixed with a robust branch."""
        standard, out = self.bench.standard(self.seed), self.place / name
        return run_in(mix, standard.address, robust.address, out=out, seed=self.seed, **choice)

    def products(self) -> dict[str, Run]:
        """All products of the seed; those of today are mixed as yesterday's."""
        tried = {"alphas": ALPHAS, "lose": LOSE, "calibrate": True, "validate_on": self.bench.scale.validate_on}
        yesterday = self.product("yesterday", self.bench.old(PAIR, self.seed), **tried)
        today = (self.bench.new(self.seed), self.bench.contender("rcat", PAIR, self.seed))
        kept = _blend(yesterday)
        mixed = {name: self.product(name, robust, **kept) for name, robust in zip(PRODUCTS[1:], today, strict=True)}
        return {"yesterday": yesterday} | mixed

    def strict_row(self) -> dict[str, Any]:
        """What the strictest suite says of the products, beside the table's on the same images."""
        runs = self.products()
        old = runs.pop(PRODUCTS[0])
        return {"seed": self.seed} | self.bench.strict(old, runs)

    def row(self) -> dict[str, Any]:
        """All products, what each loses in yesterday's place, and what the gate says to that."""
        runs = self.products()
        found = {name: self.bench.profile(run, soundness=True) for name, run in runs.items()}
        products: dict[str, Any] = {}
        for name, profile in found.items():
            products[name] = accuracies(profile) | _blend(runs[name]) | {"objections": objections(profile)}
            if name != PRODUCTS[0]:
                products[name] |= flipped(found[PRODUCTS[0]], profile) | {"gate": self._gate(runs[name])}
        _tell(self.seed, products)
        return {"seed": self.seed, "products": products}

    def _gate(self, new: Run) -> dict[str, Any]:
        """What the gate says of each limit, and of all."""
        old = self.place / PRODUCTS[0]
        out = self.place / f"{new.path.name}-for-{PRODUCTS[0]}"
        judgement = compare(str(old), str(new.path), gate=GATE, out=out, gallery=0).judgement
        if judgement is None:
            raise RuntimeError("a comparison with a gate came without a judgement")
        return {
            "outcome": judgement.outcome,
            "limits": [[str(verdict.limit), verdict.outcome] for verdict in judgement.verdicts],
        }


def main() -> int:
    """Mix, judge and compare what is not there yet, and say what came out."""
    options = options_of(__doc__)
    bench = Updates.of(options, "updates", SCALES)
    seeds = options.seeds or bench.scale.seeds
    with workers(options.jobs) as each:
        each(bench.choice, [PAIR], ["rcat"])  # before every seed wants it
        rows = each(Composed.row, [Composed(bench, seed) for seed in seeds])
        first = bench.scale.seeds[0]
        strict = each(Composed.strict_row, [Composed(bench, first)]) if bench.scale.strict and first in seeds else []
    cuts = [_cut(row["products"]) for row in rows]
    less = mean(cuts)
    name = "share of the product's robustness negative flips that is cut"
    claims = [Claim(name, less.value, TARGET, interval=less[1:])]
    figures = {"scale": asdict(bench.scale), "data": bench.data, "rows": rows, "strict": strict}
    return conclude("composed", claims, figures, bench.name)


def _blend(run: Run) -> dict[str, float]:
    """How a product is mixed, as options of `poise mix`."""
    options = json.loads((run.path / "model.json").read_text())["blueprint"]["options"]
    return {"alpha": options["alpha_low"], **{name: options[name] for name in ("scale_standard", "scale_robust")}}


def _cut(products: Mapping[str, Any]) -> float:
    naive, congruent = (products[name]["robust flips"][0] for name in PRODUCTS[1:])
    return cut(naive, congruent)


def _tell(seed: int, products: Mapping[str, Any]) -> None:
    """The products of a seed, in %."""
    print(f"products, seed {seed}; in %")
    print(f"{'':<10} {'alpha':>6} {'clean':>18} {'robust':>18} {'clean flips':>18} {'robust flips':>18}  gate")
    for name, one in products.items():
        figures = [one.get(key) for key in ("clean", "robust", "clean flips", "robust flips")]
        told = " ".join(f"{shown(figure) if figure else '':>18}" for figure in figures)
        print(f"{name:<10} {one['alpha']:6.3f} {told}  {one['gate']['outcome'] if 'gate' in one else ''}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
