from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from PIL import Image

import poise
from poise.commands.fitting.validation import MEASURED, validation
from poise.core.misuse import Misuse
from poise.core.threat import Threat
from poise.evaluation import judge
from poise.schedules import Adaptive, Automatic, Fixed
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


@dataclass(frozen=True, kw_only=True)
class Listening(Fixed):
    """A schedule that wants to hear what nobody measures."""

    hears: ClassVar[tuple[str, ...]] = ("clean", "calibration")


def test_a_schedule_that_listens_to_what_nobody_measures_is_refused_before_the_run_has_a_folder(tmp_path):
    out = tmp_path / "run"
    told = "the schedule listening listens to calibration, which {} does not measure, but clean, robust"
    with pytest.raises(Misuse, match=told.format("validation")):
        poise.finetune("small", "digits", schedule=Listening(), out=out)
    with pytest.raises(Misuse, match=told.format("an update")):
        poise.update("run:old", "run:new", "digits", schedule=Listening(), out=out)
    assert not out.exists()


def test_all_that_is_told_is_what_schedules_may_listen_to():
    assert set(_measured(Adaptive(), 0.05)) == set(MEASURED)


def test_whatever_is_chosen_is_chosen_on_images_of_all_classes_of_a_folder(tmp_path, monkeypatch):
    """A folder is sorted by class: its first images are those of the first class."""
    for label, name in enumerate(("ant", "bee", "cat")):
        for split, count in (("train", 10), ("validation", 20), ("test", 2)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (8, 8), (number, 80 * label, 0)).save(folder / f"{number:02d}.png")
    seen, clean_pass = [], judge.clean_pass

    def watched(pool, images, targets):
        seen.append((len(images), len(torch.unique(images.labels))))
        return clean_pass(pool, images, targets)

    monkeypatch.setattr(judge, "clean_pass", watched)
    data, training = f"folder:{tmp_path / 'photos'}", poise.Training(epochs=1, batch_size=16)
    options = {"training": training, "validate_on": 15, "trackers": ()}
    run = poise.finetune("small", data, out=tmp_path / "run", **options).address
    poise.update(run, run, data, out=tmp_path / "updated", **options)
    poise.mix(run, run, data, out=tmp_path / "mixed", suite="fast", alphas=[0.5], validate_on=15)
    assert len(seen) >= 4
    assert set(seen) == {(15, 3)}
