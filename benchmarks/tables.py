"""Tables of docs/evidence.md, in Markdown, from the figures of result files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.intervals import Interval, cut, mean, shown

Row = Mapping[str, Any]

ARGUMENTS = ("probabilities", "margins", "local")
"""By which a radius is proven, each at least as large as by the one before."""


def transfer_table(figures: Row, backbone: str, epsilon: str) -> str:
    """Contenders of a backbone: means over seeds with the seeds' extremes; differences with intervals over images."""
    mine, gains = (_of(figures.get(key, []), backbone=backbone, epsilon=epsilon) for key in ("rows", "gains"))
    below = {row["contender"]: row["clean below standard"] for row in gains if "clean below standard" in row}
    chosen = any(name.endswith(", best") for name in _names(mine, "contender"))
    head = (
        *("schedule", "clean", *(["below standard"] if below else []), "robust", "expected robustness"),
        *(
            "delay, epochs",
            *(["epoch kept"] if chosen else []),
            "reached",
            "passes an image",
            "minutes",
            "learning rate",
        ),
    )
    body = []
    for name in _names(mine, "contender"):
        seeds = _of(mine, contender=name)
        clean, robust, expected = (spread_of([row[key][0] for row in seeds]) for key in ("clean", "robust", "expected"))
        body.append(
            (
                name,
                clean,
                *(["" if name == "standard" else _points(below.get(name))] if below else []),
                robust,
                expected,
                ", ".join("never" if row["delay"] is None else str(row["delay"]) for row in seeds),
                *([", ".join(str(row["kept"]) for row in seeds)] if chosen else []),
                "" if name == "standard" else ", ".join(f"{255 * row['reached']:.2g}" for row in seeds),
                f"{np.mean([row['passes an image'] for row in seeds]):.0f}",
                f"{np.median([row['seconds'] for row in seeds]) / 60:.1f}",
                f"{seeds[0]['rate']:g}",
            )
        )
    return table(head, body)


def gains_table(figures: Row, backbone: str, epsilon: str) -> str:
    """What each schedule of a backbone wins and loses against the fixed epsilon, with intervals over images."""
    over = ("clean over fixed", "robust over fixed", "expected over fixed")
    mine = _of(figures.get("gains", []), backbone=backbone, epsilon=epsilon)
    scheduled = [row for row in mine if row["contender"] not in ("standard", row.get("rival", "fixed"))]
    body = [(_against(row), *(_points(row[name]) for name in over)) for row in scheduled]
    return table(("over the fixed epsilon, points", "clean", "robust", "expected robustness"), body)


def _against(row: Row) -> str:
    """A contender, and what it is compared with where that is not the fixed epsilon as it ended."""
    return f"{row['contender']}, over {rival}" if (rival := row.get("rival", "fixed")) != "fixed" else row["contender"]


def strict_table(rows: Sequence[Row], gains: Mapping[str, Sequence[Row]]) -> str:
    """Robustness by the whole AutoAttack beside that by another suite on the same images, every seed's."""
    columns = [(figure, suite) for figure in ("robust", "expected") for suite in gains]
    cell = ("backbone", "epsilon", "contender")
    by: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        by[tuple(row[key] for key in cell)].append(row)
    body = []
    for names, mine in by.items():
        gained = [_of(each, **dict(zip(cell, names, strict=True)))[0] for each in gains.values()]
        body.append(
            (
                *names,
                *(spread_of([row[suite][figure][0] for row in mine]) for figure, suite in columns),
                *("" if "fixed" in names else _points(each["expected over fixed"]) for each in gained),
                f"{len(mine)} x {mine[0]['images']}",
            )
        )
    head = ("network", "epsilon", "schedule", *(f"{figure}, {suite}" for figure, suite in columns))
    return table((*head, *(f"over fixed, {suite}" for suite in gains), "seeds x images"), body)


def updates_table(rows: Sequence[Row], pair: str | None = None) -> str:
    """Contenders of the updates: means over pairs and seeds with their extremes."""
    mine = rows if pair is None else _of(rows, pair=pair)
    flips = ("clean flips", "robust flips", "union flips")
    old = (spread_of([row["old"][figure][0] for row in mine]) for figure in ("clean", "robust"))
    body: list[tuple[str, ...]] = [("(old)", *old, "", "", "", "")]
    for name in mine[0]["models"]:
        columns = [spread_of([row["models"][name][key][0] for row in mine]) for key in ("clean", "robust", *flips)]
        body.append((name, *columns, "" if name == "naive" else spread_of(cuts(mine, name))))
    noise = [spread_of([row["noise floor"][figure][0] for row in mine]) for figure in flips]
    body.append(("(attack noise)", "", "", *noise, ""))
    return table(("new model", "clean", "robust", *flips, "robust flips cut by"), body)


