"""Do schedules mend the transfer of a non-robust pretrained network? Every schedule alike, on CIFAR-10.

Each contender fine-tunes the same pretrained network on a task that it does not know (see benchmarks.backbones), with
the same images, epochs and attack. The learning rate is chosen for each contender by itself, among the same rates, on
validation images of a seed that is not judged: by the mean of clean and robust accuracy, which is expected robustness
by the trapezoid rule on two points. Then every seed is trained and profiled on test images. `strict` profiles a few
images with the whole AutoAttack at the largest budget, which says how far the suite of the table flatters.

    python -m benchmarks.transfer --data torchvision:CIFAR10 [--scale small] [--backbones cnn] [--seeds 0 1] [--jobs 2]

Everything is kept in --folder and taken up there, whatever instant it was interrupted at. `quick` (or --quick) only
shows that all parts run. `small` and `medium` are for two cores (--jobs 2), `small` with less of everything; `long`
trains the cnn of `medium` four times as long, to see whether that changes the order, and judges the best weights of
each training beside its last; `full` is for a GPU.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.backbones import Start, Task, start
from benchmarks.harness import Bench, Claim, bench_parser, conclude, profiled, workers
from benchmarks.intervals import clean, difference, robust
from poise.attacks import PGD, Attack
from poise.commands.finetune import finetune
from poise.commands.fitting.fit import seconds
from poise.commands.found_again import run_in
from poise.commands.run import Run
from poise.core.threat import Epsilon, Threat
from poise.evaluation import Profile, Suite, accuracy_curve, expected_robustness
from poise.evaluation.curve import withstood
from poise.objectives import Adversarial, Standard
from poise.schedules import Adaptive, Automatic, Fixed, Hinge, Linear, Schedule
from poise.training import Keep, Training, kept

SCHEDULES: Mapping[str, Schedule] = {
    "standard": Fixed(),
    "fixed": Fixed(),
    "hinge": Hinge(start=0.25, stop=0.75),
    "hinge-early": Hinge(start=0.25, stop=0.6),
    "linear": Linear(),
    "automatic": Automatic(patience=2),
    "adaptive": Adaptive(),
}
"""`standard` has an objective without attacks; the others differ in nothing but the schedule."""
BEST = ", best"
"""Behind a schedule's name: of the very same training the weights of its best epoch are judged, not of its last."""
EPSILONS = ("4/255", "8/255")
TUNED_AT, TUNING_SEED = "8/255", 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one backbone goes through.

    Args:
        task: size of its task.
        training: of every contender, at a learning rate of `rates`.
        rates: learning rates to choose from.
        contenders: names among `SCHEDULES`, some of them with `BEST` behind.
        epsilons: target budgets.
        strict: test images for the whole AutoAttack at the last of the epsilons; none where the tables are made by it.
    """

    task: Task
    training: Training
    rates: tuple[float, ...]
    contenders: tuple[str, ...] = tuple(SCHEDULES)
    epsilons: tuple[str, ...] = EPSILONS
    strict: int = 0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is done.

    Args:
        plans: by backbone.
        pretraining: of the backbones that poise trains itself.
        attack: training attack of all.
        suite: attacks of the profiles; fast is what the paper reports.
        validate_on: validation images after every epoch.
        seeds: how many.
    """

    plans: Mapping[str, Plan]
    pretraining: Training
    attack: Attack
    suite: Suite = "fast"
    validate_on: int = 250
    seeds: tuple[int, ...] = (0, 1, 2)


