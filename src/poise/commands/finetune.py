"""Fine-tune a classifier: robustly with a schedule, or in the ordinary way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

from poise.commands.fitting.diagnosis import attending, conclusion, plan_of, setting_of, standard_accuracy
from poise.commands.fitting.fit import begun, fit, seconds
from poise.commands.fitting.validation import Judging, check_validation, validation, validation_works
from poise.commands.opening import Source, introduce, tell_reach, tell_repeats
from poise.commands.recipe import changes, options_among
from poise.commands.rehearsal.demand import training_works
from poise.commands.rehearsal.estimate import Work
from poise.commands.run import Run
from poise.commands.telling.terminal import say
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import Augmentation, ImageSet, Split, Splits
from poise.models import open_model
from poise.objectives import Adversarial, Objective
from poise.schedules import Hinge, Schedule
from poise.training import (
    Keep,
    Noted,
    Task,
    Training,
    Transfer,
    Whole,
    check_task,
    goes_on,
    newest_checkpoint,
)


def finetune(
    model: str,
    data: str = "digits",
    *,
    weights: str | None = None,
    threat: Threat = Threat(),
    schedule: Schedule = Hinge(),
    objective: Objective = Adversarial(),
    training: Training = Training(),
    transfer: Transfer = Whole(),
    augmentation: Augmentation = "finetune",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    validate_on: int = 500,
    keep: Keep = "last",
    compare_with: str | None = None,
    trackers: tuple[str, ...] = ("tensorboard",),
    out: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
) -> Run:
    """Fine-tune a pretrained classifier on your images so that it withstands adversarial examples.

    The run folder gets the recipe, the weights, the metrics of every epoch and checkpoints; nothing is created unless
    model and data can be opened and fit each other. Under `accelerate launch` the processes share every batch and every
    validation, and take the steps that one would take; the main one writes.

    Args:
        model: address of the network: timm:NAME, run:FOLDER, python:pkg.module:factory, small, resnet18.
        data: address of the images: digits, folder:PATH, parquet:FOLDER, hf:NAME, torchvision:NAME.
        weights: a local weights file, or "random"; by default what the address itself carries.
        threat: what the model shall withstand.
        schedule: how epsilon grows to the threat's: hinge, fixed, linear, cosine, random, automatic (starts when clean
            accuracy stops improving) or adaptive (follows what the network can take).
        objective: what a step minimises: adversarial, trades, mart or standard; or one of them inside averaged (weights
            averaged over steps), awp (adversarial weight perturbation), labelsmoothing, guarded (notices catastrophic
            overfitting) or noisy (for randomised smoothing), as in --objective averaged --objective.objective trades
            --objective.objective.beta 6.
        training: epochs, batch size, optimiser and the like.
        transfer: which weights are trained: whole, head, last (blocks), probe (the head first, then all) or lora.
        augmentation: random changes of training images: none, flip, crop (flip and shift), finetune (flip, colour,
            rotation); choose none where mirrored images mean something else, as digits and letters do.
        image_size: resize the shorter side to this and crop the centre.
        limit: use this many images of each split, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        validate_on: measure clean and robust accuracy on this many validation images after each epoch; 0 for none.
        keep: which epoch's weights the run ends with: the last one's, or best, those that withstand the most validation
            images (with the objective standard, that have most of them right).
        compare_with: run:FOLDER of a standard fine-tuning on the same data; the run then says what robustness cost.
        trackers: where accelerate sends the figures of every epoch; [] for nowhere.
        out: the run folder to create; by default runs/finetune, with a number behind it where that exists.
        resume: go on with the interrupted run in `out`, with the recipe it was started with; data and weights may have
            moved.
        seed: decides everything random.

    Returns:
        The run.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    out = None if out is None else Path(out)
    options = options_among(locals(), finetune, but=("resume",))
    return fine_tuned(prepared(options), resume=resume)


