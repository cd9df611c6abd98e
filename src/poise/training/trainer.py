"""The one training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import filter_trackers
from accelerate.utils import LoggerType

from poise.core.batch import Batch
from poise.core.files import digest_words, held
from poise.core.misuse import Failure, Misuse, suggestion
from poise.core.modes import evaluating, frozen
from poise.core.progress import Watch, unwatched
from poise.core.run_folder import RunFolder
from poise.core.streams import Stream, global_seed
from poise.core.threat import Threat
from poise.data import ImageSet, InMemory, batches, batches_per_epoch, check_augmentation, decoded
from poise.models import Classifier
from poise.objectives import Objective, Step
from poise.schedules import Memory, Moment, Schedule
from poise.training.checkpoint import Position, load_checkpoint, save_checkpoint
from poise.training.journal import Journal
from poise.training.optimisation import make_optimizer, rate_share, set_rates
from poise.training.options import Training

Validate = Callable[[Classifier, float], Mapping[str, float]]
"""Measures a classifier after an epoch, given the epsilon that the epoch ended with; its figures stand in the epoch's
row under "validation/", and schedules that listen hear them."""

Noted = Callable[[Mapping[str, float]], None]
"""Told of every epoch's row, once it is written."""


class Diverged(Failure):
    """Loss or weights are no longer finite numbers; the last checkpoint is from before."""


@dataclass(frozen=True)
class Task:
    """What is trained, on what, towards what.

    Args:
        classifier: the network; its weights are changed in place.
        images: the training images.
        objective: what a step minimises.
        schedule: the share of the threat's epsilon that a moment trains at.
        threat: norm and target budget.
        options: how training proceeds.
        augmentation: named preset of random changes.
        seed: decides order, augmentation, attacks and dropout.
        references: frozen networks that the objective looks at, by role; they are left as they are.
    """

    classifier: Classifier
    images: ImageSet
    objective: Objective
    schedule: Schedule
    threat: Threat
    options: Training = field(default_factory=Training)
    augmentation: str = "none"
    seed: int = 0
    references: Mapping[str, Classifier] = field(default_factory=dict)


def check_task(task: Task, trackers: tuple[str, ...] = ()) -> None:
    """Refuse what cannot be trained, before anything is created for it.

    Raises:
        Misuse: for parts of the wrong kind, no trainable parameter, too few images, fp16 without a GPU, and trackers
            that accelerate does not know or that are not installed.
    """
    kinds = {"objective": Objective, "schedule": Schedule, "threat": Threat, "options": Training}
    for name, kind in kinds.items():
        if not isinstance(getattr(task, name), kind):
            raise Misuse(f"{name} must be a poise.{kind.__name__}; got {getattr(task, name)!r}")
    if missing := [role for role in task.objective.roles if role not in task.references]:
        raise Misuse(f"{type(task.objective).__name__} compares with other networks; missing: {', '.join(missing)}")
    check_augmentation(task.augmentation)
    if not any(parameter.requires_grad for parameter in task.classifier.parameters()):
        raise Misuse("the model has no parameter that training may change")
    if not batches_per_epoch(len(task.images), task.options.batch_size, training=True):
        raise Misuse(f"{len(task.images)} training images are too few for a batch; training needs at least 2")
    if task.options.precision == "fp16" and not torch.cuda.is_available():
        raise Misuse("fp16 needs a GPU; choose bf16 or fp32 for training.precision")
    known = sorted(tracker.value for tracker in LoggerType if tracker is not LoggerType.ALL)
    for tracker in trackers:
        if tracker not in known:
            raise Misuse(f"unknown tracker {tracker!r}; {suggestion(tracker, known)}")
    if len(filter_trackers(list(trackers), logging_dir=".")) != len(trackers):
        raise Misuse(f"of the trackers {', '.join(trackers)} not all are installed")


def train(
    task: Task,
    folder: RunFolder,
    *,
    validate: Validate | None = None,
    watch: Watch = unwatched,
    noted: Noted = lambda _: None,
    trackers: tuple[str, ...] = ("tensorboard",),
) -> None:
    """Train a classifier, or go on from the newest checkpoint of the folder, and leave its state and metrics there.

    Everything random depends on the seed, the epoch, the batch's number and the example alone, so that a run killed at
    any instant and resumed takes the same steps as one that was not. PyTorch's global random state is as before.

    Args:
        task: what to train.
        folder: where checkpoints and metrics go.
        validate: called after every epoch; schedules that listen need it.
        watch: told of progress after every step.
        noted: told of every epoch's figures.
        trackers: names of accelerate's trackers that get every epoch's figures.

    Raises:
        Misuse: if the checkpoint is of another run, and for a schedule that listens where there is nothing to hear.
        Diverged: if loss or weights are not finite where a checkpoint is due.
    """
    if task.schedule.hears and validate is None:
        raise Misuse(f"the schedule {type(task.schedule).__name__} listens to validation; there is none")
    with global_seed(Stream.seeded(task.seed)), held(folder.path), _consulted(task.references):
        _Loop(task, folder, trackers).run(validate, watch, noted)