_FEW = Task(train=40, validation=20, test=20)
_SOME = ("standard", "fixed", "hinge")
SCALES = {
    "quick": Scale(
        plans={
            name: Plan(task=_FEW, training=Training(epochs=2, batch_size=20), rates=(1e-3,), contenders=_SOME, strict=4)
            for name in ("cnn", "lite0", "vit")
        },
        pretraining=Training(epochs=1, batch_size=500),
        attack=PGD(steps=1, step_size=1.25),
        validate_on=20,
        seeds=(0,),
    ),
    "medium": Scale(
        plans={
            "cnn": Plan(
                task=Task(train=640, validation=500, test=500),
                training=Training(epochs=12, batch_size=32),
                rates=(5e-4, 2e-3, 8e-3, 3.2e-2),
                strict=100,
            ),
            "lite0": Plan(
                task=Task(train=500, validation=500, test=500),
                training=Training(epochs=12, batch_size=50, channels_last=True),
                rates=(3e-4, 1e-3, 3e-3, 1e-2),
                contenders=_SOME,
                epsilons=("8/255",),
            ),
            "vit": Plan(
                task=Task(train=640, validation=500, test=500),
                training=Training(epochs=12, batch_size=32),
                rates=(5e-4, 2e-3, 8e-3),
                contenders=_SOME,
                epsilons=("8/255",),
                strict=100,
            ),
        },
        pretraining=Training(epochs=8, batch_size=128, learning_rate=2e-3),
        attack=PGD(steps=2, step_size=0.75),
        validate_on=200,
    ),
    "full": Scale(
        plans={
            name: Plan(
                task=Task(train=train, validation=2000, test=5000),
                training=Training(epochs=50, batch_size=128, precision="bf16", channels_last=name != "vit"),
                rates=(1e-4, 3e-4, 1e-3, 3e-3),
            )
            for name, train in (("cnn", 5000), ("vit", 5000), ("lite0", 10_000))
        },
        pretraining=Training(epochs=60, batch_size=256, learning_rate=2e-3, precision="bf16"),
        attack=PGD(steps=7, step_size=0.25),
        suite="autoattack",
        validate_on=1000,
        seeds=(0, 1, 2, 3, 4),
    ),
}
_MEDIUM = SCALES["medium"]
SCALES["small"] = replace(
    _MEDIUM,
    plans={
        name: replace(
            _MEDIUM.plans[name],
            task=Task(train=640, validation=300, test=200),
            training=Training(epochs=8, batch_size=32),
            rates=rates,
            strict=20,
        )
        for name, rates in (("cnn", (2e-3, 8e-3, 3.2e-2)), ("vit", (5e-4, 2e-3)))
    },
    pretraining=replace(_MEDIUM.pretraining, epochs=4),
)
SCALES["long"] = replace(
    _MEDIUM,
    plans={
        "cnn": replace(
            _MEDIUM.plans["cnn"],
            training=Training(epochs=48, batch_size=32),
            contenders=tuple(f"{name}{kept}" for name in ("fixed", "hinge", "linear") for kept in ("", BEST)),
            epsilons=("8/255",),
            strict=0,
        )
    },
)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One fine-tuning.

    Args:
        scale: name among `SCALES`.
        backbone: name of the pretrained network.
        contender: name among `SCHEDULES`, perhaps with `BEST` behind.
        epsilon: target budget.
        seed: decides everything random.
        rate: learning rate.
    """

    scale: str
    backbone: str
    contender: str
    epsilon: str
    seed: int
    rate: float

    @property
    def schedule(self) -> str:
        """The name of its schedule."""
        return self.contender.removesuffix(BEST)

    @property
    def keep(self) -> Keep:
        """Which epoch's weights it ends with."""
        return "last" if self.schedule == self.contender else "best"

    @property
    def twin(self) -> Cell:
        """The same fine-tuning, ending with its last weights."""
        return replace(self, contender=self.schedule)

    def place(self, folder: Path) -> Path:
        """Where it is kept."""
        name = self.contender.replace(", ", "-")
        attacked = name if self.contender == "standard" else f"{name}-{self.epsilon[0]}"
        return folder / self.backbone / f"{attacked}-{self.rate:g}-{self.seed}"

    def run(self, folder: Path, data: str) -> Run:
        """Train what is not trained."""
        scale = SCALES[self.scale]
        plan, out, begin = scale.plans[self.backbone], self.place(folder), start_of(self, folder, data)
        standard = self.contender == "standard"
        return run_in(
            finetune,
            begin.model,
            begin.data,
            weights=begin.weights,
            image_size=begin.image_size,
            threat=Threat(epsilon=TUNED_AT if standard else self.epsilon),
            schedule=SCHEDULES[self.schedule],
            objective=Standard() if standard else Adversarial(attack=scale.attack),
            training=replace(plan.training, learning_rate=self.rate),
            augmentation="crop",
            validate_on=scale.validate_on,
            keep=self.keep,
            trackers=(),
            out=out,
            seed=self.seed,
        )


def start_of(cell: Cell, folder: Path, data: str) -> Start:
    """What a cell starts from."""
    scale = SCALES[cell.scale]
    return start(cell.backbone, data, folder, scale.plans[cell.backbone].task, scale.pretraining)


def trained(cell: Cell, folder: Path, data: str) -> None:
    """Train a cell, for whoever judges it later."""
    cell.run(folder, data)


def validated(cell: Cell, folder: Path, data: str) -> float:
    """Mean of clean and robust validation accuracy of the weights that a fine-tuning ends with.

    What the best ones are stands in the history of the training that keeps the last.
    """
    history = cell.twin.run(folder, data).history()
    row = kept(history, cell.keep, attacked=cell.contender != "standard")
    return (float(row["validation/clean"]) + float(row["validation/robust"])) / 2


