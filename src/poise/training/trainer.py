"""The one training loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from poise.core.batch import Batch
from poise.core.files import digest_words, held
from poise.core.folding import SAMPLE, Shadow
from poise.core.misuse import Misuse
from poise.core.modes import BATCH_NORM, evaluating, frozen
from poise.core.progress import Watch, unwatched
from poise.core.run_folder import RunFolder
from poise.core.streams import Stream, global_seed
from poise.data import ImageSet, InMemory, batches, decoded
from poise.models import Classifier
from poise.objectives import Step
from poise.training.checkpoint import (
    Position,
    load_checkpoint,
    newest_checkpoint,
    position_of,
    save_checkpoint,
    snapshot,
)
from poise.training.divergence import Circumstances, Diverged, Tally, diagnosis
from poise.training.gradients import Gradients, Tell
from poise.training.journal import Journal
from poise.training.keeping import Keeper
from poise.training.optimisation import make_optimizer, set_rates
from poise.training.processes import Processes, agree, is_main, on_main
from poise.training.sharding import own_part, sharded, shared_out
from poise.training.showcase import Showcase
from poise.training.surroundings import accelerated, plain, surrounded
from poise.training.task import Noted, Task, Validate
from poise.training.timetable import Timetable
from poise.training.transfer.transfer import open_to, trainable

_LOOK = 50
"""Steps between two looks at whether loss and weights are still numbers; each waits for the device."""


def train(
    task: Task,
    folder: RunFolder,
    *,
    validate: Validate | None = None,
    watch: Watch = unwatched,
    tell: Tell = lambda _: None,
    noted: Noted = lambda _: None,
    trackers: tuple[str, ...] = ("tensorboard",),
) -> None:
    """Train a classifier, or go on from the newest checkpoint of the folder, and leave its state and metrics there.

    Everything random depends on the seed, the epoch, the batch's number and the example alone, so that a run killed at
    any instant and resumed takes the same steps as one that was not. Under `accelerate launch` the processes share
    every batch, and with --use_fsdp the weights, and take the steps that one alone would take, up to rounding; layers
    that see a batch as a whole or draw random numbers (batch norm, dropout) see the part of their process, as does
    adversarial weight perturbation. In eval mode attacks follow a faster copy of the network (`core.folding`) where
    each process has the whole. PyTorch's global random state and accelerate's shared state are as before.

    Args:
        task: what to train.
        folder: where checkpoints and metrics go; the main process writes.
        validate: called after every epoch, in every process; schedules that listen need it.
        watch: told of progress after every step.
        tell: told what a person should know, in single lines.
        noted: told of every epoch's figures, in every process.
        trackers: names of accelerate's trackers that get every epoch's figures.

    Raises:
        Misuse: if the checkpoint is of another run, if another process is at work in the folder, and for a schedule
            that listens, or the best weights, where nothing is validated.
        Diverged: if loss, weights or statistics are not finite; looked at every 50 steps and before every checkpoint.
        Failure: if memory does not hold a single image.
    """
    if task.schedule.hears and validate is None:
        raise Misuse(f"the schedule {type(task.schedule).__name__} listens to validation; there is none")
    if task.keep == "best" and validate is None:
        raise Misuse("the best weights are found by validation; there is none")
    apart, given = sharded(), task.classifier
    with ExitStack() as stack:
        stack.enter_context(global_seed(Stream.seeded(task.seed)))
        stack.enter_context(_held_by_all(folder))
        stack.enter_context(_consulted(task.references))
        accelerator = stack.enter_context(accelerated(task.options, folder, trackers))
        memory = torch.channels_last if task.options.channels_last else torch.preserve_format
        for network in (*task.references.values(), *([] if apart else [given])):
            network.to(device=accelerator.device, memory_format=memory)  # type: ignore[call-overload]
        started_from = _started_from(task)
        names = stack.enter_context(trainable(given, task.transfer))
        if apart:
            task = replace(task, classifier=shared_out(given, accelerator.device))
        stack.enter_context(surrounded(task.classifier, task.options, accelerator))
        _Loop(task, given, folder, accelerator, names, started_from, tell).run(validate, watch, noted)


class _Loop:
    """The state of one call of `train`."""

    def __init__(
        self,
        task: Task,
        given: Classifier,
        folder: RunFolder,
        accelerator: Accelerator,
        names: frozenset[str],
        started_from: str,
        tell: Tell,
    ) -> None:
        self.task, self.folder, self.accelerator, self.names, self.tell = task, folder, accelerator, names, tell
        options, self.device = task.options, accelerator.device
        self.images = _placed(task.images, self.device)
        self.timetable = Timetable.of(task)
        self.showcase = Showcase(network=task.classifier, given=given, device=self.device)
        self.processes = Processes(sharded=self.showcase.sharded)
        open_to(task.classifier, names)
        self.sample = self.images.images(torch.arange(min(SAMPLE, len(self.images)))).to(self.device)
        self.shadow = self._shadow()
        self.boundless = tuple(name for name, buffer in given.named_buffers() if not bool(buffer.isfinite().all()))
        self.plain_optimizer = make_optimizer(task.classifier, options, task.transfer.layer_decay)
        agree("the newest checkpoint that they see", str(newest_checkpoint(folder.checkpoints)))
        self.position, self.memory = load_checkpoint(
            folder.checkpoints,
            task.classifier,
            self.plain_optimizer,
            started_from,
            task.objective.begin(task.classifier),
        )
        self.optimizer = accelerator.prepare_optimizer(self.plain_optimizer)
        if accelerator.scaler is not None and self.position.scaler:
            accelerator.scaler.load_state_dict(self.position.scaler)
        most = self.position.micro_batch or options.micro_batch
        self.gradients = Gradients(task.objective, accelerator, self.processes, most, tell)
        self.journal = Journal(folder, accelerator, self.position.epoch)
        self.keeper = Keeper(folder.checkpoints, task.keep, attacked=task.attacked, best=self.position.best)
        self.resting: list[torch.nn.Module] = []

    def run(self, validate: Validate | None, watch: Watch, noted: Noted) -> None:
        """All epochs that are left."""
        try:
            for _ in range(self.position.epoch, self.task.options.epochs):
                self._open_weights()
                self._check_shadow()
                tally = self._epoch(watch)
                noted(self._finish_epoch(tally, validate))
            self.showcase.finish(self.task.objective.weights(self.memory), self.keeper.weights())
        finally:
            self.optimizer.zero_grad(set_to_none=True)

    def _open_weights(self) -> None:
        """Let the weights move that the transfer trains in this epoch."""
        classifier, epoch = self.task.classifier, self.position.epoch
        names = self.task.transfer.trained(classifier, self.timetable.progress(epoch, 0)) & self.names
        before = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
        self.resting = open_to(classifier, names)
        if self.task.options.batch_norm == "frozen":
            self.resting += [module for module in classifier.modules() if isinstance(module, BATCH_NORM)]
        total = sum(parameter.numel() for parameter in classifier.parameters())
        trained = sum(parameter.numel() for parameter in classifier.parameters() if parameter.requires_grad)
        if (names != before) if epoch else (trained < total):
            self.tell(f"from epoch {epoch + 1} on, {trained:,} of {total:,} weights are trained")

    def _shadow(self) -> Shadow | None:
        """What attacks follow in the network's place.

        Nothing where it is compiled, which does the same and more, and where no process has all of its weights.
        """
        options, classifier = self.task.options, self.task.classifier
        if options.compile or self.processes.sharded:
            return None
        with plain(classifier):
            return Shadow.of(classifier, self.sample, options.precision)

    def _check_shadow(self) -> None:
        """Let go of a shadow that no longer does what the network does."""
        with plain(self.task.classifier):
            if self.shadow is not None and not self.shadow.agrees(self.sample):
                self.tell("attacks follow the network itself from here on: its faster copy says something else")
                self.shadow = None

    def _epoch(self, watch: Watch) -> Tally:
        """The rest of the epoch in progress, one optimiser step a batch."""
        start, began = self.position, time.monotonic()
        tally = Tally(self.device, start.sums)
        every = self.task.options.checkpoint_every
        for number, batch in enumerate(self._batches(start), start.batch):
            tally.add(self._step(batch, start.epoch, number), self.timetable.examples(number), number)
            spent = start.seconds + time.monotonic() - began
            self.position = replace(start, batch=number + 1, sums=None, seconds=spent)
            due = every is not None and (start.epoch * self.timetable.batches + number + 1) % every == 0
            if due or (number + 1) % _LOOK == 0:
                self._refuse_divergence(tally)
            if due:
                self._checkpoint(tally.totals())
            done = self.timetable.progress(start.epoch, number + 1)
            watch(done, {"epsilon": f"{self._epsilon(start.epoch, number):.4f}"})
        return tally

    def _step(self, batch: Batch, epoch: int, number: int) -> Mapping[str, torch.Tensor]:
        """One update of the weights."""
        options, place = self.task.options, self.task.stream.fold("step", epoch, number)
        set_rates(self.optimizer, self.timetable.rate_share(epoch, number))
        self.task.classifier.train()
        for module in self.resting:
            module.eval()
        share = self.timetable.share(epoch, number, self.position.schedule, batch.ids)
        step = Step(
            self.task.classifier,
            batch,
            float(self.task.threat.epsilon) * share,
            self.task.threat.norm,
            place.fold("attack"),
            self.task.references,
            self.memory,
            share if isinstance(share, float) else 1.0,
            shadow=None if self.shadow is None else self.shadow.now,
            whole=self.timetable.examples(number),
        )
        layers = place.fold("layers", self.processes.rank)
        means = self.gradients.fill(step, self.timetable.examples(number), layers.key)
        if options.clip is not None:
            self.accelerator.clip_grad_norm_(self.task.classifier.parameters(), options.clip)
        self.optimizer.step()
        with torch.no_grad():
            self.memory = dict(self.task.objective.advance(self.task.classifier, self.memory, means))
        return means

    def _finish_epoch(self, tally: Tally, validate: Validate | None) -> Mapping[str, float]:
        """Check, save, measure, note down, save: a bad epoch leaves the last good checkpoint, failed measuring this."""
        epoch, last = self.position.epoch, self.timetable.batches - 1
        self._refuse_divergence(tally)
        if validate is not None:
            self._checkpoint(tally.totals())
        seen = sum(self.timetable.examples(number) for number in range(last + 1))
        row: dict[str, float] = {
            "epoch": epoch,
            "epsilon": self._epsilon(epoch, last),
            "learning_rate": self.timetable.learning_rate(epoch, last),
            "seconds": self.position.seconds,
            **{f"train/{name}": total / seen for name, total in tally.totals().items()},
        }
        remembered = self.timetable.remembered(self.position.schedule)
        if validate is not None:
            with self.showcase.shown(self.task.objective.weights(self.memory)) as classifier:
                figures = validate(classifier, row["epsilon"])
                row |= {f"validation/{name}": value for name, value in figures.items()}
                self.keeper.look(row, classifier)
            remembered = self.timetable.heard(epoch, remembered, figures)
        self.journal.write(row)
        self.position = Position(epoch + 1, task=self.position.task, schedule=dict(remembered), best=self.keeper.best)
        self._checkpoint({})
        self.keeper.tidy()
        return row

    def _checkpoint(self, sums: dict[str, float]) -> None:
        """Save the state, which the caller found to be finite."""
        tensors = snapshot(self.task.classifier, self.plain_optimizer, self.memory, keep=is_main())
        if is_main():
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None
            most = self.gradients.micro_batch
            position = replace(self.position, sums=sums or None, scaler=scaler, micro_batch=most)
            save_checkpoint(self.folder.checkpoints, tensors, position)
        self.accelerator.wait_for_everyone()

    def _refuse_divergence(self, tally: Tally) -> None:
        """Stop before a state that is no number replaces the last good one."""
        broken = tally.broken()
        if not self.processes.any(bool(broken) or not self._finite()):
            return
        epoch, number = self.position.epoch, min(broken.values(), default=self.position.batch - 1)
        newest = newest_checkpoint(self.folder.checkpoints)
        found = Circumstances(
            epoch=epoch,
            batch=number,
            epsilon=self._epsilon(epoch, number),
            learning_rate=self.timetable.learning_rate(epoch, number),
            terms=broken,
            checkpoint=str(newest) if newest else None,
        )
        raise Diverged(diagnosis(found, self.task.options))

    def _finite(self) -> bool:
        """Whether the state holds numbers only; the device is waited for once."""
        return bool(torch.stack([each.isfinite().all().to(self.device) for each in self._state()]).all())

    def _state(self) -> Iterator[torch.Tensor]:
        """All numbers that a checkpoint holds of network and objective, as far as this process has them.

        But for buffers that were not finite to begin with, such as masks, and what an objective remembers of them.
        """
        for name, tensor in (*self.task.classifier.state_dict().items(), *self.memory.items()):
            if tensor.is_floating_point() and not name.endswith(self.boundless):
                yield own_part(tensor)

    def _batches(self, position: Position) -> Iterator[Batch]:
        found = batches(
            self.images,
            batch_size=self.task.options.batch_size,
            device=self.device,
            stream=self.task.stream,
            augmentation=self.task.augmentation,
            epoch=position.epoch,
            rank=self.processes.rank,
            world=self.processes.count,
            skip=position.batch,
        )
        if not self.task.options.channels_last:
            return found
        return (replace(batch, images=batch.images.to(memory_format=torch.channels_last)) for batch in found)

    def _epsilon(self, epoch: int, number: int) -> float:
        return self.timetable.epsilon(epoch, number, self.position.schedule)


def goes_on(task: Task, checkpoint: Path) -> bool:
    """Whether a checkpoint is of a training that started from these very images and weights."""
    return position_of(checkpoint).task == _started_from(task)


def _started_from(task: Task) -> str:
    """A digest of data and weights, the same in all processes."""
    others = (reference.digest() for reference in task.references.values())
    digest = digest_words([task.images.digest(), task.classifier.digest(), *others])
    agree("the training images or the weights to start from", digest)
    return digest


@contextmanager
def _held_by_all(folder: RunFolder) -> Iterator[None]:
    """The folder, which the main process holds for all."""
    with ExitStack() as stack:
        on_main(lambda: _nothing(stack.enter_context(held(folder.path))))
        yield


def _nothing(_: object) -> None:
    return None


@contextmanager
def _consulted(references: Mapping[str, Classifier]) -> Iterator[None]:
    """Reference networks in eval mode and without gradients; afterwards as they were."""
    with ExitStack() as stack:
        for reference in references.values():
            stack.enter_context(evaluating(reference))
            stack.enter_context(frozen(reference))
        yield


def _placed(images: ImageSet, device: torch.device) -> ImageSet:
    """A small set decoded on the device, a large one as it is."""
    if not len(images):
        raise Misuse("there are no training images")
    small = decoded(images)
    return small.to(device) if isinstance(small, InMemory) else small
