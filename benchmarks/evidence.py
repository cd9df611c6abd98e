"""Write docs/evidence.md: what the benchmarks' result files say, question by question.

    python -m benchmarks.evidence [--machine NAME] [--page docs/evidence.md]

Nothing is measured here. Every table is made from a file in benchmarks/results, whose command stands under it, and what
has no file yet is left out visibly. The words are those of benchmarks/evidence.md.jinja and, where they speak of what a
machine measured, of benchmarks/results/remarks.MACHINE.yaml, which a person writes. `make evidence` runs the
benchmarks first.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import yaml
from matplotlib import pyplot as plt

from benchmarks.harness import RESULTS, cut, machine, shown

ROOT = Path(__file__).parents[1]
TEMPLATE = Path(__file__).with_suffix(".md.jinja")
COSTS = (
    "curve",
    "curve-cifar10",
    "parity",
    "modes",
    "train_step",
    "update_step",
    "mixed_forward",
    "certify",
    "memory",
    "low_precision",
)
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Result:
    """A benchmark's result file.

    Args:
        record: what it holds.
    """

    record: Row

    @property
    def figures(self) -> Row:
        """What was measured."""
        figures: Row = self.record["figures"]
        return figures

    @property
    def origin(self) -> str:
        """The command, the machine and the versions, as the line under a table."""
        where, versions = self.record["machine"], self.record["versions"]
        told = ", ".join(f"{name} {version}" for name, version in versions.items())
        kind = f"{where['kind']}{' with bf16' if where.get('bf16') else ''}"
        return f"`{self.record['command']}`; {kind}, {where['threads']} thread(s); {told}"

    @property
    def claims(self) -> Sequence[Row]:
        """Figures with their floors."""
        claims: Sequence[Row] = self.record["claims"]
        return claims


def main() -> int:
    """Read, draw, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--machine", default=machine(), help="whose results; default: this one's, %(default)s")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "evidence.md")
    options = parser.parse_args()
    names = ("transfer", "transfer-long", "updates", "frontier", "composed", *COSTS)
    found = {name: result for name in names if (result := read(name, options.machine))}
    page = Page(options.page.parent / "images", remarks(options.machine))
    options.page.write_text(page.written(found), encoding="utf-8")
    print(f"{options.page}: {', '.join(found) or 'no results'}")
    return 0