def verdicts(cell: Cell, folder: Path, data: str) -> Profile:
    """The profile of a fine-tuning on test images."""
    run, threat = cell.run(folder, data), Threat(epsilon=cell.epsilon)
    out, suite = run.path / f"profile-{cell.epsilon[0]}.parquet", SCALES[cell.scale].suite
    return profiled(run.address, out=out, threat=threat, suite=suite, soundness=False)


def compared(cells: Sequence[Cell], judge: Callable[[Cell], Profile]) -> list[dict[str, Any]]:
    """What every contender gains over the fixed epsilon, and loses of standard accuracy, over all seeds, paired.

    One that ends with its best weights is compared with those of the fixed epsilon as well.

    Args:
        cells: of all contenders and seeds.
        judge: gives the verdicts on each.
    """
    rows = []
    for backbone, epsilon in dict.fromkeys((cell.backbone, cell.epsilon) for cell in cells):
        mine = [cell for cell in cells if (cell.backbone, cell.epsilon) == (backbone, epsilon)]
        profiles: dict[str, list[Profile]] = defaultdict(list)
        for cell in mine:
            profiles[cell.contender].append(judge(cell))
        for name, found in profiles.items():
            for rival in ("fixed", f"fixed{BEST}") if name.endswith(BEST) else ("fixed",):
                row: dict[str, Any] = {"backbone": backbone, "epsilon": epsilon, "contender": name, "rival": rival}
                for figure, of in (("clean", clean), ("robust", robust), ("expected", withstood)):
                    row[f"{figure} over fixed"] = difference(found, profiles[rival], of)
                if "standard" in profiles:
                    row["clean below standard"] = difference(profiles["standard"], found, clean)
                rows.append(row)
    return rows


def judged(cell: Cell, folder: Path, data: str) -> dict[str, Any]:
    """The figures of a fine-tuning on test images."""
    run, scale = cell.run(folder, data), SCALES[cell.scale]
    found = verdicts(cell, folder, data)
    curve, history = accuracy_curve(found), run.history()
    attacked = sum(float(row["epsilon"]) > 0 for row in history)
    steps = scale.attack.steps if isinstance(scale.attack, PGD) else 0
    return {
        **asdict(cell),
        "clean": curve.clean,
        "robust": curve.robust,
        "expected": expected_robustness(found),
        "accuracy": [each.value for each in curve.accuracy],
        "kept": int(kept(history, cell.keep, attacked=cell.contender != "standard")["epoch"]) + 1,
        "delay": json.loads((run.path / "adaptation.json").read_text())["delay"],
        "reached": max(float(row["epsilon"]) for row in history),
        "passes an image": len(history) + attacked * steps * (cell.contender != "standard"),
        "seconds": seconds(run.folder),
    }


def strict_verdicts(cell: Cell, folder: Path, data: str, suite: Suite) -> Profile:
    """The profile of a fine-tuning on the test images of the strict check."""
    run, count = cell.run(folder, data), SCALES[cell.scale].plans[cell.backbone].strict
    out, threat = run.path / f"strict-{suite}-{cell.epsilon[0]}.parquet", Threat(epsilon=cell.epsilon)
    return profiled(run.address, out=out, threat=threat, suite=suite, limit=count, soundness=False)


def strict_suites(scale: Scale) -> tuple[Suite, ...]:
    """The whole AutoAttack, and the suite of the tables beside it."""
    return tuple(dict.fromkeys(("autoattack", scale.suite)))


def strictly(cell: Cell, folder: Path, data: str) -> dict[str, Any]:
    """What the whole AutoAttack leaves of a fine-tuning, beside the table's suite on the same images."""
    row: dict[str, Any] = asdict(cell)
    for suite in strict_suites(SCALES[cell.scale]):
        found = strict_verdicts(cell, folder, data, suite)
        row[suite] = {"robust": accuracy_curve(found).robust, "expected": expected_robustness(found)}
    return row | {"images": len(found)}


