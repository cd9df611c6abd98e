"""How good a model is after an epoch of training: what the training room asks for and may not know how to measure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from poise.commands.fitting.diagnosis import threshold_of
from poise.commands.opening import placed
from poise.commands.rehearsal.demand import examination_work
from poise.commands.rehearsal.estimate import Work
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.data import ImageSet, sample
from poise.evaluation import Examination, accuracy_curve, examine
from poise.models import Classifier
from poise.schedules import Schedule
from poise.training import Keep

MEASURED = ("clean", "robust", "robust_now", "learned")
"""What a `Validation` can tell a schedule."""


def check_validation(count: int, schedule: Schedule, keep: Keep) -> None:
    """Refuse a number of validation images that does not do.

    Raises:
        Misuse: for a negative one, for none with a schedule that listens or the best weights to be found, and for a
            schedule that listens to what is not told.
    """
    if count < 0:
        raise Misuse(f"validate_on must be at least 0; got {count}")
    hears: tuple[str, ...] = getattr(schedule, "hears", ())  # what is no schedule is refused with the task
    if not count and hears:
        name = type(schedule).__name__.lower()
        raise Misuse(f"the schedule {name} listens to validation; give it some images with --validate-on, e.g. 500")
    if not count and keep == "best":
        raise Misuse("the best weights are found by validation; give it some images with --validate-on, e.g. 500")
    check_heard(schedule, MEASURED, "validation")


def check_heard(schedule: Schedule, measured: Collection[str], who: str) -> None:
    """Refuse a schedule that listens to what nobody measures.

    Args:
        schedule: whatever was given for one.
        measured: names of figures.
        who: measures them.
    """
    if unheard := sorted(set(getattr(schedule, "hears", ())) - set(measured)):
        raise Misuse(
            f"the schedule {type(schedule).__name__.lower()} listens to {', '.join(unheard)}, which {who} does not "
            f"measure, but {', '.join(measured)}"
        )


@runtime_checkable
class Judging(Protocol):
    """A `Validate` of which one knows beforehand what it will cost."""

    @property
    def images(self) -> ImageSet:
        """What is judged on."""

    @property
    def examinations(self) -> tuple[Examination, ...]:
        """Those that follow an epoch, with as many points as they may have."""

    def __call__(self, classifier: Classifier, epsilon: float) -> Mapping[str, float]:
        """See `poise.training.Validate`."""


@dataclass(frozen=True)
class Validation:
    """Clean and robust accuracy on some validation images, attacked with the fast suite.

    Robust accuracy is measured at the target epsilon, "robust", and where the schedule asks for it also at the one that
    the epoch ended with, "robust_now": in one examination, as what holds at the target holds below it; likewise whether
    the task is taken up, "learned".

    Args:
        images: the validation images.
        threat: norm and target epsilon.
        schedule: tells what it wants to hear.
        seed: decides the attack's random starts.
    """

    images: ImageSet
    threat: Threat
    schedule: Schedule
    seed: int

    @property
    def examinations(self) -> tuple[Examination, ...]:
        """The one that follows an epoch, as it is below the target."""
        return (self._examination(float(self.threat.epsilon) / 2),)

    def __call__(self, classifier: Classifier, epsilon: float) -> Mapping[str, float]:
        """See `poise.training.Validate`."""
        curve = accuracy_curve(
            examine(classifier, self.images, self._examination(epsilon), model_address="in training")
        )
        figures = {"clean": curve.clean.value, "robust": curve.robust.value}
        if "robust_now" in self.schedule.hears:
            figures["robust_now"] = curve.accuracy[1 if epsilon > 0 else 0].value
        if "learned" in self.schedule.hears:
            figures["learned"] = float(curve.clean.value > threshold_of(self.images))
        return figures

    def _examination(self, epsilon: float) -> Examination:
        points = (epsilon,) if "robust_now" in self.schedule.hears and 0 < epsilon < self.threat.epsilon else ()
        return Examination(threat=self.threat, suite="fast", points=points, seed=self.seed)


def validation(images: ImageSet, threat: Threat, count: int, schedule: Schedule, seed: int) -> Validation | None:
    """A validation on some images of a set; None where none are asked for.

    Args:
        images: the validation images.
        threat: norm and target epsilon.
        count: how many images, always the same; 0 for no validation.
        schedule: tells what it wants to hear.
        seed: decides the attack's random starts.
    """
    return Validation(sample(images, count), threat, schedule, seed) if count else None


def validation_works(judging: Judging | None, classifier: Classifier, epochs: int) -> list[Work]:
    """The validations of a training.

    Args:
        judging: what follows every epoch; None for nothing.
        classifier: what is trained; it is moved to the device.
        epochs: of the training.
    """
    if judging is None:
        return []
    network = placed(classifier)
    return [examination_work(network, judging.images, each, "validation") * epochs for each in judging.examinations]