def flips_table(rows: Sequence[Row]) -> str:
    """Negative flips at every epsilon of the grid: means over pairs and seeds."""
    grid = list(rows[0]["models"]["naive"]["flips by epsilon"])
    found: dict[str, list[Any]] = defaultdict(list)
    for row in rows:
        for name, model in {**row["models"], "(attack noise)": row["noise floor"]}.items():
            found[name].append([model["flips by epsilon"][at][0] for at in grid])
    body = [(name, *(f"{100 * each:.1f}" for each in np.mean(values, axis=0))) for name, values in found.items()]
    return table(("flips at epsilon, %", *grid), body)


def updates_cut(rows: Sequence[Row], name: str) -> str:
    """By how much a contender cuts robustness negative flips: the mean over pairs, with the interval over seeds."""
    return shown(over_seeds(rows, lambda mine: cuts(mine, name)))


def over_seeds(rows: Sequence[Row], values: Callable[[Sequence[Row]], Sequence[float]]) -> Interval:
    """A mean with its interval over seeds, of which each counts once, however many rows it has."""
    return mean([float(np.mean(values(_of(rows, seed=seed)))) for seed in _names(rows, "seed")])


def cuts(rows: Sequence[Row], name: str, figure: str = "robust flips") -> list[float]:
    """By which share a contender has fewer flips than the naive swap, row by row."""
    return [cut(*(row["models"][who][figure][0] for who in ("naive", name))) for row in rows]


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


def frontier_table(models: Mapping[str, Row]) -> str:
    """Both branches and every mixture on test images, what each wins and gives up, and what speaks against a figure."""
    body = [
        (
            name,
            _chosen(row),
            shown(row["clean"]),
            shown(row["robust"]),
            *(shown(row[share]) if share in row else "" for share in ("won back", "given up")),
            "; ".join(row["objections"]),
        )
        for name, row in models.items()
    ]
    return table(("model", "chosen", "clean", "robust", "gap won back", "robustness given up", "objections"), body)


def tried_table(models: Mapping[str, Row], name: str) -> str:
    """What a mixture was chosen among, on validation images."""
    points = models[name]["tried"]["points"]
    body = [(point["name"], shown(point["clean"]), shown(point["robust"])) for point in points]
    return table((f"{name}, validation images", "clean", "robust"), body)


def levers_table(levers: Sequence[Row]) -> str:
    """What the robust branch's margins allow a constant alpha."""
    body = [tuple(f"{100 * lever[figure]:.1f}" for figure in ("keep", "scaled", "sharpened")) for lever in levers]
    return table(("right under attack, and to be kept", "mistakes within reach, scaled", "sharpened"), body)


def _chosen(row: Row) -> str:
    at = row.get("tried", {}).get("chosen")
    return "" if at is None else str(row["tried"]["points"][at]["name"])


def composed_table(rows: Sequence[Row]) -> str:
    """The products of every seed."""
    flips = ("clean flips", "robust flips", "union flips")
    body = [
        (
            str(row["seed"]),
            name,
            f"{one['alpha']:g}",
            *(shown(one[figure]) if figure in one else "" for figure in ("clean", "robust", *flips)),
            _gate(one["gate"]) if "gate" in one else "",
            "; ".join(one["objections"]),
        )
        for row in rows
        for name, one in row["products"].items()
    ]
    return table(("seed", "robust branch", "alpha", "clean", "robust", *flips, "gate", "objections"), body)


def _gate(gate: Row) -> str:
    """A gate's outcome, with the limits that did not pass; of an outcome other than the gate's, it is said."""
    own = gate["outcome"]
    missed = [f"{limit}{'' if each == own else f' ({each})'}" for limit, each in gate["limits"] if each != "passed"]
    return f"{own}: {'; '.join(missed)}" if missed else str(own)


