"""How good a model is after an epoch of training: what the training room asks for and may not know how to measure."""

from __future__ import annotations

from collections.abc import Mapping

from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.data import ImageSet, first
from poise.evaluation import Examination, accuracy_curve, examine
from poise.models import Classifier
from poise.schedules import Schedule
from poise.training import Validate


def check_validation(count: int, schedule: Schedule) -> None:
    """Refuse a number of validation images that does not do.

    Raises:
        Misuse: for a negative one, and for none with a schedule that listens.
    """
    if count < 0:
        raise Misuse(f"validate_on must be at least 0; got {count}")
    hears: tuple[str, ...] = getattr(schedule, "hears", ())  # what is no schedule is refused with the task
    if not count and hears:
        name = type(schedule).__name__.lower()
        raise Misuse(f"the schedule {name} listens to validation; give it some images with --validate-on, e.g. 500")


def validation(images: ImageSet, threat: Threat, count: int, schedule: Schedule, seed: int) -> Validate | None:
    """Clean and robust accuracy on some validation images, attacked with the fast suite.

    Robust accuracy is measured at the target epsilon, "robust", and where the schedule asks for it also at the one that
    the epoch ended with, "robust_now": in one examination, as what holds at the target holds below it.

    Args:
        images: the validation images.
        threat: norm and target epsilon.
        count: how many images, always the first; 0 for no validation.
        schedule: tells what it wants to hear.
        seed: decides the attack's random starts.
    """
    if not count:
        return None
    chosen = first(images, count)

    def validate(classifier: Classifier, epsilon: float) -> Mapping[str, float]:
        points = (epsilon,) if "robust_now" in schedule.hears and 0 < epsilon < threat.epsilon else ()
        examination = Examination(threat=threat, suite="fast", points=points, seed=seed)
        curve = accuracy_curve(examine(classifier, chosen, examination, model_address="in training"))
        figures = {"clean": curve.clean.value, "robust": curve.robust.value}
        if "robust_now" in schedule.hears:
            figures["robust_now"] = curve.accuracy[1 if epsilon > 0 else 0].value
        return figures

    return validate