def main() -> int:
    """Choose the rates, train and judge every seed, and say what came out."""
    options = _options()
    bench = Bench.of(options, "transfer", SCALES)
    scale, name, folder = bench.scale, bench.name, bench.folder
    backbones = options.backbones or list(scale.plans)
    if absent := sorted(set(backbones) - set(scale.plans)):
        sys.exit(f"the scale {name} has no plan for {', '.join(absent)}")
    with workers(options.jobs) as shared:

        def each(work: Callable[[Cell, Path, str], Any], cells: Iterable[Cell]) -> list[Any]:
            return shared(work, cells, repeat(folder), repeat(options.data))

        firsts = [_cells(name, backbone, (TUNING_SEED,), {})[0] for backbone in backbones]
        each(start_of, firsts)  # before others want the same
        rows, rates = list[dict[str, Any]](), {}
        for backbone in backbones:
            rates[backbone] = _tuned(name, backbone, each)
        seeds = options.seeds or scale.seeds
        for seed in seeds:
            for backbone in backbones:
                cells = _cells(name, backbone, (seed,), rates[backbone])
                each(trained, {cell.place(folder): cell for cell in cells}.values())  # epsilons share the standard one
                rows += each(judged, cells)
                print(f"seed {seed}, {backbone}")
                _tell([row for row in rows if row["backbone"] == backbone])
        cells = [cell for backbone in backbones for cell in _cells(name, backbone, seeds, rates[backbone])]
        few = [cell for cell in cells if _is_strict(cell)]
        strict = each(strictly, few)
    gains = compared(cells, partial(verdicts, folder=folder, data=options.data))
    strict_gains = {
        suite: compared(few, partial(strict_verdicts, folder=folder, data=options.data, suite=suite))
        for suite in strict_suites(scale)
    }
    figures = {"scale": asdict(scale), "data": options.data, "rates": rates, "rows": rows, "gains": gains}
    checked = {"strict": strict, "strict gains": strict_gains}
    return conclude("transfer", _claims(gains), figures | checked, bench.name)


def _is_strict(cell: Cell) -> bool:
    """Whether the strict check looks at a fine-tuning: at the last of the budgets, where its plan wants that."""
    plan = SCALES[cell.scale].plans[cell.backbone]
    return plan.strict > 0 and cell.epsilon == plan.epsilons[-1]


def _options() -> argparse.Namespace:
    parser = bench_parser(__doc__, SCALES)
    parser.add_argument("--backbones", nargs="+", choices=("cnn", "lite0", "vit"))
    parser.add_argument("--seeds", nargs="+", type=int)
    return parser.parse_args()


def _cells(scale: str, backbone: str, seeds: Sequence[int], rates: Mapping[str, float]) -> list[Cell]:
    """All fine-tunings of a backbone; the standard one is trained once and judged at every epsilon."""
    plan = SCALES[scale].plans[backbone]
    return [
        Cell(scale=scale, backbone=backbone, contender=contender, epsilon=epsilon, seed=seed, rate=rate)
        for seed in seeds
        for contender in plan.contenders
        for epsilon in plan.epsilons
        for rate in ([rates[contender]] if rates else plan.rates)
    ]


def _tuned(scale: str, backbone: str, each: Callable[..., list[Any]]) -> dict[str, float]:
    """Each contender's best learning rate; a tie goes to the lower one."""
    cells = [cell for cell in _cells(scale, backbone, (TUNING_SEED,), {}) if cell.epsilon == TUNED_AT]
    each(trained, {cell.twin: None for cell in cells})  # once for the last weights and the best
    best: dict[str, tuple[float, float]] = {}
    for cell, value in zip(cells, each(validated, cells), strict=True):
        if cell.contender not in best or value > best[cell.contender][0]:
            best[cell.contender] = (value, cell.rate)
    return {contender: rate for contender, (_, rate) in best.items()}


def _tell(rows: Sequence[Mapping[str, Any]]) -> None:
    """Means over the seeds so far, in %."""
    for epsilon in dict.fromkeys(row["epsilon"] for row in rows):
        print(f"{epsilon:<12} {'clean':>7} {'robust':>7} {'expected':>9}")
        for contender in dict.fromkeys(row["contender"] for row in rows):
            mine = [row for row in rows if (row["contender"], row["epsilon"]) == (contender, epsilon)]
            means = [100 * float(np.mean([row[key][0] for row in mine])) for key in ("clean", "robust", "expected")]
            print(f"{contender:<12} {means[0]:7.1f} {means[1]:7.1f} {means[2]:9.1f}", flush=True)


def _claims(gains: Sequence[Mapping[str, Any]]) -> list[Claim]:
    """The paper's: the hinge beats the fixed epsilon in clean accuracy and in expected robustness, everywhere."""
    claims = []
    for row in gains:
        for figure in ("clean", "expected") if row["contender"] == "hinge" else ():
            value, low, high = (100 * each for each in row[f"{figure} over fixed"])
            name = f"{row['backbone']}, linf {Epsilon(row['epsilon'])}: {figure} of hinge over fixed, points"
            claims.append(Claim(name, value, 0.0, interval=(low, high)))
    return claims


if __name__ == "__main__":
    sys.exit(main())
