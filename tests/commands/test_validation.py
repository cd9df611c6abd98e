from __future__ import annotations

from poise.commands.fitting.validation import validation
from poise.core.threat import Threat
from poise.schedules import Adaptive, Automatic
from tests.models_for_tests import linear_classifier, random_images

THREAT = Threat(norm="linf", epsilon=0.1)


def _measured(schedule, epsilon: float) -> dict[str, float]:
    classifier = linear_classifier(3, (1, 2, 2))
    images = random_images(classifier, 80)
    validate = validation(images, THREAT, 60, schedule, 0)
    return dict(validate(classifier, epsilon))


def test_robust_accuracy_is_measured_at_the_current_epsilon_where_the_schedule_asks():
    """The classifier is linear, so the fast suite finds exactly what the threat allows at any epsilon."""
    at_target = _measured(Adaptive(), 0.1)
    assert at_target["robust_now"] == at_target["robust"] < at_target["clean"]
    half = _measured(Adaptive(), 0.05)
    alone = validation(random_images(linear_classifier(3, (1, 2, 2)), 80), Threat(epsilon=0.05), 60, Automatic(), 0)
    assert half["robust_now"] == alone(linear_classifier(3, (1, 2, 2)), 0.05)["robust"]
    assert half["robust"] < half["robust_now"] < half["clean"]
    assert half["robust"] == at_target["robust"]
    assert _measured(Adaptive(), 0.0)["robust_now"] == half["clean"]


def test_others_are_told_of_the_target_alone():
    assert _measured(Automatic(), 0.05).keys() == {"clean", "robust"}
    assert validation(random_images(linear_classifier(3, (1, 2, 2)), 8), THREAT, 0, Automatic(), 0) is None