def certified_table(figures: Row, kind: str) -> str:
    """Certified accuracy over radius, means over seeds.

    Args:
        figures: of the benchmark of guarantees.
        kind: "smoothed", or "bounded", with the mean radius by each argument in thousandths.
    """
    rows = figures[kind]
    keys = [key for key in ("alpha", "scale") if key in rows[0]]
    arguments = [name for name in ARGUMENTS if any(name in row.get("by", ()) for row in rows)]
    body = []
    for cell in dict.fromkeys(tuple(row[key] for key in keys) for row in rows):
        mine = _of(rows, **dict(zip(keys, cell, strict=True)))
        shares = zip(*([row["clean"][0], *(each[0] for each in row["certified"])] for row in mine), strict=True)
        radii = ([row["by"][name] for row in mine if name in row["by"]] for name in arguments)
        thousandths = (f"{1000 * float(np.mean(each)):.2f}" if each else "" for each in radii)
        body.append((*(f"{each:g}" for each in cell), *(spread_of(each) for each in shares), *thousandths))
    certified = (f"certified at {radius:g}" for radius in figures["radii"][kind])
    return table((*keys, "clean", *certified, *(f"1000 x mean radius by {name}" for name in arguments)), body)


def proven_and_withstood(figures: Row) -> str:
    """What is proven and what attacks leave of the same images, the first seed's, and where the two disagree."""
    against = ("certified and broken", "certified and wrong as they are")
    body = []
    for row in figures["smoothed"]:
        if "withstood" in row:
            pairs = zip(row["certified of these"], row["withstood"], strict=True)
            both = (f"{100 * low[0]:.0f} of {100 * high[0]:.0f}" for low, high in pairs)
            body.append((f"{row['alpha']:g}", *both, *(str(row[name]) for name in against)))
    return table(("alpha", *(f"at {radius:g}" for radius in figures["radii"]["smoothed"]), *against), body)


def attacked_certificates(rows: Sequence[Row]) -> str:
    """Certificates of several models, each attacked within its own radius."""
    body = [
        (row["name"], f"{row['certified']} of {row['images']}", f"{row['radius']:.3g}", str(row["broken"]))
        for row in rows
    ]
    return table(("model, method, norm", "certified", "mean radius of these", "broken"), body)


def parity_table(cells: Sequence[Row]) -> str:
    """Networks judged by poise and by official AutoAttack: what each attack broke, and where verdicts differ."""
    head = (
        *("network", "threat", "images", "judge", "right"),
        *("broken by each attack", "robust", "CPU seconds", "differing"),
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


def claims_table(results: Mapping[str, Any]) -> str:
    """Figures beside their floors, by benchmark."""
    body = [(name, *_claim(claim)) for name, result in results.items() for claim in result.claims]
    return table(("benchmark", "figure", "measured", "wanted", "holds"), body)


def claims_of(result: Any) -> str:
    """A single benchmark's figures beside their floors."""
    return table(("figure", "measured", "wanted", "holds"), [_claim(claim) for claim in result.claims])


def _claim(claim: Row) -> tuple[str, str, str, str]:
    """A figure with its interval, the floor with its direction, and whether it holds, as far as that can be said."""
    low, high = claim.get("interval") or (claim["value"], claim["value"])
    within = f" [{low:.3g}, {high:.3g}]" if low < high else ""
    holds = "yes" if claim["holds"] else "**no**"
    if low <= claim["floor"] <= high and low < high:
        holds += ", within chance"
    bound = f"at {'most' if claim['most'] else 'least'} {claim['floor']:g}"
    return claim["name"], f"{claim['value']:.3g}{within}", bound, holds


def table(head: Sequence[str], body: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread_of(shares: Sequence[float]) -> str:
    """The mean of some shares and, where there are several, their extremes, in %."""
    if not shares:
        return "-"
    average = f"{100 * float(np.mean(shares)):.1f}"
    return average if len(shares) == 1 else f"{average} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def _points(difference: Sequence[float] | None) -> str:
    """A difference of shares with its interval, in points."""
    return "" if difference is None else "{:+.1f} [{:+.1f}, {:+.1f}]".format(*(100 * each for each in difference))


def _of(rows: Sequence[Row], **values: object) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[key] == value for key, value in values.items())]


def _names(rows: Sequence[Row], key: str) -> list[Any]:
    return list(dict.fromkeys(row[key] for row in rows))


def cells(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """Backbones with their epsilons, in the order of the rows."""
    return list(dict.fromkeys((row["backbone"], row["epsilon"]) for row in rows))


def pairs(rows: Sequence[Row]) -> list[str]:
    """Pairs of old and new networks, in the order of the rows."""
    return _names(rows, "pair")


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (
        *(transfer_table, gains_table, strict_table, updates_table, flips_table, updates_cut, strict_flips_table),
        *(frontier_table, tried_table, levers_table, composed_table, certified_table, proven_and_withstood),
        *(attacked_certificates, parity_table),
        *(claims_table, claims_of, cells, pairs),
    )
}
"""What the page's template calls."""