class _Loop:
    """The state of one call of `train`."""

    def __init__(self, task: Task, folder: RunFolder, trackers: tuple[str, ...]) -> None:
        self.task, self.folder, options = task, folder, task.options
        self.accelerator = _accelerator(options, folder, trackers)
        self.device: torch.device = self.accelerator.device
        self.stream = Stream.seeded(task.seed).fold("training")
        self.images = _placed(task.images, self.device)
        self.batches = batches_per_epoch(
            len(self.images), options.batch_size, training=True, world=self.accelerator.num_processes
        )
        memory = torch.channels_last if options.channels_last else torch.preserve_format
        task.classifier.to(device=self.device, memory_format=memory)  # type: ignore[call-overload]
        plain = make_optimizer(task.classifier, options)
        for reference in task.references.values():
            reference.to(device=self.device, memory_format=memory)  # type: ignore[call-overload]
        others = (reference.digest() for reference in task.references.values())
        started_from = digest_words([task.images.digest(), task.classifier.digest(), *others])
        fresh = task.objective.begin(task.classifier)
        self.position, self.memory = load_checkpoint(folder.checkpoints, task.classifier, plain, started_from, fresh)
        self.model, self.optimizer = self.accelerator.prepare(task.classifier, plain)
        self.plain_optimizer = plain
        if self.accelerator.scaler is not None and self.position.scaler:
            self.accelerator.scaler.load_state_dict(self.position.scaler)
        self.journal = Journal(folder, self.accelerator, self.position.epoch)

    def run(self, validate: Validate | None, watch: Watch, noted: Noted) -> None:
        """All epochs that are left."""
        try:
            for _ in range(self.position.epoch, self.task.options.epochs):
                self._epoch(watch)
                noted(self._finish_epoch(validate))
            self._put(self.task.objective.weights(self.memory))
        finally:
            self.optimizer.zero_grad(set_to_none=True)
            self.accelerator.end_training()
            plain = self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
            vars(plain).pop("forward", None)  # accelerate leaves a bound method there, which copies would share

    def _epoch(self, watch: Watch) -> None:
        """The rest of the epoch in progress, one optimiser step a batch."""
        start, began = self.position, time.monotonic()
        kept = (start.sums or {}).items()
        sums = {name: torch.tensor(value, dtype=torch.float64, device=self.device) for name, value in kept}
        every = self.task.options.checkpoint_every
        for number, batch in enumerate(self._batches(start), start.batch):
            for name, term in self._step(batch, start.epoch, number).items():
                sums[name] = sums.get(name, torch.zeros((), dtype=torch.float64, device=self.device)) + term
            spent = start.seconds + time.monotonic() - began
            self.position = replace(start, batch=number + 1, sums=None, seconds=spent)
            if every and (start.epoch * self.batches + number + 1) % every == 0:
                totals = _totals(sums)
                self._refuse_divergence(totals)
                self._checkpoint(totals)
            watch(self._progress(start.epoch, number + 1), {"epsilon": f"{self._epsilon(start.epoch, number):.4f}"})
        self.position = replace(self.position, sums=_totals(sums))

    def _step(self, batch: Batch, epoch: int, number: int) -> Mapping[str, torch.Tensor]:
        """One update of the weights."""
        options, place = self.task.options, self.stream.fold("step", epoch, number)
        torch.manual_seed(place.fold("layers", self.accelerator.process_index).key)
        set_rates(self.optimizer, rate_share(epoch * self.batches + number, self._total, options.warmup))
        self.model.train()
        share = self.task.schedule.share(replace(self._moment(epoch, number), ids=batch.ids))
        terms = self.task.objective.terms(
            Step(
                self.model,
                batch,
                float(self.task.threat.epsilon) * share,
                self.task.threat.norm,
                place.fold("attack"),
                self.task.references,
                self.memory,
                share if isinstance(share, float) else 1.0,
            )
        )
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(terms["loss"])
        if options.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), options.clip)
        self.optimizer.step()
        means = {name: term.detach() for name, term in terms.items()}
        with torch.no_grad():
            self.memory = dict(self.task.objective.advance(self.task.classifier, self.memory, means))
        return means

    def _finish_epoch(self, validate: Validate | None) -> Mapping[str, float]:
        """Check, measure, note down, save: in this order, so that a bad epoch leaves the last good checkpoint."""
        epoch, sums = self.position.epoch, self.position.sums or {}
        means = {name: total / self.batches for name, total in sums.items()}
        self._refuse_divergence(sums)
        row: dict[str, float] = {
            "epoch": epoch,
            "epsilon": self._epsilon(epoch, self.batches - 1),
            "learning_rate": self.task.options.learning_rate
            * rate_share((epoch + 1) * self.batches - 1, self._total, self.task.options.warmup),
            "seconds": self.position.seconds,
            **{f"train/{name}": value for name, value in means.items()},
        }
        remembered = self._remembered
        if validate is not None:
            with _in_full_precision(self.task.classifier), self._shown():
                figures = validate(self.task.classifier, row["epsilon"])
            remembered = self._heard(figures)
            row |= {f"validation/{name}": value for name, value in figures.items()}
        self.journal.write(row)
        self.position = Position(epoch + 1, task=self.position.task, schedule=dict(remembered))
        self._checkpoint({})
        return row

    def _checkpoint(self, sums: dict[str, float]) -> None:
        """Save the state, which the caller found to be finite."""
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
            position = replace(self.position, sums=sums or None, scaler=scaler)
            save_checkpoint(self.folder.checkpoints, self.task.classifier, self.plain_optimizer, position, self.memory)
        self.accelerator.wait_for_everyone()

    @contextmanager
    def _shown(self) -> Iterator[None]:
        """The model with the weights that the objective wants shown; afterwards as it is in training."""
        found, shown = self.task.classifier.state_dict(), self.task.objective.weights(self.memory)
        kept = {name: found[name].clone() for name in shown}
        self._put(shown)
        try:
            yield
        finally:
            self._put(kept)

    def _put(self, weights: Mapping[str, torch.Tensor]) -> None:
        found = self.task.classifier.state_dict()
        for name, value in weights.items():
            found[name].copy_(value)

    def _refuse_divergence(self, sums: Mapping[str, float]) -> None:
        """Stop before a state that is no number replaces the last good one."""
        weights = all(bool(parameter.isfinite().all()) for parameter in self.task.classifier.parameters())
        if not weights or not math.isfinite(sums.get("loss", 0.0)):
            raise Diverged(
                f"loss or weights are no longer finite numbers in epoch {self.position.epoch + 1}; the last "
                f"good state, if any, is in {self.folder.checkpoints}. Lower learning_rate, clip gradients, or "
                "start the schedule later"
            )

    def _batches(self, position: Position) -> Iterator[Batch]:
        found = batches(
            self.images,
            batch_size=self.task.options.batch_size,
            device=self.device,
            stream=self.stream,
            augmentation=self.task.augmentation,
            epoch=position.epoch,
            rank=self.accelerator.process_index,
            world=self.accelerator.num_processes,
            skip=position.batch,
        )
        if not self.task.options.channels_last:
            return found
        return (replace(batch, images=batch.images.to(memory_format=torch.channels_last)) for batch in found)

    @property
    def _total(self) -> int:
        return self.batches * self.task.options.epochs

    def _progress(self, epoch: int, number: int) -> float:
        return (epoch + number / self.batches) / self.task.options.epochs

    def _epsilon(self, epoch: int, number: int) -> float:
        """The budget of a step; where examples have their own, its mean."""
        return float(self.task.threat.epsilon) * self.task.schedule.mean(self._moment(epoch, number))

    def _moment(self, epoch: int, number: int) -> Moment:
        """Where a step stands, to the schedule: at itself, or at the start of its epoch."""
        at = number if self.task.schedule.every == "step" else 0
        return Moment(
            progress=self._progress(epoch, at),
            epoch=epoch,
            step=epoch * self.batches + at,
            stream=self.stream.fold("schedule"),
            memory=self._remembered,
        )

    @property
    def _remembered(self) -> Memory:
        """What the schedule remembers."""
        found = self.position.schedule
        return self.task.schedule.begin() if found is None else found

    def _heard(self, figures: Mapping[str, float]) -> Memory:
        """What the schedule remembers once it has heard of the epoch in progress."""
        schedule = self.task.schedule
        if missing := [name for name in schedule.hears if name not in figures]:
            raise Misuse(f"the schedule {type(schedule).__name__} needs {', '.join(missing)} of the validation")
        return schedule.heard(self._moment(self.position.epoch + 1, 0), figures)


