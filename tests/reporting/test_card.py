from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from poise.evaluation import Finding
from poise.reporting import Subject, model_card
from tests.reporting.samples import profile, subject


def _two_classes(held: tuple[tuple[int, ...], tuple[int, ...]]) -> Subject:
    """Forty images of two classes, of which so many withstand each grid point."""
    parts = [profile(counts, images=20) for counts in held]
    both = replace(
        parts[0],
        ids=tuple(f"image-{index}" for index in range(40)),
        labels=np.repeat([0, 1], 20),
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("predictions", "margins", "robust_to", "broken_from")
        },
        broken_by=parts[0].broken_by + parts[1].broken_by,
    )
    return Subject("new", both, [], "data: digits\n", None)


def test_a_card_holds_the_profiles_figures_and_its_threat():
    card = model_card(subject("new", (9, 8, 5)), uses=["Sorting parcels."])
    assert card.startswith("# new\n")
    assert "- Sorting parcels." in card
    assert "linf ball of radius 2/255" in card
    assert "| new | 90.0 [55.5, 99.7] | 50.0 [18.7, 81.3] | 75.0 [49.7, 100.0] | 4.5 |" in card
    assert "The suite pgd is weak" in card
    assert "digest " + "a" * 32 in card
    assert "```yaml\ndata: digits\n```" in card


def test_the_weakest_class_is_named_with_its_own_count_and_interval():
    card = model_card(_two_classes(((20, 15, 10), (18, 16, 12))))
    assert "The weakest class without an attack is one: 90.0 % of 20 images [68.3, 98.8]." in card
    assert "The weakest class at epsilon 2/255 is zero: 50.0 % of 20 images [27.2, 72.8]." in card


def test_a_few_images_of_a_class_say_nothing_about_it():
    assert "weakest class" not in model_card(subject("new", (9, 8, 5)))


def test_without_a_profile_nothing_is_claimed():
    card = model_card(Subject("new", None, [], "", None))
    assert "nothing is known about its robustness" in card
    assert "%" not in card


def test_an_objection_of_the_checks_stands_in_the_card():
    one = subject()
    finding = Finding(check="batch-dependence", status="block", evidence="logits differ")
    card = model_card(replace(one, profile=replace(one.profile, findings=(finding,))))
    assert "should not be relied on" in card
    assert "batch-dependence" in card


@pytest.mark.parametrize("recipe", ["a: ```\n", "a: ````x````\n"])
def test_no_recipe_ends_its_own_fence(recipe):
    card = model_card(replace(subject(), recipe=recipe))
    fence = card.rstrip().splitlines()[-1]
    assert set(fence) == {"`"}
    assert fence not in recipe