def read(name: str, on: str) -> Result | None:
    """The result of a benchmark on a machine, if there is one."""
    path = RESULTS / f"{name}.{on}.json"
    return Result(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def remarks(on: str) -> dict[str, str]:
    """What a person who looked at a machine's results has to say of them, in Markdown, by the name of the result."""
    path = RESULTS / f"remarks.{on}.yaml"
    return dict(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


@dataclass(frozen=True)
class Page:
    """The page and its pictures.

    Args:
        pictures: their folder.
        remarks: see `remarks`.
    """

    pictures: Path
    remarks: Mapping[str, str]

    def written(self, found: Mapping[str, Result]) -> str:
        """The page as Markdown."""
        environment = jinja2.Environment(
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            autoescape=False,  # noqa: S701
        )
        environment.globals |= {
            "cells": lambda rows: list(dict.fromkeys((row["backbone"], row["epsilon"]) for row in rows)),
            "transfer_table": transfer_table,
            "transfer_gain": transfer_gain,
            "strict_table": strict_table,
            "transfer_picture": self.transfer_picture,
            "pairs": lambda rows: _names(rows, "pair"),
            "updates_table": updates_table,
            "strict_flips_table": strict_flips_table,
            "updates_cut": lambda rows, name: spread_of(cuts(rows, name)),
            "flips_picture": self.flips_picture,
            "frontier_table": frontier_table,
            "composed_table": composed_table,
            "parity_table": parity_table,
            "claims_table": claims_table,
        }
        text = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
        costs = {name: found[name] for name in COSTS if name in found}
        measured = {name.partition("-")[0] for name in costs}
        absent = [name for name in COSTS if name.partition("-")[0] not in measured]
        page = text.render(found=found, remarks=defaultdict(str, self.remarks), costs=costs, absent=absent)
        return re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n"

    def transfer_picture(self, rows: Sequence[Row], backbone: str, epsilon: str) -> str:
        """Accuracy over epsilon, the mean over seeds of each contender."""
        mine = [row for row in rows if (row["backbone"], row["epsilon"]) == (backbone, epsilon)]
        points = len(mine[0]["accuracy"])
        lines = {
            name: np.mean([row["accuracy"] for row in mine if row["contender"] == name], axis=0)
            for name in _names(mine, "contender")
        }
        return self._picture(f"evidence-{backbone}-{epsilon[0]}", lines, range(points), "accuracy, %")

    def flips_picture(self, rows: Sequence[Row]) -> str:
        """Negative flips over epsilon, the mean over pairs and seeds of each contender."""
        names = list(rows[0]["models"])
        lines = {
            name: np.mean([_values(row["models"][name]["flips by epsilon"]) for row in rows], axis=0) for name in names
        }
        lines["noise floor"] = np.mean([_values(row["noise floor"]["flips by epsilon"]) for row in rows], axis=0)
        return self._picture("evidence-flips", lines, range(len(lines["naive"])), "negative flips, %")

    def _picture(self, name: str, lines: Mapping[str, Any], at: Iterable[int], label: str) -> str:
        figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
        for contender, values in lines.items():
            axes.plot(list(at), 100 * np.asarray(values), marker="o", markersize=3, label=contender)
        axes.set(xlabel="epsilon, 1/255 (linf)", ylabel=label, ylim=(0, None))
        axes.legend(frameon=False, fontsize="small")
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{name}.svg"
        with plt.rc_context({"svg.hashsalt": name}):
            figure.savefig(path, metadata={"Date": None})
        plt.close(figure)
        return f"![{label} over epsilon](images/{path.name})"


def transfer_table(rows: Sequence[Row], backbone: str, epsilon: str) -> str:
    """Contenders of a backbone: means over seeds with the seeds' extremes, and the seeds' pooled images as interval."""
    mine = [row for row in rows if (row["backbone"], row["epsilon"]) == (backbone, epsilon)]
    head = (
        "schedule",
        "clean",
        "robust",
        "expected robustness",
        "delay, epochs",
        "reached",
        "passes an image",
        "learning rate",
    )
    body = []
    for name in _names(mine, "contender"):
        seeds = [row for row in mine if row["contender"] == name]
        delays = [row["delay"] for row in seeds]
        body.append(
            (
                name,
                *(spread_of([row[figure][0] for row in seeds]) for figure in ("clean", "robust", "expected")),
                ", ".join("never" if delay is None else str(delay) for delay in delays),
                "" if name == "standard" else ", ".join(f"{255 * row['reached']:.2g}" for row in seeds),
                f"{np.mean([row['passes an image'] for row in seeds]):.0f}",
                f"{seeds[0]['rate']:g}",
            )
        )
    return table(head, body)


def strict_table(rows: Sequence[Row]) -> str:
    """Robust accuracy by the whole AutoAttack beside that by another suite on the same images, every seed's."""
    suites = [name for name, value in rows[0].items() if isinstance(value, list)]
    keys = ("backbone", "epsilon", "contender")
    by: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by[tuple(row[key] for key in keys)].append(row)
    body = [
        (*names, *(seeds_of([row[suite] for row in mine]) for suite in suites), f"{len(mine)} x {mine[0]['images']}")
        for names, mine in by.items()
    ]
    return table(("network", "epsilon", "schedule", *suites, "seeds x images"), body)


def transfer_gain(rows: Sequence[Row], backbone: str, epsilon: str, name: str, over: str, figure: str) -> str:
    """By how many points a contender is above another, seed by seed."""
    values = {
        who: [
            row[figure][0]
            for row in rows
            if (row["backbone"], row["epsilon"], row["contender"]) == (backbone, epsilon, who)
        ]
        for who in (name, over)
    }
    gains = [100 * (one - other) for one, other in zip(values[name], values[over], strict=True)]
    return f"{np.mean(gains):+.1f} points ({', '.join(f'{gain:+.1f}' for gain in gains)} seed by seed)"


def updates_table(rows: Sequence[Row], pair: str | None = None) -> str:
    """Contenders of the updates: means over pairs and seeds with their extremes."""
    mine = [row for row in rows if pair in {None, row["pair"]}]
    head = ("new model", "clean", "robust", "clean flips", "robust flips", "union flips", "robust flips cut by")
    body: list[tuple[str, ...]] = [
        ("(old)", *(spread_of([row["old"][figure][0] for row in mine]) for figure in ("clean", "robust")), *[""] * 4)
    ]
    for name in mine[0]["models"]:
        figures = [
            spread_of([row["models"][name][figure][0] for row in mine])
            for figure in ("clean", "robust", "clean flips", "robust flips", "union flips")
        ]
        body.append((name, *figures, "" if name == "naive" else spread_of(cuts(mine, name))))
    noise = spread_of([row["noise floor"]["robust flips"][0] for row in mine])
    body.append(("(noise floor)", *[""] * 3, noise, *[""] * 2))
    return table(head, body)


def strict_flips_table(rows: Sequence[Row]) -> str:
    """Robustness and its negative flips by several suites, on the same images."""
    suites = list(rows[0]["suites"])
    head = ("what", "new model", *(f"{figure}, {suite}" for figure in ("robust", "robust flips") for suite in suites))
    body = [
        (
            row.get("pair", f"seed {row['seed']}"),
            name,
            *(shown(row["suites"][suite][name]["robust"]) for suite in suites),
            *(shown(row["suites"][suite][name]["robust flips"]) if name != "old" else "" for suite in suites),
        )
        for row in rows
        for name in row["suites"][suites[0]]
    ]
    return table((*head, "images"), [(*line, str(rows[0]["images"])) for line in body])


def cuts(rows: Sequence[Row], name: str) -> list[float]:
    """By which share a contender has fewer robustness negative flips than the naive swap."""
    return [cut(*(row["models"][who]["robust flips"][0] for who in ("naive", name))) for row in rows]


def frontier_table(figures: Row) -> str:
    """Both branches and every mixture, with intervals, and what each wins and gives up."""
    body = [
        (
            name,
            shown(row["clean"]),
            shown(row["robust"]),
            *(f"{100 * row[share]:.0f} %" if share in row else "" for share in ("won back", "given up")),
        )
        for name, row in figures.items()
        if isinstance(row, dict) and "clean" in row
    ]
    return table(("model", "clean", "robust", "of the gap won back", "of robustness given up"), body)


def composed_table(rows: Sequence[Row]) -> str:
    """The products of every seed."""
    head = ("seed", "robust branch", "alpha", "clean", "robust", "clean flips", "robust flips", "gate")
    body = [
        (
            str(row["seed"]),
            name,
            f"{one['alpha']:g}",
            *(
                shown(one[figure]) if figure in one else ""
                for figure in ("clean", "robust", "clean flips", "robust flips")
            ),
            one["gate"]["outcome"] if "gate" in one else "",
        )
        for row in rows
        for name, one in row["products"].items()
    ]
    return table(head, body)


def parity_table(cells: Sequence[Row]) -> str:
    """Networks judged by poise and by official AutoAttack: what each attack broke, and where verdicts differ."""
    head = (
        "network",
        "threat",
        "images",
        "judge",
        "right",
        "broken by each attack",
        "robust",
        "CPU seconds",
        "differing",
    )
    body = [
        (
            *((cell["network"], cell["threat"], str(cell["images"])) if judge == "poise" else ("", "", "")),
            judge,
            str(cell[judge]["clean"]),
            ", ".join(f"{attack} {count}" for attack, count in cell[judge]["broken by"].items()),
            str(cell[judge]["robust"]),
            f"{cell[judge]['seconds']:.0f}",
            str(len(cell[f"broken by {judge} alone"])),
        )
        for cell in cells
        for judge in ("poise", "official")
    ]
    return table(head, body)


def claims_table(results: Mapping[str, Result]) -> str:
    """Figures beside their floors."""
    body = [
        (name, claim["name"], f"{claim['value']:.3g}", f"{claim['floor']:g}", "yes" if claim["holds"] else "**no**")
        for name, result in results.items()
        for claim in result.claims
    ]
    return table(("benchmark", "figure", "measured", "floor", "holds"), body)


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread_of(shares: Sequence[float]) -> str:
    """The mean of some shares and, where there are several, their extremes, in %."""
    if not shares:
        return "-"
    mean = f"{100 * float(np.mean(shares)):.1f}"
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def seeds_of(estimates: Sequence[Sequence[float]]) -> str:
    """What several seeds say (`spread_of`); of one seed alone its interval over images."""
    return spread_of([value for value, *_ in estimates]) if len(estimates) > 1 else shown(estimates[0])


def _names(rows: Sequence[Row], key: str) -> list[str]:
    return list(dict.fromkeys(row[key] for row in rows))


def _values(by: Mapping[str, Sequence[float]]) -> list[float]:
    return [estimate[0] for estimate in by.values()]


if __name__ == "__main__":
    sys.exit(main())