def _totals(sums: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Sums as numbers; waits for the device."""
    return {name: float(total) for name, total in sums.items()}


@contextmanager
def _consulted(references: Mapping[str, Classifier]) -> Iterator[None]:
    """Reference networks in eval mode and without gradients; afterwards as they were."""
    with ExitStack() as stack:
        for reference in references.values():
            stack.enter_context(evaluating(reference))
            stack.enter_context(frozen(reference))
        yield


@contextmanager
def _in_full_precision(classifier: Classifier) -> Iterator[None]:
    """The classifier without the low precision that accelerate wraps around its forward method."""
    wrapped = vars(classifier).pop("forward", None)
    try:
        yield
    finally:
        if wrapped is not None:
            vars(classifier)["forward"] = wrapped


def _accelerator(options: Training, folder: RunFolder, trackers: tuple[str, ...]) -> Accelerator:
    # One process may train several models at different precisions; accelerate's state is shared and must not stay.
    AcceleratorState._reset_state()  # noqa: SLF001
    precision: Any = {"fp32": "no"}.get(options.precision, options.precision)
    accelerator = Accelerator(mixed_precision=precision, log_with=list(trackers) or None, project_dir=folder.path)
    if trackers:
        accelerator.init_trackers("tracking")
    return accelerator


def _placed(images: ImageSet, device: torch.device) -> ImageSet:
    """A small set decoded on the device, a large one as it is."""
    if not len(images):
        raise Misuse("there are no training images")
    small = decoded(images)
    return small.to(device) if isinstance(small, InMemory) else small
