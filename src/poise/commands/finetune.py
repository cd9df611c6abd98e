"""Fine-tune a classifier: robustly with a schedule, or in the ordinary way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from poise.commands.diagnosis import attending, conclusion, plan_of, setting_of, standard_accuracy
from poise.commands.recipe import refuse_changes, write_recipe
from poise.commands.run import Run, fresh_path
from poise.commands.terminal import say, watching
from poise.commands.validation import check_validation, validation
from poise.core.misuse import Misuse
from poise.core.run_folder import RunFolder
from poise.core.threat import Threat
from poise.data import Augmentation, open_data
from poise.models import open_model, save_model
from poise.objectives import Adversarial, Objective
from poise.schedules import Hinge, Schedule
from poise.training import Task, Training, check_task, train


def finetune(
    model: str,
    data: str = "digits",
    *,
    weights: str | None = None,
    threat: Threat = Threat(),
    schedule: Schedule = Hinge(),
    objective: Objective = Adversarial(),
    training: Training = Training(),
    augmentation: Augmentation = "finetune",
    image_size: int | None = None,
    limit: int | None = None,
    skip_unreadable: bool = False,
    validate_on: int = 500,
    compare_with: str | None = None,
    trackers: tuple[str, ...] = ("tensorboard",),
    out: Path | str | None = None,
    resume: bool = False,
    seed: int = 0,
) -> Run:
    """Fine-tune a pretrained classifier on your images so that it withstands adversarial examples.

    The run folder gets the recipe, the weights, the metrics of every epoch and checkpoints; nothing is created unless
    model and data can be opened and fit each other.

    Args:
        model: address of the network: timm:NAME, run:FOLDER, python:pkg.module:factory, small, resnet18.
        data: address of the images: digits, folder:PATH, parquet:FOLDER, hf:NAME, torchvision:NAME.
        weights: a local weights file, or "random"; by default what the address itself carries.
        threat: what the model shall withstand.
        schedule: how epsilon grows to the threat's: hinge, fixed, linear, cosine, random, automatic (starts when clean
            accuracy stops improving) or adaptive (follows what the network can take).
        objective: what a step minimises: adversarial, trades, mart or standard; or one of them inside averaged (weights
            averaged over steps), awp (adversarial weight perturbation), labelsmoothing or guarded (notices catastrophic
            overfitting), as in {kind: averaged, objective: {kind: trades, beta: 6}}.
        training: epochs, batch size, optimiser and the like.
        augmentation: random changes of training images: none, flip, crop (flip and shift), finetune (flip, colour,
            rotation); choose none where mirrored images mean something else, as digits and letters do.
        image_size: resize the shorter side to this and crop the centre.
        limit: use this many images of each split, the same ones every time.
        skip_unreadable: list images that cannot be read and leave them out, instead of stopping.
        validate_on: measure clean and robust accuracy on this many validation images after each epoch; 0 for none.
        compare_with: run:FOLDER of a standard fine-tuning on the same data; the run then says what robustness cost.
        trackers: where accelerate sends the figures of every epoch; [] for nowhere.
        out: the run folder to create; by default runs/finetune, with a number behind it where that exists.
        resume: go on with the interrupted run in `out`, with the recipe it was started with.
        seed: decides everything random.

    Returns:
        The run.

    Raises:
        Misuse: for anything that cannot be done, before any work.
    """
    out = None if out is None else Path(out)
    options = {name: value for name, value in locals().items() if name != "resume"}
    check_validation(validate_on, schedule)
    standard = standard_accuracy(compare_with, options)
    splits = open_data(data, image_size=image_size, limit=limit, skip_unreadable=skip_unreadable)
    train_set = splits.train
    for name in splits.skipped:
        say(f"left out, unreadable: {name}")
    classifier = open_model(
        model, weights=weights, classes=train_set.classes, shape=train_set.shape, seed=seed, new_head=True
    )
    for note in classifier.notes:
        say(note)
    task = Task(classifier, train_set, objective, schedule, threat, training, augmentation, seed)
    check_task(task, trackers)
    folder = _folder(options, out, resume=resume)
    setting = setting_of(task, standard)
    if not folder.weights.exists():
        say(f"{folder.path.name}: {plan_of(task)}")
        with watching(f"fine-tuning {folder.path.name}") as watch:
            validate = validation(splits.validation, threat, validate_on, schedule, seed)
            noted = attending(folder, setting)
            train(task, folder, validate=validate, watch=watch, noted=noted, trackers=trackers)
        save_model(classifier.cpu(), folder.path)
    conclusion(folder, setting)
    say(f"{folder.path}: {training.epochs} epochs, {_seconds(folder):.1f} s")
    return Run(folder)


def _folder(options: Mapping[str, object], out: Path | None, *, resume: bool) -> RunFolder:
    """The run's folder: a new one with its recipe, or the one to go on with."""
    if resume:
        if out is None:
            raise Misuse("say which run to resume, e.g. --config RUN/recipe.yaml --resume, or --out RUN --resume")
        folder = RunFolder.open(out)
        refuse_changes(folder, options, ignored=("out",))
        return folder
    folder = RunFolder.create(out or fresh_path(Path("runs/finetune")))
    write_recipe(folder, "finetune", {**options, "out": folder.path})
    return folder


def _seconds(folder: RunFolder) -> float:
    return sum(float(row["seconds"]) for row in folder.history())
