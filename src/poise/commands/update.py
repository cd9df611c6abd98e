"""Update a model without regression: train the new one on while it keeps what the old one did right."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from poise.commands.fitting.fit import begun, fit, seconds
from poise.commands.fitting.validation import check_heard
from poise.commands.opening import Source, open_whole, placed, tell_repeats
from poise.commands.recipe import options_among, write_recipe
from poise.commands.rehearsal.demand import examination_work, training_works
from poise.commands.rehearsal.estimate import Work
from poise.commands.run import Run, recipe_of, threat_of
from poise.commands.telling.terminal import say
from poise.commands.updating.regression import Regression, fast_examination
from poise.commands.updating.trials import Trial, Weights, adopt, chosen, objectives_tried, print_trials, write_trials
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import Augmentation, ImageSet, sample
from poise.models import Classifier
from poise.objectives import RCAT, Objective
from poise.schedules import Fixed, Schedule
from poise.training import Task, Training, check_task, on_main


def update(
    old: str,
    new: str,
    data: str | None = None,
    *,
    old_weights: str | None = None,
    new_weights: str | None = None,
    threat: Threat | None = None,
    schedule: Schedule = Fixed(),
    objective: Objective = RCAT(),
    grid: list[Weights] | None = None,
    tolerance: float = 0.0,
    training: Training = Training(epochs=10, optimizer="sgd", weight_decay=0.0),
    augmentation: Augmentation = "finetune",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    validate_on: int = 1000,
    trackers: tuple[str, ...] = ("tensorboard",),
    out: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
) -> Run:
    """Replace a deployed model by a better one without taking back what the deployed one did right.

    Training starts from the new model, with old and new frozen beside it. After each epoch the model in training is
    attacked on validation images and compared with the old model's own verdicts. An objective with weights alpha and
    beta is trained once for each pair of a grid, and the trial with the fewest flips is taken: clean and robust in
    union, on validation images, among those that lose nothing of the new model's clean and robust accuracy, unless
    a tolerance says otherwise. Test images play no part. The table of all trials stands in trials.json.

    Args:
        old: address of the deployed model.
        new: address of the model that shall take its place.
        data: address of the images; by default those that the new run was trained on.
        old_weights: a local weights file for the old model; by default what its address carries.
        new_weights: a local weights file for the new model.
        threat: what the models shall withstand; by default the new run's.
        schedule: how epsilon grows to the threat's, as in fine-tuning; all but adaptive.
        objective: what a step minimises: rcat, pcat, pct or constrained.
        grid: pairs [[alpha, beta], ...] to try beside the objective's own; by default those published for it, [] for
            none.
        tolerance: how far clean and robust validation accuracy may fall below the new model's, as a share.
        training: epochs, batch size, optimiser and the like.
        augmentation: random changes of training images: none, flip, crop (flip and shift), finetune (flip, colour,
            rotation).
        image_size: resize the shorter side to this and crop the centre; by default as the new run.
        limit: use this many images of each split, the same ones every time; by default as the new run.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        validate_on: judge and choose on this many validation images.
        trackers: where accelerate sends the figures of every epoch; [] for nowhere.
        out: the run folder to create; by default runs/update, with a number behind it where that exists.
        resume: go on with the interrupted run in `out`, with the recipe it was started with.
        seed: decides everything random.

    Returns:
        The run, with the weights of the trial that was chosen.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    parent = recipe_of(new)
    source = Source.of(parent, data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    threat = threat or Threat(**threat_of(new))
    out = None if out is None else Path(out)
    options = options_among(locals(), update, but=("resume",))
    options |= asdict(source)
    tried = objectives_tried(objective, grid)
    if validate_on < 1:
        raise Misuse(f"validate_on must be at least 1: an update is chosen by its flips; got {validate_on}")
    check_heard(schedule, ("clean", "robust"), "an update")
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise Misuse(f"tolerance must be a share of at least 0; got {tolerance}")
    if tolerance >= 1:
        raise Misuse(f"tolerance is a share, and {tolerance:g} allows any loss; did you mean {tolerance / 100:g}?")
    splits = source.open()
    pair = Pair(
        open_whole(old, splits.train, weights=old_weights, seed=seed),
        open_whole(new, splits.train, weights=new_weights, seed=seed),
    )
    if pair.old.digest() == pair.new.digest():
        say(f"{old} and {new} are one and the same model: there is nothing that the new one could lose")
    tasks = {
        name: Task(pair.new, splits.train, each, schedule, threat, training, augmentation, seed, pair.references(each))
        for name, each in tried.items()
    }
    for task in tasks.values():
        check_task(task, trackers)
    images = sample(splits.validation, validate_on)
    folder = begun("update", options, out, resume=resume, works=lambda: _works(pair, tasks, images))
    tell_repeats(splits)
    if not on_main(folder.weights.exists):
        _choose(folder, options, pair, tasks, images)
    say(f"{folder.path}: {len(tasks)} trial{'s' * (len(tasks) > 1)} of {training.epochs} epochs")
    return Run(folder)


@dataclass(frozen=True)
class Pair:
    """The two models of an update; neither is changed.

    Args:
        old: the deployed one.
        new: the one that shall take its place.
    """

    old: Classifier
    new: Classifier

    def references(self, objective: Objective) -> dict[str, Classifier]:
        """Those of them that an objective looks at."""
        return {role: model for role, model in (("old", self.old), ("new", self.new)) if role in objective.roles}


def _choose(
    folder: RunFolder, options: Mapping[str, Any], pair: Pair, tasks: Mapping[str, Task], images: ImageSet
) -> None:
    """Train every trial that is not finished, take one, and leave its model in the run's folder."""
    for model in (pair.old, pair.new):
        placed(model)
    regression = Regression(pair.old, images, options["threat"], options["seed"])
    trials = [Trial("new", regression(pair.new))]
    for name, task in tasks.items():
        place = on_main(partial(_trial_folder, folder, name, {**options, "objective": task.objective}))
        ours = replace(task, classifier=copy.deepcopy(pair.new))
        fit(ours, place, f"{folder.path.name}: {name}", validate=regression, trackers=options["trackers"])
        trials.append(Trial(name, _measured(place)))
        say(f"{folder.path.name}: {name}, {seconds(place):.1f} s")
    on_main(partial(_settle, folder, trials[0], trials[1:], options["tolerance"], len(images)))


def _works(pair: Pair, tasks: Mapping[str, Task], images: ImageSet) -> list[Work]:
    """All trials, each judged after every epoch, and the old and the new model judged once."""
    works = [work for task in tasks.values() for work in training_works(task)]
    task = next(iter(tasks.values()))
    judged = examination_work(
        placed(pair.new), images, fast_examination(task.threat, task.seed), "validation after every epoch, and before"
    )
    return [*works, judged * (2 + len(tasks) * task.options.epochs)]


def _trial_folder(folder: RunFolder, name: str, options: Mapping[str, Any]) -> RunFolder:
    """The folder of one trial, with a recipe that makes it again as a run of its own."""
    place = RunFolder(folder.path / "trials" / name)
    place.path.mkdir(parents=True, exist_ok=True)
    write_recipe(place, "update", {**options, "grid": [], "out": None})
    return place


def _measured(place: RunFolder) -> dict[str, float]:
    """What validation found after a trial's last epoch."""
    last = place.history()[-1].items()
    return {name.removeprefix("validation/"): value for name, value in last if name.startswith("validation/")}


def _settle(folder: RunFolder, new: Trial, trials: Sequence[Trial], tolerance: float, images: int) -> None:
    """Take a trial: the table of all is kept and printed, and the model of that one put in the run's folder."""
    best, keeps = chosen(new, trials, tolerance)
    if not keeps:
        say(
            f"no trial keeps clean and robust accuracy within {tolerance:.1%} of the new model's on the {images} "
            f"validation images; {best.name} is taken, which loses least: try fewer epochs or a smaller learning rate, "
            "or allow a loss with --tolerance"
        )
    if best.figures["union_flips"] >= new.figures["union_flips"] > 0:
        say(
            f"no trial flips less than the new model as it is: {best.name} loses {best.figures['union_flips']:.1%} of "
            f"the {images} validation images, clean or robust, and new {new.figures['union_flips']:.1%}; release new "
            "as it is, or try other weights (--grid), fewer epochs or another learning rate"
        )
    write_trials(folder, [new, *trials], best)
    print_trials([new, *trials], f"{images} validation images, suite fast, in %; * taken", best)
    adopt(RunFolder(folder.path / "trials" / best.name), folder)
