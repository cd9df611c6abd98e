"""Telling a person, during a training and after it, whether the network takes up its task."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor

from poise.attacks import Attack
from poise.commands.recipe import plain, read_recipe
from poise.commands.telling.terminal import say
from poise.core.files import write_text
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.data import ImageSet
from poise.evaluation import share
from poise.objectives import Guarded, innermost, layers
from poise.training import Adaptation, Noted, Setting, Task, adaptation, foreseen, is_main, kept

_SAME = ("data", "image_size", "limit", "validate_on")
"""Options that decide which images a validation looks at."""

_DOUBT = 0.05
"""Probability with which some class may seem larger than it is."""


def standard_accuracy(address: str | None, options: Mapping[str, object]) -> float | None:
    """Final clean validation accuracy of a standard fine-tuning, to compare with.

    Args:
        address: run:FOLDER; None for none.
        options: those of the run to compare, whose validation images must be the same.

    Raises:
        Misuse: if there is no such run, it was not standard fine-tuning, has not ended, measured nothing, or measured
            it on other images.
    """
    if address is None:
        return None
    kind, _, name = address.partition(":")
    if kind != "run" or not name:
        raise Misuse(f"compare_with names a run of standard fine-tuning, as run:FOLDER; got {address!r}")
    folder = RunFolder.open(Path(name))
    recipe = read_recipe(folder.recipe)
    if (found := _kind(recipe.get("objective"))) != "standard":
        raise Misuse(f"{address} was trained with the objective {found}; compare_with wants one with standard")
    for option in _SAME:
        ours, theirs = plain(options.get(option)), recipe.get(option)
        if ours != theirs:
            raise Misuse(f"{address} was validated on other images: its {option} is {theirs}, here it is {ours}")
    rows = folder.history() if folder.weights.exists() else []
    clean = kept(rows, recipe.get("keep", "last"), attacked=False).get("validation/clean") if rows else None
    if not isinstance(clean, int | float) or not math.isfinite(clean):
        raise Misuse(f"{address} holds no clean validation accuracy to compare with; let it end, with validation")
    return float(clean)


def _kind(objective: Any) -> str:
    """The kind of objective that a recipe's wrappers come down to."""
    if isinstance(objective, dict) and "objective" in objective:
        return _kind(objective["objective"])
    return str(objective.get("kind")) if isinstance(objective, dict) else str(objective)


def setting_of(task: Task, standard: float | None, validated: ImageSet | None) -> Setting:
    """What a task's history is measured under.

    Args:
        task: the training.
        standard: clean accuracy to compare with.
        validated: the validation images; None for none.
    """
    return Setting(
        classes=task.classifier.num_classes,
        epochs=task.options.epochs,
        target=float(task.threat.epsilon),
        robust=task.attacked,
        schedule=task.schedule,
        standard=standard,
        switches=any(isinstance(each, Guarded) and each.switch for each in layers(task.objective)),
        largest=0.0 if validated is None else _largest(validated.labels, task.classifier.num_classes),
        keep=task.keep,
    )


def threshold_of(images: ImageSet) -> float:
    """The clean accuracy on these images from which on their task counts as taken up."""
    classes = len(images.classes)
    return Setting(classes=classes, epochs=1, target=0.0, largest=_largest(images.labels, classes)).threshold


def _largest(labels: Int[Tensor, " n"], classes: int) -> float:
    """The share that the largest class has for certain: of few images one of many classes is the largest by chance."""
    return share(int(labels.bincount().max()), len(labels), 1 - _DOUBT / classes).low


def plan_of(task: Task) -> str:
    """What a training is about to do, in a line; it says in which mode of the network its images are attacked."""
    told = f"schedule {plain(task.schedule)['kind']}, objective {plain(task.objective)['kind']}"
    attack = getattr(innermost(task.objective), "attack", None)
    if not isinstance(attack, Attack):
        return told
    return f"{told}, images attacked by {plain(attack)['kind']} with the network in {attack.model_mode} mode"


def attending(folder: RunFolder, setting: Setting) -> Noted:
    """Somebody who says what can be foreseen, looks at every epoch and says what is the matter, each thing once."""
    said = {remark.kind for remark in adaptation(folder.history(), setting).remarks}  # before it was interrupted
    if (remark := foreseen(setting)) is not None:
        say(f"{folder.path.name}: {remark.text}")

    def look(_: Mapping[str, float]) -> None:
        for remark in adaptation(folder.history(), setting).remarks:
            if remark.kind not in said:
                said.add(remark.kind)
                say(f"{folder.path.name}: {remark.text}")

    return look


def conclusion(folder: RunFolder, setting: Setting) -> Adaptation:
    """What the whole history says: kept in the run folder, its figures told to the person."""
    found = adaptation(folder.history(), setting)
    if is_main():
        write_text(folder.adaptation, json.dumps(found.record(), indent=1) + "\n")
    if found.clean is not None:
        say(f"{folder.path.name}: {_summary(found, setting)}")
    return found


def _summary(found: Adaptation, setting: Setting) -> str:
    threshold = f"{100 * found.threshold:.3g} %"
    start = (
        f"never above {threshold} clean" if found.delay is None else f"above {threshold} clean from epoch {found.delay}"
    )
    parts = [start, f"{_whose(found, setting)} {100 * (found.clean or 0.0):.1f} % clean"]
    if found.robust is not None:
        parts.append(f"{100 * found.robust:.1f} % robust")
    if found.gap is not None:
        parts.append(f"{100 * abs(found.gap):.1f} points {'below' if found.gap >= 0 else 'above'} standard fine-tuning")
    return f"validation: {', '.join(parts)}"


def _whose(found: Adaptation, setting: Setting) -> str:
    """Which epoch's figures follow."""
    return "in the end" if setting.keep == "last" else f"with the weights kept, of epoch {found.kept},"
