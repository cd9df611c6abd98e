"""Where a step stands: in its epoch, on the way of the learning rate, and on that of epsilon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxtyping import Float, Int
from torch import Tensor

from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import batches_per_epoch
from poise.schedules import Memory, Moment, Schedule
from poise.schedules.schedule import progress_at, share_at
from poise.training.optimisation import rate_share
from poise.training.options import Training
from poise.training.task import Task


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """The course of a training, known before it begins but for what its schedule hears.

    A step is named by its epoch and its number within that, both from 0; `memory` is what the schedule remembers, or
    None where it has heard nothing yet.

    Args:
        schedule: the share of the threat's epsilon that a moment trains at.
        threat: whose epsilon is the target.
        options: epochs, batch size and learning rate.
        images: number of training images.
        stream: what random schedules draw from.
    """

    schedule: Schedule
    threat: Threat
    options: Training
    images: int
    stream: Stream

    @classmethod
    def of(cls, task: Task) -> Timetable:
        """The course of a task's training."""
        return cls(
            schedule=task.schedule,
            threat=task.threat,
            options=task.options,
            images=len(task.images),
            stream=task.stream.fold("schedule"),
        )

    @property
    def batches(self) -> int:
        """Steps of an epoch."""
        return batches_per_epoch(self.images, self.options.batch_size, training=True)

    def examples(self, number: int) -> int:
        """Examples of a step's batch, over all processes."""
        return min(self.options.batch_size, self.images - number * self.options.batch_size)

    def progress(self, epoch: int, number: int) -> float:
        """The part of the training that is done when a step begins."""
        return progress_at(epoch, number, epochs=self.options.epochs, batches=self.batches)

    def rate_share(self, epoch: int, number: int) -> float:
        """The learning rate of a step as a share of its peak."""
        step, total = epoch * self.batches + number, self.batches * self.options.epochs
        return rate_share(step, total, self.options.warmup)

    def learning_rate(self, epoch: int, number: int) -> float:
        """The learning rate of a step."""
        return self.options.learning_rate * self.rate_share(epoch, number)

    def share(
        self, epoch: int, number: int, memory: Memory | None, ids: Int[Tensor, " n"]
    ) -> float | Float[Tensor, " n"]:
        """The share of the target epsilon that a step trains at, for all its examples or for each."""
        return share_at(self.schedule, replace(self._moment(epoch, number, memory), ids=ids))

    def epsilon(self, epoch: int, number: int, memory: Memory | None) -> float:
        """The budget of a step; where examples have their own, its mean."""
        return float(self.threat.epsilon) * self.schedule.mean(self._moment(epoch, number, memory))

    def heard(self, epoch: int, memory: Memory | None, figures: Mapping[str, float]) -> Memory:
        """What the schedule remembers once it has heard how an epoch ended.

        Raises:
            Misuse: for figures that it needs and that are not there.
        """
        if missing := [name for name in self.schedule.hears if name not in figures]:
            raise Misuse(f"the schedule {type(self.schedule).__name__} needs {', '.join(missing)} of the validation")
        return self.schedule.heard(self._moment(epoch + 1, 0, memory), figures)

    def remembered(self, memory: Memory | None) -> Memory:
        """What the schedule remembers; at first what it begins with."""
        return self.schedule.begin() if memory is None else memory

    def _moment(self, epoch: int, number: int, memory: Memory | None) -> Moment:
        """Where a step stands, to the schedule: at itself, or at the start of its epoch."""
        return Moment.of(
            self.schedule.every,
            epoch,
            number,
            epochs=self.options.epochs,
            batches=self.batches,
            stream=self.stream,
            memory=self.remembered(memory),
        )
