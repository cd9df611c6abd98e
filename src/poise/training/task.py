"""What a training is given, and what is refused before it begins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

from poise.core.batch import Batch
from poise.core.misuse import Misuse
from poise.core.streams import Stream
from poise.core.threat import Threat
from poise.data import ImageSet, batches_per_epoch, check_augmentation
from poise.models import Classifier
from poise.objectives import Objective, Standard, check_attacks, innermost
from poise.schedules import Schedule
from poise.training.keeping import Keep, check_keep
from poise.training.options import Training
from poise.training.sharding import check_sharding
from poise.training.surroundings import check_surroundings
from poise.training.tracking import check_trackers
from poise.training.transfer import Transfer, Whole

Validate = Callable[[Classifier, float], Mapping[str, float]]
"""Measures a classifier after an epoch, in every process, given the epsilon that the epoch ended with. Its figures
stand in the epoch's row under "validation/", and schedules that listen hear them."""

Noted = Callable[[Mapping[str, float]], None]
"""Told of every epoch's row, once it is written."""


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
        transfer: which weights are trained.
        keep: whether the training ends with the last epoch's weights or with those that validation found best.
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
    transfer: Transfer = field(default_factory=Whole)
    keep: Keep = "last"

    @property
    def attacked(self) -> bool:
        """Whether the objective looks at attacked images at all."""
        return not isinstance(innermost(self.objective), Standard)

    @property
    def stream(self) -> Stream:
        """What order, augmentation, attacks and schedule draw from."""
        return Stream.seeded(self.seed).fold("training")

    def few(self) -> Batch:
        """The first two examples, on the device of the network: what is tried before the training is tried on them."""
        rows = torch.arange(min(2, len(self.images)))
        batch = Batch(self.images.images(rows), self.images.labels[rows], self.images.keys[rows])
        return batch.to(next(self.classifier.parameters()).device)


def check_task(task: Task, trackers: tuple[str, ...] = ()) -> None:
    """Refuse what cannot be trained, before anything is created for it.

    Raises:
        Misuse: for parts of the wrong kind, an objective that is for other networks, an attack that breaks its promise,
            no trainable parameter, a transfer that the network does not allow or that the epochs are too few for, too
            few images, fp16 without a GPU, processes that cannot share the training, and trackers that accelerate does
            not know or that are not installed.
    """
    parts = {
        "objective": (task.objective, Objective),
        "schedule": (task.schedule, Schedule),
        "threat": (task.threat, Threat),
        "training": (task.options, Training),
        "transfer": (task.transfer, Transfer),
    }
    for name, (part, kind) in parts.items():
        if not isinstance(part, kind):
            raise Misuse(f"{name} must be a poise.{kind.__name__}; got {part!r}")
    if missing := [role for role in task.objective.roles if role not in task.references]:
        name = type(task.objective).__name__
        raise Misuse(f"{name} compares with other networks; missing: {', '.join(missing)} (poise update has them)")
    task.objective.begin(task.classifier)
    check_augmentation(task.augmentation)
    check_keep(task.keep)
    if not any(parameter.requires_grad for parameter in task.classifier.parameters()):
        raise Misuse("the model has no parameter that training may change")
    task.transfer.check(task.classifier)
    _refuse_unreached(task)
    if not batches_per_epoch(len(task.images), task.options.batch_size, training=True):
        raise Misuse(f"{len(task.images)} training images are too few for a batch; training needs at least 2")
    if task.options.precision == "fp16" and not torch.cuda.is_available():
        raise Misuse("fp16 needs a GPU; choose bf16 or fp32 for training.precision")
    check_attacks(task.objective, task.classifier, task.few, task.threat)
    check_surroundings(task.options)
    check_sharding(task.objective, task.options)
    check_trackers(trackers)


def _refuse_unreached(task: Task) -> None:
    """Refuse a transfer whose later weights would never be trained, as no epoch begins late enough."""
    epochs = task.options.epochs
    last, whole = (task.transfer.trained(task.classifier, progress) for progress in ((epochs - 1) / epochs, 1.0))
    if last < whole:
        raise Misuse(
            f"transfer {type(task.transfer).__name__.lower()} would not come to its last part in {epochs} epochs, as "
            "weights join with the beginning of one; train longer, or give it an earlier start"
        )
