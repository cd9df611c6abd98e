"""Several trainings that differ in an objective's weights, and the choice among them by what they lose."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from poise.core.files import write_text, written_whole
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.objectives import Objective

Weights = tuple[float, float]
"""alpha and beta of an objective."""

_ROUNDING = 1e-9
"""Far below the share of one image: 0.9 - 0.895 is more than 0.005 in floating point."""

_COLUMNS = ("clean", "robust", "clean_flips", "robust_flips", "union_flips")


@dataclass(frozen=True)
class Trial:
    """One contender, judged on validation images.

    Args:
        name: "new" for the model as it came, else see `objectives_tried`.
        figures: see `poise.commands.updating.regression.flip_figures`.
    """

    name: str
    figures: Mapping[str, float]


def objectives_tried(objective: Objective, grid: Sequence[Weights] | None) -> dict[str, Objective]:
    """The objective with its own weights and with those of a grid, by a name such as "alpha-0.5-beta-0.4".

    Args:
        objective: what is asked for; one without such weights is tried alone, under the name of its kind.
        grid: further (alpha, beta); None for those published for this objective, if any.

    Raises:
        Misuse: for a grid of weights that the objective does not have, or refuses.
    """
    if not {"alpha", "beta"} <= {field.name for field in fields(objective)}:
        if grid:
            raise Misuse(f"{type(objective).__name__} has no weights alpha and beta; leave grid out")
        return {type(objective).__name__.lower(): objective}
    points = getattr(objective, "published", ()) if grid is None else grid
    every = [objective, *(_weighing(objective, alpha, beta) for alpha, beta in points)]
    return {_name(each): each for each in every}


def _weighing(objective: Any, alpha: float, beta: float) -> Objective:
    changed: Objective = replace(objective, alpha=float(alpha), beta=float(beta))
    return changed


def _name(objective: Any) -> str:
    return f"alpha-{objective.alpha:g}-beta-{objective.beta:g}"


def chosen(new: Trial, trials: Sequence[Trial], tolerance: float) -> tuple[Trial, bool]:
    """The trial with the fewest union flips among those that keep clean and robust accuracy, and whether there are any.

    Where none keeps both, the one whose larger loss is smallest.

    Args:
        new: the new model as it came, whose accuracies are to be kept.
        trials: the contenders, at least one.
        tolerance: how far each accuracy may fall below the new model's.
    """

    def fall(trial: Trial) -> float:
        return max(new.figures[name] - trial.figures[name] for name in ("clean", "robust"))

    keeping = [trial for trial in trials if fall(trial) <= tolerance + _ROUNDING]
    if not keeping:
        return min(trials, key=fall), False
    return min(keeping, key=lambda trial: (trial.figures["union_flips"], -trial.figures["robust"])), True


def adopt(trial: RunFolder, folder: RunFolder) -> None:
    """Copy a finished trial's metrics and model to the run's folder, the weights last."""
    for source, target in (
        (trial.metrics, folder.metrics),
        (trial.weights.with_suffix(".json"), folder.weights.with_suffix(".json")),
        (trial.weights, folder.weights),
    ):
        with written_whole(target) as partial:
            shutil.copyfile(source, partial)


def write_trials(folder: RunFolder, rows: Sequence[Trial], best: Trial) -> None:
    """Keep the table as trials.json."""
    table = [{"trial": row.name, "chosen": row is best, **row.figures} for row in rows]
    write_text(folder.path / "trials.json", json.dumps(table, indent=1) + "\n")


def print_trials(rows: Sequence[Trial], title: str, best: Trial | None = None) -> None:
    """Print a table of trials on standard output, in %, with a star behind the best."""
    table = Table("trial", title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in _COLUMNS:
        table.add_column(column.replace("_", " "), justify="right")
    for row in rows:
        mark = " *" if row is best else ""
        table.add_row(row.name + mark, *(f"{100 * row.figures[column]:.1f}" for column in _COLUMNS))
    Console().print(table)