@dataclass(frozen=True)
class Prepared:
    """A fine-tuning with everything opened and checked; nothing is made for it yet.

    Args:
        options: those of `finetune`, all but resume.
        task: what is to be trained.
        validate: called after every epoch.
        standard: clean accuracy of the standard fine-tuning to compare with; None for none.
        splits: the images.
    """

    options: Mapping[str, Any]
    task: Task
    validate: Judging | None
    standard: float | None
    splits: Splits


def prepared(options: Mapping[str, Any], *, measuring: Callable[..., Judging | None] = validation) -> Prepared:
    """What `fine_tuned` needs; a search measures in its own way.

    Args:
        options: those of `finetune`, all but resume.
        measuring: makes what is called after every epoch, from the arguments of `validation`.

    Raises:
        Misuse: for anything that cannot be done, whatever the folder.
    """
    given = SimpleNamespace(**options)
    check_validation(given.validate_on, given.schedule, given.keep)
    standard = standard_accuracy(given.compare_with, options)
    splits = Source(**{field.name: options[field.name] for field in fields(Source)}).open()
    task = _task(given, splits.train)
    check_task(task, given.trackers)
    validate = measuring(splits.validation, given.threat, given.validate_on, given.schedule, given.seed)
    return Prepared(options, task, validate, standard, splits)


def fine_tuned(ready: Prepared, *, resume: bool = False, noted: Noted = lambda _: None) -> Run:
    """What `finetune` does once all is checked; a search listens.

    Args:
        ready: the fine-tuning.
        resume: go on with the interrupted run.
        noted: told of every epoch's figures.
    """
    given, task = SimpleNamespace(**ready.options), ready.task

    def works() -> list[Work]:
        return training_works(task) + validation_works(ready.validate, task.classifier, given.training.epochs)

    changeable = _changeable(ready) if resume and given.out is not None else ()
    folder = begun("finetune", ready.options, given.out, resume=resume, works=works, ignored=changeable)
    setting = setting_of(task, ready.standard, None if ready.validate is None else ready.validate.images)
    counts = ", ".join(f"{len(getattr(ready.splits, name)):,} {name}" for name in get_args(Split))
    say(f"{given.data}: {len(ready.splits.train.classes)} classes, images: {counts}")
    tell_repeats(ready.splits)
    tell_reach(task.threat, task.images.shape)
    say(f"{folder.path.name}: {plan_of(task)}")
    look = attending(folder, setting)

    def both(row: Mapping[str, float]) -> None:
        look(row)
        noted(row)

    fit(task, folder, f"fine-tuning {folder.path.name}", validate=ready.validate, noted=both, trackers=given.trackers)
    conclusion(folder, setting)
    say(f"{folder.path}: {given.training.epochs} epochs, {seconds(folder):.1f} s")
    return Run(folder)


def _changeable(ready: Prepared) -> tuple[str, ...]:
    """Options that a resumed run may be given anew: all while there is nothing to go on with, then what has moved.

    Raises:
        Misuse: if what has moved is no longer the same.
    """
    folder = RunFolder(ready.options["out"])
    if folder.weights.exists() or not folder.recipe.is_file():
        return ()
    newest = newest_checkpoint(folder.checkpoints)
    if newest is None:
        return tuple(ready.options)
    moved = {name: both for name, both in changes(folder, ready.options).items() if name in {"data", "weights"}}
    if moved and not goes_on(ready.task, newest):
        name, (then, now) = next(iter(moved.items()))
        raise Misuse(
            f"{folder.path} cannot go on with {name} {now}: the training images, or the weights it started from, are "
            f"not those of {then}"
        )
    return tuple(moved)


def _task(given: SimpleNamespace, images: ImageSet) -> Task:
    """What is to be trained, with the network opened for these images."""
    classifier = open_model(
        given.model, weights=given.weights, classes=images.classes, shape=images.shape, seed=given.seed, new_head=True
    )
    introduce(classifier, given.model)
    return Task(
        classifier,
        images,
        given.objective,
        given.schedule,
        given.threat,
        given.training,
        given.augmentation,
        given.seed,
        transfer=given.transfer,
        keep=given.keep,
    )
